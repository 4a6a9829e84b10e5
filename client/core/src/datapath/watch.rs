//! Which peers the timers look at.
//!
//! Nobody has to be looked at but for what happened to them: a packet, a handshake, a flow. Whoever holds a
//! peer's lock while something happens puts the peer on the list on letting go; the timers take it off when
//! nothing is left that time alone would change. So what is configured and silent costs nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use arc_swap::ArcSwap;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;
use parking_lot::Mutex;

use super::outbox::Outbox;
use super::shared::Shared;
use super::table::ForwardingTable;
use crate::peers::{Context, PeerState};
use crate::wg::timers::SOONEST;

/// How long the timers may sleep: nothing that a packet sets off meanwhile is due sooner.
pub(super) const LONGEST_SLEEP: Duration = SOONEST;

/// Peers that have come onto the list since the timers looked last.
#[derive(Debug, Default)]
pub(crate) struct Woken(Mutex<BTreeSet<DeviceId>>);

impl Woken {
    /// To be called with the peer's lock held, once things are as they will stay when it is let go.
    pub(crate) fn note(&self, state: &mut PeerState) {
        if !state.is_watched && state.is_alive && !state.is_settled() {
            state.is_watched = true;
            self.0.lock().insert(state.device);
        }
    }

    /// Puts everybody on the list.
    pub(super) fn note_all(&self, table: &ForwardingTable) {
        self.0
            .lock()
            .extend(table.peers.iter().map(|peer| peer.device));
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    devices: BTreeSet<DeviceId>,
    /// When the timers looked last.
    looked: Mono,
    /// When the first thing was due then, as far as could be told.
    due: Option<Mono>,
}

impl Watch {
    /// Runs the timers of everybody who is on the list, in the table's order.
    pub(super) fn look(
        &self,
        table: &ArcSwap<ForwardingTable>,
        shared: &Shared,
        now: Mono,
        out: &mut Outbox,
    ) {
        let mut listed = self.0.lock();
        listed.devices.append(&mut shared.woken.0.lock());
        // After the list: whoever put a peer on it had a table with that peer.
        let table = table.load();
        // Who is on the list and not in the table is gone.
        let positions: BTreeSet<_> = listed
            .devices
            .iter()
            .filter_map(|device| table.by_device.get(device).copied())
            .collect();
        listed.devices.clear();
        listed.looked = now;
        listed.due = None;
        for peer in positions.into_iter().filter_map(|at| table.peers.get(at)) {
            let mut state = peer.state.lock();
            if !state.is_alive {
                continue;
            }
            state.tick(&mut Context {
                filter: &peer.filter,
                shared,
                now,
                out,
            });
            state.is_watched = !state.is_settled();
            if state.is_watched {
                listed.devices.insert(peer.device);
                let due = state.due(&peer.filter, now);
                listed.due = listed.due.into_iter().chain(due).min();
            }
        }
    }

    /// A table was put in force, which may have brought what is due at once.
    pub(super) fn table_changed(&self, now: Mono) {
        let mut listed = self.0.lock();
        listed.due = Some(now);
    }

    /// When the timers should look again; `None` where nobody is on the list.
    pub(super) fn next(&self, woken: &Woken) -> Option<Mono> {
        let listed = self.0.lock();
        if listed.devices.is_empty() && woken.is_empty() {
            return None;
        }
        let latest = listed.looked.saturating_add(LONGEST_SLEEP);
        Some(listed.due.map_or(latest, |due| due.min(latest)))
    }
}
