//! What the data path wants done: datagrams to send, packets to deliver, hints for the slow path.

use std::net::SocketAddr;
use std::ops::Range;

use super::event::DataPathEvent;
use crate::filter::Permit;

/// Events kept between two drains; they are hints, so the rest is dropped.
const MAX_EVENTS: usize = 256;

/// Filled by the calls of the data path, emptied by the shell with [`Outbox::clear`]. The buffers are
/// kept, so that in steady state nothing is allocated.
#[derive(Debug, Default)]
pub struct Outbox {
    sent: Arena,
    destinations: Vec<SocketAddr>,
    delivered: Arena,
    events: Vec<DataPathEvent>,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Datagrams for the underlay, in order.
    pub fn transmits(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.destinations.iter().copied().zip(self.sent.items())
    }

    /// Packets for the TUN device, in order.
    pub fn deliveries(&self) -> impl Iterator<Item = &[u8]> {
        self.delivered.items()
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
        self.destinations.is_empty() && self.delivered.ranges.is_empty() && self.events.is_empty()
    }

    /// Forgets everything, keeps the buffers.
    pub fn clear(&mut self) {
        self.sent.clear();
        self.destinations.clear();
        self.delivered.clear();
        self.events.clear();
    }

    /// Room for a datagram of up to `len` bytes.
    pub(crate) fn transmit_room(&mut self, len: usize) -> &mut [u8] {
        self.sent.room(len)
    }

    /// Sends the first `len` bytes of the room.
    pub(crate) fn commit_transmit(&mut self, len: usize, to: SocketAddr) {
        self.sent.commit(len);
        self.destinations.push(to);
    }

    /// Sends the datagram committed last to another destination too.
    pub(crate) fn repeat_transmit(&mut self, to: SocketAddr) {
        if self.sent.repeat() {
            self.destinations.push(to);
        }
    }

    /// Room for a packet of up to `len` bytes.
    pub(crate) fn delivery_room(&mut self, len: usize) -> &mut [u8] {
        self.delivered.room(len)
    }

    /// Delivers the first `len` bytes of the room. Takes the proof that they passed the filter.
    pub(crate) fn commit_delivery(&mut self, _permit: &Permit, len: usize) {
        self.delivered.commit(len);
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
    ranges: Vec<Range<usize>>,
}

impl Arena {
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used.saturating_add(len);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.used..end).unwrap_or_default()
    }

    fn commit(&mut self, len: usize) {
        let end = self.used.saturating_add(len).min(self.bytes.len());
        self.ranges.push(self.used..end);
        self.used = end;
    }

    fn repeat(&mut self) -> bool {
        match self.ranges.last().cloned() {
            Some(range) => {
                self.ranges.push(range);
                true
            }
            None => false,
        }
    }

    fn items(&self) -> impl Iterator<Item = &[u8]> {
        self.ranges
            .iter()
            .map(|range| self.bytes.get(range.clone()).unwrap_or_default())
    }

    fn clear(&mut self) {
        self.used = 0;
        self.ranges.clear();
    }
}
