//! Whatever seals and opens here says what AWS-LC says.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use data_encoding::HEXLOWER_PERMISSIVE;
use gatereeve_cipher::{Forged, Key, TAG, implementation};
use proptest::prelude::*;

/// What AWS-LC seals `message` into, the tag behind it.
fn sealed_by_aws_lc(
    key: &[u8; 32],
    nonce: &[u8; 12],
    additional: &[u8],
    message: &[u8],
) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut sealed = message.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(*nonce),
        Aad::from(additional),
        &mut sealed,
    )
    .unwrap();
    sealed
}

fn sealed(key: &Key, nonce: &[u8; 12], additional: &[u8], message: &[u8]) -> Vec<u8> {
    let mut sealed = message.to_vec();
    let tag = key.seal(nonce, additional, &mut sealed).unwrap();
    sealed.extend(tag);
    sealed
}

/// Seals and opens, and does not open with a bit changed anywhere.
fn agrees(key: &[u8; 32], nonce: &[u8; 12], additional: &[u8], message: &[u8]) {
    let ours = Key::new(key);
    let mut expected = sealed_by_aws_lc(key, nonce, additional, message);
    assert_eq!(sealed(&ours, nonce, additional, message), expected);
    let opened = ours
        .open(nonce, additional, &mut expected)
        .map(|opened| opened.to_vec());
    assert_eq!(opened.as_deref(), Ok(message));
}

#[test]
fn every_length_is_sealed_and_opened() {
    println!("{}", implementation());
    let bytes: Vec<u8> = (0..7_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect();
    let (key, nonce) = ([0x42; 32], [7; 12]);
    for length in 0..bytes.len() {
        agrees(&key, &nonce, &[], &bytes[..length]);
    }
    for length in 0..200 {
        agrees(&key, &nonce, &bytes[..32], &bytes[..length]);
    }
}

#[test]
fn the_longest_datagrams_and_longer_ones_are_sealed_and_opened() {
    for length in [65_518, 65_519, 65_520, 65_534, 65_535, 65_536, 200_000] {
        agrees(&[9; 32], &[1; 12], &[], &vec![0xa5; length]);
    }
}

#[test]
fn bytes_that_are_all_alike_are_sealed_and_opened() {
    for byte in [0, 0xff] {
        for length in 0..2_000 {
            agrees(&[byte; 32], &[byte; 12], &[], &vec![byte; length]);
        }
    }
}

/// RFC 8439, section 2.8.2, and two messages without additional data from Project Wycheproof (2 and 4).
#[test]
fn what_others_have_published() {
    let hex = |text: &str| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap();
    let message = "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                   sunscreen would be it.";
    let rfc = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
               1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
               3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
    let cases = [
        (
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            message.as_bytes().to_vec(),
            rfc,
        ),
        (
            "80ba3192c803ce965ea371d5ff073cf0f43b6a2ab576b208426e11409c09b9b0",
            "4da5bf8dfd5852c1ea12379d",
            "",
            Vec::new(),
            "76acb342cf3166a5b63c0c0ea1383c8d",
        ),
        (
            "cc56b680552eb75008f5484b4cb803fa5063ebd6eab91f6ab6aef4916a766273",
            "99e23ec48985bccdeeab60f1",
            "",
            vec![0x2a],
            "3acac27dec0968801e9f6eded69d807522",
        ),
    ];
    for (key, nonce, additional, message, expected) in cases {
        let key: [u8; 32] = hex(key).try_into().unwrap();
        let nonce = hex(nonce).try_into().unwrap();
        let made = sealed(&Key::new(&key), &nonce, &hex(additional), &message);
        assert_eq!(HEXLOWER_PERMISSIVE.encode(&made), expected);
        agrees(&key, &nonce, &hex(additional), &message);
    }
}

#[test]
fn what_is_too_short_for_a_tag_is_forged() {
    let key = Key::new(&[1; 32]);
    for length in 0..TAG {
        assert_eq!(key.open(&[0; 12], &[], &mut vec![0; length]), Err(Forged));
    }
    let mut nothing = sealed(&key, &[0; 12], &[], &[]);
    assert_eq!(
        key.open(&[0; 12], &[], &mut nothing)
            .map(|opened| opened.len()),
        Ok(0)
    );
}

#[test]
fn a_bit_changed_anywhere_is_forged_and_nothing_is_decrypted() {
    let key = Key::new(&[1; 32]);
    for (length, step) in [
        (0, 1),
        (1, 1),
        (15, 1),
        (16, 1),
        (17, 1),
        (128, 1),
        (129, 1),
        (240, 1),
        (400, 1),
        (1_420, 1),
        (20_001, 4_099),
        (65_519, 16_411),
        (65_536, 16_411),
    ] {
        let message = vec![0x55; length];
        let right = sealed(&key, &[2; 12], &[], &message);
        for bit in (0..8 * right.len()).step_by(step) {
            let mut forged = right.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                key.open(&[2; 12], &[], &mut forged),
                Err(Forged),
                "{length} {bit}"
            );
            let plain = forged
                .windows(8)
                .filter(|window| *window == [0x55; 8])
                .count();
            assert_eq!(plain, 0, "{length} {bit}");
        }
        assert!(key.open(&[2; 12], &[], &mut right.clone()).is_ok());
        assert_eq!(key.open(&[3; 12], &[], &mut right.clone()), Err(Forged));
        assert_eq!(key.open(&[2; 12], &[0], &mut right.clone()), Err(Forged));
        assert_eq!(
            Key::new(&[3; 32]).open(&[2; 12], &[], &mut right.clone()),
            Err(Forged)
        );
    }
}

#[test]
fn a_key_says_nothing_of_itself() {
    assert_eq!(format!("{:?}", Key::new(&[0x61; 32])), "Key");
}

proptest! {
    #[test]
    fn anything_is_sealed_and_opened(
        key: [u8; 32],
        nonce: [u8; 12],
        additional in prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..100)],
        message in prop::collection::vec(any::<u8>(), 0..4_000),
    ) {
        agrees(&key, &nonce, &additional, &message);
    }
}
