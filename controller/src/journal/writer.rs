//! The journal's own thread: appends what has queued up while the last sync ran as one batch.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use gatereeve_controller_core::audit::chain::EncodedRecord;
use tokio::sync::mpsc;
use tracing::{debug, error};

use super::Head;
use super::file::{AppendError, FileJournal};
use super::format::MAX_BODY;

/// Appends that may wait. Beyond, a change is refused rather than queued.
pub const QUEUE: usize = 1024;
/// Results that may wait; more than appends can be under way, so that the thread never blocks on an
/// actor that is busy submitting.
const RESULTS: usize = 4 * QUEUE;

/// What became of an append.
#[derive(Debug)]
pub struct Appended {
    /// As submitted.
    pub ticket: u64,
    /// Durable, or not in the journal at all.
    pub result: Result<(), String>,
}

struct Job {
    ticket: u64,
    records: Vec<EncodedRecord>,
}

impl Job {
    fn size(&self) -> usize {
        // The 64 cover the record's header.
        let size = |record: &EncodedRecord| record.bytes.len().saturating_add(64);
        self.records.iter().map(size).fold(0, usize::saturating_add)
    }
}

/// The way to the journal's thread.
#[derive(Debug)]
pub struct JournalWriter {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

impl JournalWriter {
    /// Starts the thread. Results come in the order of submission.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(journal: FileJournal) -> std::io::Result<(Self, mpsc::Receiver<Appended>)> {
        let (jobs, queue) = sync_channel(QUEUE);
        let (results, appended) = mpsc::channel(RESULTS);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(journal, &queue, &results))?;
        Ok((Self { jobs, thread }, appended))
    }

    /// Queues records; never blocks.
    ///
    /// # Errors
    /// Why they were not queued. The journal has not seen them.
    pub fn submit(&self, ticket: u64, records: Vec<EncodedRecord>) -> Result<(), String> {
        self.jobs
            .try_send(Job { ticket, records })
            .map_err(|error| match error {
                TrySendError::Full(_) => {
                    "too many changes wait for the disk; try again later".to_owned()
                }
                TrySendError::Disconnected(_) => "the journal has stopped".to_owned(),
            })
    }

    /// Finishes what is queued and waits for the thread.
    pub fn stop(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            error!("the journal's thread has panicked");
        }
    }
}

fn run(mut journal: FileJournal, queue: &Receiver<Job>, results: &mpsc::Sender<Appended>) {
    let mut held_back = None;
    loop {
        let first = match held_back.take() {
            Some(job) => job,
            None => match queue.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
        };
        let mut size = first.size();
        let mut group = vec![first];
        // All that came while the last batch was synced, as far as it fits.
        while let Ok(job) = queue.try_recv() {
            size = size.saturating_add(job.size());
            if size > MAX_BODY {
                held_back = Some(job);
                break;
            }
            group.push(job);
        }
        for appended in commit(&mut journal, group) {
            if results.blocking_send(appended).is_err() {
                return;
            }
        }
    }
}

/// Appends the jobs that follow each other as one batch; the others were staged behind one that
/// failed.
fn commit(journal: &mut FileJournal, group: Vec<Job>) -> Vec<Appended> {
    let mut head = journal.head();
    let mut records = Vec::new();
    let mut tickets = Vec::new();
    for job in group {
        let start = head;
        let follows = job.records.iter().all(|record| {
            let follows = head.is_followed_by(record);
            head = Head::of(record);
            follows
        });
        if follows {
            records.extend(job.records);
        } else {
            head = start;
        }
        tickets.push((job.ticket, follows));
    }
    let written = journal.append(&records);
    if let Err(error) = &written {
        error!(error = %error, records = records.len(), "journal append failed");
    } else {
        debug!(
            records = records.len(),
            n = head.generation.n,
            "journal append"
        );
    }
    let result = |follows: bool| match (&written, follows) {
        (_, false) => Err(AppendError::NotNext.to_string()),
        (Ok(()), true) => Ok(()),
        (Err(error), true) => Err(error.to_string()),
    };
    tickets
        .into_iter()
        .map(|(ticket, follows)| Appended {
            ticket,
            result: result(follows),
        })
        .collect()
}
