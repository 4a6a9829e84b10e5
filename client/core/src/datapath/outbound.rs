//! From the TUN device to the underlay: whose packet, whose address, which rule, which tunnel.

use gatereeve_shared::time::Now;
use parking_lot::MutexGuard;

use super::batch::Batch;
use super::event::Direction;
use super::outbox::Outbox;
use super::shared::{Denial, Shared};
use super::table::{ForwardingTable, TablePeer};
use crate::drop_reason::DropReason;
use crate::packet::IpPacket;
use crate::packet::answer::Refusal;
use crate::peers::{Context, PeerState};

/// A peer whose lock is held from one packet of a batch to the next.
pub(super) struct Held<'a> {
    pub(super) position: usize,
    pub(super) peer: &'a TablePeer,
    pub(super) state: MutexGuard<'a, PeerState>,
}

impl<'a> Held<'a> {
    /// Keeps the lock where it is the same peer's, changes over where it is another's.
    pub(super) fn change(
        held: Option<Self>,
        table: &'a ForwardingTable,
        position: usize,
    ) -> Option<Self> {
        if held.as_ref().is_some_and(|held| held.position == position) {
            return held;
        }
        drop(held);
        let peer = table.peers.get(position)?;
        Some(Self {
            position,
            peer,
            state: peer.state.lock(),
        })
    }
}

/// Runs one batch.
pub(super) fn run(
    table: &ForwardingTable,
    shared: &Shared,
    is_open: bool,
    batch: &Batch,
    now: Now,
    out: &mut Outbox,
) {
    let mut held: Option<Held<'_>> = None;
    for (bytes, _) in batch.packets() {
        let packet = match IpPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(reason) => {
                shared.drops.count(reason);
                continue;
            }
        };
        let owner = route(table, is_open, &packet);
        let verdict = owner.and_then(|position| {
            held = Held::change(held.take(), table, position);
            let held = held.as_mut().ok_or(DropReason::NoRoute)?;
            if !held.state.is_alive {
                return Err(DropReason::PeerGone);
            }
            held.peer.filter.judge(
                &mut held.state.filter,
                &packet,
                Direction::Outbound,
                now.mono,
            )
        });
        match (verdict, held.as_mut()) {
            (Ok(permit), Some(held)) => {
                let mut cx = Context {
                    filter: &held.peer.filter,
                    shared,
                    now,
                    out,
                };
                let bytes = bytes.get(..packet.len).unwrap_or(bytes);
                held.state.send(&permit, bytes, &mut cx);
            }
            (Ok(_), None) => shared.drops.count(DropReason::NoRoute),
            (Err(reason), _) => {
                let device = owner
                    .ok()
                    .and_then(|position| table.peers.get(position))
                    .map(|peer| peer.device);
                let denial = Denial {
                    device,
                    direction: Direction::Outbound,
                    reason,
                };
                shared.denied(&packet, denial, now.mono, out);
                // Whatever the reason, the answer is the same: it does not tell who exists. A packet
                // with somebody else's source gets none.
                if reason != DropReason::NotFromUs {
                    shared.refuse(bytes, &packet, Refusal::Prohibited, now.mono, out);
                }
            }
        }
    }
}

fn route(table: &ForwardingTable, is_open: bool, packet: &IpPacket) -> Result<usize, DropReason> {
    if !table.is_own(packet.source) {
        return Err(DropReason::NotFromUs);
    }
    if !is_open {
        return Err(DropReason::Shut);
    }
    table
        .owners
        .owner(packet.destination)
        .ok_or(DropReason::NoRoute)
}
