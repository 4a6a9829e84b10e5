//! The switch: a process of its own, as it is thrown for all of one.

use gatereeve_cipher::{Implementation, Key, implementation, use_aws_lc};

#[test]
fn keys_are_aws_lcs_from_then_on_and_say_the_same() {
    let before = Key::new(&[8; 32]);
    let chosen = implementation();
    use_aws_lc();
    assert_eq!(implementation(), Implementation::AwsLc);
    let after = Key::new(&[8; 32]);
    println!("{chosen} before");
    for length in [0, 64, 1_420] {
        let mut sealed = vec![3; length];
        let tag = before.seal(&[1; 12], &[], &mut sealed).unwrap();
        sealed.extend(tag);
        let opened = after.open(&[1; 12], &[], &mut sealed).unwrap();
        assert_eq!(opened, vec![3; length]);
        sealed.truncate(length);
        let tag = after.seal(&[1; 12], &[], &mut sealed).unwrap();
        sealed.extend(tag);
        assert_eq!(
            before.open(&[1; 12], &[], &mut sealed).unwrap(),
            vec![3; length]
        );
    }
}
