//! Buffers between the shell and the data path.

use std::net::SocketAddr;

/// Packets or datagrams read in one go. The buffers are made once and used again.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    slot_bytes: usize,
    filled: Vec<Filled>,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Filled {
    len: usize,
    from: Option<SocketAddr>,
}

impl Batch {
    /// Room for `slots` packets of up to `slot_bytes` bytes each.
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
        if self.is_full() {
            return None;
        }
        let start = self.filled.len().checked_mul(self.slot_bytes)?;
        self.bytes.get_mut(start..)?.get_mut(..self.slot_bytes)
    }

    /// Keeps the first `len` bytes of the buffer that [`Self::slot`] gave, with the underlay address
    /// they came from. Without a free slot it does nothing.
    pub fn commit(&mut self, len: usize, from: Option<SocketAddr>) {
        if !self.is_full() {
            self.filled.push(Filled {
                len: len.min(self.slot_bytes),
                from,
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

    /// Whether every slot is taken.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled.len() >= self.capacity
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    /// How many packets are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled.len()
    }

    /// Forgets the packets, keeps the buffers.
    pub fn clear(&mut self) {
        self.filled.clear();
    }

    /// The packets, in the order they came.
    pub fn packets(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        self.bytes
            .chunks(self.slot_bytes.max(1))
            .zip(&self.filled)
            .filter_map(|(slot, filled)| Some((slot.get(..filled.len)?, filled.from)))
    }
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
}
