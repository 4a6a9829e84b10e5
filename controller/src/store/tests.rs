//! The store against loss and damage.

use gatereeve_controller_core::audit::entry::{Actor, AuditEntry};
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::change::Change;
use gatereeve_controller_core::output::TableWrites;
use gatereeve_controller_core::state::State;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::UnixMillis;

use super::{HARD, Store, batch_of};

/// A state after this many records.
fn state(records: u64) -> State {
    let mut state = State::empty();
    for n in 1..=records {
        let record = Record {
            generation: Generation { incarnation: 0, n },
            at: UnixMillis(n),
            actor: Actor::System,
            change: Change::Noted,
            audit: AuditEntry::done("test.note", n.to_string()),
        };
        let sealed = record.seal(&state.head()).unwrap();
        state.apply(&record, sealed.hash);
    }
    state
}

#[test]
fn a_state_reads_back_and_is_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables");
    let loaded = Store::load(&path, UnixMillis(1)).unwrap();
    assert_eq!(loaded.state, State::empty());
    loaded.store.replace(&state(3)).unwrap();
    // A row that no longer belongs goes.
    let stray = vec![(b"stray".to_vec(), Some(vec![1]))];
    loaded.store.write_hard(stray).unwrap();
    loaded.store.replace(&state(5)).unwrap();
    assert!(
        !loaded
            .store
            .rows(HARD)
            .unwrap()
            .iter()
            .any(|(key, _)| key == b"stray")
    );
    loaded.store.flush().unwrap();
    drop(loaded);
    let loaded = Store::load(&path, UnixMillis(2)).unwrap();
    assert!(loaded.set_aside.is_none());
    assert_eq!(loaded.state, state(5));
}

#[test]
fn rows_that_cannot_be_read_are_set_aside_with_their_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables");
    let loaded = Store::load(&path, UnixMillis(1)).unwrap();
    loaded.store.replace(&state(2)).unwrap();
    let bad = vec![(b"dshort".to_vec(), Some(vec![9]))];
    loaded.store.write_hard(bad).unwrap();
    drop(loaded);
    let loaded = Store::load(&path, UnixMillis(7)).unwrap();
    assert_eq!(loaded.state, State::empty());
    let (aside, why) = loaded.set_aside.unwrap();
    assert!(
        aside.ends_with("tables.damaged-7") && aside.exists(),
        "{why}"
    );
}

#[test]
fn files_that_are_no_store_are_set_aside() {
    for damage in [b"".as_slice(), b"noise", &[0xff; 4096]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let loaded = Store::load(&path, UnixMillis(1)).unwrap();
        loaded.store.replace(&state(2)).unwrap();
        loaded.store.flush().unwrap();
        drop(loaded);
        for name in ["conf", "db"] {
            std::fs::write(path.join(name), damage).unwrap();
        }
        let loaded = Store::load(&path, UnixMillis(7)).unwrap();
        assert_eq!(loaded.state, State::empty());
        loaded.store.replace(&state(2)).unwrap();
        drop(loaded);
        assert_eq!(Store::load(&path, UnixMillis(8)).unwrap().state, state(2));
    }
}

#[test]
fn a_row_that_is_missing_or_old_is_damage() {
    let rows: [TableWrites; 3] = [
        vec![(b"t12345678901234567890".to_vec(), Some(vec![1, 0]))],
        vec![(b"h".to_vec(), None)],
        vec![],
    ];
    for (number, past) in rows.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let loaded = Store::load(&path, UnixMillis(1)).unwrap();
        loaded.store.replace(&state(4)).unwrap();
        // Behind the digest's back, as pages of another time come back.
        let is_control = past.is_empty();
        loaded.store.apply(batch_of(HARD, past)).unwrap();
        drop(loaded);
        let loaded = Store::load(&path, UnixMillis(7)).unwrap();
        assert_eq!(loaded.set_aside.is_none(), is_control, "case {number}");
        let expected = if is_control { state(4) } else { State::empty() };
        assert_eq!(loaded.state, expected);
    }
}

#[test]
fn a_key_that_is_written_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables");
    let loaded = Store::load(&path, UnixMillis(1)).unwrap();
    let rows = state(3).to_tables();
    let twice = rows.iter().chain(&rows);
    let writes = twice.map(|(key, value)| (key.clone(), Some(value.clone())));
    loaded.store.write_hard(writes.collect()).unwrap();
    drop(loaded);
    assert!(
        Store::load(&path, UnixMillis(2))
            .unwrap()
            .set_aside
            .is_none()
    );
}
