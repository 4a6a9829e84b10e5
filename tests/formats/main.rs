//! Every released form of the state on disk, opened for ever.
//!
//! `tests/fixtures/VERSION/` holds what a release wrote: a controller's state directory, a backup
//! of it, and a client's state directory. The files there are never changed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has to stop")]

mod make;

use std::path::{Path, PathBuf};

/// Where the fixtures of all releases are.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
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
