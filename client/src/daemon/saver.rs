//! Writes the engine's memory, and says to the controller only what rests on a memory that is written.
//!
//! One task takes both in order. The engine's own task never waits for the disk, so that a slow disk
//! delays acknowledgements but no revocation.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use gatereeve_client_core::stored::Stored;
use gatereeve_shared::wire::client::ClientMessage;

use super::state_dir::save_stored;
use crate::control::ControlLink;
use gatereeve_runtime::words::in_words;

/// Jobs that may wait; the engine's task waits beyond.
const QUEUE: usize = 1024;

/// One thing to do, after all before it.
#[derive(Debug)]
pub enum Job {
    /// Write this.
    Save(Box<Stored>),
    /// Say this.
    Send(Arc<ControlLink>, Box<ClientMessage>),
    /// Let go of this: it closes behind what was said.
    Close(Arc<ControlLink>),
}

/// The task.
#[derive(Debug)]
pub struct Saver {
    jobs: mpsc::Sender<Job>,
    problem: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Saver {
    /// Starts the task; it writes to `path`.
    #[must_use]
    pub fn start(path: PathBuf) -> Self {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (problem_sender, problem) = watch::channel(None);
        #[expect(clippy::disallowed_methods, reason = "`finish` waits for it")]
        let task = tokio::spawn(run(path, inbox, problem_sender));
        Self {
            jobs,
            problem,
            task,
        }
    }

    /// Queues a job.
    pub async fn job(&self, job: Job) {
        if self.jobs.send(job).await.is_err() {
            tracing::error!("the task that writes the state has ended");
        }
    }

    /// Why the last write failed, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.borrow().clone()
    }

    /// Does what is queued, and ends.
    pub async fn finish(self) {
        drop(self.jobs);
        if self.task.await.is_err() {
            tracing::error!("the task that writes the state has panicked");
        }
    }
}

async fn run(
    path: PathBuf,
    mut inbox: mpsc::Receiver<Job>,
    problem: watch::Sender<Option<String>>,
) {
    let mut jobs = Vec::new();
    while inbox.recv_many(&mut jobs, QUEUE).await > 0 {
        // The newest memory covers everything said before it: one write for all of them, and first.
        let newest = jobs.iter().rposition(|job| matches!(job, Job::Save(_)));
        if let Some(newest) = newest
            && let Job::Save(stored) = jobs.remove(newest)
        {
            let path = path.clone();
            let written = tokio::task::spawn_blocking(move || save_stored(&path, &stored)).await;
            let failed = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(in_words(&error)),
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = &failed {
                tracing::warn!(%error, "the state was not written");
            }
            problem.send_replace(failed);
        }
        for job in jobs.drain(..) {
            match job {
                Job::Save(_) => {}
                Job::Send(link, message) => {
                    if let Err(error) = link.send(*message) {
                        tracing::debug!(%error, "a message to the controller is lost with its link");
                    }
                }
                Job::Close(link) => drop(link),
            }
        }
    }
}
