//! The `ring` that boringtun gets is this one.

/// Where Cargo has found what it builds; a crate of this tree has no source.
const LOCK: &str = include_str!("../../../../Cargo.lock");

#[test]
fn there_is_no_other_ring() {
    let packages: Vec<&str> = LOCK.split("[[package]]").collect();
    let named = |name: &str| {
        let line = format!("\nname = \"{name}\"\n");
        packages
            .iter()
            .filter(move |package| package.contains(&line))
    };
    let sources: Vec<bool> = named("ring")
        .map(|ring| ring.contains("\nsource = "))
        .collect();
    assert_eq!(
        sources,
        [false],
        "`[patch.crates-io]` has to fit what boringtun asks for"
    );
    assert!(named("boringtun").all(|boringtun| boringtun.contains("\"ring\"")));
    // As one that comes from elsewhere looks.
    assert!(named("boringtun").all(|boringtun| boringtun.contains("\nsource = ")));
    assert_eq!(named("boringtun").count(), 1);
}
