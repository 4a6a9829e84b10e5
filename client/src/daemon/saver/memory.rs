//! The engine's memory on its way to the disk, one write at a time, and the acknowledgements that rest on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use gatereeve_client_core::stored::Stored;
use gatereeve_shared::wire::client::ClientMessage;

use super::{Write, outcome, say};
use crate::control::ControlLink;
use crate::daemon::state_dir::save_stored;

/// Time before a write that failed is tried again: twice as long after each, up to the second one.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// A memory, and the newest acknowledgement that rests on it.
#[derive(Debug)]
struct Version {
    stored: Box<Stored>,
    acknowledgement: Option<(Arc<ControlLink>, Box<ClientMessage>)>,
}

/// A write that is under way.
#[derive(Debug)]
struct Writing {
    write: Write,
    version: Version,
    /// Whether it is tried again because it was time to.
    is_retry: bool,
}

/// What is on its way.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    problem: watch::Sender<Option<String>>,
    writing: Option<Writing>,
    /// What is to be written after that: the newest, or what the disk did not take.
    next: Option<Version>,
    /// How long it is left alone, and until when, since a write has failed.
    rest: Option<(Duration, Instant)>,
}

impl Memory {
    /// Nothing to write yet.
    pub(super) fn new(path: PathBuf, problem: watch::Sender<Option<String>>) -> Self {
        Self {
            path,
            problem,
            writing: None,
            next: None,
            rest: None,
        }
    }

    /// Whether the newest memory is on the disk.
    pub(super) fn is_written(&self) -> bool {
        self.writing.is_none() && self.next.is_none()
    }

    /// Has a newer memory written than any before.
    pub(super) fn save(&mut self, stored: Box<Stored>) {
        let acknowledgement = self.next.take().and_then(|next| next.acknowledgement);
        self.next = Some(Version {
            stored,
            acknowledgement,
        });
        if self.writing.is_none() {
            self.begin(false);
        }
    }

    /// Says `acknowledgement` once the newest memory is written.
    pub(super) fn acknowledge(
        &mut self,
        link: Arc<ControlLink>,
        acknowledgement: Box<ClientMessage>,
    ) {
        let writing = self.writing.as_mut().map(|writing| &mut writing.version);
        match self.next.as_mut().or(writing) {
            Some(version) => version.acknowledgement = Some((link, acknowledgement)),
            None => say(&link, *acknowledgement),
        }
    }

    /// The link is let go of, and what was to be said over it.
    pub(super) fn forget(&mut self, link: &Arc<ControlLink>) {
        let writing = self.writing.as_mut().map(|writing| &mut writing.version);
        for version in self.next.as_mut().into_iter().chain(writing) {
            let held = &mut version.acknowledgement;
            held.take_if(|(held, _)| Arc::ptr_eq(held, link));
        }
    }

    /// Waits for the disk, or until it is to be asked again, and does what follows; for ever where all is written. It can be
    /// dropped and called again at any time.
    pub(super) async fn go_on(&mut self) {
        match (&mut self.writing, self.rest) {
            (Some(writing), _) => {
                let failed = outcome((&mut writing.write).await);
                if let Some(writing) = self.writing.take() {
                    self.ended(writing, failed);
                }
            }
            (None, Some((_, until))) if self.next.is_some() => {
                sleep_until(until).await;
                self.begin(true);
            }
            (None, _) => std::future::pending().await,
        }
    }

    /// Waits until nothing is being written. What has failed may be left then.
    pub(super) async fn written(&mut self) {
        while self.writing.is_some() {
            self.go_on().await;
        }
    }

    /// What could not be written before may be now: it is the last chance.
    pub(super) async fn finish(&mut self) {
        self.written().await;
        self.begin(false);
        self.written().await;
    }

    fn begin(&mut self, is_retry: bool) {
        if let Some(version) = self.next.take() {
            let (path, stored) = (self.path.clone(), version.stored.clone());
            self.writing = Some(Writing {
                write: tokio::task::spawn_blocking(move || save_stored(&path, &stored)),
                version,
                is_retry,
            });
        }
    }

    fn ended(&mut self, writing: Writing, failed: Option<String>) {
        let Writing {
            version, is_retry, ..
        } = writing;
        let is_newer = self.next.is_some();
        if let Some(error) = &failed {
            tracing::warn!(%error, "the state was not written; no generation is acknowledged until it is");
            let after = |rest| Some((rest, Instant::now() + rest));
            self.rest = match self.rest {
                None => after(AGAIN.0),
                Some((rest, _)) if is_retry => after(rest.saturating_mul(2).min(AGAIN.1)),
                // When it is tried again does not go by how often there is something new.
                resting => resting,
            };
            let next = self.next.get_or_insert_with(|| Version {
                stored: version.stored,
                acknowledgement: None,
            });
            next.acknowledgement = next.acknowledgement.take().or(version.acknowledgement);
        } else {
            self.rest = None;
            if let Some((link, acknowledgement)) = version.acknowledgement {
                say(&link, *acknowledgement);
            }
        }
        self.problem.send_replace(failed);
        if is_newer {
            self.begin(false);
        }
    }

    /// As if `write` were under way.
    #[cfg(test)]
    pub(super) fn writes(&mut self, write: Write) {
        self.writing = Some(Writing {
            write,
            version: Version {
                stored: Box::default(),
                acknowledgement: None,
            },
            is_retry: false,
        });
    }
}
