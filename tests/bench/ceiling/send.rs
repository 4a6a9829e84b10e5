//! TUN to UDP: read a super-packet, cut it, seal each segment into one run, send the run at once.

use std::io::ErrorKind;

use nix::poll::PollFlags;
use tun_rs::SyncDevice;

use crate::cipher::{Cipher, HANDSHAKE, Locked, Sealed, wire};
use crate::link::{Link, wait};
use crate::super_packet::{SuperPacket, VNET, Vnet};

/// Most that one segmented send may carry.
const RUN_BYTES: usize = 65_507;
const RUN_SEGMENTS: usize = 64;

/// Runs until the TUN fails.
pub(crate) fn run(device: &SyncDevice, cipher: &Cipher, link: &Link) -> anyhow::Result<()> {
    let mut buffer = vec![0; VNET + (1 << 16)];
    let mut run = Run {
        buffer: vec![0; RUN_BYTES + HANDSHAKE],
        scratch: vec![0; 1 << 16],
        used: 0,
        count: 0,
        segment: 0,
        is_closed: false,
        link,
    };
    loop {
        let read = match device.recv(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                run.flush();
                wait(device, PollFlags::POLLIN)?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some((header, packet)) = buffer
            .get_mut(..read)
            .and_then(|bytes| bytes.split_first_chunk_mut::<VNET>())
        else {
            continue;
        };
        let vnet = Vnet::read(header);
        let mut cipher = cipher.lock();
        if !vnet.is_super() {
            vnet.complete(packet);
            run.push(&mut cipher, packet.len(), |to| to.copy_from_slice(packet));
        } else if let Some(whole) = SuperPacket::parse(vnet, packet) {
            for segment in whole.segments() {
                run.push(&mut cipher, segment.length(), |to| segment.write(to));
            }
        }
    }
}

/// Datagrams of one size that go out together; the last may be shorter.
struct Run<'a> {
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    used: usize,
    count: usize,
    segment: usize,
    /// The last datagram is shorter: nothing may follow it.
    is_closed: bool,
    link: &'a Link,
}

impl Run<'_> {
    fn push(&mut self, cipher: &mut Locked<'_>, length: usize, write: impl FnOnce(&mut [u8])) {
        let size = wire(length);
        let fits = !self.is_closed
            && size <= self.segment
            && self.count < RUN_SEGMENTS
            && self.used + size <= RUN_BYTES;
        if self.count > 0 && !fits {
            self.flush();
        }
        let Some(to) = self.buffer.get_mut(self.used..) else {
            return;
        };
        match cipher.seal(length, write, &mut self.scratch, to) {
            Sealed::Data => {
                if self.count == 0 {
                    self.segment = size;
                }
                self.is_closed = size < self.segment;
                self.used += size;
                self.count += 1;
            }
            Sealed::Handshake(length) => {
                if let Some(message) = to.get(..length) {
                    self.link.send(message, None);
                }
            }
            Sealed::Nothing => {}
        }
    }

    fn flush(&mut self) {
        if let Some(bytes) = self.buffer.get(..self.used).filter(|_| self.count > 0) {
            let segment = (self.count > 1).then_some(self.segment);
            self.link.send(bytes, segment);
        }
        (self.used, self.count, self.segment) = (0, 0, 0);
        self.is_closed = false;
    }
}
