//! Network maps: all that a device needs, and nothing else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::generation::Generation;
use crate::identity::binding::KeyBinding;
use crate::identity::checkpoint::Checkpoint;
use crate::ids::{DeviceId, DeviceName, RuleId, TagName, UserName};
use crate::policy::filter::FilterRule;
use crate::time::UnixMillis;

/// A network map, or the step to it from the one that a device holds.
///
/// Large ones come in parts: all but the last have `more` set, and the device applies them together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapUpdate {
    /// The generation that this is a step from; `None` for a whole map. A device that does not hold
    /// exactly this generation asks for the whole map.
    pub from: Option<Generation>,
    /// The generation that the device holds afterwards.
    pub to: Generation,
    /// The network and the device itself; always in a whole map, otherwise when changed.
    pub this: Option<SelfEntry>,
    /// Peers that are gone. Applied first.
    pub removed: Vec<DeviceId>,
    /// Peers that are new or changed, whole.
    pub upserted: Vec<PeerEntry>,
    /// The journal's signed head, in the last part of some updates.
    pub checkpoint: Option<Checkpoint>,
    /// More parts with the same `from` and `to` follow.
    pub more: bool,
}

/// The addresses of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayPrefixes {
    /// IPv4, by default 100.64.0.0/10.
    pub v4: Ipv4Net,
    /// IPv6, a ULA /48.
    pub v6: Ipv6Net,
}

impl OverlayPrefixes {
    /// Whether `address` belongs to the overlay.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(&v4),
            IpAddr::V6(v6) => self.v6.contains(&v6),
        }
    }
}

/// A device's overlay addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OverlayAddresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// The device that the map is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfEntry {
    /// The network's name.
    pub network: String,
    /// The network's addresses.
    pub prefixes: OverlayPrefixes,
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its addresses.
    pub addresses: OverlayAddresses,
    /// Its tags.
    pub tags: Vec<TagName>,
    /// Its user.
    pub user: Option<UserName>,
    /// When its identity key expires.
    pub key_expires: Option<UnixMillis>,
    /// Seconds between posture reports; at least 1.
    pub report_every_secs: u32,
    /// Executables whose running the policy asks for.
    pub watched_processes: Vec<String>,
    /// Seconds after which the device makes itself a new WireGuard key.
    pub rotate_key_secs: u32,
}

/// A device that this one may reach, or that may reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// The peer; the hash of the identity key in both bindings.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its addresses: what its packets may come from.
    pub addresses: OverlayAddresses,
    /// Its user; only where the peer may reach this device.
    pub user: Option<UserName>,
    /// Its tags; only where the peer may reach this device.
    pub tags: Vec<TagName>,
    /// The WireGuard key it uses. Check the signature before use.
    pub key: KeyBinding,
    /// The WireGuard key that will follow.
    pub next_key: Option<KeyBinding>,
    /// Where it can be reached, best first.
    pub endpoints: Vec<SocketAddr>,
    /// What it may send to this device.
    pub ingress: Vec<FilterRule>,
    /// What this device may send to it.
    pub egress: Vec<FilterRule>,
}

/// New ends for leases that a device holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRenewal {
    /// The generation that the device was last sent; a renewal for another is ignored.
    pub generation: Generation,
    /// Peer by peer.
    pub peers: Vec<PeerRenewal>,
}

/// New ends for one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRenewal {
    /// The peer.
    pub device: DeviceId,
    /// New ends of its ingress rules. A rule that is not named keeps its end.
    pub ingress: Vec<(RuleId, UnixMillis)>,
    /// New ends of its egress rules.
    pub egress: Vec<(RuleId, UnixMillis)>,
}
