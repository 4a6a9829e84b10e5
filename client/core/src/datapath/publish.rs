//! From the slow path's specification to a forwarding table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Now;
use parking_lot::Mutex;

use super::shared::Shared;
use super::spec::{PeerSpec, TableSpec};
use super::table::{ForwardingTable, Gate, TablePeer};
use crate::filter::PeerFilter;
use crate::peers::{Link, PeerState};
use crate::wg::TunnelFactory;
use crate::wg::timers::Timers;

/// Links that one peer may have: two keys on either side.
const LINKS: usize = 4;
/// Candidates kept for one peer.
const CANDIDATES: usize = 16;

struct LocalIdentity {
    counter: u64,
    secret: WgSecret,
    public: WgPublicKey,
}

/// Builds the table that follows `old`. Peers that stay keep their state; their links and candidates
/// are brought up to date under their locks.
pub(super) fn build(
    spec: &TableSpec,
    old: &ForwardingTable,
    tunnels: &dyn TunnelFactory,
    shared: &Shared,
    now: Now,
) -> ForwardingTable {
    let mut locals: Vec<_> = spec
        .local_keys
        .iter()
        .map(|key| LocalIdentity {
            counter: key.counter,
            secret: key.secret.clone(),
            public: key.secret.public(),
        })
        .collect();
    locals.sort_by_key(|local| std::cmp::Reverse(local.counter));
    let mut table = ForwardingTable {
        own: spec.own,
        prefixes: spec.prefixes,
        gates: locals
            .iter()
            .map(|local| gate(local, old, tunnels))
            .collect(),
        ..ForwardingTable::default()
    };
    let before: BTreeMap<_, _> = old.peers.iter().map(|p| (p.device, &p.state)).collect();
    let mut seen = std::collections::BTreeSet::new();
    for peer in spec.peers.iter().filter(|peer| seen.insert(peer.device)) {
        let state = before.get(&peer.device).map_or_else(
            || {
                Arc::new(Mutex::new(PeerState::new(
                    peer.device,
                    shared.flows.clone(),
                    shared.queues.clone(),
                    now.mono,
                )))
            },
            |state| Arc::clone(state),
        );
        let position = table.peers.len();
        {
            let mut state = state.lock();
            state.candidates = peer
                .endpoints
                .iter()
                .copied()
                .filter(|endpoint| table.is_underlay(*endpoint))
                .take(CANDIDATES)
                .collect();
            let endpoint = state.endpoint;
            state.endpoint = endpoint.filter(|endpoint| table.is_underlay(*endpoint));
            let mut used = IndexesInUse {
                old,
                new: &mut table.by_index,
                position,
            };
            link(&mut state, peer, &locals, tunnels, shared, &mut used, now);
        }
        for (_, key) in &peer.keys {
            table.by_key.entry(*key).or_insert(position);
        }
        let addresses = [IpAddr::V4(peer.addresses.v4), IpAddr::V6(peer.addresses.v6)];
        for address in addresses {
            // Our own address is nobody else's, whatever the map says.
            if !table.is_own(address) {
                table.owners.insert(address, position);
            }
        }
        table.peers.push(TablePeer {
            device: peer.device,
            filter: PeerFilter::new(&peer.ingress, &peer.egress, spec.serial, spec.generation),
            state,
        });
    }
    table
}

fn gate(local: &LocalIdentity, old: &ForwardingTable, tunnels: &dyn TunnelFactory) -> Gate {
    old.gates
        .iter()
        .find(|gate| gate.local == local.public)
        .cloned()
        .unwrap_or_else(|| Gate {
            local: local.public,
            gate: Arc::from(tunnels.gate(&local.secret)),
        })
}

/// Receiver indices of the table in force and of the one being built: none is given out twice.
struct IndexesInUse<'a> {
    old: &'a ForwardingTable,
    new: &'a mut BTreeMap<u32, usize>,
    position: usize,
}

/// Brings a peer's links up to date: one per pair of keys. Links whose keys are gone are dropped with
/// their sessions.
fn link(
    state: &mut PeerState,
    peer: &PeerSpec,
    locals: &[LocalIdentity],
    tunnels: &dyn TunnelFactory,
    shared: &Shared,
    used: &mut IndexesInUse<'_>,
    now: Now,
) {
    let mut pairs = Vec::new();
    for local in locals {
        for (remote_counter, remote) in &peer.keys {
            pairs.push((local, *remote_counter, *remote));
        }
    }
    pairs
        .sort_by_key(|(local, remote, _)| std::cmp::Reverse(local.counter.saturating_add(*remote)));
    pairs.truncate(LINKS);
    let mut old = std::mem::take(&mut state.links);
    for (local, remote_counter, remote) in pairs {
        let kept = old
            .iter()
            .position(|link| link.is_between(&local.public, &remote))
            .map(|position| old.swap_remove(position));
        let link = match kept {
            Some(link) => Link {
                local_counter: local.counter,
                remote_counter,
                ..link
            },
            None => {
                let index = shared.receiver_index(|index| {
                    used.old.by_index.contains_key(&index) || used.new.contains_key(&index)
                });
                // A key that no tunnel may have gets none: the peer is not reachable through it.
                let Ok(tunnel) = tunnels.create(&local.secret, &remote, index, now) else {
                    tracing::warn!(device = %peer.device, "a WireGuard key of the peer is unusable");
                    continue;
                };
                Link {
                    local_counter: local.counter,
                    remote_counter,
                    local: local.public,
                    remote,
                    index,
                    tunnel,
                    timers: Timers::default(),
                    is_announced: false,
                }
            }
        };
        used.new.insert(link.index, used.position);
        state.links.push(link);
    }
    state
        .links
        .sort_by_key(|link| std::cmp::Reverse(link.rank()));
}
