//! The client's state directory.

use std::path::Path;

use gatereeve_client::daemon::state_dir::StateDir;

use crate::{copy, files, make, releases};

#[test]
fn the_state_of_every_release_opens() {
    for release in releases() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        copy(&release.join("client"), &dir);
        let state = StateDir::open(&dir).unwrap();
        let network = state.network().unwrap().unwrap();
        assert!(network.up && network.known_tls_key().is_some());
        let (stored, warning) = state.stored().unwrap();
        assert_eq!(warning, None, "{}", release.display());
        assert!(stored.is_enrolled());
        let identity = state.identity().unwrap().public();
        assert_eq!(
            identity,
            gatereeve_shared::identity::identity_key::IdentityKey::from_seed(&[13; 32]).public()
        );
        // A second start of the same.
        drop(state);
        let again = StateDir::open(&dir).unwrap();
        assert_eq!(again.stored().unwrap().0, stored);
        assert_eq!(again.network().unwrap(), Some(network));
    }
}

/// There is no backup of this directory, so that a start must not change what an older version reads.
#[test]
fn a_start_from_every_release_only_adds_files() {
    for release in releases() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        copy(&release.join("client"), &dir);
        let before = files(&dir);
        assert!(before.len() > 2, "{before:?}");
        drop(StateDir::open(&dir).unwrap());
        let after = files(&dir);
        for (name, bytes) in &before {
            assert_eq!(after.get(name), Some(bytes), "{}", name.display());
        }
        let added = after.keys().filter(|name| !before.contains_key(*name));
        assert!(added.eq([Path::new("format"), Path::new("lock")]));
    }
}

#[test]
fn what_this_version_writes_has_the_bytes_of_the_last_release() {
    let release = releases().pop().unwrap();
    let root = tempfile::tempdir().unwrap();
    make::client(root.path());
    assert_eq!(
        files(&release.join("client")),
        files(&root.path().join("client"))
    );
}

#[test]
fn newer_forms_are_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state");
    copy(&releases().pop().unwrap().join("client"), &dir);
    drop(StateDir::open(&dir).unwrap());

    let marker = dir.join("format");
    let good = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, "gatereeve state format 2\n").unwrap();
    let before = files(&dir);
    let refused = format!("{:#}", StateDir::open(&dir).unwrap_err());
    assert!(refused.contains("a newer version wrote it"), "{refused}");
    assert_eq!(files(&dir), before);
    std::fs::write(&marker, good).unwrap();

    let path = dir.join("state");
    let good = std::fs::read(&path).unwrap();
    let mut newer = good.clone();
    newer[7] = 2;
    std::fs::write(&path, newer).unwrap();
    let state = StateDir::open(&dir).unwrap();
    let before = files(&dir);
    let refused = format!("{:#}", state.stored().unwrap_err());
    assert!(refused.contains("newer version"), "{refused}");
    assert_eq!(files(&dir), before);
    // The control: what is merely damaged is set aside, and said.
    let mut damaged = good.clone();
    damaged[60] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    assert!(
        state
            .stored()
            .unwrap()
            .1
            .unwrap()
            .contains("state.unusable")
    );
    std::fs::write(&path, good).unwrap();
    assert_eq!(state.stored().unwrap().1, None);
}
