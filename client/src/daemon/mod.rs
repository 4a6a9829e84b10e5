//! The daemon: one task owns the [`Engine`](gatereeve_client_core::engine::Engine), takes whatever comes
//! in one by one, and carries out what the engine answers.
//!
//! * [`engine_loop`]: the engine and what it is told, which waits for nothing else.
//! * [`joined`]: all that exists while the device is in a network, and the carrying out.
//! * [`requests`]: what the local API asks; [`flows`] has one of the answers.
//! * [`workers`], [`enforced`]: the data-path threads, and the watch over what they enforce.
//! * [`host`]: interface, addresses and routes. [`state_dir`], [`saver`]: what is kept on disk.
//! * [`confine`]: the sandbox, entered before anything else.
//! * [`collector`]: posture, by a process of its own. [`ping`]: echo through the tunnel.

pub mod collector;
pub mod confine;
pub mod enforced;
mod engine_loop;
mod flows;
pub mod host;
pub mod joined;
mod local_api;
pub mod ping;
mod program_pages;
mod requests;
pub mod saver;
pub mod state_dir;
pub mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{Semaphore, mpsc, watch};

use gatereeve_client_core::datapath::DataPathEvent;
use gatereeve_runtime::alarm::Alarm;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::notify::{self, Notifier};
use gatereeve_runtime::process;
use gatereeve_runtime::sandbox::Confinement;
use gatereeve_runtime::shutdown::Shutdown;
use gatereeve_runtime::telemetry;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::OverlayPrefixes;

use crate::cli::{DaemonArgs, Failure};
use crate::config::{Cipher, Config};
use crate::dns::keeper::Keeper;
use crate::helper::PreparedHelper;
use crate::routes::changes::NetworkChanges;
use crate::routes::interfaces::{self, NetworkView};
use crate::routes::netlink::NetworkThread;
use crate::routes::{self, FWMARK, overlap};
use crate::udp::{Udp, UdpOptions};

use collector::Collectors;
use confine::Confined;
use engine_loop::{EngineInput, EngineLoop};
use host::Host;
use joined::Joined;
use local_api::Call;
use program_pages::Tables;
use state_dir::StateDir;

pub use local_api::{OPERATIONS, address};

/// Hints of the data path that may wait; more are lost.
const EVENTS: usize = 1024;
/// Longest sleep. Shorter than the gap that the engine takes for a suspend, so that it hears of each at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Time before a change to the host that failed is tried again.
const HOST_RETRY: Duration = Duration::from_secs(2);
/// Least time between two looks at what of ours has gone: whoever fights over it shall not have all the CPU.
const DISTURBANCE: Duration = Duration::from_secs(1);
/// How long requests at hand may take when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`Failure`] when it cannot start: settings, state directory, socket or port.
pub fn run(arguments: &DaemonArgs, socket: PathBuf) -> Result<(), Failure> {
    let _logging = telemetry::init(arguments.log_json);
    if let Err(errno) = process::keep_memory_private() {
        tracing::warn!(%errno, "core dumps could not be switched off: keys could get into one");
    }
    let config = Config::load(arguments, socket).map_err(|error| Failure {
        status: 2,
        message: in_words(&error),
    })?;
    if config.cipher == Cipher::AwsLc {
        gatereeve_cipher::use_aws_lc();
    }
    tracing::info!(cipher = %gatereeve_cipher::implementation(), "packets are sealed and opened");
    let confined = confine::confine(&config).map_err(|error| Failure::failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(&error.into()))?;
    runtime
        .block_on(async {
            let shutdown = Shutdown::new();
            shutdown.on_signals().context("cannot watch for signals")?;
            let daemon = Daemon::start(config, confined, shutdown).await?;
            Box::pin(daemon.run()).await
        })
        .map_err(|error| Failure::failed(&error))
}

/// The daemon's task.
#[derive(Debug)]
struct Daemon {
    config: Config,
    shutdown: Shutdown,
    /// What goes on whatever is done to the host.
    engine: EngineLoop,
    udp: Arc<Udp>,
    host: Host,
    /// Does what waits for the kernel.
    network: NetworkThread,
    /// Why the network was left without being asked to.
    refused: Option<String>,
    /// What went wrong at the start and does not keep the daemon from running.
    warnings: Vec<String>,
    confinement: Confinement,
    collectors: Collectors,
    interfaces: Option<watch::Receiver<NetworkView>>,
    /// Told to the watch over the interfaces.
    overlay: watch::Sender<Option<OverlayPrefixes>>,
    /// Where the host's own networks overlap the overlay.
    overlaps: Vec<String>,
    /// How often something of ours had gone from the host when that was looked at last, and when.
    disturbed: (u64, Mono),
    /// When the way out carried something else last.
    narrowed: Mono,
    calls: mpsc::Receiver<Call>,
    events: mpsc::Receiver<DataPathEvent>,
    /// Pings at a time: each takes a thread, and anybody on the host may ask for one.
    pings: Arc<Semaphore>,
}

/// Pings at a time.
const PINGS: usize = 16;

/// One thing that happened.
#[derive(Debug)]
enum Input {
    Stop,
    Engine(EngineInput),
    Event(DataPathEvent),
    Interfaces,
    Broken(String),
    Call(Call),
}

impl Daemon {
    async fn start(config: Config, confined: Confined, shutdown: Shutdown) -> Result<Self> {
        let helper = confined.helper.map(PreparedHelper::start).transpose()?;
        let helper = helper.map(Arc::new);
        let collectors = Collectors {
            socket: config.posture_socket.clone(),
            helper: helper.clone(),
            sight: confined.sight,
        };
        let state = StateDir::open(&config.state_dir)?;
        let sockets = UdpOptions {
            mark: FWMARK,
            workers: workers::wanted(),
            offload: config.offload,
        };
        let udp = Arc::new(Udp::bind(&config.listen, sockets)?);
        let (event_sender, events) = mpsc::channel(EVENTS);
        let network_thread = NetworkThread::start()?;
        let host = Host::new(
            &config,
            network_thread.clone(),
            Keeper::start(helper, &shutdown),
            Arc::clone(&udp),
            event_sender,
        )?;
        let network = state.network()?;
        let confinement = confined.confinement;
        let mut warnings = confinement.missing.clone();
        let (overlay, prefixes) = watch::channel(None);
        let interfaces = watch_interfaces(&network_thread, &config.tun, prefixes, udp.changes())
            .await
            .inspect_err(|warning| warnings.push(warning.clone()))
            .ok();
        let calls = local_api::listen(&config, &shutdown)?;
        // The service manager hears that we are ready with this task's first answer.
        let (heart, watch) = notify::pulse(Notifier::from_environment());
        shutdown.spawn(watch.run(shutdown.token.clone()));
        let mut daemon = Self {
            config,
            shutdown,
            engine: EngineLoop {
                joined: None,
                state,
                alarm: Alarm::new().context("cannot make a timer")?,
                heart,
            },
            udp,
            host,
            network: network_thread,
            refused: None,
            warnings,
            confinement,
            collectors,
            interfaces,
            overlay,
            overlaps: Vec::new(),
            disturbed: (0, Mono(0)),
            narrowed: Mono(0),
            calls,
            events,
            pings: Arc::new(Semaphore::new(PINGS)),
        };
        match network {
            Some(network) => {
                let up = network.up;
                daemon.enter(network)?;
                if !up {
                    daemon.clear_host().await;
                }
                daemon.drain().await;
            }
            None => daemon.clear_host().await,
        }
        tracing::info!(
            socket = %daemon.config.socket.display(),
            port = daemon.udp.port(),
            joined = daemon.engine.joined.is_some(),
            "the daemon runs"
        );
        confined.tables.iter().for_each(Tables::let_go);
        Ok(daemon)
    }

    async fn run(mut self) -> Result<()> {
        loop {
            let input = self.next().await;
            if matches!(input, Input::Stop) {
                break;
            }
            self.take(input).await;
            self.drain().await;
            self.settle().await;
        }
        tracing::info!("the daemon stops");
        // Overlay traffic must not leave in clear until the next start: what fails closed stays, until `down`.
        let joined = &self.engine.joined;
        let takes_part = joined.as_ref().is_some_and(|j| j.network.up);
        if let Some(joined) = joined {
            // Nobody tells the data path anything any more, and disk and kernel may take long.
            joined.datapath.shut();
        }
        if let Some(joined) = joined.as_ref().filter(|_| takes_part) {
            let now = Clock::now();
            self.engine.state.keep_recent(joined.recent(now), now.unix);
        }
        let removed = if takes_part {
            self.host.stop().await;
            Ok(Vec::new())
        } else {
            self.host.take_down().await
        };
        if let Some(joined) = self.engine.joined.take() {
            joined.finish().await;
        }
        self.shutdown.finish(GRACE).await;
        removed
            .map(drop)
            .context("the host's routes were not all removed")
    }

    /// Waits for the next thing to happen.
    async fn next(&mut self) -> Input {
        let latest = Clock::mono().saturating_add(LONGEST_SLEEP);
        let host_due = self.engine.joined.as_ref().and_then(|j| j.host_due);
        let latest = host_due.map_or(latest, |due| due.min(latest));
        let changed = async {
            let changed = match &mut self.interfaces {
                Some(interfaces) => interfaces.changed().await.is_ok(),
                None => false,
            };
            if !changed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.token.cancelled() => Input::Stop,
            input = self.engine.next(latest) => Input::Engine(input),
            broken = self.host.broken() => Input::Broken(broken),
            Some(call) = self.calls.recv() => Input::Call(call),
            () = changed => Input::Interfaces,
            Some(event) = self.events.recv() => Input::Event(event),
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Call(call) => self.answer(call).await,
            Input::Engine(input) => self.engine.take(input),
            Input::Event(event) => {
                if let Some(joined) = &mut self.engine.joined {
                    joined.engine.handle_event(event, Clock::now());
                }
            }
            Input::Interfaces => {
                self.announce();
                self.look_at_host();
            }
            Input::Broken(error) => {
                tracing::warn!(%error, "the data path is broken; making it again, and the TUN interface");
                self.engine.meanwhile(self.host.stop()).await;
                if let Some(joined) = &mut self.engine.joined {
                    joined.host_due = Some(Clock::mono());
                }
            }
            // The loop's.
            Input::Stop => {}
        }
    }

    /// Carries out everything that the engine wants, and tells the data path's timers of a new table.
    async fn drain(&mut self) {
        self.engine.drain().await;
        if let Some(joined) = &mut self.engine.joined
            && std::mem::take(&mut joined.has_new_table)
        {
            self.host.table_changed();
        }
    }

    /// What follows once the engine is quiet: the host's side, and a network that refused the device.
    async fn settle(&mut self) {
        // The engine goes on meanwhile, and may want something else of the host by then.
        while self.change_host().await {}
        let refusal = self
            .engine
            .joined
            .as_mut()
            .and_then(|joined| joined.refusal.take());
        if let Some(refusal) = refusal {
            tracing::warn!(reason = %refusal, "the network refused this device");
            self.refused = Some(refusal);
            if let Err(error) = self.leave().await {
                self.warnings.push(in_words(&error));
            }
        }
    }

    /// Changes the host where that is due; whether it was.
    async fn change_host(&mut self) -> bool {
        let Some(joined) = &mut self.engine.joined else {
            return false;
        };
        if std::mem::take(&mut joined.has_new_peers) {
            self.look_at_host();
        }
        let Some(joined) = &self.engine.joined else {
            return false;
        };
        if joined.host_due.is_none_or(|due| due > Clock::mono()) {
            return false;
        }
        self.apply_host().await;
        let prefixes = self.engine.joined.as_ref().and_then(Joined::prefixes);
        self.overlay.send_if_modified(|held| {
            let changed = *held != prefixes;
            *held = prefixes;
            changed
        });
        self.announce();
        self.drain().await;
        true
    }

    /// Makes the host what the engine wants, and says what was changed; where that fails, again a little later.
    async fn apply_host(&mut self) -> Vec<String> {
        if let Some(interfaces) = &self.interfaces {
            self.host.set_underlay_mtu(interfaces.borrow().underlay_mtu);
        }
        let Some((wanted, controllers, datapath)) =
            self.engine.joined.as_mut().and_then(Joined::begin_host)
        else {
            return Vec::new();
        };
        let applying = self.host.apply(&wanted, &controllers, &datapath);
        let applied = self.engine.meanwhile(applying).await;
        let joined = self.engine.joined.as_mut();
        joined.map_or_else(Vec::new, |joined| joined.end_host(applied))
    }

    /// Tells the engine where this device can be reached.
    fn announce(&mut self) {
        let (Some(interfaces), Some(joined)) = (&self.interfaces, &mut self.engine.joined) else {
            return;
        };
        let port = self.udp.port();
        // Not taken for seen: where this is not about a new view, one that has just come is still to be looked at.
        let found = interfaces.borrow().addresses.clone();
        let overlay = joined.prefixes();
        let endpoints = interfaces::endpoints(&found, port, &self.config.tun, overlay.as_ref());
        joined
            .engine
            .handle_endpoints(port, endpoints, Clock::now());
    }

    /// Compares the host's networks with the overlay's, and sees whether anything of ours has gone.
    fn look_at_host(&mut self) {
        let (Some(interfaces), Some(joined)) = (&self.interfaces, &mut self.engine.joined) else {
            self.overlaps.clear();
            return;
        };
        let Some(prefixes) = joined.prefixes().filter(|_| joined.network.up) else {
            self.overlaps.clear();
            return;
        };
        let now = Clock::mono();
        let view = interfaces.borrow();
        let (overlap, warnings) =
            overlap::compare(&view, &prefixes, &joined.known, &self.config.tun);
        for warning in warnings
            .iter()
            .filter(|warning| !self.overlaps.contains(warning))
        {
            tracing::warn!("{warning}");
        }
        self.overlaps = warnings;
        if self.host.set_overlap(overlap) {
            joined.host_due = Some(now);
        }
        let (seen, last) = self.disturbed;
        if self.host.set_underlay_mtu(view.underlay_mtu) {
            // A way out that comes and goes is followed no faster than that.
            let due = now.max(self.narrowed.saturating_add(DISTURBANCE));
            joined.host_due = Some(joined.host_due.map_or(due, |before| before.min(due)));
            self.narrowed = now;
        }
        if (view.disturbed != seen || !self.host.has_addresses(&view)) && self.host.suspect() {
            let due = now.max(last.saturating_add(DISTURBANCE));
            joined.host_due = Some(joined.host_due.map_or(due, |before| before.min(due)));
            self.disturbed = (view.disturbed, now);
        }
    }

    /// Takes away what an earlier run left, where this device does not take part.
    async fn clear_host(&mut self) {
        let removed = self.engine.meanwhile(self.host.take_down()).await;
        if let Err(error) = removed {
            let warning = format!(
                "what an earlier run left could not be removed: {}",
                in_words(&error)
            );
            tracing::warn!(%warning);
            self.warnings.push(warning);
        }
    }
}

/// What goes on with the host's interfaces and routes; or the warning that nobody will know.
async fn watch_interfaces(
    thread: &NetworkThread,
    tun: &str,
    prefixes: watch::Receiver<Option<OverlayPrefixes>>,
    changes: &Arc<NetworkChanges>,
) -> Result<watch::Receiver<NetworkView>, String> {
    let watched = routes::watch::watch(thread, tun, prefixes, Arc::clone(changes)).await;
    watched.map_err(|error| {
        let error = in_words(&error);
        format!(
            "{error}; peers learn no address of this host, and changes of its routes go unnoticed"
        )
    })
}
