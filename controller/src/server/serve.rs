//! Putting the daemon together: state, threads, sockets, actor.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use gatereeve_controller_core::controller::{Controller, ControllerConfig};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::local_socket;
use gatereeve_runtime::notify::{self, Notifier};
use gatereeve_runtime::quic as transport;
use gatereeve_runtime::sandbox::Confinement;
use gatereeve_runtime::shutdown::Shutdown;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use quinn::Endpoint;
use tokio::sync::mpsc;
use tracing::warn;

use super::recover::{Recovered, recover};
use super::{Inputs, Server};
use crate::admin;
use crate::journal::writer::{Appended, JournalWriter};
use crate::quic;
use crate::state_dir::StateDir;
use crate::state_dir::lock::StateLock;
use crate::store::keeper::Keeper;

/// Admin requests that may wait for the actor.
const ADMIN_QUEUE: usize = 64;
/// Events of control sessions that may wait for the actor.
const EVENT_QUEUE: usize = 4096;
/// How long connections may take to close.
const GRACE: Duration = Duration::from_secs(5);

/// What `serve` is told.
#[derive(Debug)]
pub struct ServeOptions {
    /// The state.
    pub state_dir: StateDir,
    /// The admin socket.
    pub socket: PathBuf,
    /// A group whose members may administrate, besides root and the daemon's own user.
    pub admin_group: Option<String>,
    /// Where devices connect; at least one.
    pub listen: Vec<SocketAddr>,
    /// Who is told how it goes.
    pub notifier: Notifier,
    /// How this process is confined already.
    pub confinement: Confinement,
}

/// Serves until `shutdown`; calls `ready` with a line for people once devices and admins are answered.
///
/// # Errors
/// The state cannot be used, or a socket cannot be had.
pub async fn serve(
    options: ServeOptions,
    shutdown: Shutdown,
    ready: impl FnOnce(&str),
) -> anyhow::Result<()> {
    let dir = options.state_dir.clone();
    let recovered = tokio::task::spawn_blocking(move || recover(&dir, Clock::unix()))
        .await
        .context("reading the state was interrupted")??;
    // Sockets before threads: what cannot be had is found before anything has to be stopped again.
    let endpoints = listen(&options.listen, &recovered.tls_key)?;
    let access = admin::Access::new(options.admin_group.as_deref())?;
    let listener = local_socket::bind(&options.socket, access.socket_mode(), access.group_name())
        .with_context(|| format!("cannot listen on {}", options.socket.display()))?;
    let line = ready_line(&recovered, &endpoints, &options);
    let (server, lock, appended) = start(recovered, options.state_dir, options.confinement)?;

    let (admin_requests, admin) = mpsc::channel(ADMIN_QUEUE);
    let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
    for (number, endpoint) in (0u64..).zip(endpoints) {
        shutdown.spawn(quic::accept_loop_with(
            endpoint,
            event_sender.clone(),
            shutdown.clone(),
            quic::Limits::default(),
            // Each loop numbers its sessions in a range of its own.
            number << 48,
        ));
    }
    let handler = admin::handler(access, admin_requests);
    shutdown.spawn(local_socket::serve(listener, shutdown.clone(), handler));
    // The service manager hears that we are ready with the actor's first answer.
    let (heart, watch) = notify::pulse(options.notifier);
    shutdown.spawn(watch.run(shutdown.token.clone()));
    ready(&line);
    let stop = shutdown.token.clone();
    server
        .run(Inputs {
            admin,
            events,
            appended,
            stop,
            heart,
        })
        .await;
    if !shutdown.finish(GRACE).await {
        warn!("some connections did not close in time");
    }
    drop(lock);
    Ok(())
}

fn listen(addresses: &[SocketAddr], key: &IdentityKey) -> anyhow::Result<Vec<Endpoint>> {
    addresses
        .iter()
        .map(|address| {
            transport::server_endpoint(*address, key)
                .with_context(|| format!("cannot listen on UDP {address}"))
        })
        .collect()
}

fn ready_line(recovered: &Recovered, endpoints: &[Endpoint], options: &ServeOptions) -> String {
    let bound: Vec<String> = endpoints
        .iter()
        .filter_map(|endpoint| Some(endpoint.local_addr().ok()?.to_string()))
        .collect();
    format!(
        "gatereeve-controller {}: serving network {} ({}) on UDP {}, admins on {}",
        env!("CARGO_PKG_VERSION"),
        recovered.settings.name,
        Fingerprint::of(&recovered.network_key.public()),
        bound.join(", "),
        options.socket.display(),
    )
}

/// The actor over what was recovered, with its threads running.
pub(super) fn start(
    recovered: Recovered,
    state_dir: StateDir,
    confinement: Confinement,
) -> anyhow::Result<(Server, StateLock, mpsc::Receiver<Appended>)> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the operating system gives no randomness")?;
    let config = ControllerConfig {
        network_name: recovered.settings.name,
        prefixes: recovered.settings.prefixes,
        advertised: recovered.settings.advertise,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let controller = Controller::new(
        config,
        recovered.network_key,
        recovered.tls_key.public(),
        recovered.state,
        recovered.soft,
        seed,
        Clock::now(),
    );
    let (writer, appended) =
        JournalWriter::start(recovered.journal).context("cannot start the journal's thread")?;
    let keeper = Keeper::start(recovered.store, recovered.checkpoints)
        .context("cannot start the tables' thread")?;
    let notes = recovered.notes;
    let server = Server::new(controller, writer, keeper, state_dir, notes, confinement);
    Ok((server, recovered.lock, appended))
}
