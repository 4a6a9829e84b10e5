//! Writes the engine's memory, and says to the controller only what rests on a memory that is written.
//!
//! One task takes both in order. The engine's own task never waits for the disk, so that a slow disk
//! delays acknowledgements but no revocation.
//!
//! Where the disk takes nothing, the device works on with what it has in memory, and the write is tried again. Until it
//! succeeds no generation is acknowledged: after a restart without a controller, the device would be back at what the
//! disk has, and open what the controller believes closed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};

use gatereeve_client_core::stored::Stored;
use gatereeve_shared::wire::client::ClientMessage;

use super::state_dir::save_stored;
use crate::control::ControlLink;
use gatereeve_runtime::words::in_words;

/// Jobs that may wait; the engine's task waits beyond.
const QUEUE: usize = 1024;
/// Time before a write that failed is tried again: twice as long after each, up to the second one.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

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
        let work = Work::new(path);
        let problem = work.problem.subscribe();
        #[expect(clippy::disallowed_methods, reason = "`finish` waits for it")]
        let task = tokio::spawn(work.run(inbox));
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

/// A memory that the disk did not take.
#[derive(Debug)]
struct Unwritten {
    stored: Box<Stored>,
    /// How long it was left alone last.
    rest: Duration,
    again: Instant,
}

/// A write, on a thread that may wait for the disk.
type Write = JoinHandle<Result<()>>;

/// What is done with jobs.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    problem: watch::Sender<Option<String>>,
    unwritten: Option<Unwritten>,
    /// The next try with it, while that is under way: what is said does not wait for it.
    retry: Option<Write>,
    /// The newest acknowledgement that rests on it.
    held: Option<(Arc<ControlLink>, Box<ClientMessage>)>,
}

impl Work {
    /// Nothing done yet.
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            problem: watch::Sender::new(None),
            unwritten: None,
            retry: None,
            held: None,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        loop {
            tokio::select! {
                came = inbox.recv_many(&mut jobs, QUEUE) => if came == 0 { break },
                () = self.again() => {}
            }
            // The newest memory covers everything said before it: one write for all of them, and first.
            let newest = jobs.iter().rposition(|job| matches!(job, Job::Save(_)));
            if let Some(newest) = newest
                && let Job::Save(stored) = jobs.remove(newest)
            {
                self.save(stored).await;
            }
            for job in jobs.drain(..) {
                self.carry_out(job);
            }
        }
        self.finish().await;
    }

    fn begin(&self, stored: Box<Stored>) -> Write {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || save_stored(&path, &stored))
    }

    /// Writes a newer memory than any before.
    async fn save(&mut self, stored: Box<Stored>) {
        if let Some(retry) = self.retry.take() {
            // It must not put the older one in the place of this. Whether it could is told by this.
            drop(retry.await);
        }
        let failed = outcome(self.begin(stored.clone()).await);
        if failed.is_some() {
            match &mut self.unwritten {
                // When it is tried again does not go by how often there is something new.
                Some(unwritten) => unwritten.stored = stored,
                None => {
                    self.unwritten = Some(Unwritten {
                        stored,
                        rest: AGAIN.0,
                        again: Instant::now() + AGAIN.0,
                    });
                }
            }
        }
        self.note(failed);
    }

    /// Waits until it is time for another try, and then for what comes of that; for ever where all is written. It can be
    /// dropped and called again at any time.
    async fn again(&mut self) {
        let Some(unwritten) = &self.unwritten else {
            return std::future::pending().await;
        };
        if self.retry.is_none() {
            sleep_until(unwritten.again).await;
            self.retry = Some(self.begin(unwritten.stored.clone()));
        }
        let Some(retry) = &mut self.retry else {
            return;
        };
        let failed = outcome(retry.await);
        self.retry = None;
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.rest = unwritten.rest.saturating_mul(2).min(AGAIN.1);
            unwritten.again = Instant::now() + unwritten.rest;
        }
        self.note(failed);
    }

    /// What could not be written before may be now: it is the last chance.
    async fn finish(&mut self) {
        if let Some(unwritten) = self.unwritten.take() {
            self.save(unwritten.stored).await;
        }
    }

    fn note(&mut self, failed: Option<String>) {
        if let Some(error) = &failed {
            tracing::warn!(%error, "the state was not written; no generation is acknowledged until it is");
        } else {
            self.unwritten = None;
            if let Some((link, acknowledgement)) = self.held.take() {
                say(&link, *acknowledgement);
            }
        }
        self.problem.send_replace(failed);
    }

    fn carry_out(&mut self, job: Job) {
        match job {
            // An older one than what was written.
            Job::Save(_) => {}
            Job::Send(link, mut message) => {
                let is_unwritten = self.unwritten.is_some();
                if is_unwritten && matches!(*message, ClientMessage::Ack(_)) {
                    self.held = Some((link, message));
                    return;
                }
                if is_unwritten && let ClientMessage::Attach(attach) = message.as_mut() {
                    // As much as an acknowledgement. Without it the controller sends a whole map, and waits for one.
                    attach.have = None;
                }
                say(&link, *message);
            }
            Job::Close(link) => {
                self.held.take_if(|(held, _)| Arc::ptr_eq(held, &link));
            }
        }
    }
}

/// Why it was not written, if it was not.
fn outcome(written: Result<Result<()>, JoinError>) -> Option<String> {
    match written {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(in_words(&error)),
        Err(error) => Some(error.to_string()),
    }
}

fn say(link: &ControlLink, message: ClientMessage) {
    if let Err(error) = link.send(message) {
        tracing::debug!(%error, "a message to the controller is lost with its link");
    }
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::generation::Generation;
    use gatereeve_shared::identity::binding::KeyBinding;
    use gatereeve_shared::identity::fingerprint::Fingerprint;
    use gatereeve_shared::identity::identity_key::IdentityKey;
    use gatereeve_shared::identity::wg_key::WgSecret;
    use gatereeve_shared::posture::fact::PostureReport;
    use gatereeve_shared::wire::client::{Attach, EndpointUpdate, KeyUpdate};

    use super::*;

    fn generation(n: u64) -> Generation {
        Generation {
            n,
            ..Generation::default()
        }
    }

    /// A place where nothing can be written until it is made.
    struct Missing {
        _parent: tempfile::TempDir,
        directory: PathBuf,
        path: PathBuf,
    }

    impl Missing {
        fn new() -> Self {
            let parent = tempfile::tempdir().unwrap();
            let directory = parent.path().join("missing");
            let path = directory.join("state");
            Self {
                _parent: parent,
                directory,
                path,
            }
        }

        fn saver(&self) -> Saver {
            Saver::start(self.path.clone())
        }

        fn make(&self) {
            std::fs::create_dir(&self.directory).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_is_written() {
        let disk = Missing::new();
        let saver = disk.saver();
        let (link, mut said) = ControlLink::detached();
        let link = Arc::new(link);
        let send = |message| Job::Send(Arc::clone(&link), Box::new(message));
        saver.job(Job::Save(Box::default())).await;
        for n in [1, 2] {
            saver.job(send(ClientMessage::Ack(generation(n)))).await;
        }
        saver.job(send(ClientMessage::Ping(7))).await;
        // Everything else passes, and what is tried again fails again.
        assert_eq!(said.recv().await, Some(ClientMessage::Ping(7)));
        assert!(saver.problem().is_some());
        tokio::time::sleep(Duration::from_mins(5)).await;
        assert_eq!(said.try_recv().ok(), None);

        // The end of another link changes nothing.
        let (other, _) = ControlLink::detached();
        saver.job(Job::Close(Arc::new(other))).await;

        disk.make();
        let newest = ClientMessage::Ack(generation(2));
        assert_eq!(said.recv().await, Some(newest), "the last one says it all");
        assert!(disk.path.exists());
        assert!(saver.problem().is_none());

        saver.job(send(ClientMessage::Ack(generation(3)))).await;
        let next = ClientMessage::Ack(generation(3));
        assert_eq!(said.recv().await, Some(next), "nothing is held any more");
        assert_eq!(said.try_recv().ok(), None, "and none comes twice");
        saver.finish().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_written_is_tried_again_ever_more_seldom() {
        let disk = Missing::new();
        let saver = disk.saver();
        saver.job(Job::Save(Box::default())).await;
        // Tried at 0 and 1 s, and next at 3.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        disk.make();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!disk.path.exists());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(disk.path.exists() && saver.problem().is_none());
        saver.finish().await;
    }

    /// One of two memories that differ.
    fn memory(newer: bool) -> Box<Stored> {
        let mut fields = serde_json::to_value(Stored::default()).unwrap();
        fields["loopback"] = newer.into();
        serde_json::from_value(fields).unwrap()
    }

    /// What is written of a memory.
    fn written(memory: &Stored) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        save_stored(&path, memory).unwrap();
        std::fs::read(path).unwrap()
    }

    /// As a retry: writes `memory` once it is told to, and says whether that was well.
    fn stuck(path: PathBuf, memory: Box<Stored>) -> (std::sync::mpsc::Sender<()>, Write) {
        let (sender, go) = std::sync::mpsc::channel();
        let write = tokio::task::spawn_blocking(move || {
            go.recv()?;
            save_stored(&path, &memory)
        });
        (sender, write)
    }

    #[tokio::test]
    async fn an_older_memory_does_not_come_in_the_place_of_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut work = Work::new(path.clone());
        let (go, retry) = stuck(path.clone(), memory(false));
        work.retry = Some(retry);
        let newer = memory(true);
        let mut saving = std::pin::pin!(work.save(newer.clone()));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut saving).await;
        assert!(early.is_err(), "it waits for the older one");
        go.send(()).unwrap();
        saving.await;
        assert_eq!(std::fs::read(path).unwrap(), written(&newer));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_again_is_the_newest() {
        let disk = Missing::new();
        let saver = disk.saver();
        for newer in [false, true] {
            saver.job(Job::Save(memory(newer))).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.make();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(std::fs::read(&disk.path).unwrap(), written(&memory(true)));
        saver.finish().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_new_puts_no_try_off() {
        let disk = Missing::new();
        let saver = disk.saver();
        for _ in 0..20 {
            saver.job(Job::Save(Box::default())).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.make();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(disk.path.exists() && saver.problem().is_none());
        saver.finish().await;
    }

    /// A disk that does not even say no.
    #[tokio::test]
    async fn what_is_said_does_not_wait_for_another_try() {
        let disk = Missing::new();
        let mut work = Work::new(disk.path.clone());
        work.save(Box::default()).await;
        let (go, retry) = stuck(disk.path.clone(), Box::default());
        work.retry = Some(retry);
        let (sending, inbox) = mpsc::channel(QUEUE);
        let (link, mut said) = ControlLink::detached();
        let ping = Box::new(ClientMessage::Ping(7));
        sending.send(Job::Send(Arc::new(link), ping)).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the channel")]
        let task = tokio::spawn(work.run(inbox));
        assert_eq!(said.recv().await, Some(ClientMessage::Ping(7)));
        drop((go, sending));
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_that_is_not_written_is_not_said_to_be_held() {
        let disk = Missing::new();
        let saver = disk.saver();
        let (link, mut said) = ControlLink::detached();
        let link = Arc::new(link);
        let secret = WgSecret::from_bytes([1; 32]);
        let (identity, network) = (IdentityKey::from_seed(&[2; 32]), Fingerprint([3; 32]));
        let attach = ClientMessage::Attach(Attach {
            keys: KeyUpdate {
                current: KeyBinding::sign(&identity, &network, secret.public(), 1),
                next: None,
            },
            endpoints: EndpointUpdate {
                listen_port: 1,
                endpoints: Vec::new(),
            },
            have: Some(generation(1)),
            report: PostureReport {
                counter: 1,
                facts: Vec::new(),
            },
            software: String::new(),
        });
        let have = |message| match message {
            Some(ClientMessage::Attach(attach)) => attach.have,
            other => panic!("{other:?}"),
        };
        saver.job(Job::Save(Box::default())).await;
        saver
            .job(Job::Send(Arc::clone(&link), Box::new(attach.clone())))
            .await;
        assert_eq!(have(said.recv().await), None);
        disk.make();
        saver.job(Job::Save(Box::default())).await;
        saver.job(Job::Send(link, Box::new(attach))).await;
        assert_eq!(have(said.recv().await), Some(generation(1)), "control");
        saver.finish().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_goes_with_its_link_and_a_memory_gets_a_last_chance() {
        let disk = Missing::new();
        let saver = disk.saver();
        let (link, mut said) = ControlLink::detached();
        let link = Arc::new(link);
        saver.job(Job::Save(Box::default())).await;
        let acknowledgement = Box::new(ClientMessage::Ack(generation(1)));
        saver
            .job(Job::Send(Arc::clone(&link), acknowledgement))
            .await;
        saver.job(Job::Close(link)).await;
        assert_eq!(said.recv().await, None, "the link is let go of");
        disk.make();
        saver.finish().await;
        assert!(disk.path.exists());
    }
}
