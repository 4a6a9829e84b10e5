//! Posture: when the engine asks, and when something watched changes. A process of its own collects it; the
//! firewall alone is read here, where its rules are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use gatereeve_client_core::output::ObservedFact;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::posture::fact::names;
use gatereeve_shared::time::Mono;

use crate::helper::Helper;
use crate::posture::connection::{self, ConnectionError};
use crate::posture::watch::{ChangeWatch, Sight};
use crate::posture::{CollectRequest, CollectedFact, nftables};

/// How long collecting may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Requests that may wait; one more asks for nothing new.
const QUEUE: usize = 4;
/// Time before a collection that failed is tried again: doubled with each that fails, up to the latter.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What came of one collection.
#[derive(Debug)]
pub struct Collected {
    /// The facts; none where collecting failed, so that every check that asks for one fails.
    pub facts: Vec<ObservedFact>,
    /// Why it failed.
    pub problem: Option<String>,
}

/// Who collects.
#[derive(Clone, Debug)]
pub struct Collectors {
    /// Where a collector listens, if one does.
    pub socket: PathBuf,
    /// Starts one, where none listens.
    pub helper: Option<Arc<Helper>>,
    /// Whose processes this one can look at.
    pub sight: Sight,
}

/// The task that collects. Dropped, it stops.
#[derive(Debug)]
pub struct Collector {
    requests: mpsc::Sender<Vec<String>>,
}

impl Collector {
    /// Starts the task; administrator's facts are looked for below `config_dir`.
    #[must_use]
    pub fn start(
        config_dir: PathBuf,
        collectors: Collectors,
        results: mpsc::Sender<Collected>,
    ) -> Self {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let request = CollectRequest {
            root: PathBuf::from("/"),
            config_dir,
            watched: Vec::new(),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends when the collector is dropped"
        )]
        tokio::spawn(run(request, collectors, inbox, results));
        Self { requests }
    }

    /// Collects now; `watched` are the executables whose running is asked for.
    pub fn collect(&self, watched: Vec<String>) {
        // A full queue means that several collections are due already.
        drop(self.requests.try_send(watched));
    }
}

async fn run(
    mut request: CollectRequest,
    collectors: Collectors,
    mut inbox: mpsc::Receiver<Vec<String>>,
    results: mpsc::Sender<Collected>,
) {
    let mut watch = ChangeWatch::new(request.clone(), collectors.sight).await;
    let mut asked = false;
    let mut retry = Retry::default();
    loop {
        let due = tokio::select! {
            wanted = inbox.recv() => match wanted {
                Some(watched) => {
                    request.watched.clone_from(&watched);
                    watch.set_watched(watched).await;
                    asked = true;
                    true
                }
                None => return,
            },
            // Nobody wants facts before the engine has asked for the first time.
            () = watch.changed() => asked,
            () = retry.due() => true,
        };
        if !due {
            continue;
        }
        let observed = Clock::mono();
        let collected = match collectors.collect(&request).await {
            Ok(facts) => {
                retry = Retry::default();
                watch.set_found(facts.iter().filter_map(found));
                Collected {
                    facts: facts
                        .into_iter()
                        .map(|fact| as_observed(fact, observed))
                        .collect(),
                    problem: None,
                }
            }
            Err(problem) => {
                tracing::warn!(error = %problem, "posture was not collected");
                let delay = retry.put_off();
                Collected {
                    facts: Vec::new(),
                    problem: Some(format!(
                        "posture is not known, so that every check fails: {problem}; it is tried again within {delay:?}"
                    )),
                }
            }
        };
        if results.send(collected).await.is_err() {
            return;
        }
    }
}

/// When to try again what failed.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
    at: Option<tokio::time::Instant>,
}

impl Retry {
    /// Waits until it is time; for ever where nothing failed.
    async fn due(&self) {
        match self.at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// It failed once more. How long it is put off.
    fn put_off(&mut self) -> Duration {
        let (first, longest) = RETRY;
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let delay = first.saturating_mul(factor).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.at = Some(tokio::time::Instant::now() + delay);
        delay
    }
}

impl Collectors {
    /// What there is to know; or why there is nothing, in words.
    async fn collect(&self, request: &CollectRequest) -> Result<Vec<CollectedFact>, String> {
        let watched = &request.watched;
        let words = |error: anyhow::Error| in_words(&error);
        let asked = if self.socket.exists() {
            match connection::ask(&self.socket, watched, DEADLINE).await {
                // A socket that is left over: nobody listens.
                Err(ConnectionError::Connection { source, .. })
                    if source.kind() == io::ErrorKind::ConnectionRefused =>
                {
                    None
                }
                asked => Some(asked.map_err(|error| words(error.into()))?),
            }
        } else {
            None
        };
        let mut facts = match (asked, &self.helper) {
            (Some(facts), _) => facts,
            (None, Some(helper)) => helper
                .collect(watched)
                .await
                .map_err(|error| words(error.into()))?,
            (None, None) => {
                return Err(format!(
                    "no posture collector listens at {}; start gatereeve-posture.socket, or restart the daemon without it",
                    self.socket.display()
                ));
            }
        };
        // The firewall is what the kernel says here, whatever a collector makes of it.
        facts.retain(|fact| fact.id != names::FIREWALL);
        let firewall = tokio::task::spawn_blocking(nftables::firewall)
            .await
            .map_err(|error| words(error.into()))?;
        facts.push(firewall);
        Ok(facts)
    }
}

fn as_observed(fact: CollectedFact, observed: Mono) -> ObservedFact {
    ObservedFact {
        id: fact.id,
        value: fact.value,
        source: fact.source,
        observed,
    }
}

/// A watched executable, and the process that runs it.
fn found(fact: &CollectedFact) -> Option<(String, u32)> {
    let path = fact.id.strip_prefix(names::PROCESS_PREFIX)?;
    Some((path.to_owned(), fact.pid?))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_more_rarely() {
        let mut retry = Retry::default();
        let never = tokio::time::timeout(RETRY.1 * 100, retry.due()).await;
        assert!(never.is_err(), "nothing failed");
        let mut delays = Vec::new();
        for _ in 0..40 {
            let before = tokio::time::Instant::now();
            let delay = retry.put_off();
            retry.due().await;
            assert!(before.elapsed() >= delay, "{delay:?}");
            delays.push(delay.as_secs());
        }
        assert!(
            delays.starts_with(&[1, 2, 4, 8, 16, 32, 60, 60]),
            "{delays:?}"
        );
        assert_eq!(delays.last(), Some(&60));
    }

    #[tokio::test]
    async fn a_socket_that_is_left_over_is_no_collector() {
        let directory = tempfile::tempdir().unwrap();
        let collectors = Collectors {
            socket: directory.path().join("s"),
            helper: None,
            sight: Sight::Own,
        };
        drop(tokio::net::UnixListener::bind(&collectors.socket).unwrap());
        assert!(collectors.socket.exists());
        let request = CollectRequest {
            root: "/".into(),
            config_dir: directory.path().into(),
            watched: Vec::new(),
        };
        let problem = collectors.collect(&request).await.unwrap_err();
        assert!(problem.contains("listens"), "{problem}");
    }

    #[tokio::test]
    async fn a_collector_that_is_back_is_asked_without_being_told() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let collectors = Collectors {
            socket: socket.clone(),
            helper: None,
            sight: Sight::Own,
        };
        let (results, mut collected) = mpsc::channel(1);
        let collector = Collector::start(directory.path().into(), collectors, results);
        collector.collect(Vec::new());
        let failed = collected.recv().await.unwrap();
        let problem = failed.problem.unwrap();
        assert!(problem.contains("every check fails"), "{problem}");
        assert!(failed.facts.is_empty());

        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; 128];
                assert!(stream.read(&mut question).await.unwrap() > 0);
                stream.write_all(b"[]").await.unwrap();
            }
        };
        let found = async {
            loop {
                let result = collected.recv().await.unwrap();
                if result.problem.is_none() {
                    return result;
                }
            }
        };
        let found = tokio::time::timeout(RETRY.1, found);
        let found = tokio::select! {
            found = found => found.unwrap(),
            () = serve => unreachable!("it serves for ever"),
        };
        assert!(found.facts.iter().any(|fact| fact.id == names::FIREWALL));
    }
}
