//! Packets that wait for a handshake: bounded per peer and over all peers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::wg::OVERLAY_MTU;

const PACKETS: usize = 64;
const BYTES: usize = 128 * 1024;
const BYTES_OF_ALL: usize = 4 * 1024 * 1024;
/// The first packets for a peer, which have room whatever others have taken: that somebody talks to many who do not
/// answer keeps nobody's first packet from a peer that does.
const RESERVED: usize = 2;

/// Bytes that all queues may still hold.
#[derive(Clone, Debug)]
pub(crate) struct QueueBudget(Arc<AtomicUsize>);

impl Default for QueueBudget {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(BYTES_OF_ALL)))
    }
}

/// One peer's queue. What is in it was allowed when it came, and is judged again when it leaves.
#[derive(Debug)]
pub(crate) struct Queue {
    packets: VecDeque<Waiting>,
    bytes: usize,
    budget: QueueBudget,
}

#[derive(Debug)]
struct Waiting {
    packet: Vec<u8>,
    /// Bytes of everybody's room.
    shared: usize,
}

impl Queue {
    pub(crate) fn new(budget: QueueBudget) -> Self {
        Self {
            packets: VecDeque::new(),
            bytes: 0,
            budget,
        }
    }

    /// Takes a copy; `false` where there is no room.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let len = packet.len();
        if self.packets.len() >= PACKETS || self.bytes.saturating_add(len) > BYTES {
            return false;
        }
        let is_reserved = self.packets.len() < RESERVED && len <= OVERLAY_MTU;
        let shared = if is_reserved { 0 } else { len };
        let left = self
            .budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(shared)
            });
        if left.is_err() {
            return false;
        }
        self.bytes += len;
        let packet = packet.to_vec();
        self.packets.push_back(Waiting { packet, shared });
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let Waiting { packet, shared } = self.packets.pop_front()?;
        self.bytes = self.bytes.saturating_sub(packet.len());
        self.budget.0.fetch_add(shared, Ordering::Relaxed);
        Some(packet)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_bounded_by_itself_and_by_all_of_them() {
        let budget = QueueBudget::default();
        let mut queues: Vec<_> = (0..100).map(|_| Queue::new(budget.clone())).collect();
        let mut held = 0;
        for queue in &mut queues {
            while queue.push(&[0; 4096]) {
                held += 4096;
            }
            assert!(queue.len() <= 32);
        }
        assert_eq!(held, BYTES_OF_ALL);
        assert_eq!(queues[0].pop().map(|packet| packet.len()), Some(4096));
        assert!(queues[99].push(&[0; 4096]));
        drop(queues);
        assert_eq!(budget.0.load(Ordering::Relaxed), BYTES_OF_ALL);

        let mut small = Queue::new(budget);
        assert_eq!((0..1000).filter(|_| small.push(&[0; 20])).count(), PACKETS);
    }

    #[test]
    fn the_first_packets_for_a_peer_have_room_whatever_others_have_taken() {
        let budget = QueueBudget(Arc::new(AtomicUsize::new(3 * OVERLAY_MTU)));
        let mut loud = Queue::new(budget.clone());
        let full = [0; OVERLAY_MTU];
        assert_eq!((0..100).filter(|_| loud.push(&full)).count(), RESERVED + 3);
        let mut quiet = Queue::new(budget.clone());
        assert!(!quiet.push(&[0; OVERLAY_MTU + 1]), "no packet of ours");
        assert_eq!((0..100).filter(|_| quiet.push(&full)).count(), RESERVED);
        while quiet.pop().is_some() {}
        assert_eq!(budget.0.load(Ordering::Relaxed), 0, "it has given nothing");
        drop(loud);
        assert_eq!(budget.0.load(Ordering::Relaxed), 3 * OVERLAY_MTU);
    }
}
