//! Posture: when the engine asks, and when something watched changes. A process of its own collects it; the
//! firewall alone is read here, where its rules are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use gatereeve_client_core::output::ObservedFact;
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::posture::fact::names;
use gatereeve_shared::time::Mono;

use crate::helper::Helper;
use crate::posture::watch::{ChangeWatch, Sight};
use crate::posture::{CollectRequest, CollectedFact, connection, nftables};

/// How long collecting may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Requests that may wait; one more asks for nothing new.
const QUEUE: usize = 4;

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
    let mut watch = ChangeWatch::new(request.clone(), collectors.sight);
    let mut asked = false;
    loop {
        let due = tokio::select! {
            wanted = inbox.recv() => match wanted {
                Some(watched) => {
                    request.watched.clone_from(&watched);
                    watch.set_watched(watched);
                    asked = true;
                    true
                }
                None => return,
            },
            // Nobody wants facts before the engine has asked for the first time.
            () = watch.changed() => asked,
        };
        if !due {
            continue;
        }
        let observed = Clock::mono();
        let collected = match collectors.collect(&request).await {
            Ok(facts) => {
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
                Collected {
                    facts: Vec::new(),
                    problem: Some(problem),
                }
            }
        };
        if results.send(collected).await.is_err() {
            return;
        }
    }
}

impl Collectors {
    /// What there is to know; or why there is nothing, in words.
    async fn collect(&self, request: &CollectRequest) -> Result<Vec<CollectedFact>, String> {
        let watched = &request.watched;
        let words = |error: anyhow::Error| format!("{error:#}");
        let mut facts = if self.socket.exists() {
            connection::ask(&self.socket, watched, DEADLINE)
                .await
                .map_err(|error| words(error.into()))?
        } else if let Some(helper) = &self.helper {
            helper
                .collect(watched)
                .await
                .map_err(|error| words(error.into()))?
        } else {
            return Err(format!(
                "no posture collector listens at {}; start gatereeve-posture.socket, or restart the daemon without it",
                self.socket.display()
            ));
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
