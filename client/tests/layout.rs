//! Where code lies in the program: `fast-path.ld` goes by names, which change with the code.
#![cfg(all(target_os = "linux", debug_assertions))]

use std::process::Command;

const SCRIPT: &str = include_str!("../fast-path.ld");
const SECTION: &str = ".text.";

/// Name and address of each function.
fn symbols() -> Vec<(String, u64)> {
    let listed = Command::new("nm")
        .args(["--defined-only", env!("CARGO_BIN_EXE_gatereeve")])
        .output()
        .expect("nm is of binutils, which the linker comes with");
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).expect("mangled names are ASCII");
    let symbol = |line: &str| {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((words.nth(1)?.to_owned(), address))
    };
    listed.lines().filter_map(symbol).collect()
}

/// The patterns of the script that are of this architecture.
fn patterns() -> impl Iterator<Item = &'static str> {
    let lines = SCRIPT.lines().filter_map(|line| {
        line.trim()
            .strip_prefix("*(")
            .and_then(|rest| rest.strip_suffix(')'))
    });
    let is_here = |pattern: &&str| cfg!(target_arch = "x86_64") || !pattern.contains("avx512");
    lines.flat_map(str::split_whitespace).filter(is_here)
}

/// Whether the function called `name` has a section that `pattern` means.
fn is_meant(pattern: &str, name: &str) -> bool {
    let section = format!("{SECTION}{name}");
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = section.strip_prefix(first) else {
        return false;
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    pattern.ends_with('*') || rest.is_empty()
}

#[test]
fn each_pattern_has_functions_and_they_are_together() {
    let symbols = symbols();
    let address = |wanted: &str| {
        let mut found = symbols.iter().filter(|(name, _)| name == wanted);
        found.next().map(|(_, address)| *address)
    };
    let linked = "not linked with fast-path.ld";
    let begins = address("gatereeve_fast_path_begins").expect(linked);
    let ends = address("gatereeve_fast_path_ends").expect(linked);
    let together = |address: &u64| (begins..ends).contains(address);
    let mut stale: Vec<_> = patterns().collect();
    assert!(stale.len() > 40, "{stale:?}");
    stale.retain(|pattern| {
        !symbols
            .iter()
            .any(|(name, address)| is_meant(pattern, name) && together(address))
    });
    assert!(
        stale.is_empty(),
        "nothing is called so any more: {stale:#?}"
    );
    // What is of other use lies elsewhere.
    let inside = symbols.iter().filter(|(_, address)| together(address));
    let inside: Vec<_> = inside.map(|(name, _)| name).collect();
    assert!(!together(&address("main").expect("every program has one")));
    assert!(inside.len() * 20 < symbols.len(), "{}", inside.len());
}

#[test]
fn a_pattern_means_the_names_that_a_linker_would_take() {
    let name = "_ZN16gatereeve_client3udp4send12send_plainly17h0123456789abcdefE";
    for (pattern, meant) in [
        (".text._*4send12send_plainly*", true),
        (".text._*udp*send_plainly*", true),
        (".text._*send_plainly*udp*", false),
        (".text._*send_plainly", false),
        (".text.unlikely._*send_plainly*", false),
    ] {
        assert_eq!(is_meant(pattern, name), meant, "{pattern}");
    }
    assert!(is_meant(".text.aws*memcmp", "aws_1_memcmp"));
}
