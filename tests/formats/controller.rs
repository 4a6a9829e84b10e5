//! The controller's state, its tables, its journal and its backups.

use std::path::Path;

use gatereeve_controller::backup::{self, restore};
use gatereeve_controller::journal::read::Follower;
use gatereeve_controller::journal::scan::segments;
use gatereeve_controller::server::recover::recover;
use gatereeve_controller::state_dir::StateDir;
use gatereeve_controller::state_dir::settings::Settings;
use gatereeve_controller::store::Store;
use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_controller_core::state::State;
use gatereeve_shared::time::UnixMillis;

use crate::{copy, files, make, releases};

const NOW: UnixMillis = UnixMillis(1_800_000_100_000);

fn copied(release: &Path, to: &Path) -> StateDir {
    let dir = StateDir::new(to.join("state"));
    copy(&release.join("controller"), dir.root());
    dir
}

fn records(dir: &StateDir) -> Vec<EncodedRecord> {
    let mut records = Vec::new();
    Follower::new(&dir.journal())
        .read(&mut |record| records.push(record))
        .unwrap();
    records
}

/// What the fixture's maker put in.
fn assert_whole(state: &State) {
    assert_eq!(state.generation().n, 20);
    assert_eq!(state.generation().incarnation, 1);
    assert_eq!(state.devices().len(), 4);
    assert_eq!(state.invites().len(), 1);
    assert_eq!(state.resting().len(), 1);
    assert_eq!(state.verdicts().len(), 1);
    assert_eq!(state.policy().unwrap().text, make::POLICY);
    let db = gatereeve_shared::ids::DeviceName::new("db").unwrap();
    assert!(state.names().contains_key(&db));
}

#[test]
fn the_state_of_every_release_opens_with_its_tables_and_without() {
    for release in releases() {
        let root = tempfile::tempdir().unwrap();
        let dir = copied(&release, root.path());
        // The tables by themselves are whole: nothing is set aside, and the soft rows are there.
        let loaded = Store::load(&dir.tables(), NOW).unwrap();
        assert_eq!(loaded.set_aside, None, "{}", release.display());
        assert_whole(&loaded.state);
        assert_eq!(loaded.soft.devices.len(), 1);
        let folded = loaded.state.clone();
        drop(loaded);
        let recovered = recover(&dir, NOW).unwrap();
        assert_eq!(recovered.state, folded);
        drop(recovered);
        // And the journal by itself comes to the same.
        std::fs::remove_dir_all(dir.tables()).unwrap();
        assert_eq!(recover(&dir, NOW).unwrap().state, folded);
    }
}

#[test]
fn the_backup_of_every_release_is_restored() {
    for release in releases() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path().join("restored"));
        let mut file = std::fs::File::open(release.join("backup.tar")).unwrap();
        let restored = restore(&dir, &mut file, Actor::System, NOW).unwrap();
        assert_eq!(restored.was.n, 20);
        let recovered = recover(&dir, NOW).unwrap();
        assert_eq!(recovered.state.devices().len(), 4);
        assert_eq!(recovered.settings.name, "fixture");
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
    }
}

#[test]
fn what_this_version_writes_has_the_bytes_of_the_last_release() {
    let release = releases().pop().unwrap();
    let root = tempfile::tempdir().unwrap();
    make::controller(root.path());
    let (old, new) = (
        StateDir::new(release.join("controller")),
        StateDir::new(root.path().join("controller")),
    );
    // Segments differ in their salt and the digests that it keys; records do not.
    assert_eq!(records(&old), records(&new));
    let magic = |dir: &StateDir| {
        let segment = segments(&dir.journal()).unwrap()[0].path.clone();
        std::fs::read(segment).unwrap()[..8].to_vec()
    };
    assert_eq!(magic(&old), magic(&new));
    for name in ["network.key", "tls.key", "config", "checkpoints"] {
        let read = |dir: &StateDir| std::fs::read(dir.root().join(name)).unwrap();
        assert_eq!(read(&old), read(&new), "{name}");
    }
    // Opening a store writes to it: never in the fixture itself.
    let copy = copied(&release, root.path());
    let old = Store::load(&copy.tables(), NOW).unwrap();
    let new = Store::load(&new.tables(), NOW).unwrap();
    assert_eq!(old.state.to_tables(), new.state.to_tables());
    for device in new.soft.devices.keys() {
        assert_eq!(old.soft.write(device), new.soft.write(device));
    }
}

#[test]
fn a_backup_of_this_version_has_only_what_the_last_release_knows() {
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&releases().pop().unwrap(), root.path());
    recover(&dir, NOW).unwrap();
    let mut bytes = Vec::new();
    backup::write(&dir, backup::Keys::Both, &mut bytes).unwrap();
    // As release 0.1.0 reads: names of plain files, no other kind of entry.
    let known = ["network.key", "tls.key", "config", "checkpoints"];
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut found = 0;
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.header().entry_type(), tar::EntryType::Regular);
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        assert!(
            known.contains(&name.as_str()) || name.starts_with("journal/"),
            "{name}"
        );
        found += 1;
    }
    assert_eq!(found, 5);
}

/// Changes one thing by hand, and expects to be refused with `why` and everything left as it was.
fn assert_refused(dir: &StateDir, why: &str) {
    let before = files(dir.root());
    let refused = format!("{:#}", recover(dir, NOW).unwrap_err());
    assert!(refused.contains(why), "{refused}");
    let mut after = files(dir.root());
    // The lock says who looked.
    after.remove(Path::new("lock"));
    let mut before = before;
    before.remove(Path::new("lock"));
    // sled rewrites its own files on opening; our rows in them are looked at by the caller.
    let ours = |name: &Path| !name.starts_with("tables") && !name.starts_with("backups");
    before.retain(|name, _| ours(name));
    after.retain(|name, _| ours(name));
    before.insert(
        "format".into(),
        std::fs::read(dir.root().join("format")).unwrap(),
    );
    assert_eq!(after, before);
}

#[test]
fn newer_forms_are_refused_and_left_alone() {
    let release = releases().pop().unwrap();
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&release, root.path());
    recover(&dir, NOW).unwrap();

    // The directory as a whole.
    let marker = dir.root().join("format");
    let good = std::fs::read(&marker).unwrap();
    std::fs::write(&marker, "gatereeve-controller state format 2\n").unwrap();
    assert_refused(&dir, "a newer version wrote it");
    std::fs::write(&marker, &good).unwrap();

    // A segment: a whole header of another version, which our check does not match.
    let path = segments(&dir.journal()).unwrap()[0].path.clone();
    let good = std::fs::read(&path).unwrap();
    for length in [good.len(), 100, 40] {
        let mut newer = good[..length].to_vec();
        newer[7] = b'2';
        newer[20] ^= 1;
        std::fs::write(&path, &newer).unwrap();
        assert_refused(&dir, "a newer version wrote it");
    }
    // One bit of ours that has turned is damage, and not called anything else.
    let mut turned = good.clone();
    turned[7] = b'3';
    std::fs::write(&path, &turned).unwrap();
    assert_refused(&dir, "damaged");
    std::fs::write(&path, &good).unwrap();

    // A row of the tables.
    let loaded = Store::load(&dir.tables(), NOW).unwrap();
    let (key, mut value) = loaded.state.to_tables()[0].clone();
    value[0] = 2;
    loaded.store.write_hard(vec![(key, Some(value))]).unwrap();
    loaded.store.flush().unwrap();
    drop(loaded);
    assert_refused(&dir, "written by a newer version");
    let names: Vec<_> = std::fs::read_dir(dir.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("damaged")),
        "{names:?}"
    );

    // The control: without the newer rows everything opens.
    std::fs::remove_dir_all(dir.tables()).unwrap();
    let recovered = recover(&dir, NOW).unwrap();
    assert_whole(&recovered.state);
    assert_eq!(recovered.settings, Settings::load(&dir.settings()).unwrap());
}

#[test]
fn a_backup_of_a_newer_format_is_refused_and_nothing_is_made() {
    let root = tempfile::tempdir().unwrap();
    let dir = copied(&releases().pop().unwrap(), root.path());
    recover(&dir, NOW).unwrap();
    let mut good = Vec::new();
    backup::write(&dir, backup::Keys::Both, &mut good).unwrap();
    let key = b"GATEREEVE.state-format=1";
    let at = good
        .windows(key.len())
        .position(|window| window == key)
        .unwrap();
    let mut newer = good.clone();
    newer[at + key.len() - 1] = b'2';
    let target = StateDir::new(root.path().join("newer"));
    let refused = restore(&target, &mut newer.as_slice(), Actor::System, NOW).unwrap_err();
    assert!(
        format!("{refused:#}").contains("a newer version wrote it"),
        "{refused:#}"
    );
    assert!(!target.root().exists());
    restore(&target, &mut good.as_slice(), Actor::System, NOW).unwrap();
}
