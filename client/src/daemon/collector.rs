//! Posture, collected by a process of its own: when the engine asks, and when something watched changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use gatereeve_client_core::output::ObservedFact;
use gatereeve_runtime::clock::Clock;

use crate::posture::CollectRequest;
use crate::posture::process::run_collector;
use crate::posture::watch::ChangeWatch;

/// This program, even when its file was replaced by an upgrade.
const PROGRAM: &str = "/proc/self/exe";
/// How long collecting may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between looks at what is watched.
const LOOK: Duration = Duration::from_secs(1);
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

/// The task that collects. Dropped, it stops.
#[derive(Debug)]
pub struct Collector {
    requests: mpsc::Sender<Vec<String>>,
}

impl Collector {
    /// Starts the task; administrator's facts are looked for below `config_dir`.
    #[must_use]
    pub fn start(config_dir: PathBuf, results: mpsc::Sender<Collected>) -> Self {
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
        tokio::spawn(run(request, inbox, results));
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
    mut inbox: mpsc::Receiver<Vec<String>>,
    results: mpsc::Sender<Collected>,
) {
    let mut watch = ChangeWatch::new(request.clone());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = ticks.tick() => {
                let looked = tokio::task::spawn_blocking(move || {
                    let changed = watch.look();
                    (watch, changed)
                });
                match looked.await {
                    Ok((back, changed)) => {
                        watch = back;
                        // Nobody wants facts before the engine has asked for the first time.
                        changed && asked
                    }
                    Err(error) => {
                        tracing::error!(%error, "the posture watch has failed");
                        watch = ChangeWatch::new(request.clone());
                        asked
                    }
                }
            }
        };
        if due && results.send(collect(&request).await).await.is_err() {
            return;
        }
    }
}

async fn collect(request: &CollectRequest) -> Collected {
    let observed = Clock::mono();
    match run_collector(Path::new(PROGRAM), request, DEADLINE).await {
        Ok(facts) => Collected {
            facts: facts
                .into_iter()
                .map(|fact| ObservedFact {
                    id: fact.id,
                    value: fact.value,
                    source: fact.source,
                    observed,
                })
                .collect(),
            problem: None,
        },
        Err(error) => {
            let problem = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error = %problem, "posture was not collected");
            Collected {
                facts: Vec::new(),
                problem: Some(problem),
            }
        }
    }
}
