//! The thread that writes what may be written late: tables, soft rows and checkpoints.
//!
//! Everything here can be lost without loss: tables are caught up from the journal at the next
//! start. So a failure stops the writing of tables, which leaves them a true, older state, and is
//! shown as a warning; it never stops the controller.

use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gatereeve_controller_core::output::TableWrites;
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::time::Mono;
use tracing::{error, warn};

use super::Store;
use crate::state_dir::checkpoints::CheckpointFile;

/// Writes that may wait.
const QUEUE: usize = 4096;
/// How long rows may be written and not flushed: what a kill of the process can cost.
const FLUSH_AFTER: Duration = Duration::from_millis(500);

enum Write {
    Hard(TableWrites),
    Soft(TableWrites),
    Checkpoint(Checkpoint),
}

/// The way to the thread.
#[derive(Debug)]
pub struct Keeper {
    writes: SyncSender<Write>,
    thread: JoinHandle<()>,
    troubles: Arc<Mutex<Troubles>>,
}

#[derive(Clone, Debug, Default)]
struct Troubles {
    tables: Option<String>,
    checkpoints: Option<String>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(store: Store, checkpoints: CheckpointFile) -> std::io::Result<Self> {
        let (writes, queue) = sync_channel(QUEUE);
        let troubles = Arc::new(Mutex::new(Troubles::default()));
        let seen = Arc::clone(&troubles);
        let thread = std::thread::Builder::new()
            .name("tables".to_owned())
            .spawn(move || {
                Work {
                    store,
                    checkpoints,
                    troubles: seen,
                    flush_at: None,
                }
                .run(&queue);
            })?;
        Ok(Self {
            writes,
            thread,
            troubles,
        })
    }

    /// Rows of the tables, in the order of the journal.
    pub fn hard(&self, writes: TableWrites) {
        // Skipping one batch would make a state that never was: after a failure none is written.
        if lock(&self.troubles).tables.is_some() {
            return;
        }
        if self.writes.try_send(Write::Hard(writes)).is_err() {
            lock(&self.troubles).tables =
                Some("writes of the tables do not keep up with the journal".to_owned());
            warn!("the tables do not keep up; they are caught up at the next start");
        }
    }

    /// Rows that may be lost.
    pub fn soft(&self, writes: TableWrites) {
        // Lost is unknown: the next report brings it again.
        drop(self.writes.try_send(Write::Soft(writes)));
    }

    /// A signed head. Returns false where it was not queued: sign a later one.
    #[must_use]
    pub fn checkpoint(&self, checkpoint: Checkpoint) -> bool {
        self.writes.try_send(Write::Checkpoint(checkpoint)).is_ok()
    }

    /// What an administrator should know.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let troubles = lock(&self.troubles).clone();
        let tables = troubles.tables.map(|why| {
            format!(
                "the tables are not written any more and are caught up at the next start: {why}"
            )
        });
        let checkpoints = troubles
            .checkpoints
            .map(|why| format!("the last checkpoint could not be written: {why}"));
        tables.into_iter().chain(checkpoints).collect()
    }

    /// Finishes what is queued, flushes and waits for the thread.
    pub fn stop(self) {
        drop(self.writes);
        if self.thread.join().is_err() {
            error!("the tables' thread has panicked");
        }
    }
}

struct Work {
    store: Store,
    checkpoints: CheckpointFile,
    troubles: Arc<Mutex<Troubles>>,
    /// When the rows written since the last time are flushed.
    flush_at: Option<Mono>,
}

impl Work {
    fn run(mut self, queue: &Receiver<Write>) {
        loop {
            if self.flush_at.is_some_and(|at| at <= Clock::mono()) {
                self.flush();
            }
            let write = match self.flush_at {
                Some(at) => queue.recv_timeout(Clock::until(at)),
                None => queue
                    .recv()
                    .map_err(|RecvError| RecvTimeoutError::Disconnected),
            };
            let write = match write {
                Ok(write) => write,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Write::Hard(_) | Write::Soft(_) = write {
                let at = Clock::mono().saturating_add(FLUSH_AFTER);
                self.flush_at.get_or_insert(at);
            }
            match write {
                Write::Hard(writes) => self.hard(writes),
                Write::Soft(writes) => {
                    if let Err(error) = self.store.write_soft(writes) {
                        warn!(error = %error, "soft state was not written");
                    }
                }
                Write::Checkpoint(checkpoint) => {
                    let written = self.checkpoints.append(&checkpoint);
                    if let Err(error) = &written {
                        warn!(error = %error, "checkpoint was not written");
                    }
                    lock(&self.troubles).checkpoints = written.err().map(|error| error.to_string());
                }
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.flush_at = None;
        if let Err(error) = self.store.flush() {
            warn!(error = %error, "tables were not flushed");
        }
    }

    fn hard(&self, writes: TableWrites) {
        if lock(&self.troubles).tables.is_some() {
            return;
        }
        if let Err(error) = self.store.write_hard(writes) {
            warn!(error = %error, "tables were not written; they are caught up at the next start");
            lock(&self.troubles).tables = Some(error.to_string());
        }
    }
}

fn lock(troubles: &Mutex<Troubles>) -> std::sync::MutexGuard<'_, Troubles> {
    troubles.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::time::UnixMillis;

    use super::*;

    /// The rows that a kill of the process would leave, now.
    fn left(path: &std::path::Path) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("tables");
        std::fs::create_dir(&copy).unwrap();
        for file in std::fs::read_dir(path).unwrap().flatten() {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
            }
        }
        let loaded = Store::load(&copy, UnixMillis(1)).unwrap();
        loaded.store.rows(super::super::SOFT).unwrap().len()
    }

    #[test]
    fn rows_are_flushed_soon_and_not_by_sled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tables");
        let loaded = Store::load(&path, UnixMillis(1)).unwrap();
        let checkpoints = CheckpointFile::open(&dir.path().join("checkpoints")).unwrap();
        let keeper = Keeper::start(loaded.store, checkpoints).unwrap();
        for n in 1..=2_u8 {
            keeper.soft(vec![(vec![n], Some(vec![n]))]);
            // Within half of the time after which sled would.
            let limit = Duration::from_millis(super::super::TIDY_EVERY / 2);
            let deadline = Clock::mono().saturating_add(limit);
            while left(&path) < n.into() {
                assert!(Clock::mono() < deadline, "row {n} is not flushed");
                std::thread::sleep(FLUSH_AFTER / 4);
            }
        }
        keeper.stop();
    }
}
