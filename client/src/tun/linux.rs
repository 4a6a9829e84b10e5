//! `/dev/net/tun`, one packet per system call.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use tun_rs::{DeviceBuilder, SyncDevice};

use gatereeve_client_core::datapath::{Batch, Outbox};

use super::{MTU, Tun};

/// A TUN interface that lives as long as this value: when the process ends, however it does, the
/// interface goes, with its addresses and the routes through it.
pub struct LinuxTun {
    device: SyncDevice,
    name: String,
}

impl std::fmt::Debug for LinuxTun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxTun")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LinuxTun {
    /// Makes the interface `name`, down and without addresses.
    ///
    /// # Errors
    /// Where `/dev/net/tun` cannot be opened, the right (CAP_NET_ADMIN) is missing, or the name is taken.
    pub fn open(name: &str) -> Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(u16::try_from(MTU).unwrap_or(u16::MAX))
            .enable(false)
            .build_sync()
            .with_context(|| {
                format!("cannot make the TUN interface {name}; it takes CAP_NET_ADMIN, /dev/net/tun and a name that is free")
            })?;
        device
            .set_nonblocking(true)
            .with_context(|| format!("cannot set up the TUN interface {name}"))?;
        Ok(Self {
            device,
            name: name.to_owned(),
        })
    }
}

impl Tun for LinuxTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        let mut read = 0;
        while let Some(slot) = batch.slot() {
            match self.device.recv(slot) {
                Ok(len) => {
                    batch.commit(len, None);
                    read += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn deliver(&self, outbox: &Outbox) -> u64 {
        // The interface takes a packet or drops it; waiting would hold up the packets behind.
        let refused = outbox
            .deliveries()
            .filter(|packet| self.device.send(packet).is_err())
            .count();
        refused as u64
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
