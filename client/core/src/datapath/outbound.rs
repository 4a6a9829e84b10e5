//! From the TUN device to the underlay: whose packet, whose address, which rule, which tunnel.

use gatereeve_shared::time::Mono;
use parking_lot::MutexGuard;

use super::batch::Batch;
use super::event::Direction;
use super::outbox::{Lane, Outbox};
use super::shared::{Denial, Shared};
use super::table::{ForwardingTable, TablePeer};
use crate::dns;
use crate::drop_reason::DropReason;
use crate::filter::{FlowRef, Permit};
use crate::packet::answer::Refusal;
use crate::packet::fragment::{Fragments, may_be_cut};
use crate::packet::ip::Transport;
use crate::packet::offload::{Offload, SegmentKind, SegmentsOf};
use crate::packet::segment::{Segments, finish_whole};
use crate::packet::{IpPacket, UDP_HEADER, mss};
use crate::peers::{Context, PeerState};
use crate::wg::{LEAST_MTU, OVERLAY_MTU};

/// A peer whose lock is held from one packet of a batch to the next.
pub(super) struct Held<'a> {
    pub(super) position: usize,
    pub(super) peer: &'a TablePeer,
    pub(super) state: MutexGuard<'a, PeerState>,
    /// The flow of the packet that was delivered to the host last: what joins it is counted there.
    pub(super) delivered: Option<FlowRef>,
    shared: &'a Shared,
}

/// Before the lock is let go: what happened may be for the timers to follow.
impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.woken.note(&mut self.state);
    }
}

impl<'a> Held<'a> {
    /// Keeps the lock where it is the same peer's, changes over where it is another's.
    pub(super) fn change(
        held: Option<Self>,
        table: &'a ForwardingTable,
        shared: &'a Shared,
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
            delivered: None,
            shared,
        })
    }
}

/// One batch of packets, and what it is worked with.
pub(super) struct Outbound<'a> {
    pub(super) table: &'a ForwardingTable,
    pub(super) shared: &'a Shared,
    pub(super) is_open: bool,
    pub(super) now: Mono,
    pub(super) out: &'a mut Outbox,
    pub(super) held: Option<Held<'a>>,
}

impl Outbound<'_> {
    /// Runs it.
    pub(super) fn run(mut self, batch: &mut Batch) {
        for (bytes, offload) in batch.packets_mut() {
            let packet = match IpPacket::parse(bytes) {
                Ok(packet) => packet,
                Err(reason) => {
                    self.shared.drops.count(reason);
                    continue;
                }
            };
            match self.packet(bytes, &packet, offload) {
                Ok(()) => {}
                Err(DropReason::NoRoute)
                    if offload.segments.is_none() && self.names(bytes, &packet) => {}
                Err(reason) => self.refuse(bytes, &packet, reason),
            }
        }
    }

    /// One decision for a packet, also where it is many in one: its segments differ in nothing that the
    /// filter looks at.
    fn packet(
        &mut self,
        bytes: &mut [u8],
        packet: &IpPacket,
        offload: Offload,
    ) -> Result<(), DropReason> {
        let position = route(self.table, self.is_open, packet)?;
        self.held = Held::change(self.held.take(), self.table, self.shared, position);
        let held = self.held.as_mut().ok_or(DropReason::NoRoute)?;
        if !held.state.is_alive {
            return Err(DropReason::PeerGone);
        }
        let permit = held.peer.filter.judge(
            &mut held.state.filter,
            packet,
            Direction::Outbound,
            self.now,
        )?;
        let mut cx = Context {
            filter: &held.peer.filter,
            shared: self.shared,
            now: self.now,
            out: self.out,
        };
        let most = held.state.mtu();
        let mut offload = offload;
        if most < OVERLAY_MTU {
            mss::clamp(bytes, packet, &offload, most);
            if let Some(segments) = unteachable(bytes, packet, &offload, most) {
                offload.segments = Some(segments);
            }
            if is_too_big(packet, &offload, most) && !may_be_cut(bytes) {
                return Err(DropReason::TooBig);
            }
        }
        let mut send = |packet: &mut [u8]| {
            if most == OVERLAY_MTU || packet.len() <= most {
                held.state.send(&permit, packet, &mut cx);
            } else if let Some(mut fragments) = Fragments::new(packet, most) {
                // One behind the other: a batch can be more datagrams than Linux has others come between two
                // fragments (`ipfrag_max_dist`).
                while let Some(fragment) = fragments.next() {
                    held.state.send_in(Lane::First, &permit, fragment, &mut cx);
                }
            } else {
                cx.shared.drops.count(DropReason::TooBig);
            }
        };
        match offload.segments {
            Some(how) => {
                let segments = Segments::new(bytes, packet, how, most);
                let mut segments = segments.ok_or(DropReason::Malformed)?;
                while let Some(segment) = segments.next() {
                    send(segment);
                }
            }
            None => {
                let bytes = bytes.get_mut(..packet.len).ok_or(DropReason::Malformed)?;
                finish_whole(bytes, packet, &offload).ok_or(DropReason::Malformed)?;
                send(bytes);
            }
        }
        Ok(())
    }

    /// Answers a question for a name, if it is one.
    #[cold]
    fn names(&mut self, bytes: &[u8], packet: &IpPacket) -> bool {
        let Some(directory) = self.table.directory(self.now) else {
            return false;
        };
        if !self.table.is_resolver(packet.destination) {
            return false;
        }
        let room = self.out.delivered.room(dns::ROOM);
        let is_answered = dns::answer(bytes, packet, &directory, room).is_some();
        if is_answered && let Ok(answer) = IpPacket::parse(room) {
            let permit = Permit::for_own_answer();
            self.out.delivered.deliver_made(&permit, &answer);
        }
        is_answered
    }

    /// Tells the application why its packet goes nowhere, and the slow path.
    #[cold]
    fn refuse(&mut self, bytes: &[u8], packet: &IpPacket, reason: DropReason) {
        let owner = route(self.table, self.is_open, packet).ok();
        if reason == DropReason::TooBig {
            self.too_big(bytes, packet, owner);
            return;
        }
        let denial = Denial {
            device: owner
                .and_then(|position| self.table.peers.get(position))
                .map(|peer| peer.device),
            direction: Direction::Outbound,
            reason,
        };
        self.shared.denied(packet, denial, self.now, self.out);
        // Whatever the reason, the answer is the same: it does not tell who exists. A packet with
        // somebody else's source gets none.
        if reason != DropReason::NotFromUs {
            self.shared
                .refuse(bytes, packet, Refusal::Prohibited, self.now, self.out);
        }
    }

    /// The path is too narrow, and the packet may not be cut: the sender is told how narrow, and sends less (RFC 1191,
    /// RFC 8201).
    fn too_big(&mut self, bytes: &[u8], packet: &IpPacket, owner: Option<usize>) {
        self.shared.drops.count(DropReason::TooBig);
        let peer = owner.and_then(|position| self.table.peers.get(position));
        let Some(peer) = peer else {
            return;
        };
        let held = self
            .held
            .as_ref()
            .filter(|held| Some(held.position) == owner);
        let mtu = held.map_or_else(|| peer.state.lock().mtu(), |held| held.state.mtu());
        // Less is not heeded at all.
        let least = if packet.source.is_ipv4() {
            0
        } else {
            LEAST_MTU
        };
        let mtu = mtu.max(least);
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        self.shared
            .refuse(bytes, packet, Refusal::TooBig(mtu), self.now, self.out);
    }
}

/// Whether the packet, or one of the datagrams in it, is longer than `most`. What is many segments of TCP is cut to fit.
fn is_too_big(packet: &IpPacket, offload: &Offload, most: usize) -> bool {
    match offload.segments {
        None => packet.len > most,
        Some(how) => {
            let datagram = usize::from(how.size).saturating_add(packet.transport_at + UDP_HEADER);
            how.kind == SegmentKind::Udp && datagram > most
        }
    }
}

/// How to cut a lone TCP packet whose sender would not heed that it is too long: a path of IPv6 carries
/// 1,280 bytes, and Linux takes no notice of who says less (RFC 8200, section 5).
fn unteachable(
    bytes: &[u8],
    packet: &IpPacket,
    offload: &Offload,
    most: usize,
) -> Option<SegmentsOf> {
    let is_one = offload.segments.is_none() && packet.len > most;
    let Transport::Tcp { .. } = packet.transport else {
        return None;
    };
    if !is_one || packet.source.is_ipv4() || most >= LEAST_MTU {
        return None;
    }
    let words = bytes.get(packet.transport_at.checked_add(12)?)? >> 4;
    let header = packet.transport_at.checked_add(usize::from(words) * 4)?;
    Some(SegmentsOf {
        kind: SegmentKind::Tcp6,
        header: u16::try_from(header).ok()?,
        size: u16::try_from(most.checked_sub(header)?).ok()?,
    })
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
