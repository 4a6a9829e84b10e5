//! One peer's mutable state, behind its lock: tunnels, tracked flows, endpoint, waiting packets.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;

use super::link::Link;
use super::path_mtu::PathMtu;
use super::path_probe::{Kind, PathMessage, SHORT};
use super::queue::{Queue, QueueBudget};
use crate::datapath::{DataPathEvent, Direction, Lane, Outbox, Shared};
use crate::drop_reason::DropReason;
use crate::filter::{FilterState, FlowRef, PeerFilter, Permit};
use crate::packet::answer::Refusal;
use crate::packet::offload::Ecn;
use crate::packet::{IpPacket, ip};
use crate::wg::handshake_limit::Bucket;
use crate::wg::timers::{Due, SOONEST};
use crate::wg::{HANDSHAKE_ROOM, OVERHEAD, OVERLAY_MTU, Opened, TunnelError};

/// Initiations of one peer that are answered per second.
const INITIATIONS: u64 = 50;
/// Probes of one peer that are answered per second: two searches.
const PROBES: u64 = 32;

/// Lives as long as its device is in the table; handed from table to table.
#[derive(Debug)]
pub(crate) struct PeerState {
    pub(crate) device: DeviceId,
    /// Cleared under the lock when the peer goes, so that a worker with an older table refuses.
    pub(crate) is_alive: bool,
    /// On the list of those whom the timers look at.
    pub(crate) is_watched: bool,
    /// A handshake is to be begun although nothing is to be sent: the peer has a session that is gone here.
    pub(crate) greets: bool,
    /// Best first.
    pub(crate) links: Vec<Link>,
    /// Learned from authenticated messages.
    pub(crate) endpoint: Option<SocketAddr>,
    /// From the map, at most [`CANDIDATES`](crate::path::CANDIDATES). The last may be the only one that leads there: it is
    /// where the controller sees the peer.
    pub(crate) candidates: Vec<SocketAddr>,
    path: PathMtu,
    pub(crate) filter: FilterState,
    pub(crate) last_handshake: Option<Mono>,
    pub(crate) rx: u64,
    pub(crate) tx: u64,
    queue: Queue,
    initiations: Bucket,
    probes: Bucket,
}

/// What a call works with besides the peer.
pub(crate) struct Context<'a> {
    pub(crate) filter: &'a PeerFilter,
    pub(crate) shared: &'a Shared,
    pub(crate) now: Mono,
    pub(crate) out: &'a mut Outbox,
}

impl PeerState {
    pub(crate) fn new(
        device: DeviceId,
        filter: FilterState,
        queues: QueueBudget,
        now: Mono,
    ) -> Self {
        Self {
            device,
            is_alive: true,
            is_watched: false,
            greets: false,
            links: Vec::new(),
            endpoint: None,
            candidates: Vec::new(),
            path: PathMtu::default(),
            filter,
            last_handshake: None,
            rx: 0,
            tx: 0,
            queue: Queue::new(queues),
            initiations: Bucket::new(INITIATIONS, INITIATIONS, now),
            probes: Bucket::new(PROBES, PROBES, now),
        }
    }

    /// The peer is gone: its keys go at once, and nothing passes any more.
    pub(crate) fn kill(&mut self) {
        self.is_alive = false;
        self.links.clear();
        self.filter.clear();
        while self.queue.pop().is_some() {}
    }

    /// The largest packet that the path to the peer carries.
    pub(crate) fn mtu(&self) -> usize {
        self.path.inner()
    }

    /// The path to `to` carries datagrams of `outer` bytes, IP header included.
    pub(crate) fn learn_mtu(&mut self, to: SocketAddr, outer: usize, now: Mono) {
        if self.destination() == Some(to) {
            self.path.learn(to, outer, now);
        }
    }

    /// Whether one more initiation of this peer may be answered.
    pub(crate) fn may_admit_initiation(&mut self, now: Mono) -> bool {
        self.initiations.has(now)
    }

    /// An initiation has proved to be this peer's.
    pub(crate) fn charge_initiation(&mut self, now: Mono) {
        self.initiations.take(now);
    }

    /// Counts a packet of `len` bytes that is delivered to the host.
    #[inline]
    pub(crate) fn received(&mut self, flow: FlowRef, len: usize) {
        let len = u64::try_from(len).unwrap_or(0);
        self.rx = self.rx.saturating_add(len);
        self.filter.count(flow, Direction::Inbound, len);
    }

    /// Seals and sends a packet that passed, or keeps it until there is a session.
    pub(crate) fn send(&mut self, permit: &Permit, packet: &[u8], cx: &mut Context<'_>) {
        let lane = cx.out.lane_of(packet);
        self.send_in(lane, permit, packet, cx);
    }

    /// The same, in a lane.
    pub(crate) fn send_in(
        &mut self,
        lane: Lane,
        permit: &Permit,
        packet: &[u8],
        cx: &mut Context<'_>,
    ) {
        let (Some(to), false) = (self.destination(), self.links.is_empty()) else {
            let reason = if self.links.is_empty() {
                DropReason::NoSession
            } else {
                DropReason::NoEndpoint
            };
            cx.shared.drops.count(reason);
            Self::unreachable(packet, cx);
            return;
        };
        for position in 0..self.links.len() {
            if self.seal(position, permit, packet, (to, lane), cx) {
                let len = u64::try_from(packet.len()).unwrap_or(0);
                self.tx = self.tx.saturating_add(len);
                if let Some(flow) = permit.flow() {
                    self.filter.count(flow, Direction::Outbound, len);
                }
                self.improve(position, cx);
                if self.path.is_due(packet.len(), cx.now) {
                    self.probe(SOONEST, cx);
                }
                return;
            }
        }
        if !self.queue.push(packet) {
            cx.shared.drops.count(DropReason::QueueFull);
        }
        self.shake_hands(cx);
    }

    /// Sends over one link, if it has a session.
    fn seal(
        &mut self,
        position: usize,
        permit: &Permit,
        packet: &[u8],
        (to, lane): (SocketAddr, Lane),
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(link) = self.links.get_mut(position) else {
            return false;
        };
        let Some(session) = link.tunnel.session(cx.now) else {
            return false;
        };
        let room = packet.len().saturating_add(OVERHEAD + 15);
        let room = cx.out.room_in(lane, room);
        let Ok(len) = link.tunnel.encapsulate(permit, packet, cx.now, room) else {
            return false;
        };
        cx.out.commit_in(lane, len, to, ip::ecn(packet));
        if link.timers.sent_data(Some(session), cx.now) {
            self.initiate(position, cx);
        }
        true
    }

    /// Has the peer say what comes through; more of it no sooner than `soonest` from now.
    #[cold]
    fn probe(&mut self, soonest: Duration, cx: &mut Context<'_>) {
        let before = self.path.inner();
        let (search, probes) = self.path.look(cx.now, soonest);
        let carries = self.path.inner();
        tracing::debug!(device = %self.device, search, probes = probes.len(), carries, "looking at the path");
        if carries != before {
            tracing::info!(device = %self.device, before, carries, "the path to the peer drops longer packets in silence");
        }
        let has_session = |link: &Link| link.tunnel.session(cx.now).is_some();
        let position = self.links.iter().position(has_session);
        let (Some(to), Some(position)) = (self.destination(), position) else {
            return;
        };
        for (length, len) in probes {
            let message = PathMessage {
                kind: Kind::Probe,
                length: *length,
                search,
            };
            self.say(position, message, *len, to, cx);
        }
    }

    /// Something about the path that came over the link at `position`.
    #[cold]
    pub(crate) fn path_message(
        &mut self,
        position: usize,
        message: PathMessage,
        cx: &mut Context<'_>,
    ) {
        match message.kind {
            Kind::Answer => {
                self.path.answered(message.search, message.length, cx.now);
            }
            Kind::Probe => {
                if let Some(to) = self.destination()
                    && self.probes.take(cx.now)
                {
                    let answer = PathMessage {
                        kind: Kind::Answer,
                        ..message
                    };
                    self.say(position, answer, SHORT, to, cx);
                }
            }
        }
    }

    fn say(
        &mut self,
        position: usize,
        message: PathMessage,
        len: usize,
        to: SocketAddr,
        cx: &mut Context<'_>,
    ) {
        let mut room = [0; OVERLAY_MTU];
        if let Some(bytes) = message.write(len, &mut room) {
            let permit = Permit::for_path_message();
            self.seal(position, &permit, bytes, (to, Lane::Alone), cx);
        }
    }

    /// While a worse link carries the traffic, tries the better ones.
    fn improve(&mut self, used: usize, cx: &mut Context<'_>) {
        for position in 0..used {
            let Some(link) = self.links.get(position) else {
                return;
            };
            if !link.timers.is_trying() && !link.timers.is_pausing(cx.now) {
                self.initiate(position, cx);
            }
        }
    }

    /// Begins a handshake on every link that has none under way: with a peer that has changed its keys
    /// nobody knows which of them it answers for.
    #[cold]
    fn shake_hands(&mut self, cx: &mut Context<'_>) {
        for position in 0..self.links.len() {
            if self
                .links
                .get(position)
                .is_some_and(|link| !link.timers.is_trying())
            {
                self.initiate(position, cx);
            }
        }
    }

    /// Makes what first handshakes need, ahead of them.
    pub(crate) fn prepare(&mut self, now: Mono) {
        for link in &mut self.links {
            link.tunnel.prepare(now);
        }
    }

    /// Sends an initiation to where the peer is, and to everywhere it may be.
    #[cold]
    fn initiate(&mut self, position: usize, cx: &mut Context<'_>) {
        let Some(link) = self.links.get_mut(position) else {
            return;
        };
        let jitter = cx.shared.jitter();
        link.timers.initiated(cx.now, jitter);
        let room = cx.out.transmit_room(HANDSHAKE_ROOM);
        let Ok(len) = link.tunnel.initiate(cx.now, room) else {
            return;
        };
        let known = self.endpoint;
        let others = self
            .candidates
            .iter()
            .copied()
            .filter(|candidate| Some(*candidate) != known);
        for (sent, to) in known.into_iter().chain(others).enumerate() {
            if sent == 0 {
                cx.out.commit_transmit(len, to, Ecn::NOT_ECT);
            } else {
                cx.out.repeat_elsewhere(to);
            }
        }
    }

    /// Where the peer may be and where it was, as of a new table.
    pub(crate) fn set_endpoints(
        &mut self,
        candidates: Vec<SocketAddr>,
        endpoint: Option<SocketAddr>,
    ) {
        let before = self.destination();
        self.candidates = candidates;
        self.endpoint = endpoint;
        if self.destination() != before {
            self.path.changed();
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        self.endpoint.or_else(|| self.candidates.first().copied())
    }

    /// Opens a handshake message or a cookie for the link at `position`.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn handshake(
        &mut self,
        position: usize,
        from: SocketAddr,
        datagram: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let link = self.links.get_mut(position).ok_or(DropReason::PeerGone)?;
        let room = cx.out.transmit_room(HANDSHAKE_ROOM);
        match link.tunnel.decapsulate(from, datagram, cx.now, room) {
            Ok(Opened::Response { len }) => {
                cx.out.commit_transmit(len, from, Ecn::NOT_ECT);
                // An old initiation could be replayed to a device that has been restarted, so the
                // first data on the session moves the endpoint, not this.
                Ok(())
            }
            Ok(Opened::Established { len }) => {
                // What waits confirms the session as well as an empty message does, and comes sooner alone.
                let nothing_waits = self.queue.is_empty();
                if nothing_waits {
                    cx.out.commit_transmit(len, from, Ecn::NOT_ECT);
                }
                link.timers.established();
                let sent = link.sent(cx.now);
                self.moved(from, cx);
                self.established(position, cx);
                let link = self.links.get(position);
                if !nothing_waits && link.is_some_and(|link| link.sent(cx.now) == sent) {
                    // The filter let nothing of it go, or it went over another link.
                    self.keepalive(position, cx);
                }
                Ok(())
            }
            // Cookies come unauthenticated: they move nothing.
            Ok(Opened::Cookie | Opened::Keepalive { .. } | Opened::Packet { .. }) => Ok(()),
            Err(error) => Err(reason(error)),
        }
    }

    /// Opens a data message in place. Returns the length of the packet in it, if there is one, and whether the message was the
    /// first on its session.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(crate) fn open(
        &mut self,
        position: usize,
        from: SocketAddr,
        datagram: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Result<(Option<usize>, bool), DropReason> {
        let link = self.links.get_mut(position).ok_or(DropReason::PeerGone)?;
        let (len, first) = match link.tunnel.decapsulate(from, datagram, cx.now, &mut []) {
            Ok(Opened::Packet { len, first }) => (Some(len), first),
            Ok(Opened::Keepalive { first }) => (None, first),
            Ok(Opened::Response { .. } | Opened::Established { .. } | Opened::Cookie) => {
                return Err(DropReason::Junk);
            }
            Err(error) => return Err(reason(error)),
        };
        if first {
            link.timers.established();
        }
        let session = link.tunnel.session(cx.now);
        let renew = link.timers.received(len.is_some(), session, cx.now);
        if !link.is_announced {
            link.is_announced = true;
            cx.out.event(DataPathEvent::KeyInUse {
                device: self.device,
                local_counter: link.local_counter,
                remote_counter: link.remote_counter,
            });
        }
        for link in &mut self.links {
            link.timers.heard();
        }
        if renew {
            self.initiate(position, cx);
        }
        self.moved(from, cx);
        Ok((len, first))
    }

    /// A session is usable: what waited goes out, judged again by the table in force.
    #[cold]
    pub(crate) fn established(&mut self, position: usize, cx: &mut Context<'_>) {
        self.last_handshake = Some(cx.now);
        if let Some(link) = self.links.get_mut(position) {
            link.is_announced = false;
        }
        cx.out.event(DataPathEvent::HandshakeDone {
            device: self.device,
        });
        for _ in 0..self.queue.len() {
            let Some(bytes) = self.queue.pop() else {
                return;
            };
            let judged = IpPacket::parse(&bytes).and_then(|packet| {
                cx.filter
                    .judge(&mut self.filter, &packet, Direction::Outbound, cx.now)
            });
            match judged {
                Ok(permit) => self.send(&permit, &bytes, cx),
                Err(reason) => cx.shared.drops.count(reason),
            }
        }
    }

    /// An authenticated message came from `from`.
    fn moved(&mut self, from: SocketAddr, cx: &mut Context<'_>) {
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            self.path.changed();
            cx.out.event(DataPathEvent::EndpointMoved {
                device: self.device,
                endpoint: from,
            });
        }
    }

    /// Whether time alone changes nothing here: no session, no handshake under way or to be begun, nothing owed, nothing
    /// tracked, nothing waiting.
    pub(crate) fn is_settled(&self) -> bool {
        !self.greets && self.queue.is_empty() && self.next().is_none()
    }

    /// When [`Self::tick`] has something to do next.
    pub(crate) fn due(&self, filter: &PeerFilter, now: Mono) -> Option<Mono> {
        let is_trying = self.links.iter().any(|link| link.timers.is_trying());
        let has_reason = self.greets || !self.queue.is_empty();
        let waits = has_reason && !self.links.is_empty() && !is_trying;
        let end = filter.live_until().filter(|end| *end > now);
        let due = self.next().into_iter().chain(end);
        due.chain(waits.then_some(now)).min()
    }

    fn next(&self) -> Option<Mono> {
        let links = self
            .links
            .iter()
            .flat_map(|link| [link.timers.next(), link.tunnel.expires()]);
        let others = [self.filter.expires(), self.path.next()];
        links.chain(others).flatten().min()
    }

    /// Timers.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        self.filter.prune(cx.now);
        self.path.forget(cx.now);
        if !cx.filter.is_live(cx.now) {
            // The last lease has run out: the session keys go with it.
            self.forget_sessions(cx.shared, cx.now);
            return;
        }
        let (mut gave_up, mut is_silent) = (false, false);
        for position in 0..self.links.len() {
            let Some(link) = self.links.get_mut(position) else {
                break;
            };
            link.tunnel.maintain(cx.now);
            let was_trying = link.timers.is_trying();
            match link.timers.due(cx.now) {
                Due::Nothing => {}
                Due::Initiation => {
                    is_silent |= !was_trying;
                    self.initiate(position, cx);
                }
                Due::Keepalive => self.keepalive(position, cx),
                Due::GiveUp => gave_up = true,
            }
        }
        if is_silent {
            self.path.doubt(cx.now);
        }
        if self.path.is_late(cx.now) {
            self.probe(Duration::ZERO, cx);
        }
        let greets = std::mem::take(&mut self.greets);
        if self.links.iter().any(|link| link.timers.is_trying()) {
            return;
        }
        if gave_up {
            self.give_up(cx);
        } else if greets || !self.queue.is_empty() {
            // The links that were trying have gone with their keys: the new ones take over.
            self.shake_hands(cx);
        }
    }

    fn keepalive(&mut self, position: usize, cx: &mut Context<'_>) {
        let (Some(to), Some(link)) = (self.destination(), self.links.get_mut(position)) else {
            return;
        };
        let room = cx.out.transmit_room(HANDSHAKE_ROOM);
        if let Ok(len) = link.tunnel.keepalive(cx.now, room) {
            cx.out.commit_transmit(len, to, Ecn::NOT_ECT);
            link.timers.sent_keepalive();
        }
    }

    /// Nobody answered: what waited is dropped, and the applications are told.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        if self.queue.is_empty() {
            return;
        }
        while let Some(bytes) = self.queue.pop() {
            cx.shared.drops.count(DropReason::HandshakeTimeout);
            Self::unreachable(&bytes, cx);
        }
        cx.out.event(DataPathEvent::HandshakeGivenUp {
            device: self.device,
        });
    }

    /// Tells the application that sent `bytes` that the peer cannot be reached.
    #[cold]
    fn unreachable(bytes: &[u8], cx: &mut Context<'_>) {
        if let Ok(packet) = IpPacket::parse(bytes) {
            cx.shared
                .refuse(bytes, &packet, Refusal::Unreachable, cx.now, cx.out);
        }
    }

    /// The peer has no live rule: what there was between us is over.
    pub(crate) fn forget_sessions(&mut self, shared: &Shared, now: Mono) {
        for link in &mut self.links {
            // One that the other side has not confirmed yet is a session, too.
            if link.tunnel.expires().is_some() {
                link.tunnel.erase();
            }
            link.tunnel.maintain(now);
            link.timers.clear();
        }
        while self.queue.pop().is_some() {
            shared.drops.count(DropReason::NoRule);
        }
        self.path.changed();
        self.filter.clear();
    }
}

fn reason(error: TunnelError) -> DropReason {
    match error {
        TunnelError::NoSession => DropReason::NoSession,
        TunnelError::Junk => DropReason::Junk,
        TunnelError::Crypto | TunnelError::Room | TunnelError::Clock | TunnelError::Key => {
            DropReason::Crypto
        }
    }
}
