//! The TUN device: where the host's packets enter and leave the overlay.
//!
//! A [`Tun`] has one or more queues, several for each worker that reads; a queue works in batches. [`linux`]
//! is the real one, with packets that are many in one both ways ([`vnet`]); [`channel`] joins two ends in
//! memory.

pub mod channel;
mod join;
pub mod linux;
mod steering;
pub mod vnet;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

use gatereeve_client_core::api::TunOffloads;
use gatereeve_client_core::datapath::{Batch, Outbox};

/// MTU inside the tunnel: an Ethernet frame of 1500 bytes less the largest outer headers.
pub const MTU: u32 = 1420;

/// Packets that a queue holds while its reader is busy; the kernel drops what comes beyond.
///
/// A whole super-packet counts like a small one, so this is much for bulk and little for bursts: measured on
/// busy cores, 20 take a third off the round trip under load, and lose half of 100,000 small datagrams a
/// second, of which 500 lose one or two in a hundred.
pub const QUEUE_LENGTH: u32 = 500;

/// A TUN device that never blocks.
pub trait Tun: Debug + Send + Sync {
    /// The interface's name.
    fn name(&self) -> &str;

    /// The queues that `worker` reads; none where others read for it. Packets of one flow come from one queue.
    fn queues(&self, worker: usize) -> Vec<&dyn TunQueue>;

    /// Writes every delivery of `outbox`, for `worker`.
    fn deliver(&self, worker: usize, outbox: &Outbox) -> Delivered;

    /// What the host takes off the data path.
    fn offloads(&self) -> TunOffloads;
}

/// What has become of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Packets that the host did not take.
    pub refused: u64,
    /// Which of the worker's [`Tun::queues`] an answer to the last one would come from, if any of them.
    pub answers: Option<usize>,
}

/// One queue of a [`Tun`]; threads may share it.
pub trait TunQueue: Debug + Send + Sync {
    /// Reads packets until there are `most` of them, `batch` is full or has as much as is good for a batch, or no
    /// more are there. Whether more may be waiting.
    ///
    /// # Errors
    /// When the device is gone or broken. No packet being there is none.
    fn receive(&self, most: usize, batch: &mut Batch) -> io::Result<bool>;

    /// Readable when [`Self::receive`] has something to read.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// The longest packet that the host should hand over whole, in bytes: what becomes one segmented send on
/// an underlay that carries the interface's MTU.
#[must_use]
pub fn longest_super_packet(mtu: u32) -> u32 {
    /// The most that one UDP datagram carries over IPv4, and so one segmented send.
    const SEND: u32 = 65_507;
    /// Segments that every kernel takes in one send.
    const SEGMENTS: u32 = 64;
    /// What WireGuard adds to a full packet, which is not padded past the MTU.
    const WIREGUARD: u32 = 32;
    /// Headers of TCP over IPv4 with timestamps.
    const HEADERS: u32 = 52;
    let segments = (SEND / mtu.saturating_add(WIREGUARD)).clamp(1, SEGMENTS);
    segments
        .saturating_mul(mtu.saturating_sub(HEADERS))
        .saturating_add(HEADERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_is_one_send() {
        assert_eq!(longest_super_packet(1420), 45 * 1368 + 52);
        // A narrow path, a jumbo one, and nonsense.
        assert_eq!(longest_super_packet(1280), 49 * 1228 + 52);
        assert_eq!(longest_super_packet(8920), 7 * 8868 + 52);
        assert_eq!(longest_super_packet(0), 52);
        assert!(longest_super_packet(576) <= 65_507);
    }
}
