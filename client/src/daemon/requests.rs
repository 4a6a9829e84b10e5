//! What the local API asks, answered.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::sync::oneshot;

use gatereeve_client_core::api::{
    Connection, Join, LocalError, LocalReply, LocalRequest, PathView, PeerView, RepairView,
    StatusView, WhyView,
};
use gatereeve_runtime::clock::Clock;
use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::invite::Invite;
use gatereeve_shared::policy::port::Protocol;
use gatereeve_shared::wire::map::OverlayAddresses;

use super::Daemon;
use super::flows::flows;
use super::joined::Joined;
use super::local_api::Call;
use super::ping::Pings;
use super::state_dir::NetworkFile;
use crate::routes::survey::survey;

type Answer = Result<LocalReply, LocalError>;

impl Daemon {
    pub(super) async fn answer(&mut self, call: Call) {
        let Call { request, answer } = call;
        let reply = match request {
            LocalRequest::Status => Ok(LocalReply::Status(Box::new(self.status()))),
            LocalRequest::Peers => self.joined().map(|joined| LocalReply::Peers {
                peers: peers(joined),
            }),
            LocalRequest::Flows { peer, limit } => self
                .joined()
                .and_then(|joined| flows(joined, peer.as_deref(), limit)),
            LocalRequest::Posture => self.joined().map(|joined| {
                let (facts, checks) = joined.engine.posture(Clock::now());
                LocalReply::Posture { facts, checks }
            }),
            LocalRequest::Whois { address } => {
                self.joined().and_then(|joined| whois(joined, address))
            }
            LocalRequest::Why {
                peer,
                protocol,
                port,
            } => return self.why(peer, protocol, port, answer),
            LocalRequest::Ping { peer, count } => return self.ping(&peer, count, answer),
            LocalRequest::Join(join) => self.join(join),
            LocalRequest::Leave => self.leave_on_request().await,
            LocalRequest::Up => return self.set_up(true, answer).await,
            LocalRequest::Down => return self.set_up(false, answer).await,
            LocalRequest::Repair => self.repair().await,
        };
        // Who asked may be gone; what was done stays done.
        drop(answer.send(reply));
    }

    fn joined(&mut self) -> Result<&mut Joined, LocalError> {
        self.engine
            .joined
            .as_mut()
            .ok_or_else(|| error(1, "no network joined; `gatereeve join` takes part in one"))
    }

    fn status(&self) -> StatusView {
        let mut status = StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            joined: false,
            up: false,
            connection: Connection::Off,
            last_error: self.refused.clone(),
            standing: None,
            network: None,
            fingerprint: None,
            controllers: Vec::new(),
            device: None,
            name: None,
            addresses: None,
            wg_key: None,
            listen_port: self.udp.port(),
            interface: self.config.tun.clone(),
            mtu: self.host.mtu(),
            offloads: self.host.offloads(),
            cipher: Some(gatereeve_cipher::implementation().to_string()),
            blackhole: self.host.blackhole(),
            generation: None,
            enforced: None,
            leases_end: None,
            peers: 0,
            failing_checks: Vec::new(),
            drops: BTreeMap::new(),
            warnings: self.warnings.clone(),
            sandbox: Some(self.confinement.to_string()),
            names: self.host.names(),
        };
        if let Some(joined) = &self.engine.joined {
            joined.fill(&mut status);
        }
        status.warnings.extend(self.host.warnings());
        status.warnings.extend(self.overlaps.iter().cloned());
        for (reason, count) in self.udp.drops().into_iter().chain(self.host.drops()) {
            if count > 0 {
                status.drops.insert(reason.to_owned(), count);
            }
        }
        status
    }

    fn why(
        &mut self,
        peer: String,
        protocol: Protocol,
        port: u16,
        answer: oneshot::Sender<Answer>,
    ) {
        let asked = self.joined().and_then(|joined| {
            joined
                .ask(peer, protocol, port)
                .ok_or_else(|| error(1, "too many questions are open; ask again in a moment"))
        });
        match asked {
            Ok(view) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "ends with the answer, which the engine gives within seconds"
                )]
                tokio::spawn(async move {
                    let reply = view
                        .await
                        .map(LocalReply::Why)
                        .map_err(|_| error(6, "the network was left before the answer came"));
                    drop(answer.send(reply));
                });
            }
            Err(refusal) => drop(answer.send(Err(refusal))),
        }
    }

    /// Pings aside, so that the daemon goes on meanwhile; where nobody answers it asks why.
    fn ping(&mut self, peer: &str, count: u32, mut answer: oneshot::Sender<Answer>) {
        let Ok(place) = Arc::clone(&self.pings).try_acquire_owned() else {
            let message = "too many pings are under way; try again in a moment";
            return drop(answer.send(Err(error(1, message))));
        };
        let pinger = self.host.pinger();
        let prepared = self.joined().and_then(|joined| {
            let (name, own, address) = addresses(joined, peer)?;
            let down = "this device does not take part; `gatereeve status` tells why";
            let pinger = pinger.ok_or_else(|| error(1, down))?;
            let why = joined.ask(address.to_string(), Protocol::Icmp, 0);
            Ok((name, own, address, why, pinger))
        });
        let (name, own, address, why, pinger) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => return drop(answer.send(Err(refusal))),
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the last ping, which is bounded"
        )]
        tokio::spawn(async move {
            // Who asked may go before the last request is out: then nothing more is sent for them.
            let is_wanted = Arc::new(AtomicBool::new(true));
            let pinging = {
                let is_wanted = Arc::clone(&is_wanted);
                tokio::task::spawn_blocking(move || {
                    let _place = place;
                    pinger.ping(own, address, count, &is_wanted)
                })
            };
            tokio::pin!(pinging);
            let pinged = tokio::select! {
                pinged = &mut pinging => pinged,
                () = answer.closed() => {
                    is_wanted.store(false, Ordering::Relaxed);
                    return;
                }
            };
            let reply = match pinged
                .context("the ping was stopped")
                .and_then(|result| result)
            {
                Ok(pings) => {
                    let reason = match why {
                        Some(view) if pings.round_trips_ms.is_empty() => view.await.ok(),
                        Some(_) | None => None,
                    };
                    Ok(LocalReply::Pinged {
                        peer: name,
                        address,
                        sent: pings.sent,
                        note: note(&pings, reason.as_ref()),
                        round_trips_ms: pings.round_trips_ms,
                    })
                }
                Err(failed) => Err(error(1, &format!("{failed:#}"))),
            };
            drop(answer.send(reply));
        });
    }

    fn join(&mut self, join: Join) -> Answer {
        if let Some(joined) = &self.engine.joined {
            return Err(error(
                5,
                &format!(
                    "this device is in the network {} already; `gatereeve leave` first",
                    joined.network.fingerprint
                ),
            ));
        }
        let (network, invite) = match join {
            Join::Invite(text) => {
                let invite: Invite =
                    text.parse()
                        .map_err(|why: gatereeve_shared::invite::InviteError| {
                            error(2, &why.to_string())
                        })?;
                let network = network(invite.controllers, invite.network)?;
                (network, Some((invite.id, invite.secret)))
            }
            Join::Controller {
                address,
                fingerprint,
            } => (network(vec![address], fingerprint)?, None),
        };
        let hostname = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        self.engine
            .state
            .save_network(&network)
            .and_then(|()| self.enter(network))
            .map_err(|failed| error(1, &format!("{failed:#}")))?;
        self.joined()?
            .engine
            .handle_enroll(invite, &hostname, Clock::now());
        Ok(done("joining; `gatereeve status` tells how it goes"))
    }

    async fn leave_on_request(&mut self) -> Answer {
        self.joined()?;
        self.leave()
            .await
            .map_err(|failed| error(1, &format!("{failed:#}")))?;
        self.refused = None;
        Ok(done("left the network; its keys are gone from this device"))
    }

    /// Compares the host with what it should be, and puts right what differs.
    async fn repair(&mut self) -> Answer {
        self.host.suspect();
        let (changes, problem) = if self.engine.joined.is_some() {
            let changes = self.apply_host().await;
            let joined = self.engine.joined.as_ref();
            (
                changes,
                joined.and_then(|joined| joined.host_problem.clone()),
            )
        } else {
            match self.engine.meanwhile(self.host.take_down()).await {
                Ok(changes) => (changes, None),
                Err(failed) => (Vec::new(), Some(format!("{failed:#}"))),
            }
        };
        if let Some(problem) = problem {
            return Err(error(1, &format!("{problem}; the daemon tries again")));
        }
        let surveyed = self.engine.meanwhile(survey(&self.network)).await;
        let places = surveyed.map_err(|failed| {
            error(
                1,
                &format!("repaired, but not to be shown again: {failed:#}"),
            )
        })?;
        Ok(LocalReply::Repair(RepairView {
            daemon: true,
            places,
            changes,
            notes: Vec::new(),
        }))
    }

    /// Takes part, or does not. What it is to be is written at the same time, and answered when it is: access ends before,
    /// and the daemon goes on meanwhile.
    async fn set_up(&mut self, up: bool, answer: oneshot::Sender<Answer>) {
        let joined = match self.joined() {
            Ok(joined) => joined,
            Err(refusal) => return drop(answer.send(Err(refusal))),
        };
        let was = std::mem::replace(&mut joined.network.up, up);
        let saved = joined.network_saver.save(joined.network.clone());
        joined.engine.handle_up(up, Clock::now());
        self.drain().await;
        self.settle().await;
        let problem = self
            .joined()
            .map(|joined| joined.host_problem.clone())
            .unwrap_or_else(|left| Some(left.message));
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the answer, which the task that writes gives when it ends at the latest"
        )]
        tokio::spawn(async move {
            let reply = match (saved.await, problem) {
                (Err(failed), _) => Err(error(
                    1,
                    &format!("done until the next start, but not kept: {failed}"),
                )),
                (Ok(()), Some(problem)) => {
                    Err(error(1, &format!("{problem}; the daemon tries again")))
                }
                (Ok(()), None) => Ok(done(match (up, was) {
                    (true, false) => "up: taking part",
                    (true, true) => "up already",
                    (false, true) => "down: not taking part until `gatereeve up`",
                    (false, false) => "down already",
                })),
            };
            drop(answer.send(reply));
        });
    }
}

impl Joined {
    fn fill(&self, status: &mut StatusView) {
        let engine = self.engine.status(Clock::now());
        status.joined = true;
        status.up = engine.up;
        status.connection = engine.connection;
        status.last_error = engine.last_error;
        status.standing = engine.standing;
        status.network = engine.network;
        status.fingerprint = Some(engine.fingerprint);
        status.controllers.clone_from(&self.network.controllers);
        status.device = Some(engine.device);
        status.name = engine.name;
        status.addresses = engine.addresses;
        status.wg_key = Some(engine.wg_key);
        status.generation = engine.generation;
        status.enforced = engine.enforced;
        status.leases_end = engine.leases_end;
        status.peers = engine.peers;
        status.failing_checks = engine.failing_checks;
        for (reason, count) in self.datapath.drops() {
            if count > 0 {
                status.drops.insert(reason.to_owned(), count);
            }
        }
        status.warnings.extend(engine.warnings);
        let problems = [
            self.host_problem.clone(),
            self.state_problem.clone(),
            self.saver.problem(),
            self.network_saver.problem(),
            self.posture_problem.clone(),
        ];
        status.warnings.extend(problems.into_iter().flatten());
    }
}

/// The engine's peers with the data path's figures.
fn peers(joined: &Joined) -> Vec<PeerView> {
    let now = Clock::now();
    let stats: BTreeMap<DeviceId, _> = joined
        .datapath
        .peer_stats()
        .into_iter()
        .map(|stats| (stats.device, stats))
        .collect();
    let mut peers = joined.engine.peers(now);
    for peer in &mut peers {
        if let Some(stats) = stats.get(&peer.device) {
            if let Some(endpoint) = stats.endpoint {
                let mtu = u16::try_from(stats.mtu).ok();
                peer.path = Some(PathView::Direct { endpoint, mtu });
            }
            peer.last_handshake_secs = stats.last_handshake.map(|at| now.mono.since(at).as_secs());
            peer.rx_bytes = stats.rx;
            peer.tx_bytes = stats.tx;
        }
    }
    peers
}

/// Own address and peer's address of one family, for a peer by name, device ID or address.
fn addresses(joined: &Joined, text: &str) -> Result<(DeviceName, IpAddr, IpAddr), LocalError> {
    let now = Clock::now();
    let status = joined.engine.status(now);
    let (Some(own), Some(own_name), own_device) = (status.addresses, status.name, status.device)
    else {
        return Err(error(
            1,
            "this device has no overlay address yet; `gatereeve status` tells why",
        ));
    };
    let mut known: Vec<(DeviceId, DeviceName, OverlayAddresses)> = joined
        .engine
        .peers(now)
        .into_iter()
        .map(|peer| (peer.device, peer.name, peer.addresses))
        .collect();
    known.push((own_device, own_name, own));
    let address: Option<IpAddr> = text.parse().ok();
    let found = known
        .into_iter()
        .find(|(device, name, addresses)| is_called(text, *device, name, addresses));
    let (_, name, theirs) = found.ok_or_else(|| no_peer(text))?;
    Ok(if address.is_some_and(|a| a.is_ipv6()) {
        (name, own.v6.into(), theirs.v6.into())
    } else {
        (name, own.v4.into(), theirs.v4.into())
    })
}

/// Whether `text` is this device's name, ID or one of its addresses.
pub(super) fn is_called(
    text: &str,
    device: DeviceId,
    name: &DeviceName,
    addresses: &OverlayAddresses,
) -> bool {
    let is_address =
        |address| address == IpAddr::V4(addresses.v4) || address == IpAddr::V6(addresses.v6);
    name.as_str() == text
        || device.to_string() == text
        || text.parse::<IpAddr>().is_ok_and(is_address)
}

pub(super) fn no_peer(text: &str) -> LocalError {
    error(
        4,
        &format!(
            "no peer {text:?}: no rule connects this device with it, or there is none; `gatereeve why {text}` tells more"
        ),
    )
}

fn note(pings: &Pings, why: Option<&WhyView>) -> Option<String> {
    if !pings.round_trips_ms.is_empty() {
        return None;
    }
    let said = pings
        .error
        .as_ref()
        .map(|error| format!(" ({error})"))
        .unwrap_or_default();
    Some(match why {
        Some(view) if view.allowed => format!("allowed, but nobody answered{said}"),
        Some(view) if view.missing.is_empty() => format!("no rule allows icmp to it{said}"),
        Some(view) => format!("not allowed{said}: {}", view.missing.join("; ")),
        None => format!("nobody answered{said}"),
    })
}

fn whois(joined: &Joined, address: IpAddr) -> Answer {
    let found = joined.engine.whois(address).ok_or_else(|| {
        error(
            4,
            &format!("{address} is not this device, nor a peer that it has a live rule with"),
        )
    })?;
    Ok(LocalReply::Whois {
        device: found.device,
        name: found.name,
        user: found.user,
        tags: found.tags,
        is_self: found.is_self,
    })
}

fn network(
    controllers: Vec<String>,
    fingerprint: gatereeve_shared::identity::fingerprint::Fingerprint,
) -> Result<NetworkFile, LocalError> {
    if controllers.is_empty() {
        return Err(error(
            2,
            "the invite names no controller; make one after `gatereeve-controller init --advertise HOST:PORT`",
        ));
    }
    Ok(NetworkFile {
        controllers,
        fingerprint,
        tls_key: None,
        up: true,
    })
}

fn error(exit_status: u8, message: &str) -> LocalError {
    LocalError {
        exit_status,
        message: message.to_owned(),
    }
}

fn done(message: &str) -> LocalReply {
    LocalReply::Done {
        message: message.to_owned(),
        standing: None,
    }
}
