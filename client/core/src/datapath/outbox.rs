//! What the data path wants done: datagrams to send, packets to deliver, hints for the slow path.

use std::net::SocketAddr;
use std::ops::Range;

use super::event::DataPathEvent;
use crate::filter::Permit;
use crate::packet::IpPacket;
use crate::packet::ip::{self, Piece};
use crate::packet::join::{MAX_TAILS, Stretch};
use crate::packet::offload::{Ecn, Offload};

/// Events kept between two drains; they are hints, so the rest is dropped.
const MAX_EVENTS: usize = 256;
/// Datagrams in one segmented send: `UDP_MAX_SEGMENTS` of Linux before 6.9.
const MAX_SEGMENTS: usize = 64;
/// Bytes in one segmented send: the largest UDP payload.
const MAX_RUN: usize = 65_507;

/// Filled by the calls of the data path, emptied by the shell with [`Outbox::clear`]. The buffers are
/// kept, so that in steady state nothing is allocated.
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
    delivered: Arena,
    packets: Vec<Range<usize>>,
    stretches: Vec<StretchOf>,
    /// Headers of what is joined.
    headers: Vec<u8>,
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

/// Packets from `first` on that may be written as one.
#[derive(Debug)]
struct StretchOf {
    first: usize,
    stretch: Option<Stretch>,
    header: Range<usize>,
    offload: Offload,
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

/// One packet for the host, which may be many in one.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// What is left to the host.
    pub offload: Offload,
    /// The headers, or a whole packet where nothing is left to the host.
    pub head: &'a [u8],
    bytes: &'a [u8],
    packets: &'a [Range<usize>],
    header_len: usize,
}

impl<'a> Joined<'a> {
    /// Most pieces behind the head.
    pub const MAX_TAILS: usize = MAX_TAILS + 1;

    /// What follows the head, in order.
    pub fn tails(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (bytes, header_len) = (self.bytes, self.header_len);
        self.packets.iter().map(move |range| {
            let payload = range.start.saturating_add(header_len)..range.end;
            bytes.get(payload).unwrap_or_default()
        })
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
        self.packets.iter().map(|range| self.delivered.get(range))
    }

    /// The same packets, joined where they are one stretch of a flow.
    pub fn joined(&self) -> impl Iterator<Item = Joined<'_>> {
        let ends = self.stretches.iter().skip(1).map(|next| next.first);
        let ends = ends.chain([self.packets.len()]);
        self.stretches.iter().zip(ends).map(|(stretch, end)| {
            let packets = self.packets.get(stretch.first..end).unwrap_or_default();
            let (head, packets, header_len) = match (&stretch.stretch, packets.first()) {
                (Some(joined), _) => (
                    self.headers.get(stretch.header.clone()).unwrap_or_default(),
                    packets,
                    joined.header_len(),
                ),
                (None, Some(whole)) => (self.delivered.get(whole), &[][..], 0),
                (None, None) => (&[][..], &[][..], 0),
            };
            Joined {
                offload: stretch.offload,
                head,
                bytes: &self.delivered.bytes,
                packets,
                header_len,
            }
        })
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
        !self.packets.is_empty()
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        for sent in [&mut self.sent, &mut self.sent_later, &mut self.sent_alone] {
            sent.arena.used = 0;
            sent.runs.clear();
        }
        self.elsewhere.clear();
        self.has_first_fragments = false;
        self.delivered.used = 0;
        self.packets.clear();
        self.stretches.clear();
        self.headers.clear();
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

    /// Room for a packet of up to `len` bytes.
    pub(crate) fn delivery_room(&mut self, len: usize) -> &mut [u8] {
        self.delivered.room(len)
    }

    /// Delivers the packet that begins the room. Takes the proof that it passed the filter.
    pub(crate) fn commit_delivery(&mut self, _permit: &Permit, packet: &IpPacket) {
        self.end_stretch();
        let bytes = self.delivered.room(packet.len);
        let stretch = Stretch::new(packet, bytes);
        let range = self.delivered.commit(packet.len);
        self.stretches.push(StretchOf {
            first: self.packets.len(),
            stretch,
            header: 0..0,
            offload: Offload::default(),
        });
        self.packets.push(range);
    }

    /// Delivers the first `len` bytes of the room, padding included, if they go on where the packet
    /// committed last ends, and differ from it in nothing that the filter looks at: the permit for it
    /// covers them. Returns the packet's length.
    pub(crate) fn join_delivery(&mut self, len: usize) -> Option<usize> {
        let last = self.stretches.last_mut()?;
        let stretch = last.stretch.as_mut()?;
        let first = self.packets.get(last.first)?;
        let next = self.delivered.used..self.delivered.used.checked_add(len)?;
        let first = self.delivered.bytes.get(first.clone())?;
        let len = stretch.join(first, self.delivered.bytes.get(next)?)?;
        let range = self.delivered.commit(len);
        self.packets.push(range);
        Some(len)
    }

    /// Nothing joins what was delivered so far. To be called when a batch begins or ends, and where the
    /// packets' sender changes.
    pub(crate) fn end_stretch(&mut self) {
        let Some(last) = self.stretches.last_mut() else {
            return;
        };
        let Some(stretch) = last.stretch.as_mut().filter(|_| last.header.is_empty()) else {
            return;
        };
        stretch.close();
        let first = self.packets.get(last.first).cloned().unwrap_or_default();
        let start = self.headers.len();
        match stretch.header(self.delivered.get(&first), &mut self.headers) {
            Some(offload) => {
                last.header = start..self.headers.len();
                last.offload = offload;
            }
            // They are written as they came.
            None => {
                last.stretch = None;
                for first in last.first.saturating_add(1)..self.packets.len() {
                    self.stretches.push(StretchOf {
                        first,
                        stretch: None,
                        header: 0..0,
                        offload: Offload::default(),
                    });
                }
            }
        }
    }

    /// Tells the slow path, if there is room.
    pub(crate) fn event(&mut self, event: DataPathEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push(event);
        }
    }
}

/// Byte strings of any length, one behind the other.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

impl Arena {
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used.saturating_add(len);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).unwrap_or_default()
    }

    fn commit(&mut self, len: usize) -> Range<usize> {
        let start = self.used;
        self.used = start.saturating_add(len).min(self.bytes.len());
        start..self.used
    }

    fn get(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}
