//! What the data path wants done: datagrams to send, packets to deliver (`deliveries`), hints for the slow path.

use std::net::SocketAddr;
use std::ops::Range;

use super::arena::Arena;
use super::batch::Batch;
use super::deliveries::{Deliveries, Joined};
use super::event::DataPathEvent;
use crate::packet::ip::{self, Piece};
use crate::packet::offload::Ecn;

/// Events kept between two drains; they are hints, so the rest is dropped.
const MAX_EVENTS: usize = 256;
/// Datagrams in one segmented send: `UDP_MAX_SEGMENTS` of Linux before 6.9.
const MAX_SEGMENTS: usize = 64;
/// Bytes in one segmented send: the largest UDP payload.
const MAX_RUN: usize = 65_507;

/// Filled by the calls of the data path, emptied by the shell with [`Outbox::clear`], and after
/// [`DataPath::inbound`](super::DataPath::inbound) with [`Outbox::give_back`]: packets that came as datagrams lie where these were
/// received, and the outbox borrows the batch's buffers. All buffers are kept, so that in steady state nothing is allocated.
#[derive(Debug, Default)]
pub struct Outbox {
    /// What is sent first, and later fragments behind it: mixed, they would end each other's runs.
    sent: Sent,
    sent_later: Sent,
    /// Behind both, each on its own.
    sent_alone: Sent,
    /// What is in `sent` and goes elsewhere too.
    elsewhere: Vec<RunOf>,
    /// Whether first fragments are among what is sent first.
    has_first_fragments: bool,
    /// Packets for the host.
    pub(super) delivered: Deliveries,
    events: Vec<DataPathEvent>,
}

/// Which datagrams of a batch are sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Everything that has an order to keep.
    First,
    /// Fragments but the first of a datagram. They may come in any order, so they wait until the batch's
    /// other datagrams are out: a stream of fragmented datagrams is two runs, not two per datagram. Those whose first
    /// fragment was in the batch before do not wait: Linux gives a datagram up when 64 fragments of others come in
    /// between (`ipfrag_max_dist`).
    Fragments,
    /// What is never sent together with anything: a run with one datagram that is too long for its path goes out in
    /// fragments, and then the lengths of the others say nothing of the path. (Of one that is too long itself, the kernel
    /// has told how much fits.)
    Alone,
}

/// Datagrams one behind the other, and how they go together.
#[derive(Debug, Default)]
struct Sent {
    arena: Arena,
    runs: Vec<RunOf>,
}

impl Sent {
    fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|run| run.of(&self.arena))
    }
}

/// Datagrams of one size to one destination, one behind the other.
#[derive(Clone, Debug)]
struct RunOf {
    to: SocketAddr,
    ecn: Ecn,
    segment: usize,
    count: usize,
    range: Range<usize>,
}

impl RunOf {
    fn of<'a>(&self, arena: &'a Arena) -> Run<'a> {
        Run {
            to: self.to,
            ecn: self.ecn,
            segment: self.segment,
            bytes: arena.get(&self.range),
        }
    }
}

/// What one `UDP_SEGMENT` send carries: at most 64 datagrams and 65,507 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Bits for the outer header.
    pub ecn: Ecn,
    /// Bytes of each datagram but the last, which may have less.
    pub segment: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// The datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment.max(1))
    }

    /// Whether it is one datagram at most.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.bytes.len() <= self.segment
    }

    /// How many datagrams.
    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1))
    }
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Datagrams for the underlay, in order.
    pub fn transmits(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.runs()
            .chain(self.elsewhere())
            .flat_map(|run| run.datagrams().map(move |datagram| (run.to, datagram)))
    }

    /// The same datagrams without those of [`Self::elsewhere`], as many together as one system call takes.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        let (later, alone) = (self.sent_later.runs(), self.sent_alone.runs());
        self.sent.runs().chain(later).chain(alone)
    }

    /// Initiations that are among [`Self::runs`] already, once more for each other address where their peer may be. They
    /// may wait a little until there is nothing else to do: a peer has up to eighteen addresses, to send to one that
    /// the kernel has not resolved takes 0.06 ms, and the answer comes from the first as a rule.
    pub fn elsewhere(&self) -> impl Iterator<Item = Run<'_>> {
        self.elsewhere.iter().map(|run| run.of(&self.sent.arena))
    }

    /// Packets for the TUN device, in order.
    pub fn deliveries(&self) -> impl Iterator<Item = &[u8]> {
        self.delivered.packets()
    }

    /// The packet for the host, if it is the only one: what [`Self::joined`] has then, without the machinery for many.
    #[must_use]
    pub fn lone(&self) -> Option<Joined<'_>> {
        self.delivered.lone()
    }

    /// The same packets, joined where they are one stretch of a flow.
    pub fn joined(&self) -> impl Iterator<Item = Joined<'_>> {
        self.delivered.joined()
    }

    /// What the slow path should know.
    pub fn events(&self) -> &[DataPathEvent] {
        &self.events
    }

    /// Takes the events out.
    pub fn take_events(&mut self) -> impl Iterator<Item = DataPathEvent> + '_ {
        self.events.drain(..)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_transmits() && !self.has_deliveries() && self.events.is_empty()
    }

    /// Whether there are [`Self::runs`].
    #[must_use]
    pub fn has_transmits(&self) -> bool {
        let lanes = [&self.sent, &self.sent_later, &self.sent_alone];
        lanes.into_iter().any(|sent| !sent.runs.is_empty())
    }

    /// Whether there are [`Self::deliveries`].
    #[must_use]
    pub fn has_deliveries(&self) -> bool {
        !self.delivered.is_empty()
    }

    /// As [`Self::clear`], and returns the buffers that were borrowed from `batch`, which is emptied.
    pub fn give_back(&mut self, batch: &mut Batch) {
        self.clear();
        self.delivered.give_back(batch);
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        for sent in [&mut self.sent, &mut self.sent_later, &mut self.sent_alone] {
            sent.arena.clear();
            sent.runs.clear();
        }
        self.elsewhere.clear();
        self.has_first_fragments = false;
        self.delivered.clear();
        self.events.clear();
    }

    fn lane(&mut self, lane: Lane) -> &mut Sent {
        match lane {
            Lane::First => &mut self.sent,
            Lane::Fragments => &mut self.sent_later,
            Lane::Alone => &mut self.sent_alone,
        }
    }

    /// The lane of a packet that comes now.
    pub(crate) fn lane_of(&mut self, packet: &[u8]) -> Lane {
        match ip::piece(packet) {
            Piece::LaterFragment if self.has_first_fragments => return Lane::Fragments,
            Piece::FirstFragment => self.has_first_fragments = true,
            Piece::LaterFragment | Piece::Whole => {}
        }
        Lane::First
    }

    /// Room for a datagram of up to `len` bytes.
    pub(crate) fn transmit_room(&mut self, len: usize) -> &mut [u8] {
        self.room_in(Lane::First, len)
    }

    /// As [`Self::transmit_room`], in a lane.
    pub(crate) fn room_in(&mut self, lane: Lane, len: usize) -> &mut [u8] {
        self.lane(lane).arena.room(len)
    }

    /// Sends the first `len` bytes of the room.
    pub(crate) fn commit_transmit(&mut self, len: usize, to: SocketAddr, ecn: Ecn) {
        self.commit_in(Lane::First, len, to, ecn);
    }

    /// As [`Self::commit_transmit`], in a lane.
    pub(crate) fn commit_in(&mut self, lane: Lane, len: usize, to: SocketAddr, ecn: Ecn) {
        let sent = self.lane(lane);
        let range = sent.arena.commit(len);
        if lane != Lane::Alone
            && let Some(run) = sent.runs.last_mut()
            && run.range.end == range.start
            && run.to == to
            && run.ecn == ecn
            && len <= run.segment
            // All but the last have one size.
            && run.range.len() == run.count.saturating_mul(run.segment)
            && run.count < MAX_SEGMENTS
            && run.range.len().saturating_add(len) <= MAX_RUN
        {
            run.range.end = range.end;
            run.count = run.count.saturating_add(1);
            return;
        }
        sent.runs.push(RunOf {
            to,
            ecn,
            segment: len,
            count: 1,
            range,
        });
    }

    /// Sends the datagram committed last to another destination too, which may wait.
    pub(crate) fn repeat_elsewhere(&mut self, to: SocketAddr) {
        let Some(last) = self.sent.runs.last() else {
            return;
        };
        let left = last.range.len() % last.segment.max(1);
        let len = if left == 0 { last.segment } else { left };
        let range = last.range.end.saturating_sub(len)..last.range.end;
        self.elsewhere.push(RunOf {
            to,
            ecn: last.ecn,
            segment: len,
            count: 1,
            range,
        });
    }

    /// Tells the slow path, if there is room.
    pub(crate) fn event(&mut self, event: DataPathEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        }
    }
}
