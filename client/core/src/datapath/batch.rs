//! Buffers between the shell and the data path.

use std::net::SocketAddr;
use std::ops::Range;

use crate::packet::offload::{Ecn, Offload};

/// Packets or datagrams read in one go. The buffers are made once and used again.
///
/// A slot holds one packet from the TUN device, which may be many in one, or one datagram from the
/// underlay, or several of one sender that the kernel has put behind each other.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    slot_bytes: usize,
    filled: Vec<Filled>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Filled {
    /// Where it begins in its slot.
    at: usize,
    len: usize,
    /// Bytes of each datagram in it but the last, which may have less.
    stride: usize,
    from: Option<SocketAddr>,
    ecn: Ecn,
    offload: Offload,
}

/// What is in one slot: a packet, or datagrams of one sender.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    range: Range<usize>,
    stride: usize,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) ecn: Ecn,
}

impl Received {
    /// Where each datagram is among the batch's bytes. What is empty is a datagram, too.
    pub(crate) fn datagrams(&self) -> Datagrams {
        Datagrams {
            rest: Some(self.range.clone()),
            stride: self.stride.max(1),
        }
    }
}

/// Datagrams of one slot.
#[derive(Debug)]
pub(crate) struct Datagrams {
    rest: Option<Range<usize>>,
    stride: usize,
}

impl Iterator for Datagrams {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let Range { start, end } = self.rest.take()?;
        let next = start.saturating_add(self.stride);
        self.rest = (next < end).then_some(next..end);
        Some(start..next.min(end))
    }
}

impl Batch {
    /// Room for `slots` packets of up to `slot_bytes` bytes each. Memory is taken where it is written to.
    #[must_use]
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        Self {
            bytes: vec![0; slots.saturating_mul(slot_bytes)],
            slot_bytes,
            filled: Vec::with_capacity(slots),
            capacity: slots,
        }
    }

    /// The next free buffer, to read into; `None` when the batch is full.
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        self.slots(1).next()
    }

    /// The next free buffers, at most `most`, to read into at once; to be committed in their order.
    pub fn slots(&mut self, most: usize) -> impl Iterator<Item = &mut [u8]> {
        let free = self.capacity.saturating_sub(self.filled.len());
        self.bytes
            .chunks_mut(self.slot_bytes.max(1))
            .skip(self.filled.len())
            .take(free.min(most))
    }

    /// All free buffers but those of the first `kept`, one behind the other.
    pub fn spare(&mut self, kept: usize) -> &mut [u8] {
        let kept = self.filled.len().max(kept);
        let from = kept.saturating_mul(self.slot_bytes);
        self.bytes.get_mut(from..).unwrap_or_default()
    }

    /// Keeps the first `len` bytes of the buffer that [`Self::slot`] gave, with the underlay address
    /// they came from. Without a free slot it does nothing.
    pub fn commit(&mut self, len: usize, from: Option<SocketAddr>) {
        self.fill(Filled {
            at: 0,
            len,
            stride: len,
            from,
            ecn: Ecn::NOT_ECT,
            offload: Offload::default(),
        });
    }

    /// Keeps a packet of the host, `len` bytes from `at` on in the buffer that [`Self::slot`] gave, and what the host has left to do
    /// on it.
    pub fn commit_offloaded(&mut self, at: usize, len: usize, offload: Offload) {
        self.fill(Filled {
            at,
            len,
            stride: len,
            from: None,
            ecn: Ecn::NOT_ECT,
            offload,
        });
    }

    /// Keeps datagrams of `stride` bytes each, of which the last may have less.
    pub fn commit_coalesced(&mut self, len: usize, stride: usize, from: SocketAddr, ecn: Ecn) {
        self.fill(Filled {
            at: 0,
            len,
            stride,
            from: Some(from),
            ecn,
            offload: Offload::default(),
        });
    }

    fn fill(&mut self, filled: Filled) {
        if !self.is_full() {
            self.filled.push(Filled {
                len: filled.len.min(self.slot_bytes.saturating_sub(filled.at)),
                ..filled
            });
        }
    }

    /// Copies a packet in; `false` when the batch is full or the packet longer than a slot.
    pub fn push(&mut self, packet: &[u8], from: Option<SocketAddr>) -> bool {
        let Some(target) = self.slot().and_then(|slot| slot.get_mut(..packet.len())) else {
            return false;
        };
        target.copy_from_slice(packet);
        self.commit(packet.len(), from);
        true
    }

    /// Whether every slot is taken, or lent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled.len() >= self.capacity || self.bytes.is_empty()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// How many slots are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Bytes in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.filled.iter().map(|filled| filled.len).sum()
    }

    /// Forgets the packets, keeps the buffers.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// The packets or datagrams one by one, in the order they came.
    pub fn packets(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        received(&self.filled, self.slot_bytes).flat_map(|received| {
            let bytes = |datagram| self.bytes.get(datagram).unwrap_or_default();
            let from = received.from;
            received
                .datagrams()
                .map(move |datagram| (bytes(datagram), from))
        })
    }

    /// The bytes of all slots, and what is where among them.
    pub(crate) fn received(&mut self) -> (&mut [u8], impl Iterator<Item = Received>) {
        let received = received(&self.filled, self.slot_bytes);
        (&mut self.bytes, received)
    }

    /// Lends the buffers; until they are [given back](Self::give_back) it takes no packets.
    pub(crate) fn lend(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Takes the buffers back that it has [lent](Self::lend); others it does not take.
    pub(crate) fn give_back(&mut self, buffers: Vec<u8>) {
        let own = self.capacity.saturating_mul(self.slot_bytes);
        if self.bytes.is_empty() && buffers.len() == own {
            self.bytes = buffers;
        }
    }

    /// The packets of the host, to be worked on in place.
    pub(crate) fn packets_mut(&mut self) -> impl Iterator<Item = (&mut [u8], Offload)> {
        self.bytes
            .chunks_mut(self.slot_bytes.max(1))
            .zip(&self.filled)
            .filter_map(|(slot, filled)| {
                let packet = slot.get_mut(filled.at..)?.get_mut(..filled.len)?;
                Some((packet, filled.offload))
            })
    }
}

/// What is in the slots that are filled, each of `slot_bytes`.
fn received(filled: &[Filled], slot_bytes: usize) -> impl Iterator<Item = Received> {
    filled.iter().enumerate().map(move |(slot, filled)| {
        let start = slot.saturating_mul(slot_bytes).saturating_add(filled.at);
        Received {
            range: start..start.saturating_add(filled.len),
            stride: filled.stride,
            from: filled.from,
            ecn: filled.ecn,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_batch_takes_no_more() {
        let mut batch = Batch::new(2, 4);
        assert!(batch.push(b"one", None));
        assert!(!batch.push(b"longer", None));
        assert!(batch.push(b"two", None));
        assert!(batch.is_full());
        assert!(!batch.push(b"x", None));
        assert!(batch.slot().is_none());
        let packets: Vec<_> = batch.packets().map(|(bytes, _)| bytes.to_vec()).collect();
        assert_eq!(packets, [b"one".to_vec(), b"two".to_vec()]);
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn a_packet_may_begin_behind_something_else() {
        let mut batch = Batch::new(2, 8);
        for (at, len) in [(3, 4), (6, 9)] {
            if let Some(slot) = batch.slot() {
                slot.copy_from_slice(b"abcdefgh");
            }
            batch.commit_offloaded(at, len, Offload::default());
        }
        let packets: Vec<_> = batch.packets().map(|(bytes, _)| bytes.to_vec()).collect();
        // No further than its own buffer goes.
        assert_eq!(packets, [&b"defg"[..], b"gh"]);
        let in_place: Vec<_> = batch
            .packets_mut()
            .map(|(bytes, _)| bytes.to_vec())
            .collect();
        assert_eq!(in_place, packets);
    }

    #[test]
    fn coalesced_datagrams_come_one_by_one() {
        let from: SocketAddr = "192.0.2.1:5".parse().unwrap();
        let mut batch = Batch::new(3, 8);
        assert!(batch.push(b"first", None));
        let slots: Vec<_> = batch.slots(9).map(|slot| slot.len()).collect();
        assert_eq!(slots, [8, 8]);
        for (slot, text) in batch.slots(2).zip([b"aabbc...", b"dd......"]) {
            slot.copy_from_slice(text);
        }
        batch.commit_coalesced(5, 2, from, Ecn::CE);
        batch.commit_coalesced(2, 2, from, Ecn::NOT_ECT);
        assert_eq!(batch.bytes(), 12);
        let packets: Vec<_> = batch.packets().map(|(bytes, _)| bytes.to_vec()).collect();
        assert_eq!(packets, [&b"first"[..], b"aa", b"bb", b"c", b"dd"]);
        let (_, received) = batch.received();
        let marked = received.filter(|received| received.ecn == Ecn::CE);
        assert_eq!(
            marked
                .map(|received| received.datagrams().count())
                .sum::<usize>(),
            3
        );
    }
}
