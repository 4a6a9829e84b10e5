//! Backups that come back, and files that are none.

use gatereeve_controller_core::audit::entry::{Actor, AuditEntry};
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::change::Change;
use gatereeve_runtime::keyfile;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::UnixMillis;

use super::{Keys, restore, write};
use crate::journal::open::{Floor, open};
use crate::server::recover::recover;
use crate::state_dir::StateDir;
use crate::state_dir::settings::{DEFAULT_V4, Settings};

/// A state with this many records.
fn state_dir(root: &std::path::Path, records: u64) -> StateDir {
    let dir = StateDir::new(root.join("state"));
    dir.create().unwrap();
    keyfile::load_or_create_seed(&dir.network_key()).unwrap();
    keyfile::load_or_create_seed(&dir.tls_key()).unwrap();
    let settings = Settings {
        name: "test".into(),
        advertise: vec!["vpn.example.com:8443".into()],
        prefixes: gatereeve_shared::wire::map::OverlayPrefixes {
            v4: DEFAULT_V4.parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        },
    };
    settings.save(&dir.settings()).unwrap();
    let opened = open(&dir.journal(), Floor::default(), &mut |_| {}).unwrap();
    let mut journal = opened.journal;
    for n in 1..=records {
        let record = Record {
            generation: Generation { incarnation: 0, n },
            at: UnixMillis(1000 + n),
            actor: Actor::System,
            change: Change::Noted,
            audit: AuditEntry::done("test.note", n.to_string()),
        };
        let sealed = record.seal(&journal.head().hash).unwrap();
        journal.append(&[sealed]).unwrap();
    }
    dir
}

#[test]
fn a_backup_comes_back_with_a_higher_incarnation() {
    let root = tempfile::tempdir().unwrap();
    let dir = state_dir(root.path(), 5);
    // An append that is under way is left out.
    let segment = crate::journal::scan::segments(&dir.journal()).unwrap()[0]
        .path
        .clone();
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [whole.as_slice(), b"GRVB..."].concat()).unwrap();
    let mut tar = Vec::new();
    let head = write(&dir, Keys::Both, &mut tar).unwrap();
    assert_eq!(
        head,
        Generation {
            incarnation: 0,
            n: 5
        }
    );

    let target = StateDir::new(root.path().join("restored"));
    let actor = Actor::Local {
        uid: 0,
        user: "root".into(),
    };
    let restored = restore(&target, &mut tar.as_slice(), actor, UnixMillis(9)).unwrap();
    assert_eq!(restored.was, head);
    assert_eq!(restored.until, Some(UnixMillis(1005)));
    assert_eq!(
        restored.now,
        Generation {
            incarnation: 1,
            n: 6
        }
    );
    assert_eq!(
        std::fs::read(target.network_key()).unwrap(),
        std::fs::read(dir.network_key()).unwrap()
    );
    let recovered = recover(&target, UnixMillis(10)).unwrap();
    assert_eq!(recovered.state.generation(), restored.now);
    assert_eq!(recovered.settings, Settings::load(&dir.settings()).unwrap());
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = state_dir(root.path(), 1);
    let mut tar = Vec::new();
    write(&dir, Keys::Both, &mut tar).unwrap();
    let refused = restore(&dir, &mut tar.as_slice(), Actor::System, UnixMillis(9));
    assert!(refused.unwrap_err().to_string().contains("not empty"));
    assert_eq!(
        recover(&dir, UnixMillis(10)).unwrap().state.generation().n,
        1
    );
}

#[test]
fn a_file_that_is_no_backup_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = state_dir(root.path(), 3);
    let mut good = Vec::new();
    write(&dir, Keys::Both, &mut good).unwrap();
    let with_entry = |name: &str, kind| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap()
    };
    let mut edited = good.clone();
    // Somewhere in the journal's segment.
    let at = good.len() - 2000;
    edited[at] ^= 1;
    let files = [
        Vec::new(),
        b"noise".repeat(500),
        good[..good.len() / 2].to_vec(),
        edited,
        with_entry("../../etc/passwd", tar::EntryType::Regular),
        with_entry("/etc/passwd", tar::EntryType::Regular),
        with_entry("network.key", tar::EntryType::Symlink),
        with_entry("journal/x.log", tar::EntryType::Regular),
    ];
    for (number, file) in files.iter().enumerate() {
        let target = StateDir::new(root.path().join(format!("restored-{number}")));
        let result = restore(&target, &mut file.as_slice(), Actor::System, UnixMillis(9));
        assert!(result.is_err(), "file {number}");
        assert!(!target.root().exists(), "file {number} left something");
    }
    let target = StateDir::new(root.path().join("control"));
    restore(&target, &mut good.as_slice(), Actor::System, UnixMillis(9)).unwrap();
}
