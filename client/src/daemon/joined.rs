//! All that exists while the device is in a network: the engine, its data path, its link to the
//! controller; and the one place where the engine's outputs are carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot};

use gatereeve_client_core::api::WhyView;
use gatereeve_client_core::datapath::{DataPath, TableSpec};
use gatereeve_client_core::engine::{Engine, EngineConfig};
use gatereeve_client_core::output::{HostConfig, Output};
use gatereeve_client_core::wg::NoiseTunnels;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::controller::EnrollReply;
use gatereeve_shared::wire::map::OverlayPrefixes;

use super::collector::{Collected, Collector, Collectors};
use super::enforced::EnforcedWatch;
use super::engine_loop::EngineInput;
use super::saver::network::NetworkSaver;
use super::saver::{Job, Saver};
use super::state_dir::{self, NetworkFile, StateDir};
use super::{Daemon, HOST_RETRY};
use crate::control::{ControlEvent, ControlLink, Names, Target};
use crate::routes::overlap;

/// Events of the control link that may wait; the link waits beyond.
const CONTROL_EVENTS: usize = 256;
/// Questions of `why` that wait for their answer at most.
const QUESTIONS: usize = 128;

/// How long the end of a connection may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// The device's part in its network.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) engine: Engine,
    pub(super) network: NetworkFile,
    pub(super) datapath: Arc<DataPath>,
    pub(super) saver: Saver,
    pub(super) network_saver: NetworkSaver,
    /// What the host is to look like.
    host_wanted: Option<HostConfig>,
    /// When the host is to be made so.
    pub(super) host_due: Option<Mono>,
    /// Why it was not.
    pub(super) host_problem: Option<String>,
    /// Addresses that peers have or had since the start: the overlay's, whatever the host's networks are.
    pub(super) known: BTreeSet<IpAddr>,
    /// Whether there are more of them than were looked at.
    pub(super) has_new_peers: bool,
    /// Why posture was not collected.
    pub(super) posture_problem: Option<String>,
    /// Why the enrollment was refused.
    pub(super) refusal: Option<String>,
    /// What was wrong with the state that an earlier run left.
    pub(super) state_problem: Option<String>,
    identity: Arc<IdentityKey>,
    watch: EnforcedWatch,
    enforced: mpsc::Receiver<u64>,
    /// A table was published that the host has not heard of.
    pub(super) has_new_table: bool,
    /// The last table is enforced already.
    enforced_now: Option<u64>,
    link: Option<(Arc<ControlLink>, mpsc::Receiver<ControlEvent>)>,
    collector: Collector,
    /// Who looks up the controllers' names.
    names: Names,
    collected: mpsc::Receiver<Collected>,
    questions: BTreeMap<u64, oneshot::Sender<WhyView>>,
    next_question: u64,
}

impl Daemon {
    /// Begins to take part in `network`, as far as its `up` says.
    pub(super) fn enter(&mut self, network: NetworkFile) -> Result<()> {
        let config_dir = self.config.config_dir.clone();
        let state = &self.engine.state;
        let mut joined = Joined::new(network, state, config_dir, self.collectors.clone())?;
        let up = joined.network.up;
        joined.engine.handle_up(up, Clock::now());
        self.engine.joined = Some(joined);
        self.refused = None;
        self.announce();
        Ok(())
    }

    /// Leaves the network and forgets its keys.
    pub(super) async fn leave(&mut self) -> Result<()> {
        if let Some(mut joined) = self.engine.joined.take() {
            joined.engine.handle_leave(Clock::now());
            joined.drain().await;
            self.engine.meanwhile(joined.finish()).await;
        }
        let removed = self.engine.meanwhile(self.host.take_down()).await;
        self.engine.state.forget()?;
        removed
            .map(drop)
            .context("the host's routes were not all removed")
    }
}

impl Joined {
    fn new(
        network: NetworkFile,
        state: &StateDir,
        config_dir: std::path::PathBuf,
        collectors: Collectors,
    ) -> Result<Self> {
        let now = Clock::now();
        let identity = Arc::new(state.identity()?);
        let (stored, state_problem) = state.stored()?;
        let config = EngineConfig {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            identity: Arc::clone(&identity),
            network: network.fingerprint,
        };
        let datapath = Arc::new(DataPath::new(seed()?, Box::new(NoiseTunnels), now.mono));
        datapath.greet(state.take_recent(now.unix));
        let (enforced_sender, enforced) = mpsc::channel(1);
        let (collected_sender, collected) = mpsc::channel(1);
        Ok(Self {
            engine: Engine::new(config, stored, seed()?, now),
            network,
            watch: EnforcedWatch::start(Arc::clone(&datapath), enforced_sender)?,
            datapath,
            saver: Saver::start(state.stored_path()),
            network_saver: NetworkSaver::start(state.network_path()),
            host_wanted: None,
            host_due: None,
            host_problem: None,
            known: BTreeSet::new(),
            has_new_peers: false,
            posture_problem: None,
            refusal: None,
            state_problem,
            identity,
            enforced,
            has_new_table: false,
            enforced_now: None,
            link: None,
            names: match &collectors.helper {
                Some(helper) => Names::Helper(Arc::clone(helper)),
                None => Names::System,
            },
            collector: Collector::start(config_dir, collectors, collected_sender),
            collected,
            questions: BTreeMap::new(),
            next_question: 0,
        })
    }

    /// The overlay, as far as it is known.
    pub(super) fn prefixes(&self) -> Option<OverlayPrefixes> {
        self.host_wanted.as_ref()?.prefixes
    }

    /// Waits for something of this network's own to happen.
    pub(super) async fn next(&mut self) -> EngineInput {
        let control = async {
            match &mut self.link {
                Some((_, events)) => events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(serial) = self.enforced.recv() => EngineInput::Enforced(serial),
            event = control => EngineInput::Control(Box::new(event.unwrap_or_else(|| ControlEvent::Disconnected {
                error: "the connection has ended".into(),
                mismatch: false,
            }))),
            Some(collected) = self.collected.recv() => EngineInput::Collected(collected),
        }
    }

    /// Carries out everything that the engine wants.
    pub(super) async fn drain(&mut self) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                self.carry_out(output).await;
            }
            let Some(serial) = self.enforced_now.take() else {
                break;
            };
            self.engine.handle_enforced(serial, Clock::now());
        }
    }

    /// One arm per output; none is ignored.
    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Publish(spec) => {
                let serial = spec.serial;
                self.remember(&spec);
                self.datapath.publish(spec, Clock::mono());
                self.has_new_table = true;
                // Idle workers hold nothing up: most tables are enforced by now.
                if self.datapath.enforced() >= serial {
                    self.enforced_now = Some(serial);
                } else {
                    self.watch.published(serial);
                }
            }
            Output::Shut => self.datapath.shut(),
            Output::OpenUntil(until) => self.datapath.open_until(until),
            Output::Save(stored) => self.saver.job(Job::Save(stored)).await,
            Output::Host(wanted) => {
                self.host_wanted = Some(wanted);
                self.host_due = Some(Clock::mono());
            }
            Output::Connect { attempt } => self.connect(attempt),
            Output::Disconnect => {
                if let Some((link, _)) = self.link.take() {
                    self.saver.job(Job::Close(link)).await;
                }
            }
            Output::Send(message) => {
                if let Some((link, _)) = &self.link {
                    let job = Job::Send(Arc::clone(link), Box::new(message));
                    self.saver.job(job).await;
                }
            }
            Output::CollectPosture { watched } => self.collector.collect(watched),
            Output::WhyAnswer { request, view } => {
                if let Some(asker) = self.questions.remove(&request) {
                    // Who asked may be gone.
                    drop(asker.send(view));
                }
            }
            Output::Enrolled(EnrollReply::Done(standing)) => {
                tracing::info!(?standing, "enrolled");
            }
            Output::Enrolled(EnrollReply::Refused(refusal)) => self.refusal = Some(refusal.message),
        }
    }

    fn remember(&mut self, spec: &TableSpec) {
        let before = self.known.len();
        for peer in &spec.peers {
            if self.known.len() < overlap::MOST_KNOWN {
                self.known.insert(peer.addresses.v4.into());
                self.known.insert(peer.addresses.v6.into());
            }
        }
        self.has_new_peers |= self.known.len() > before;
    }

    fn connect(&mut self, attempt: u32) {
        let mut controllers = self.network.controllers.clone();
        if !controllers.is_empty() {
            let first = usize::try_from(attempt).unwrap_or(0) % controllers.len();
            controllers.rotate_left(first);
        }
        let target = Target {
            controllers,
            network: self.network.fingerprint,
            identity: Arc::clone(&self.identity),
            known_tls: self.network.known_tls_key(),
            names: self.names.clone(),
        };
        let (sender, events) = mpsc::channel(CONTROL_EVENTS);
        self.link = Some((Arc::new(ControlLink::connect(target, sender)), events));
    }

    /// Something that the link to the controller brought.
    pub(super) fn take_control(&mut self, event: ControlEvent, now: Now) {
        match event {
            ControlEvent::Connected { hello, local: _ } => {
                if self.network.set_tls_key(&hello.binding.tls_key) {
                    drop(self.network_saver.save(self.network.clone()));
                }
                self.engine.handle_connected(hello, now);
            }
            ControlEvent::Message(message) => self.engine.handle_control(message, now),
            ControlEvent::Disconnected { error, mismatch } => {
                self.link = None;
                if mismatch && self.network.tls_key.take().is_some() {
                    // The network key decides which TLS key is right; ask it again.
                    drop(self.network_saver.save(self.network.clone()));
                }
                self.engine.handle_disconnected(error, now);
            }
        }
    }

    /// What the collector found.
    pub(super) fn take_collected(&mut self, collected: Collected, now: Now) {
        self.posture_problem = collected.problem;
        self.engine.handle_posture(collected.facts, now);
    }

    /// What the host is to be made, if anything is known of that.
    pub(super) fn begin_host(&mut self) -> Option<(HostConfig, Vec<String>, Arc<DataPath>)> {
        self.host_due = None;
        let wanted = self.host_wanted.clone()?;
        let controllers = self.network.controllers.clone();
        Some((wanted, controllers, Arc::clone(&self.datapath)))
    }

    /// What came of it; where it failed it is due again, unless something else is sooner.
    pub(super) fn end_host(&mut self, applied: Result<Vec<String>>) -> Vec<String> {
        self.host_problem = applied.as_ref().err().map(in_words);
        applied.unwrap_or_else(|_| {
            let problem = self.host_problem.as_deref();
            tracing::warn!(error = problem, "the host's network is not as it should be");
            let again = Clock::mono().saturating_add(HOST_RETRY);
            self.host_due = Some(self.host_due.map_or(again, |due| due.min(again)));
            Vec::new()
        })
    }

    /// Asks the engine; the answer comes through the receiver. `None` when too many questions wait.
    pub(super) fn ask(
        &mut self,
        peer: String,
        protocol: gatereeve_shared::policy::port::Protocol,
        port: u16,
    ) -> Option<oneshot::Receiver<WhyView>> {
        self.questions.retain(|_, asker| !asker.is_closed());
        if self.questions.len() >= QUESTIONS {
            return None;
        }
        let (asker, answer) = oneshot::channel();
        self.next_question += 1;
        self.questions.insert(self.next_question, asker);
        self.engine
            .handle_why(self.next_question, peer, protocol, port, Clock::now());
        Some(answer)
    }

    /// Who has a session, those with the newest first.
    pub(super) fn recent(&self, now: Now) -> Vec<DeviceId> {
        let stats = self.datapath.peer_stats().into_iter();
        let mut recent: Vec<_> = stats
            .filter_map(|peer| Some((now.mono.since(peer.last_handshake?), peer.device)))
            .filter(|(age, _)| *age < state_dir::RECENT)
            .collect();
        recent.sort();
        recent.truncate(DataPath::GREETED);
        recent.into_iter().map(|(_, device)| device).collect()
    }

    /// Writes and says what is queued, and closes the link.
    pub(super) async fn finish(self) {
        let mut events = None;
        if let Some((link, receiver)) = self.link {
            self.saver.job(Job::Close(link)).await;
            events = Some(receiver);
        }
        self.saver.finish().await;
        self.network_saver.finish().await;
        // The controller is to hear of it before the process ends.
        if let Some(mut events) = events {
            let closed = async { while events.recv().await.is_some() {} };
            if tokio::time::timeout(GOODBYE, closed).await.is_err() {
                tracing::debug!("the controller was not told of the end in time");
            }
        }
    }
}

/// 32 bytes from the operating system.
fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system gives no random numbers")?;
    Ok(seed)
}
