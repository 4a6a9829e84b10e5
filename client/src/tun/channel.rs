//! A TUN device in memory, for tests: what the host sends is pushed in, what it receives is taken out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use gatereeve_client_core::api::TunOffloads;
use gatereeve_client_core::datapath::{Batch, Outbox};

use super::{Delivered, Tun, TunQueue};

/// Packets held in each direction; more are dropped, as a host does.
const CAPACITY: usize = 4096;

/// The device and, behind the same value, the host's side of it.
#[derive(Debug)]
pub struct ChannelTun {
    name: String,
    from_host: Mutex<VecDeque<Vec<u8>>>,
    to_host: Mutex<VecDeque<Vec<u8>>>,
    ready: EventFd,
}

impl ChannelTun {
    /// A device with nothing in it.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new(name: &str) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            from_host: Mutex::default(),
            to_host: Mutex::default(),
            ready: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
        })
    }

    /// The host sends `packet`. Whether there was room.
    pub fn push(&self, packet: &[u8]) -> bool {
        let mut queue = self.from_host.lock();
        let room = queue.len() < CAPACITY;
        if room {
            queue.push_back(packet.to_vec());
            // It fails only when the counter is full, and then the reader is awake already.
            let _ = self.ready.write(1);
        }
        room
    }

    /// What the host has received, oldest first.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.to_host.lock().pop_front()
    }
}

impl Tun for ChannelTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn queues(&self, worker: usize) -> Vec<&dyn TunQueue> {
        if worker == 0 { vec![self] } else { Vec::new() }
    }

    fn deliver(&self, worker: usize, outbox: &Outbox) -> Delivered {
        let mut queue = self.to_host.lock();
        let mut refused = 0;
        for packet in outbox.deliveries() {
            if queue.len() < CAPACITY {
                queue.push_back(packet.to_vec());
            } else {
                refused += 1;
            }
        }
        Delivered {
            refused,
            answers: (worker == 0).then_some(0),
        }
    }

    fn offloads(&self) -> TunOffloads {
        TunOffloads {
            queues: 1,
            ..TunOffloads::default()
        }
    }
}

impl TunQueue for ChannelTun {
    fn receive(&self, most: usize, batch: &mut Batch) -> io::Result<bool> {
        let mut queue = self.from_host.lock();
        for _ in 0..most {
            if batch.is_full() {
                break;
            }
            let Some(packet) = queue.pop_front() else {
                let _ = self.ready.read();
                return Ok(false);
            };
            batch.push(&packet, None);
        }
        Ok(true)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_the_order_they_went_in() {
        let tun = ChannelTun::new("test").unwrap();
        assert!(tun.push(b"one") && tun.push(b"two") && tun.push(b"three"));
        let mut batch = Batch::new(2, 16);
        assert!(
            tun.receive(usize::MAX, &mut batch).unwrap(),
            "one more waits"
        );
        let read: Vec<_> = batch.packets().map(|(packet, _)| packet.to_vec()).collect();
        assert_eq!(read, [b"one".to_vec(), b"two".to_vec()]);
        batch.clear();
        assert!(!tun.receive(usize::MAX, &mut batch).unwrap());
        assert_eq!(batch.len(), 1);
        batch.clear();
        assert!(!tun.receive(usize::MAX, &mut batch).unwrap());
        assert!(batch.is_empty());
    }
}
