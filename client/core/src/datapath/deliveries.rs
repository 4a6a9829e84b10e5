//! Packets for the host: those that are made here, and those that were opened where they were received, joined where they are one
//! stretch of a flow or one datagram.

use std::collections::VecDeque;
use std::ops::Range;

use super::arena::Arena;
use super::batch::Batch;
use crate::filter::Permit;
use crate::packet::IpPacket;
use crate::packet::fragment::reunited;
use crate::packet::ip::Fragment;
use crate::packet::join::{MAX_TAILS, Stretch};
use crate::packet::offload::Offload;
use crate::wg::CONTENTS_AT;

/// First fragments whose rest is looked for; as many as a batch of the host's has. A peer that sends more in one go does not have each
/// compared with each.
const MAX_BEGUN: usize = 64;

/// Bytes before a packet that was opened in place, which were its message's header. They are zero once it is delivered, but where it was
/// joined to another.
const ROOM: usize = CONTENTS_AT;

/// What one batch has for the host, in order. Filled with proofs of the filter only.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// Packets made here.
    made: Arena,
    /// Datagrams, opened in place.
    opened: Vec<u8>,
    /// Of each packet to be delivered its place in one of the two, which its stretch tells.
    packets: Vec<Range<usize>>,
    stretches: Vec<StretchOf>,
    /// Datagrams that came in two fragments.
    pairs: Vec<Pair>,
    /// First fragments of which the rest has not come so far, by their stretches.
    begun: VecDeque<usize>,
    /// Headers of what is joined.
    headers: Vec<u8>,
}

/// Packets from `first` on that may be written as one.
#[derive(Debug)]
struct StretchOf {
    first: usize,
    origin: Origin,
    stretch: Option<Stretch>,
    /// Headers of the first packet; of the whole, once it has ended.
    header: Range<usize>,
    has_ended: bool,
    offload: Offload,
    /// Which of the pairs it is, with its packet as the first fragment.
    pair: Option<usize>,
}

/// The two fragments of a datagram.
#[derive(Debug)]
struct Pair {
    fragments: [Range<usize>; 2],
    /// What of them follows the header of the whole.
    rest: [Range<usize>; 2],
}

/// Where the packets of a stretch lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Made,
    Opened,
}

/// One packet for the host, which may be many in one.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// What is left to the host.
    pub offload: Offload,
    /// The headers, or a whole packet where nothing is left to the host.
    pub head: &'a [u8],
    /// The head behind [`ROOM`], where it lies so and nothing is left to the host.
    roomy: Option<&'a [u8]>,
    bytes: &'a [u8],
    packets: &'a [Range<usize>],
    header_len: usize,
}

impl<'a> Joined<'a> {
    /// Most pieces behind the head.
    pub const MAX_TAILS: usize = MAX_TAILS + 1;

    /// How many packets it is.
    #[must_use]
    pub fn count(&self) -> usize {
        self.packets.len().max(1)
    }

    /// The whole packet behind `count` bytes that are zero, where it lies so and nothing is left to the host: whoever writes it with
    /// a header that is zero then has both in one piece.
    #[must_use]
    pub fn behind_zeros(&self, count: usize) -> Option<&'a [u8]> {
        let roomy = self.roomy?;
        // A header that is something else would be an order to the host. What was joined to another has its message's there still.
        let (room, _) = roomy.split_first_chunk::<ROOM>()?;
        if *room != [0; ROOM] {
            return None;
        }
        roomy.get(ROOM.checked_sub(count)?..)
    }

    /// What follows the head, in order.
    pub fn tails(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (bytes, header_len) = (self.bytes, self.header_len);
        self.packets.iter().map(move |range| {
            let payload = range.start.saturating_add(header_len)..range.end;
            bytes.get(payload).unwrap_or_default()
        })
    }
}

/// Clears what lies before the packet at `start`.
fn make_room(opened: &mut [u8], start: usize) {
    let room = start.checked_sub(ROOM).map(|from| from..start);
    if let Some(room) = room.and_then(|room| opened.get_mut(room)) {
        room.fill(0);
    }
}

impl Deliveries {
    /// Packets for the TUN device, in order.
    pub(super) fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.stretches().flat_map(|(stretch, packets)| {
            let bytes = self.bytes_of(stretch.origin);
            let packet = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
            packets.iter().map(packet)
        })
    }

    fn stretches(&self) -> impl Iterator<Item = (&StretchOf, &[Range<usize>])> {
        let ends = self.stretches.iter().skip(1).map(|next| next.first);
        let ends = ends.chain([self.packets.len()]);
        self.stretches.iter().zip(ends).map(|(stretch, end)| {
            let packets = match self.pair(stretch) {
                Some(pair) => &pair.fragments,
                None => self.packets.get(stretch.first..end).unwrap_or_default(),
            };
            (stretch, packets)
        })
    }

    fn pair(&self, stretch: &StretchOf) -> Option<&Pair> {
        self.pairs.get(stretch.pair?)
    }

    fn bytes_of(&self, origin: Origin) -> &[u8] {
        match origin {
            Origin::Made => self.made.bytes(),
            Origin::Opened => &self.opened,
        }
    }

    /// The same packets, joined where they are one stretch of a flow.
    pub(super) fn joined(&self) -> impl Iterator<Item = Joined<'_>> {
        self.stretches()
            .map(|(stretch, packets)| self.whole(stretch, packets))
    }

    /// The packet, if it is the only one.
    pub(super) fn lone(&self) -> Option<Joined<'_>> {
        match (self.stretches.as_slice(), self.packets.as_slice()) {
            ([stretch], packets @ [_]) if stretch.pair.is_none() => {
                Some(self.whole(stretch, packets))
            }
            _ => None,
        }
    }

    /// What the `packets` of `stretch` are written as.
    fn whole<'a>(&'a self, stretch: &'a StretchOf, packets: &'a [Range<usize>]) -> Joined<'a> {
        let bytes = self.bytes_of(stretch.origin);
        let header = || self.headers.get(stretch.header.clone());
        let is_opened = stretch.origin == Origin::Opened && stretch.offload == Offload::default();
        let roomy = |packet: &Range<usize>| bytes.get(packet.start.checked_sub(ROOM)?..packet.end);
        let mut behind = None;
        let (head, packets, header_len) = match (&stretch.stretch, packets) {
            (Some(joined), _) => (header(), packets, joined.header_len()),
            (None, [_, _]) if let Some(pair) = self.pair(stretch) => (header(), &pair.rest[..], 0),
            (None, [whole, ..]) => {
                behind = is_opened.then(|| roomy(whole)).flatten();
                (bytes.get(whole.clone()), &[][..], 0)
            }
            (None, []) => (None, &[][..], 0),
        };
        Joined {
            offload: stretch.offload,
            head: head.unwrap_or_default(),
            roomy: behind,
            bytes,
            packets,
            header_len,
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// As [`Self::clear`], and returns the buffers that were borrowed from `batch`, which is emptied.
    pub(super) fn give_back(&mut self, batch: &mut Batch) {
        self.clear();
        batch.clear();
        if !self.opened.is_empty() {
            batch.give_back(std::mem::take(&mut self.opened));
        }
    }

    /// Packets are opened in place from now on, in buffers that are [borrowed](Self::borrow_from) in the end. What lies in others
    /// that were not given back is not delivered any more.
    pub(super) fn begin_opening(&mut self) {
        self.end_stretch();
        if !self.opened.is_empty() {
            self.opened = Vec::new();
            self.clear();
        }
    }

    /// Borrows the buffers of `batch`, where packets were opened, and empties it.
    pub(super) fn borrow_from(&mut self, batch: &mut Batch) {
        self.opened = batch.lend();
        batch.clear();
    }

    /// Forgets the packets, keeps the buffers, also those that are borrowed.
    pub(super) fn clear(&mut self) {
        self.made.clear();
        self.packets.clear();
        self.stretches.clear();
        self.pairs.clear();
        self.begun.clear();
        self.headers.clear();
    }

    /// Room for a packet of up to `len` bytes that is made here.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        self.made.room(len)
    }

    /// Delivers the packet that begins the room. Takes the proof that it passed the filter.
    pub(super) fn deliver_made(&mut self, _permit: &Permit, packet: &IpPacket) {
        self.end_stretch();
        let range = self.made.commit(packet.len);
        let bytes = self.made.get(&range);
        let begun = begin(packet, bytes, &mut self.headers);
        self.deliver(Origin::Made, range, begun);
    }

    /// Delivers the packet at `start` among `opened`, the bytes of the batch that is [borrowed from](Self::borrow_from) in the
    /// end. Takes the proof that it passed the filter.
    pub(super) fn deliver_opened(
        &mut self,
        _permit: &Permit,
        packet: &IpPacket,
        opened: &mut [u8],
        start: usize,
    ) {
        self.end_stretch();
        make_room(opened, start);
        let range = start..start.saturating_add(packet.len);
        let bytes = opened.get(range.clone()).unwrap_or_default();
        match packet.fragment {
            Fragment::Whole => {}
            Fragment::First { .. } => {
                if self.begun.len() >= MAX_BEGUN {
                    self.begun.pop_front();
                }
                self.begun.push_back(self.stretches.len());
            }
            Fragment::Later { .. } => {
                if self.reunite(opened, range.clone()).is_some() {
                    return;
                }
            }
        }
        let begun = begin(packet, bytes, &mut self.headers);
        self.deliver(Origin::Opened, range, begun);
    }

    /// Delivers a fragment together with the first that came before, begins their datagram and has had no rest so far, if the two are
    /// all of it, and of one kind: as the host would, who would be asked twice.
    fn reunite(&mut self, opened: &[u8], last: Range<usize>) -> Option<()> {
        let bytes = opened.get(last.clone())?;
        // They come in the order of their first fragments, which was another run.
        let (place, stretch, first, datagram) =
            self.begun.iter().enumerate().find_map(|(place, stretch)| {
                let first = self.packets.get(self.stretches.get(*stretch)?.first)?;
                let datagram = reunited(opened.get(first.clone())?, bytes)?;
                Some((place, *stretch, first.clone(), datagram))
            })?;
        self.begun.remove(place);
        let whole = self.stretches.get_mut(stretch)?;
        let start = self.headers.len();
        self.headers.extend_from_slice(datagram.header());
        whole.offload.segments = datagram.segments;
        whole.header = start..self.headers.len();
        whole.pair = Some(self.pairs.len());
        self.pairs.push(Pair {
            rest: [
                first.start.saturating_add(datagram.first_from)..first.end,
                last.start.saturating_add(datagram.last_from)..last.end,
            ],
            fragments: [first, last],
        });
        Some(())
    }

    fn deliver(
        &mut self,
        origin: Origin,
        range: Range<usize>,
        begun: Option<(Stretch, Range<usize>)>,
    ) {
        let (stretch, header) = begun.unzip();
        self.stretches.push(StretchOf {
            first: self.packets.len(),
            origin,
            has_ended: stretch.is_none(),
            stretch,
            header: header.unwrap_or_default(),
            offload: Offload::default(),
            pair: None,
        });
        self.packets.push(range);
    }

    /// Delivers the packet at `range` among `opened`, padding included, if it goes on where the packet
    /// delivered last ends, and differs from it in nothing that the filter looks at: the permit for it
    /// covers this one. Returns the packet's length.
    pub(super) fn join_opened(&mut self, opened: &[u8], range: Range<usize>) -> Option<usize> {
        let last = self.stretches.last_mut()?;
        if last.origin != Origin::Opened {
            return None;
        }
        let first = self.headers.get(last.header.clone())?;
        let start = range.start;
        let len = last.stretch.as_mut()?.join(first, opened.get(range)?)?;
        self.packets.push(start..start.saturating_add(len));
        Some(len)
    }

    /// Nothing joins what was delivered so far. To be called when a batch begins or ends, and where the
    /// packets' sender changes.
    pub(super) fn end_stretch(&mut self) {
        let Some(last) = self.stretches.last_mut().filter(|last| !last.has_ended) else {
            return;
        };
        last.has_ended = true;
        let Some(stretch) = &mut last.stretch else {
            return;
        };
        stretch.close();
        // One that nothing was joined to is written as it came: in one piece, with the checksum that it has. For the kernel that is less
        // work than pieces, whose checksum it would not have to look at.
        let is_joined = self.packets.len() > last.first.saturating_add(1);
        let header = self.headers.get_mut(last.header.clone());
        let header = header.filter(|_| is_joined);
        match header.and_then(|header| stretch.finish(header)) {
            Some(offload) => last.offload = offload,
            // They are written as they came.
            None => {
                last.stretch = None;
                let (origin, next) = (last.origin, last.first.saturating_add(1));
                for first in next..self.packets.len() {
                    self.stretches.push(StretchOf {
                        first,
                        origin,
                        has_ended: true,
                        stretch: None,
                        header: 0..0,
                        offload: Offload::default(),
                        pair: None,
                    });
                }
            }
        }
    }
}

/// Begins a stretch with `packet`, which was parsed from `bytes`, and keeps its headers; `None` for what is never joined.
fn begin(
    packet: &IpPacket,
    bytes: &[u8],
    headers: &mut Vec<u8>,
) -> Option<(Stretch, Range<usize>)> {
    let stretch = Stretch::new(packet, bytes)?;
    let header = bytes.get(..stretch.header_len())?;
    let start = headers.len();
    headers.extend_from_slice(header);
    Some((stretch, start..headers.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::samples;

    fn packet(number: u8) -> Vec<u8> {
        let addresses = ["100.64.0.1", "100.64.0.2"].map(|text| text.parse().unwrap());
        let mut packet = samples::udp((addresses[0], 1), (addresses[1], 2), &[number; 30]);
        // One that may be joined: not to be fragmented, and with a checksum.
        (packet[6], packet[27]) = (0x40, 1);
        packet
    }

    /// As the data path does with packets that come.
    fn deliver(batch: &mut Batch, out: &mut Deliveries) {
        out.begin_opening();
        let (bytes, received) = batch.received();
        for range in received.flat_map(|received| received.datagrams()) {
            let packet = IpPacket::parse(&bytes[range.clone()]).unwrap();
            out.deliver_opened(&Permit::for_own_answer(), &packet, bytes, range.start);
        }
        out.end_stretch();
        out.borrow_from(batch);
    }

    fn delivered(out: &Deliveries) -> Vec<Vec<u8>> {
        out.packets().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn packets_stay_where_they_came_until_the_buffers_are_given_back() {
        let (mut batch, mut out) = (Batch::new(2, 100), Deliveries::default());
        assert!(batch.push(&packet(1), None) && batch.push(&packet(2), None));
        deliver(&mut batch, &mut out);
        assert_eq!(delivered(&out), [packet(1), packet(2)]);
        assert!(batch.is_empty() && batch.is_full() && batch.slot().is_none());
        assert!(!batch.push(&packet(3), None));
        out.give_back(&mut batch);
        assert!(out.is_empty() && batch.is_empty());
        assert!(batch.push(&packet(3), None));
        // What has nothing to return leaves the batch's buffers alone, and so does another's.
        out.give_back(&mut batch);
        let (mut other, mut others) = (Batch::new(1, 100), Deliveries::default());
        assert!(other.push(&packet(9), None));
        deliver(&mut other, &mut others);
        others.give_back(&mut batch);
        assert_eq!(batch.slots(9).count(), 2);
        assert!(batch.push(&packet(4), None));
        deliver(&mut batch, &mut out);
        assert_eq!(delivered(&out), [packet(4)]);
    }

    #[test]
    fn what_lies_in_another_batch_is_not_delivered_with_the_bytes_of_this_one() {
        let mut out = Deliveries::default();
        for number in 1..=2 {
            let mut batch = Batch::new(1, 100);
            assert!(batch.push(&packet(number), None));
            deliver(&mut batch, &mut out);
            assert_eq!(delivered(&out), [packet(number)]);
        }
    }

    #[test]
    fn what_is_made_and_what_is_opened_come_in_order() {
        let (mut batch, mut out) = (Batch::new(1, 100), Deliveries::default());
        assert!(batch.push(&packet(1), None));
        deliver(&mut batch, &mut out);
        let made = packet(2);
        out.room(made.len()).copy_from_slice(&made);
        let parsed = IpPacket::parse(&made).unwrap();
        out.deliver_made(&Permit::for_own_answer(), &parsed);
        out.end_stretch();
        assert_eq!(delivered(&out), [packet(1), packet(2)]);
        let whole: Vec<_> = out.joined().map(|joined| joined.tails().count()).collect();
        assert_eq!(whole, [0, 0], "each as it came");
    }

    #[test]
    fn of_many_first_fragments_the_last_ones_are_remembered() {
        let most = u16::try_from(MAX_BEGUN).unwrap();
        for (begun, whole) in [(most - 1, most - 1), (most, most), (most + 10, most)] {
            let addresses = ["100.64.0.1", "100.64.0.2"].map(|text| text.parse().unwrap());
            let (mut batch, mut out) = (Batch::new(200, 100), Deliveries::default());
            for (units, more) in [(0, true), (2, false)] {
                for id in 0..begun {
                    let pair = (addresses[0], addresses[1]);
                    let fragment = samples::fragment(pair, 17, id, units, more, &[0; 16]);
                    assert!(batch.push(&fragment, None));
                }
            }
            deliver(&mut batch, &mut out);
            let counts: Vec<_> = out.joined().map(|joined| joined.count()).collect();
            let (lost, whole) = (usize::from(begun - whole), usize::from(whole));
            let expected = [vec![1; lost], vec![2; whole], vec![1; lost]].concat();
            assert_eq!(counts, expected);
        }
    }

    #[test]
    fn a_fragment_that_comes_twice_is_there_twice() {
        let addresses = ["100.64.0.1", "100.64.0.2"].map(|text| text.parse().unwrap());
        let (mut batch, mut out) = (Batch::new(5, 100), Deliveries::default());
        let fragments = [
            (0, true, 1),
            (0, true, 2),
            (2, false, 3),
            (2, false, 4),
            (2, false, 5),
        ];
        let fragments = fragments.map(|(units, more, byte)| {
            let pair = (addresses[0], addresses[1]);
            samples::fragment(pair, 17, 9, units, more, &[byte; 16])
        });
        for fragment in &fragments {
            assert!(batch.push(fragment, None));
        }
        deliver(&mut batch, &mut out);
        let order = [0, 2, 1, 3, 4].map(|at| fragments[at].clone());
        assert_eq!(delivered(&out), order);
        let counts: Vec<_> = out.joined().map(|joined| joined.count()).collect();
        assert_eq!(counts, [2, 2, 1]);
        assert_eq!(out.packets().count(), 5);
        assert!(batch.slots(1).next().is_none());
        // Of what was given back nothing is compared with what comes next, or takes room for ever.
        out.begun.push_back(0);
        out.give_back(&mut batch);
        let left = [
            out.packets.len(),
            out.stretches.len(),
            out.pairs.len(),
            out.begun.len(),
            out.headers.len(),
        ];
        assert_eq!(left, [0; 5]);
    }

    #[test]
    fn of_ipv6_only_udp_is_put_together_and_is_to_be_cut_again() {
        let addresses = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        let pair = (addresses[0], addresses[1]);
        for (protocol, counts) in [(17, &[2][..]), (58, &[1, 1])] {
            let fragment =
                |units, more| samples::fragment(pair, protocol, 9, units, more, &[5; 16]);
            let fragments = [fragment(0, true), fragment(2, false)];
            let (mut batch, mut out) = (Batch::new(2, 100), Deliveries::default());
            assert!(fragments.iter().all(|one| batch.push(one, None)));
            deliver(&mut batch, &mut out);
            let joined: Vec<_> = out.joined().collect();
            assert!(joined.iter().map(Joined::count).eq(counts.iter().copied()));
            let sizes = joined.iter().map(|one| Some(one.offload.segments?.size));
            assert_eq!(
                sizes.flatten().collect::<Vec<_>>(),
                [16][..2 - counts.len()]
            );
            // As they came, where the host does not take the whole.
            assert_eq!(delivered(&out), fragments);
        }
    }

    /// What is alone is written as if it were among others.
    #[test]
    fn a_lone_packet_is_what_is_joined_of_it() {
        let addresses = ["100.64.0.1", "100.64.0.2"].map(|text| text.parse().unwrap());
        let pair = (addresses[0], addresses[1]);
        let fragment = |units, more| samples::fragment(pair, 17, 9, units, more, &[0; 16]);
        // Of what may be joined the headers are apart; two are one datagram, or one stretch.
        let batches: [(&[Vec<u8>], bool); 6] = [
            (&[packet(1)], true),
            (&[samples::udp((pair.0, 1), (pair.1, 2), &[7; 30])], true),
            (&[fragment(0, true)], true),
            (&[fragment(0, true), fragment(2, false)], false),
            (&[packet(1), packet(2)], false),
            (&[], false),
        ];
        for (packets, is_lone) in batches {
            let (mut batch, mut out) = (Batch::new(2, 100), Deliveries::default());
            assert!(packets.iter().all(|packet| batch.push(packet, None)));
            deliver(&mut batch, &mut out);
            let contents = |one: Joined<'_>| {
                let tails: Vec<_> = one.tails().map(<[u8]>::to_vec).collect();
                (one.offload, one.head.to_vec(), tails)
            };
            let lone = out.lone().map(contents);
            assert_eq!(lone.is_some(), is_lone);
            if is_lone {
                assert_eq!(lone, out.joined().map(contents).next());
            }
        }
    }

    /// Messages one behind the other, opened in place, and where their packets are.
    fn messages<const N: usize>(packets: [Vec<u8>; N]) -> (Vec<u8>, [Range<usize>; N]) {
        let mut bytes = Vec::new();
        let ranges = packets.map(|packet| {
            bytes.extend_from_slice(&[0xf0; CONTENTS_AT]);
            let start = bytes.len();
            bytes.extend_from_slice(&packet);
            let range = start..bytes.len();
            bytes.extend_from_slice(&[0x0f; 16]);
            range
        });
        (bytes, ranges)
    }

    #[test]
    fn an_opened_packet_lies_behind_zeros_and_nothing_else_does() {
        let permit = Permit::for_own_answer();
        let behind = |out: &Deliveries| -> Vec<Option<Vec<u8>>> {
            let joined = out.joined();
            let found = joined.map(|one| one.behind_zeros(10).map(<[u8]>::to_vec));
            found.collect()
        };
        let wanted = |n| Some([&[0; 10][..], &packet(n)].concat());
        // Alone, and two that are not joined; what else lies around them stays.
        let (mut bytes, ranges) = messages([packet(1), packet(2)]);
        let before = bytes.clone();
        let mut out = Deliveries::default();
        for (n, range) in (1..).zip(&ranges) {
            let parsed = IpPacket::parse(&packet(n)).unwrap();
            out.deliver_opened(&permit, &parsed, &mut bytes, range.start);
        }
        out.end_stretch();
        out.opened.clone_from(&bytes);
        assert_eq!(behind(&out), [wanted(1), wanted(2)]);
        let first = out.joined().next().unwrap();
        assert_eq!(first.behind_zeros(CONTENTS_AT + 1), None);
        // Where one of the bytes is something else there is no such piece, also where it would not be of the piece.
        for at in [0, CONTENTS_AT - 1] {
            out.opened[ranges[1].start - CONTENTS_AT + at] = 1;
            assert_eq!(behind(&out), [wanted(1), None]);
            out.opened.clone_from(&bytes);
        }
        for range in &ranges {
            bytes[range.start - CONTENTS_AT..range.start].fill(0xf0);
        }
        assert_eq!(bytes, before);
        // Joined, what the host has left to do is not nothing.
        let mut out = Deliveries::default();
        let (mut bytes, [one, two]) = messages([packet(1), packet(2)]);
        let parsed = IpPacket::parse(&packet(1)).unwrap();
        out.deliver_opened(&permit, &parsed, &mut bytes, one.start);
        assert!(out.join_opened(&bytes, two).is_some());
        // And what was made here lies elsewhere.
        out.room(parsed.len).copy_from_slice(&packet(3));
        out.deliver_made(&permit, &parsed);
        out.end_stretch();
        out.opened = bytes;
        assert_eq!(behind(&out), [None, None]);
        // In the beginning of the buffers nothing is before it.
        let mut out = Deliveries::default();
        let mut bytes = packet(1);
        out.deliver_opened(&permit, &parsed, &mut bytes, 0);
        out.end_stretch();
        assert_eq!(bytes, packet(1));
        out.opened = bytes;
        assert_eq!(behind(&out), [None]);
    }

    /// An answer of ours may come in between.
    #[test]
    fn what_was_joined_so_far_is_whole_when_something_is_made() {
        let mut out = Deliveries::default();
        let (mut bytes, [one, two]) = messages([packet(1), packet(2)]);
        let len = packet(1).len();
        let first = IpPacket::parse(&packet(1)).unwrap();
        out.begin_opening();
        out.deliver_opened(&Permit::for_own_answer(), &first, &mut bytes, one.start);
        assert_eq!(out.join_opened(&bytes, two), Some(len));
        out.room(len).copy_from_slice(&packet(3));
        out.deliver_made(&Permit::for_own_answer(), &first);
        out.end_stretch();
        let segments: Vec<_> = out
            .joined()
            .map(|joined| joined.offload.segments.is_some())
            .collect();
        assert_eq!(segments, [true, false]);
    }

    #[test]
    fn what_is_opened_does_not_join_what_was_made() {
        let (mut batch, mut out) = (Batch::new(2, 100), Deliveries::default());
        let packets = [packet(1), packet(2)];
        assert!(batch.push(&packets[1], None));
        let parsed = IpPacket::parse(&packets[0]).unwrap();
        for is_made in [true, false] {
            out.clear();
            let (bytes, _) = batch.received();
            if is_made {
                out.room(parsed.len).copy_from_slice(&packets[0]);
                out.deliver_made(&Permit::for_own_answer(), &parsed);
            } else {
                out.deliver_opened(&Permit::for_own_answer(), &parsed, bytes, 0);
            }
            let joined = out.join_opened(bytes, 0..parsed.len);
            assert_eq!(joined.is_none(), is_made);
        }
    }
}
