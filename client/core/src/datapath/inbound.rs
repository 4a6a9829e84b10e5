//! From the underlay to the TUN device: which tunnel, is it authentic, whose address, which rule.

use std::net::SocketAddr;
use std::ops::Range;

use gatereeve_shared::time::Mono;

use super::batch::Batch;
use super::event::Direction;
use super::outbound::Held;
use super::outbox::Outbox;
use super::shared::{Denial, Shared};
use super::table::{ForwardingTable, Gate};
use crate::drop_reason::DropReason;
use crate::packet::offload::{Ecn, Offload};
use crate::packet::{IpPacket, ip, mss};
use crate::peers::{Context, PathMessage};
use crate::wg::demux::{Datagram, classify};
use crate::wg::{CONTENTS_AT, HANDSHAKE_ROOM, OVERLAY_MTU, Proof};

/// One batch of datagrams, and what it is worked with.
pub(super) struct Inbound<'a> {
    pub(super) table: &'a ForwardingTable,
    pub(super) shared: &'a Shared,
    pub(super) now: Mono,
    pub(super) out: &'a mut Outbox,
    pub(super) held: Option<Held<'a>>,
    /// Which of the held peer's links the last datagram was for.
    pub(super) last_link: usize,
}

impl<'a> Inbound<'a> {
    /// Runs it.
    pub(super) fn run(mut self, batch: &mut Batch) {
        self.out.delivered.begin_opening();
        let (bytes, slots) = batch.received();
        for received in slots {
            let from = self.sender(received.from);
            for datagram in received.datagrams() {
                let result =
                    from.and_then(|from| self.datagram(bytes, datagram, from, received.ecn));
                if let Err(reason) = result {
                    self.shared.drops.count(reason);
                }
            }
        }
        self.out.delivered.end_stretch();
        self.out.delivered.borrow_from(batch);
    }

    /// Where what was received comes from, if it may.
    fn sender(&self, from: Option<SocketAddr>) -> Result<SocketAddr, DropReason> {
        let from = from.ok_or(DropReason::Junk)?;
        // A socket for both families would show IPv4 in mapped form.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        if self.table.is_underlay(from) {
            Ok(from)
        } else {
            Err(DropReason::OverlayEndpoint)
        }
    }

    /// One datagram: `range` of `bytes`, which are the batch's.
    fn datagram(
        &mut self,
        bytes: &mut [u8],
        range: Range<usize>,
        from: SocketAddr,
        ecn: Ecn,
    ) -> Result<(), DropReason> {
        let datagram = bytes.get_mut(range.clone()).ok_or(DropReason::Junk)?;
        match classify(datagram) {
            Datagram::Data { index } => self.data(index, bytes, range, from, ecn),
            Datagram::Initiation => self.initiation(datagram, from),
            Datagram::Response { index } | Datagram::Cookie { index } => {
                self.answer(index, datagram, from)
            }
            Datagram::Junk => Err(DropReason::Junk),
        }
    }

    /// Locks the peer that `index` leads to, and finds the link.
    fn by_index(&mut self, index: u32) -> Result<usize, DropReason> {
        // Most datagrams of a batch are for one link; that its peer is alive and has a live rule was
        // found at the batch's one time, under the lock that is still held.
        if let Some(held) = &self.held
            && held.state.links.get(self.last_link).map(|link| link.index) == Some(index)
        {
            return Ok(self.last_link);
        }
        let position = self
            .table
            .by_index
            .get(&index)
            .ok_or(DropReason::UnknownIndex)?;
        let held = self.hold(position)?;
        let links = &held.state.links;
        let link = links.iter().position(|link| link.index == index);
        let link = link.ok_or(DropReason::UnknownIndex)?;
        self.last_link = link;
        Ok(link)
    }

    fn hold(&mut self, position: usize) -> Result<&mut Held<'a>, DropReason> {
        let before = self.held.as_ref().map(|held| held.position);
        if before != Some(position) {
            self.out.delivered.end_stretch();
        }
        let held = Held::change(self.held.take(), self.table, self.shared, position);
        let held = held.ok_or(DropReason::PeerGone)?;
        if !held.state.is_alive {
            return Err(DropReason::PeerGone);
        }
        // A peer without a live rule has no business with us: no handshake, no session.
        if !held.peer.filter.is_live(self.now) {
            return Err(DropReason::NoRule);
        }
        Ok(self.held.insert(held))
    }

    fn data(
        &mut self,
        index: u32,
        bytes: &mut [u8],
        range: Range<usize>,
        from: SocketAddr,
        ecn: Ecn,
    ) -> Result<(), DropReason> {
        let link = self.by_index(index)?;
        let held = self.held.as_mut().ok_or(DropReason::PeerGone)?;
        let mut cx = Context {
            filter: &held.peer.filter,
            shared: self.shared,
            now: self.now,
            out: self.out,
        };
        let start = range.start.saturating_add(CONTENTS_AT);
        let datagram = bytes.get_mut(range).ok_or(DropReason::Junk)?;
        let (len, first) = held.state.open(link, from, datagram, &mut cx)?;
        if let Some(len) = len {
            let packet = start..start.saturating_add(len);
            match bytes.get(packet.clone()).and_then(PathMessage::read) {
                Some(message) => held.state.path_message(link, message, &mut cx),
                None => Self::deliver(self.table, held, bytes, packet, ecn, &mut cx),
            }
        }
        if first {
            held.state.established(link, &mut cx);
        }
        Ok(())
    }

    /// Checks the packet that was opened at `range` of the batch's `all` bytes, and delivers it.
    fn deliver(
        table: &ForwardingTable,
        held: &mut Held<'_>,
        all: &mut [u8],
        range: Range<usize>,
        ecn: Ecn,
        cx: &mut Context<'_>,
    ) {
        let bytes = all.get_mut(range.clone()).unwrap_or_default();
        if ecn == Ecn::CE && !ip::mark_congestion(bytes) {
            // RFC 6040: it was to be dropped where the congestion was, and could only be marked.
            cx.shared.drops.count(DropReason::Congestion);
            return;
        }
        // What goes on where the packet before ends is covered by its permit: same peer, same table, same
        // time, same addresses and ports. It is of the same flow, which has to be there to be counted in.
        if let Some(flow) = held
            .delivered
            .filter(|flow| held.state.filter.stands(*flow))
            && let Some(len) = cx.out.delivered.join_opened(all, range.clone())
        {
            held.state.received(flow, len);
            return;
        }
        let start = range.start;
        let bytes = all.get_mut(range).unwrap_or_default();
        let packet = match IpPacket::parse(bytes) {
            Ok(packet) => packet,
            Err(reason) => {
                cx.shared.drops.count(reason);
                return;
            }
        };
        // Cryptokey routing over all peers, not just the sender's own list.
        let verdict = if table.owners.owner(packet.source) != Some(held.position) {
            Err(DropReason::SpoofedSource)
        } else if !table.is_own(packet.destination) {
            Err(DropReason::NotForUs)
        } else {
            held.peer
                .filter
                .judge(&mut held.state.filter, &packet, Direction::Inbound, cx.now)
        };
        let most = held.state.mtu();
        if most < OVERLAY_MTU && verdict.is_ok() {
            mss::clamp(bytes, &packet, &Offload::default(), most);
        }
        match verdict {
            Ok(permit) => {
                cx.out
                    .delivered
                    .deliver_opened(&permit, &packet, all, start);
                held.delivered = permit.flow();
                if let Some(flow) = held.delivered {
                    held.state.received(flow, packet.len);
                }
            }
            Err(reason) => {
                let denial = Denial {
                    device: Some(held.peer.device),
                    direction: Direction::Inbound,
                    reason,
                };
                cx.shared.denied(&packet, denial, cx.now, cx.out);
            }
        }
    }

    /// An initiation: for which of our keys, and from whom?
    ///
    /// To find out whom it is from takes a Diffie-Hellman, and the tunnel that it is for does the same one again. So it is
    /// given first to the peer that is known to be where it came from: with another's it fails, and changes nothing.
    #[cold]
    fn initiation(&mut self, datagram: &mut [u8], from: SocketAddr) -> Result<(), DropReason> {
        let gate = self.admitted(datagram, from)?;
        let (now, table) = (self.now, self.table);
        if let Some(position) = table.by_candidate.get(&from)
            && let Ok(held) = self.hold(*position)
        {
            let mut links = held.state.links.iter();
            let link = links.position(|link| link.local == gate.local);
            let is_only = !links.any(|link| link.local == gate.local);
            if let (Some(link), true) = (link, is_only)
                && held.state.may_admit_initiation(now)
                && self.admitted_handshake(link, datagram, from).is_ok()
            {
                return Ok(());
            }
        }
        let remote = gate.gate.sender(datagram).ok_or(DropReason::Crypto)?;
        let position = *table.by_key.get(&remote).ok_or(DropReason::UnknownKey)?;
        let held = self.hold(position)?;
        if !held.state.may_admit_initiation(now) {
            return Err(DropReason::HandshakeRate);
        }
        let mut links = held.state.links.iter();
        let link = links
            .position(|link| link.is_between(&gate.local, &remote))
            .ok_or(DropReason::UnknownKey)?;
        self.admitted_handshake(link, datagram, from)
    }

    /// An initiation for a link, which counts against the peer where it proves to be the peer's: others can send from
    /// its address, and name its key.
    fn admitted_handshake(
        &mut self,
        link: usize,
        datagram: &mut [u8],
        from: SocketAddr,
    ) -> Result<(), DropReason> {
        self.handshake(link, datagram, from)?;
        if let Some(held) = &mut self.held {
            held.state.charge_initiation(self.now);
        }
        Ok(())
    }

    /// Which of our keys an initiation is for, if it is one to be looked at.
    fn admitted(&mut self, datagram: &[u8], from: SocketAddr) -> Result<&'a Gate, DropReason> {
        let gates = &self.table.gates;
        let gate = gates.iter().find(|gate| gate.gate.is_ours(datagram));
        let gate = gate.ok_or(DropReason::UnknownKey)?;
        self.admit(gate, datagram, from)?;
        Ok(gate)
    }

    /// A response or a cookie for a tunnel of ours.
    #[cold]
    fn answer(
        &mut self,
        index: u32,
        datagram: &mut [u8],
        from: SocketAddr,
    ) -> Result<(), DropReason> {
        let link = self.by_index(index)?;
        // A cookie takes no Diffie-Hellman, and without the initiation that it is for nobody can make one.
        if let Datagram::Response { .. } = classify(datagram) {
            let held = self.held.as_ref().ok_or(DropReason::PeerGone)?;
            let waiting = held.state.links.get(link);
            let waiting = waiting.ok_or(DropReason::UnknownIndex)?;
            // What answers nothing must not use up what its address has proved. Beside a session that the peer has begun
            // nothing is tried any more, but the answer to ours is still to come.
            if !waiting.timers.is_trying() && !waiting.tunnel.awaits(datagram) {
                return Err(DropReason::Crypto);
            }
            let gates = &self.table.gates;
            let gate = gates.iter().find(|gate| gate.local == waiting.local);
            let gate = gate.filter(|gate| gate.gate.is_ours(datagram));
            let gate = gate.ok_or(DropReason::UnknownKey)?;
            self.admit(gate, datagram, from)?;
        }
        self.handshake(link, datagram, from)
    }

    /// Lets a handshake message in, once. One that came before costs nothing, and nobody anything.
    fn admit(&mut self, gate: &Gate, datagram: &[u8], from: SocketAddr) -> Result<(), DropReason> {
        if self.shared.is_repeat(datagram) {
            return Err(DropReason::RepeatedHandshake);
        }
        self.admit_source(gate, datagram, from)?;
        self.shared.remember(datagram);
        Ok(())
    }

    /// Counts against where it comes from. What does not know our key does not come this far.
    fn admit_source(
        &mut self,
        gate: &Gate,
        datagram: &[u8],
        from: SocketAddr,
    ) -> Result<(), DropReason> {
        let (source, now) = (from.ip(), self.now);
        if self.shared.sources.lock().admit_claimed(source, now) {
            return Ok(());
        }
        let room = self.out.transmit_room(HANDSHAKE_ROOM);
        match gate.gate.prove(from, datagram, room) {
            Proof::Given => {}
            Proof::Asked { len } => {
                self.out.commit_transmit(len, from, Ecn::NOT_ECT);
                return Err(DropReason::UnderLoad);
            }
            Proof::Refused => return Err(DropReason::UnknownKey),
        }
        let is_known = self.table.by_candidate.contains_key(&from);
        let mut sources = self.shared.sources.lock();
        if sources.admit_proved(source, is_known, now) {
            Ok(())
        } else {
            Err(DropReason::HandshakeRate)
        }
    }

    fn handshake(
        &mut self,
        link: usize,
        datagram: &mut [u8],
        from: SocketAddr,
    ) -> Result<(), DropReason> {
        let held = self.held.as_mut().ok_or(DropReason::PeerGone)?;
        let mut cx = Context {
            filter: &held.peer.filter,
            shared: self.shared,
            now: self.now,
            out: self.out,
        };
        held.state.handshake(link, from, datagram, &mut cx)
    }
}
