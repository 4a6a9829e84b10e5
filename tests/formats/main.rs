//! Every released form of the state on disk, opened for ever.
//!
//! `tests/fixtures/VERSION/` holds what a release wrote: a controller's state directory, a backup
//! of it, and a client's state directory. The files there are never changed. For each of them: this
//! version opens it, a form that is newer than this version is refused and left alone, and what this
//! version writes today has the bytes that the last release would read.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

mod client;
mod controller;
mod files;
mod make;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use files::files;

/// Where the fixtures of all releases are.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The fixture of each release.
fn releases() -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "there is no fixture");
    found
}

/// Copies a folder, with the modes that a checkout does not keep.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            std::fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Makes the fixture of this version, where there is none yet.
#[test]
#[ignore = "run by hand, once for each release"]
fn make_the_fixture_of_this_version() {
    let to = fixtures().join(env!("CARGO_PKG_VERSION"));
    assert!(
        !to.exists(),
        "{} is there, and stays as it is",
        to.display()
    );
    std::fs::create_dir_all(&to).unwrap();
    make::controller(&to);
    make::client(&to);
}
