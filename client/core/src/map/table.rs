//! From the held map to the table that the data path enforces.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, PeerEntry, SelfEntry};

use super::check::PeerProblem;
use crate::datapath::PeerSpec;
use crate::keys::KeyRing;
use crate::lease::LeaseView;
use crate::path::EndpointRules;
use crate::stored::HeldMap;

/// Which device holds a WireGuard key: it keeps it when another claims the same one later.
pub(crate) type Holders = BTreeMap<WgPublicKey, DeviceId>;

/// What peers are held against when a table is made.
pub(crate) struct TableRules<'a> {
    /// Ends of rules.
    pub(crate) leases: LeaseView<'a>,
    /// Endpoints.
    pub(crate) endpoints: EndpointRules,
    /// Where authenticated packets of a peer came from: tried first.
    pub(crate) learned: &'a BTreeMap<DeviceId, SocketAddr>,
}

/// Peers whose claims to keys or addresses collide, with this device or with each other.
///
/// A peer that held its key before keeps it; of newcomers that claim the same one, none gets it.
pub(crate) fn conflicts(
    map: &HeldMap,
    usable: impl Fn(&DeviceId) -> bool,
    this: &SelfEntry,
    keys: &KeyRing,
    holders: &Holders,
) -> BTreeMap<DeviceId, PeerProblem> {
    let mut problems = BTreeMap::new();
    let mut by_key: BTreeMap<WgPublicKey, Vec<DeviceId>> = BTreeMap::new();
    let mut by_v4: BTreeMap<_, Vec<DeviceId>> = BTreeMap::new();
    let mut by_v6: BTreeMap<_, Vec<DeviceId>> = BTreeMap::new();
    for (device, peer) in map.peers.iter().filter(|(device, _)| usable(device)) {
        if !address_fits(this, &peer.addresses) {
            problems.insert(*device, PeerProblem::Address);
            continue;
        }
        by_v4.entry(peer.addresses.v4).or_default().push(*device);
        by_v6.entry(peer.addresses.v6).or_default().push(*device);
        for key in wg_keys(peer) {
            if keys.contains(&key) {
                problems.insert(*device, PeerProblem::Conflict);
            }
            by_key.entry(key).or_default().push(*device);
        }
    }
    let crowded = by_v4.values().chain(by_v6.values()).filter(|c| c.len() > 1);
    for device in crowded.flatten() {
        problems.insert(*device, PeerProblem::Conflict);
    }
    for (key, claimants) in &by_key {
        let first = claimants.first();
        if claimants.iter().all(|device| Some(device) == first) {
            continue;
        }
        for device in claimants {
            if holders.get(key) != Some(device) {
                problems.insert(*device, PeerProblem::Conflict);
            }
        }
    }
    problems
}

/// The keys of a peer, the current one first.
pub(crate) fn wg_keys(peer: &PeerEntry) -> impl Iterator<Item = WgPublicKey> {
    [&peer.key]
        .into_iter()
        .chain(&peer.next_key)
        .map(|binding| binding.wg_key)
}

fn address_fits(this: &SelfEntry, addresses: &OverlayAddresses) -> bool {
    this.prefixes.v4.contains(&addresses.v4)
        && this.prefixes.v6.contains(&addresses.v6)
        && this.addresses.v4 != addresses.v4
        && this.addresses.v6 != addresses.v6
}

/// A peer for the data path and when its first rule ends; `None` where no rule of it is live.
pub(crate) fn peer_spec(peer: &PeerEntry, rules: &TableRules<'_>) -> Option<(PeerSpec, Mono)> {
    let ingress = rules.leases.live(&peer.ingress);
    let egress = rules.leases.live(&peer.egress);
    let first_end = ingress.iter().chain(&egress).map(|rule| rule.end).min()?;
    let learned = rules.learned.get(&peer.device).copied();
    let spec = PeerSpec {
        device: peer.device,
        name: peer.name.clone(),
        addresses: peer.addresses,
        keys: [&peer.key]
            .into_iter()
            .chain(&peer.next_key)
            .map(|binding| (binding.counter, binding.wg_key))
            .collect(),
        endpoints: rules
            .endpoints
            .usable(learned.into_iter().chain(peer.endpoints.iter().copied())),
        ingress,
        egress,
    };
    Some((spec, first_end))
}
