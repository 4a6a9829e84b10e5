//! What the local user is shown.

use std::net::IpAddr;
use std::sync::Arc;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::ids::{DeviceId, DeviceName, TagName, UserName};
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::posture::verdict::CheckOutcome;
use gatereeve_shared::time::{Now, UnixMillis};
use gatereeve_shared::wire::controller::Standing;
use gatereeve_shared::wire::map::{OverlayAddresses, PeerEntry};

use super::Engine;
use super::gate::Gate;
use crate::api::{Connection, LocalFact, PathView, PeerView, RuleStatus};
use crate::control::link::{Link, Phase};

/// The engine's part of [`StatusView`](crate::api::StatusView).
#[derive(Clone, Debug, PartialEq)]
pub struct EngineStatus {
    /// Whether the device is to take part.
    pub up: bool,
    /// The control session.
    pub connection: Connection,
    /// Why there is no session, or what the controller refused.
    pub last_error: Option<String>,
    /// How the device stands, as last heard.
    pub standing: Option<Standing>,
    /// The network.
    pub network: Option<String>,
    /// Its pinned key.
    pub fingerprint: Fingerprint,
    /// This device.
    pub device: DeviceId,
    /// Its name.
    pub name: Option<DeviceName>,
    /// Its overlay addresses.
    pub addresses: Option<OverlayAddresses>,
    /// Its WireGuard key in use, in base64.
    pub wg_key: String,
    /// UDP port of its WireGuard socket.
    pub listen_port: u16,
    /// The map held.
    pub generation: Option<Generation>,
    /// The generation that the data path enforces.
    pub enforced: Option<Generation>,
    /// When the last of the leases held ends, in controller time.
    pub leases_end: Option<UnixMillis>,
    /// Peers with a live grant.
    pub peers: usize,
    /// Posture checks that fail.
    pub failing_checks: Vec<CheckOutcome>,
    /// What needs attention.
    pub warnings: Vec<String>,
}

/// Whose an overlay address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoisView {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its user.
    pub user: Option<UserName>,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// Whether it is this device itself.
    pub is_self: bool,
}

impl Engine {
    /// How it goes.
    #[must_use]
    pub fn status(&self, now: Now) -> EngineStatus {
        let this = self.stored.this.as_ref();
        EngineStatus {
            up: self.up,
            connection: self.connection(),
            last_error: self.last_error.clone(),
            standing: self.stored.standing,
            network: this.map(|this| super::shown(&this.network)),
            fingerprint: self.config.network,
            device: self.device,
            name: this.map(|this| this.name.clone()),
            addresses: this.map(|this| this.addresses),
            wg_key: self.keys.current().secret.public().to_string(),
            listen_port: self.endpoints.listen_port,
            generation: self.held_generation(),
            enforced: self.enforced,
            leases_end: self.leases_end(now),
            peers: self.in_table.len(),
            failing_checks: self.failing_checks(now),
            warnings: self.warnings(now),
        }
    }

    fn connection(&self) -> Connection {
        match &self.link {
            Link::Off => Connection::Off,
            Link::Idle | Link::Connecting => Connection::Connecting,
            Link::Up(session)
                if session.phase == Phase::Synced && self.enforced == self.held_generation() =>
            {
                Connection::Synced
            }
            Link::Up(_) => Connection::Waiting,
        }
    }

    fn failing_checks(&self, now: Now) -> Vec<CheckOutcome> {
        let time = self.clock.now(now).unwrap_or(UnixMillis::MAX);
        self.checks
            .iter()
            .filter(|check| !check.verdict.is_compliant(time))
            .cloned()
            .collect()
    }

    fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings: Vec<String> = self.alarms.iter().cloned().collect();
        for (device, problem) in self.problems.iter().chain(&self.conflicts).take(16) {
            let name = self
                .stored
                .map
                .as_ref()
                .and_then(|map| map.peers.get(device))
                .map_or_else(|| device.to_string(), |peer| peer.name.to_string());
            warnings.push(format!("peer {name} is left out: {problem}"));
        }
        if self.up && self.clock.now(now).is_none() {
            warnings.push(
                "the clock is behind the last time known from the controller: no lease counts until the controller answers or the clock is set"
                    .into(),
            );
        }
        if self.gate == Gate::Holding {
            warnings.push("nothing passes until the controller has answered".into());
        }
        warnings
    }

    /// The peers with a live grant, by name, with what the engine knows of them; the figures are the
    /// data path's.
    #[must_use]
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        let Some(map) = &self.stored.map else {
            return Vec::new();
        };
        let leases = self.leases(now);
        let rules = |rules: &[FilterRule]| -> Vec<RuleStatus> {
            rules
                .iter()
                .filter(|rule| leases.deadline(rule).is_some())
                .map(|rule| RuleStatus {
                    rule: rule.rule.clone(),
                    ports: rule.ports.clone(),
                    until: leases.end(rule),
                })
                .collect()
        };
        let mut peers: Vec<PeerView> = self
            .in_table
            .iter()
            .filter_map(|device| map.peers.get(device))
            .map(|peer| PeerView {
                device: peer.device,
                name: peer.name.clone(),
                addresses: peer.addresses,
                user: peer.user.clone(),
                path: self
                    .learned
                    .get(&peer.device)
                    .map(|endpoint| PathView::Direct {
                        endpoint: *endpoint,
                        mtu: None,
                    }),
                last_handshake_secs: None,
                rx_bytes: 0,
                tx_bytes: 0,
                egress: rules(&peer.egress),
                ingress: rules(&peer.ingress),
                generation: map.generation,
                leases_end: leases.latest(peer),
            })
            .collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// Whose an overlay address is: this device's, or a peer's with a live grant.
    #[must_use]
    pub fn whois(&self, address: IpAddr) -> Option<WhoisView> {
        let address = address.to_canonical();
        let this = self.stored.this.as_ref()?;
        if owns(&this.addresses, address) {
            return Some(WhoisView {
                device: this.device,
                name: this.name.clone(),
                user: this.user.clone(),
                tags: this.tags.clone(),
                is_self: true,
            });
        }
        let map = self.stored.map.as_ref()?;
        let peer: &Arc<PeerEntry> = self
            .in_table
            .iter()
            .filter_map(|device| map.peers.get(device))
            .find(|peer| owns(&peer.addresses, address))?;
        Some(WhoisView {
            device: peer.device,
            name: peer.name.clone(),
            user: peer.user.clone(),
            tags: peer.tags.clone(),
            is_self: false,
        })
    }

    /// What was collected last, and what the controller made of it.
    #[must_use]
    pub fn posture(&self, now: Now) -> (Vec<LocalFact>, Vec<CheckOutcome>) {
        let facts = self.posture.facts().unwrap_or_default();
        let facts = facts
            .iter()
            .map(|fact| LocalFact {
                id: fact.id.clone(),
                value: fact.value.clone(),
                source: fact.source.clone(),
                age_secs: now.mono.since(fact.observed).as_secs(),
            })
            .collect();
        (facts, self.checks.clone())
    }
}

/// Whether `address` is one of `addresses`.
pub(super) fn owns(addresses: &OverlayAddresses, address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => addresses.v4 == v4,
        IpAddr::V6(v6) => addresses.v6 == v6,
    }
}
