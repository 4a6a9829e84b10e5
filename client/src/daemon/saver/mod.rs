//! Writes what the daemon keeps, and says to the controller only what rests on a memory that is written.
//!
//! The engine's own task never waits for the disk: not where that is slow, nor where it takes nothing, nor where it says
//! nothing at all, as while a snapshot is made of it. That delays acknowledgements, and no revocation.
//!
//! Until a memory is written no generation is acknowledged that came with it or later: after a restart without a controller,
//! the device would be back at what the disk has, and open what the controller believes closed. The device works on with
//! what it has in memory, and a write that failed is tried again.
//!
//! * [`memory`]: the engine's memory, and what may be said of it.
//! * [`network`]: which network the device is in.

mod memory;
pub mod network;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use gatereeve_client_core::stored::Stored;
use gatereeve_shared::wire::client::ClientMessage;

use crate::control::ControlLink;
use gatereeve_runtime::words::in_words;
use memory::Memory;

/// Jobs that may wait; the engine's task waits beyond. None waits for the disk for longer than [`ATTACH_WAITS`].
const QUEUE: usize = 1024;
/// How long a device that attaches waits for what it says that it has to be written. Beyond, it says that it has nothing, and
/// is sent everything.
const ATTACH_WAITS: Duration = Duration::from_secs(1);

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
        let (told, problem) = watch::channel(None);
        let memory = Memory::new(path, told);
        #[expect(clippy::disallowed_methods, reason = "`finish` waits for it")]
        let task = tokio::spawn(run(memory, inbox));
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

async fn run(mut memory: Memory, mut inbox: mpsc::Receiver<Job>) {
    loop {
        let job = tokio::select! {
            job = inbox.recv() => job,
            () = memory.go_on() => continue,
        };
        match job {
            Some(Job::Save(stored)) => memory.save(stored),
            Some(Job::Send(link, message)) => send(&mut memory, link, message).await,
            Some(Job::Close(link)) => memory.forget(&link),
            None => break,
        }
    }
    memory.finish().await;
}

async fn send(memory: &mut Memory, link: Arc<ControlLink>, mut message: Box<ClientMessage>) {
    if let ClientMessage::Ack(_) = *message {
        memory.acknowledge(link, message);
        return;
    }
    if let ClientMessage::Attach(attach) = message.as_mut() {
        // What it has is as much as an acknowledgement. Without it the controller sends a whole map, and waits for one.
        drop(timeout(ATTACH_WAITS, memory.written()).await);
        if !memory.is_written() {
            attach.have = None;
        }
    }
    say(&link, *message);
}

fn say(link: &ControlLink, message: ClientMessage) {
    if let Err(error) = link.send(message) {
        tracing::debug!(%error, "a message to the controller is lost with its link");
    }
}

/// A write, on a thread that may wait for the disk.
type Write = JoinHandle<Result<()>>;

/// Why it was not written, if it was not.
fn outcome(written: Result<Result<()>, JoinError>) -> Option<String> {
    match written {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(in_words(&error)),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
