//! `verify` against everything that could be done to a journal by hand.

use std::path::PathBuf;

use gatereeve_controller_core::audit::entry::{Actor, AuditEntry};
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::change::Change;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::UnixMillis;

use super::{VerifyError, line_text, verify};
use crate::journal::Head;
use crate::journal::open::{Floor, open};

/// A journal of records with these reasons, and the heads behind each.
fn journal(reasons: &[&str]) -> (tempfile::TempDir, PathBuf, Vec<Head>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut journal = open(&path, Floor::default(), &mut |_| {}).unwrap().journal;
    let mut heads = Vec::new();
    for reason in reasons {
        let head = journal.head();
        let record = record(head.generation.n + 1, reason);
        journal.append(&[record.seal(&head.hash).unwrap()]).unwrap();
        heads.push(journal.head());
    }
    (dir, path, heads)
}

fn record(n: u64, reason: &str) -> Record {
    Record {
        generation: Generation { incarnation: 0, n },
        at: UnixMillis(n),
        actor: Actor::System,
        change: Change::Noted,
        audit: AuditEntry::refused("device.enroll", "laptop", reason),
    }
}

fn sign(head: Head) -> Checkpoint {
    let key = IdentityKey::from_seed(&[1; 32]);
    Checkpoint::sign(&key, head.generation, head.hash, UnixMillis(9))
}

#[test]
fn an_untouched_log_verifies_with_its_heads() {
    let (_dir, path, heads) = journal(&["a", "b", "c"]);
    let verified = verify(&path, &[sign(heads[0]), sign(heads[2])]).unwrap();
    assert_eq!((verified.records, verified.signed_up_to), (3, 3));
    assert_eq!(verified.unfinished_bytes, 0);
}

#[test]
fn a_log_that_was_written_anew_fails_only_with_a_signed_head() {
    let (_dir, _, heads) = journal(&["a", "b", "c"]);
    // The same length and numbering, another past, and a chain that holds.
    let (_other_dir, other, _) = journal(&["a", "x", "c"]);
    assert!(verify(&other, &[sign(heads[0])]).is_ok());
    assert!(matches!(
        verify(&other, &[sign(heads[0]), sign(heads[2])]),
        Err(VerifyError::NotSigned { n: 3, .. })
    ));
}

#[test]
fn a_log_that_was_cut_off_behind_a_signed_head_fails() {
    let (_dir, _, heads) = journal(&["a", "b", "c"]);
    let (_short_dir, short, _) = journal(&["a", "b"]);
    assert!(verify(&short, &[sign(heads[1])]).is_ok());
    assert!(matches!(
        verify(&short, &[sign(heads[2])]),
        Err(VerifyError::CutOff { head: 2, n: 3, .. })
    ));
}

#[test]
fn any_flipped_byte_before_the_last_record_fails() {
    let (_dir, path, _) = journal(&["a", "b", "c"]);
    let file = crate::journal::scan::segments(&path).unwrap()[0]
        .path
        .clone();
    let good = std::fs::read(&file).unwrap();
    let (_two_dir, two, _) = journal(&["a", "b"]);
    let length = std::fs::metadata(&crate::journal::scan::segments(&two).unwrap()[0].path)
        .unwrap()
        .len();
    for at in 0..usize::try_from(length).unwrap() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&file, bad).unwrap();
        assert!(verify(&path, &[]).is_err(), "byte {at}");
    }
    std::fs::write(&file, good).unwrap();
    assert!(verify(&path, &[]).is_ok());
}

#[test]
fn a_line_is_one_line() {
    let mut nasty = record(1, "x");
    nasty.audit.reason = Some("a\nb\u{1b}[2J\r".into());
    let line = line_text(&nasty);
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(
        line.contains("REFUSED device.enroll laptop by controller"),
        "{line}"
    );
}
