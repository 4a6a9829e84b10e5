//! Migrations that are killed at every moment, and a rehearsal that leaves its original alone.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_shared::time::UnixMillis;
use nix::sys::signal::{Signal, raise};

use files::files;

use super::rehearse::{Source, rehearse};
use super::{FORMAT, Moment, migrate_with};
use crate::backup::{self, Keys};
use crate::server::recover::recover;
use crate::state_dir::StateDir;

#[path = "../../../tests/formats/files.rs"]
mod files;

const NOW: UnixMillis = UnixMillis(1_800_000_100_000);
/// Tell the child of [`killed_at_every_moment`] where, and at which moment it dies.
const WHERE: &str = "GATEREEVE_TEST_MIGRATE";
const AT: &str = "GATEREEVE_TEST_KILL_AT";

/// What release 0.1.0 wrote, in a directory of this test's own.
fn released(to: &Path) -> StateDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/0.1.0/controller");
    let dir = StateDir::new(to.join("state"));
    copy(&from, dir.root());
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            std::fs::set_permissions(&target, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn the_state_of_0_1_0_is_backed_up_marked_and_opened() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let before = files(dir.root());
    let mut moments = Vec::new();
    let migrated = migrate_with(&dir, &mut |moment| moments.push(moment))
        .unwrap()
        .unwrap();
    assert_eq!((migrated.from, migrated.to), (0, 1));
    assert_eq!(FORMAT.read(dir.root()).unwrap(), 1);
    moments.dedup();
    assert_eq!(
        moments,
        [
            Moment::BackupBegins,
            Moment::BackupGrows,
            Moment::BackupWritten,
            Moment::BackupNamed,
            Moment::StepDone(1),
            Moment::Raised(1),
        ]
    );
    // All that the release wrote is as it was: it can go on from here.
    let after = files(dir.root());
    for (name, bytes) in &before {
        assert_eq!(after.get(name), Some(bytes), "{}", name.display());
    }
    let new: Vec<_> = after
        .keys()
        .filter(|name| !before.contains_key(*name))
        .collect();
    assert_eq!(new.len(), 2, "{new:?}");
    // The second time there is nothing to do.
    assert_eq!(
        migrate_with(&dir, &mut |_| panic!("a moment")).unwrap(),
        None
    );
    let recovered = recover(&dir, NOW).unwrap();
    assert_eq!(recovered.state.generation().n, 20);
    assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
}

#[test]
fn a_start_migrates_and_says_where_the_backup_is() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let recovered = recover(&dir, NOW).unwrap();
    let [note] = recovered.notes.as_slice() else {
        panic!("{:?}", recovered.notes);
    };
    assert!(note.contains("from format 0 to 1"), "{note}");
    let state = recovered.state.clone();
    drop(recovered);
    let backups: Vec<_> = std::fs::read_dir(dir.backups()).unwrap().collect();
    assert_eq!(backups.len(), 1);
    let path = backups[0].as_ref().unwrap().path();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // And that backup is the state as it was.
    let old = StateDir::new(root.path().join("old"));
    old.create().unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    assert_eq!(backup::unpack_as_it_is(&old, &mut file).unwrap(), 0);
    assert_eq!(recover(&old, NOW).unwrap().state, state);
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let marker = dir.root().join("format");
    std::fs::write(&marker, "gatereeve-controller state format 2\n").unwrap();
    let before = files(dir.root());
    let why = recover(&dir, NOW).unwrap_err().to_string();
    assert!(why.contains("a newer version wrote it"), "{why}");
    let why = backup::write(&dir, Keys::Both, &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(why.contains("a newer version wrote it"), "{why}");
    assert_eq!(files(dir.root()), before);
    // The control.
    std::fs::remove_file(&marker).unwrap();
    recover(&dir, NOW).unwrap();
    assert_ne!(files(dir.root()), before);
}

/// The child: migrates, and dies at the moment that it was told.
#[test]
#[ignore = "started by the test below"]
fn killed_child() {
    let (Ok(dir), Ok(at)) = (std::env::var(WHERE), std::env::var(AT)) else {
        return;
    };
    let mut left: usize = at.parse().unwrap();
    migrate_with(&StateDir::new(dir), &mut |_| {
        if left == 0 {
            raise(Signal::SIGKILL).unwrap();
        }
        left -= 1;
    })
    .unwrap();
}

#[test]
fn killed_at_every_moment_it_resumes_and_the_backup_was_there_first() {
    let untouched = {
        let root = tempfile::tempdir().unwrap();
        files(released(root.path()).root())
    };
    let mut kills = 0;
    loop {
        let root = tempfile::tempdir().unwrap();
        let dir = released(root.path());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["upgrade::tests::killed_child", "--exact", "--ignored"])
            .env(WHERE, dir.root())
            .env(AT, kills.to_string())
            .output()
            .unwrap()
            .status;
        let was_killed = status.signal() == Some(9);
        assert!(was_killed || status.success(), "{status}");
        let found = files(dir.root());
        for (name, bytes) in &untouched {
            assert_eq!(
                found.get(name),
                Some(bytes),
                "kill {kills}: {}",
                name.display()
            );
        }
        let backups: Vec<_> = found
            .keys()
            .filter(|name| name.starts_with("backups") && !name.ends_with("unfinished.tar"))
            .collect();
        if found.contains_key(Path::new("format")) {
            assert_eq!(backups.len(), 1, "kill {kills}");
        }
        for name in &backups {
            let bytes = &found[*name];
            let old = StateDir::new(root.path().join("old"));
            old.create().unwrap();
            backup::unpack_as_it_is(&old, &mut bytes.as_slice()).unwrap();
        }
        // The next start finishes it.
        recover(&dir, NOW).unwrap();
        assert_eq!(FORMAT.read(dir.root()).unwrap(), 1);
        let left: Vec<_> = std::fs::read_dir(dir.backups())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["format-0-generation-1.20.tar"], "kill {kills}");
        if !was_killed {
            break;
        }
        kills += 1;
    }
    assert!(kills > 10, "only {kills} moments");
}

#[test]
fn a_rehearsal_finds_nothing_and_leaves_the_original_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let before = files(dir.root());
    let work = tempfile::tempdir().unwrap();
    let source = Source::StateDir(dir.clone());
    let rehearsal = rehearse(&source, work.path(), NOW).unwrap();
    assert!(rehearsal.is_safe(), "{rehearsal:?}");
    assert_eq!((rehearsal.from_format, rehearsal.to_format), (0, 1));
    assert_eq!(rehearsal.devices, 4);
    assert_eq!(rehearsal.tests.len(), 2);
    assert_eq!(files(dir.root()), before);

    // From a file, of either format.
    let mut old = Vec::new();
    backup::write(&dir, Keys::Both, &mut old).unwrap();
    recover(&dir, NOW).unwrap();
    let mut new = Vec::new();
    backup::write(&dir, Keys::Both, &mut new).unwrap();
    for (name, bytes, format) in [("old.tar", old, 0), ("new.tar", new, 1)] {
        let path = root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let work = tempfile::tempdir().unwrap();
        let rehearsal = rehearse(&Source::Backup(path), work.path(), NOW).unwrap();
        assert_eq!((rehearsal.from_format, rehearsal.devices), (format, 4));
        assert!(rehearsal.is_safe());
    }
}

#[test]
fn a_rehearsal_of_what_is_damaged_or_newer_fails() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let segment = crate::journal::scan::segments(&dir.journal()).unwrap()[0]
        .path
        .clone();
    let good = std::fs::read(&segment).unwrap();
    let mut newer = good.clone();
    newer[7] = b'2';
    newer[20] ^= 1;
    for (bytes, why) in [(good[..900].to_vec(), "damaged"), (newer, "newer version")] {
        std::fs::write(&segment, &bytes).unwrap();
        let work = tempfile::tempdir().unwrap();
        let failed = rehearse(&Source::StateDir(dir.clone()), work.path(), NOW).unwrap_err();
        let said = format!("{failed:#}");
        assert!(
            said.contains(why) || said.contains("CutOff") || said.contains("ends at record"),
            "{said}"
        );
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
    }
    std::fs::write(&segment, good).unwrap();
    let work = tempfile::tempdir().unwrap();
    rehearse(&Source::StateDir(dir), work.path(), NOW).unwrap();
}

/// The child: all that a controller does by itself with keys that it has from the service manager, and a backup
/// by hand.
#[test]
#[ignore = "started by the test below"]
fn sealed_child() {
    let Ok(root) = std::env::var(WHERE) else {
        return;
    };
    let root = Path::new(&root);
    let dir = StateDir::new(root.join("state"));
    let work = root.join("work");
    std::fs::create_dir(&work).unwrap();
    let rehearsal = rehearse(&Source::StateDir(dir.clone()), &work, NOW).unwrap();
    assert!(rehearsal.is_safe(), "{rehearsal:?}");
    let recovered = recover(&dir, NOW).unwrap();
    let [note] = recovered.notes.as_slice() else {
        panic!("{:?}", recovered.notes);
    };
    assert!(note.contains("which is sealed"), "{note}");
    drop(recovered);
    let mut by_hand = std::fs::File::create_new(root.join(BY_HAND)).unwrap();
    backup::write(&dir, Keys::Both, &mut by_hand).unwrap();
    // With the credential, what was made by itself leads back.
    let restored = StateDir::new(root.join("restored"));
    let mut file = std::fs::File::open(automatic(&dir)).unwrap();
    backup::restore(&restored, &mut file, Actor::System, NOW).unwrap();
    recover(&restored, NOW).unwrap();
}

const BY_HAND: &str = "by-hand.tar";

/// The one backup that was made by itself.
fn automatic(dir: &StateDir) -> std::path::PathBuf {
    let mut found = std::fs::read_dir(dir.backups()).unwrap();
    found.next().unwrap().unwrap().path()
}

#[test]
fn sealed_keys_stay_sealed_but_in_a_backup_by_hand() {
    let root = tempfile::tempdir().unwrap();
    let dir = released(root.path());
    let sealed = tempfile::tempdir().unwrap();
    let mut seeds = Vec::new();
    for (file, credential) in [
        (dir.network_key(), "gatereeve-controller.network-key"),
        (dir.tls_key(), "gatereeve-controller.tls-key"),
    ] {
        seeds.push(std::fs::read(&file).unwrap());
        let credential = sealed.path().join(credential);
        std::fs::copy(&file, &credential).unwrap();
        std::fs::remove_file(&file).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["upgrade::tests::sealed_child", "--exact", "--ignored"])
        .env(WHERE, root.path())
        .env("CREDENTIALS_DIRECTORY", sealed.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");

    let found = files(root.path());
    let holds = |seed: &[u8]| -> Vec<_> {
        let holding = found
            .iter()
            .filter(|(_, bytes)| bytes.windows(seed.len()).any(|window| window == seed));
        holding.map(|(name, _)| name.as_path()).collect()
    };
    for seed in &seeds {
        assert_eq!(holds(seed), [Path::new(BY_HAND)], "and that is the control");
    }
    // Without the credential one leads back by itself, the other does not, and says why.
    let restore = |from: &Path, to: &str| {
        let target = StateDir::new(root.path().join(to));
        let mut file = std::fs::File::open(from).unwrap();
        backup::restore(&target, &mut file, Actor::System, NOW).map(|_| ())
    };
    let refused = restore(&automatic(&dir), "refused").unwrap_err();
    assert!(refused.to_string().contains("credential"), "{refused:#}");
    assert!(!root.path().join("refused").exists());
    restore(&root.path().join(BY_HAND), "by-hand").unwrap();
}
