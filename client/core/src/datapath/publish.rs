//! From the slow path's specification to a forwarding table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use parking_lot::Mutex;

use super::shared::Shared;
use super::spec::{PeerSpec, TableSpec};
use super::table::{ForwardingTable, Gate, TablePeer};
use crate::filter::{FilterState, PeerFilter};
use crate::path::CANDIDATES;
use crate::peers::{Link, PeerState};
use crate::wg::TunnelFactory;
use crate::wg::timers::Timers;

/// Links that one peer may have: two keys on either side.
const LINKS: usize = 4;

struct LocalIdentity {
    counter: u64,
    secret: WgSecret,
    public: WgPublicKey,
}

/// What a table is built with.
pub(super) struct Builder<'a> {
    /// The table in force.
    pub(super) old: &'a ForwardingTable,
    pub(super) tunnels: &'a dyn TunnelFactory,
    pub(super) shared: &'a Shared,
    pub(super) now: Mono,
}

impl Builder<'_> {
    /// Builds the table that follows the old one. Peers that stay keep their state; their links and
    /// candidates are brought up to date under their locks. Behind it the positions of peers with links that are new.
    pub(super) fn build(&self, spec: TableSpec) -> (ForwardingTable, Vec<usize>) {
        let mut locals: Vec<_> = spec
            .local_keys
            .into_iter()
            .map(|key| LocalIdentity {
                counter: key.counter,
                public: key.secret.public(),
                secret: key.secret,
            })
            .collect();
        locals.sort_by_key(|local| Reverse(local.counter));
        let mut table = ForwardingTable {
            own: spec.own,
            prefixes: spec.prefixes,
            names: spec.names,
            gates: locals.iter().map(|local| self.gate(local)).collect(),
            ..ForwardingTable::new(self.shared.hash)
        };
        let peers = self.old.peers.iter();
        let before: BTreeMap<_, _> = peers.map(|peer| (peer.device, &peer.state)).collect();
        let mut seen = BTreeSet::new();
        let mut fresh = Vec::new();
        for peer in spec.peers {
            if !seen.insert(peer.device) {
                continue;
            }
            let state = match before.get(&peer.device) {
                Some(state) => Arc::clone(state),
                None => self.new_state(peer.device),
            };
            let filter = PeerFilter::new(&peer.ingress, &peer.egress, spec.serial, spec.generation);
            let position = table.peers.len();
            {
                let mut state = state.lock();
                if self.update(&mut state, &peer, &locals, &mut table) {
                    fresh.push(position);
                }
                if !filter.is_live(self.now) {
                    // With the last rule the session keys go, and they go now.
                    state.forget_sessions(self.shared, self.now);
                }
                if state.greets {
                    self.shared.woken.note(&mut state);
                }
            }
            table.by_device.insert(peer.device, position);
            for (_, key) in &peer.keys {
                table.by_key.entry(*key).or_insert(position);
            }
            for candidate in &peer.endpoints {
                table.by_candidate.entry(*candidate).or_insert(position);
            }
            let addresses = [IpAddr::V4(peer.addresses.v4), IpAddr::V6(peer.addresses.v6)];
            for address in addresses {
                // Our own address is nobody else's, nor the resolver's, whatever the map says.
                if !table.is_own(address) && !table.is_resolver(address) {
                    table.owners.insert(address, position);
                }
            }
            table.peers.push(TablePeer {
                device: peer.device,
                name: peer.name,
                addresses: peer.addresses,
                filter,
                state,
            });
        }
        let names = table.peers.iter().map(|peer| &peer.name);
        let mut by_name: Vec<_> = names.zip(0..).collect();
        by_name.sort();
        table.by_name = by_name.into_iter().map(|(_, position)| position).collect();
        (table, fresh)
    }

    fn new_state(&self, device: DeviceId) -> Arc<Mutex<PeerState>> {
        let (flows, queues) = (self.shared.flows.clone(), self.shared.queues.clone());
        let filter = FilterState::new(flows, self.shared.hash);
        let mut state = PeerState::new(device, filter, queues, self.now);
        state.greets = self.shared.greetings.lock().remove(&device);
        Arc::new(Mutex::new(state))
    }

    /// The gate of a key that stays is kept, or the cookies that were sent would be no proof any more.
    fn gate(&self, local: &LocalIdentity) -> Gate {
        let mut known = self.old.gates.iter();
        known
            .find(|gate| gate.local == local.public)
            .cloned()
            .unwrap_or_else(|| Gate {
                local: local.public,
                gate: Arc::from(self.tunnels.gate(&local.secret)),
            })
    }

    /// Brings candidates and links up to date. Whether a link is new.
    fn update(
        &self,
        state: &mut PeerState,
        peer: &PeerSpec,
        locals: &[LocalIdentity],
        table: &mut ForwardingTable,
    ) -> bool {
        let underlay = peer.endpoints.iter().copied();
        let mut candidates: Vec<_> = underlay
            .filter(|endpoint| table.is_underlay(*endpoint))
            .take(CANDIDATES)
            .collect();
        candidates.shrink_to_fit();
        let endpoint = state.endpoint.filter(|known| table.is_underlay(*known));
        state.set_endpoints(candidates, endpoint);

        let mut pairs: Vec<_> = locals
            .iter()
            .flat_map(|local| peer.keys.iter().map(move |remote| (local, *remote)))
            .collect();
        pairs.sort_by_key(|(local, (counter, _))| Reverse(local.counter.saturating_add(*counter)));
        pairs.truncate(LINKS);
        // Links whose keys are gone end here, with their sessions.
        let links = Vec::with_capacity(pairs.len());
        let mut old = std::mem::replace(&mut state.links, links);
        let mut is_fresh = false;
        for (local, (remote_counter, remote)) in pairs {
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
                None => match self.new_link(local, remote_counter, &remote, table) {
                    Some(link) => {
                        is_fresh = true;
                        link
                    }
                    // A key that no tunnel may have gets none.
                    None => {
                        tracing::warn!(device = %peer.device, "a WireGuard key of the peer is unusable");
                        continue;
                    }
                },
            };
            table.by_index.insert(link.index, table.peers.len());
            state.links.push(link);
        }
        state.links.sort_by_key(|link| Reverse(link.rank()));
        is_fresh
    }

    fn new_link(
        &self,
        local: &LocalIdentity,
        remote_counter: u64,
        remote: &WgPublicKey,
        table: &ForwardingTable,
    ) -> Option<Link> {
        // No index is given out twice, neither in the table in force nor in the one being built.
        let index = self.shared.receiver_index(|index| {
            self.old.by_index.contains(&index) || table.by_index.contains(&index)
        });
        let tunnel = self
            .tunnels
            .create(&local.secret, remote, index, self.now)
            .ok()?;
        Some(Link {
            local_counter: local.counter,
            remote_counter,
            local: local.public,
            remote: *remote,
            index,
            tunnel,
            timers: Timers::default(),
            is_announced: false,
        })
    }
}
