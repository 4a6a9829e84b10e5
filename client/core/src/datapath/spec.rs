//! What the slow path publishes: one table, whole.

use std::net::SocketAddr;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

use crate::dns::Domain;

/// Everything the data path needs to know. What is not in here does not pass.
#[derive(Clone, Debug, Default)]
pub struct TableSpec {
    /// Number of this table; each published table has a higher one than the one before.
    pub serial: u64,
    /// Generation of the map that it was made from.
    pub generation: Generation,
    /// This device's overlay addresses; nothing passes without.
    pub own: Option<OverlayAddresses>,
    /// The overlay's prefixes: never an endpoint's address.
    pub prefixes: Option<OverlayPrefixes>,
    /// What the names of devices are in; none is answered without.
    pub names: Option<SelfName>,
    /// This device's WireGuard keys, oldest first.
    pub local_keys: Vec<LocalKey>,
    /// The peers.
    pub peers: Vec<PeerSpec>,
}

/// Under which name this device is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfName {
    /// The network's domain.
    pub domain: Domain,
    /// Its own name.
    pub name: DeviceName,
}

/// One of this device's WireGuard keys.
#[derive(Clone, Debug)]
pub struct LocalKey {
    /// Counter of its key binding: higher is newer.
    pub counter: u64,
    /// The key.
    pub secret: WgSecret,
}

/// A peer as the data path sees it.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Which device.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// What its packets may come from.
    pub addresses: OverlayAddresses,
    /// Its WireGuard keys with the counters of their bindings.
    pub keys: Vec<(u64, WgPublicKey)>,
    /// Where it may be reached, best first.
    pub endpoints: Vec<SocketAddr>,
    /// What it may send to this device.
    pub ingress: Vec<RuleSpec>,
    /// What this device may send to it.
    pub egress: Vec<RuleSpec>,
}

/// One rule between this device and a peer, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// The rule of the policy.
    pub rule: RuleId,
    /// Destination ports.
    pub ports: Vec<PortSpec>,
    /// When it ends; at this very instant it is over.
    pub end: Mono,
}
