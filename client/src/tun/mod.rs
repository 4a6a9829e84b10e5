//! The TUN device: where the host's packets enter and leave the overlay.
//!
//! [`Tun`] works in batches, so that an implementation may read and write many packets per call.
//! [`linux`] is the real one; [`channel`] joins two ends in memory.

pub mod channel;
pub mod linux;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

use gatereeve_client_core::datapath::{Batch, Outbox};

/// MTU inside the tunnel: an Ethernet frame of 1500 bytes less the largest outer headers.
pub const MTU: u32 = 1420;

/// A TUN device that never blocks.
pub trait Tun: Debug + Send + Sync {
    /// The interface's name.
    fn name(&self) -> &str;

    /// Reads packets until `batch` is full or no more are there; how many were read.
    ///
    /// # Errors
    /// When the device is gone or broken. No packet being there is none.
    fn receive(&self, batch: &mut Batch) -> io::Result<usize>;

    /// Writes every delivery of `outbox`; how many the host did not take.
    fn deliver(&self, outbox: &Outbox) -> u64;

    /// Readable when [`Self::receive`] has something to read.
    fn readable(&self) -> BorrowedFd<'_>;
}
