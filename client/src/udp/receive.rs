//! Receiving: many datagrams per system call, coalesced ones taken apart.

use std::io::{self, IoSliceMut};

use quinn_udp::RecvMeta;

use gatereeve_client_core::datapath::Batch;

use super::Port;

/// Buffers per system call.
const BUFFERS: usize = 8;
/// Bytes per buffer: the most that the kernel coalesces.
const BUFFER_BYTES: usize = 65_535;

/// What one thread receives with.
#[derive(Debug)]
pub struct Receiver {
    bytes: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
    /// Buffers filled by the last call.
    filled: usize,
    /// Where the next datagram begins: buffer, offset in it.
    next: (usize, usize),
    /// Datagrams longer than a slot of the batch.
    oversized: u64,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: vec![0; BUFFERS * BUFFER_BYTES],
            metas: [RecvMeta::default(); BUFFERS],
            filled: 0,
            next: (0, 0),
            oversized: 0,
        }
    }

    /// Whether datagrams of the last call have not found room in a batch yet.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.next.0 < self.filled
    }

    /// Fills `batch` with what is left of the last call, or else with what `port` has; how many.
    ///
    /// # Errors
    /// Those of the socket. Nothing being there is none.
    pub fn receive(&mut self, port: &Port, batch: &mut Batch) -> io::Result<usize> {
        if !self.has_more() {
            self.filled = 0;
            self.next = (0, 0);
            let mut slices: Vec<IoSliceMut<'_>> = self
                .bytes
                .chunks_mut(BUFFER_BYTES)
                .map(IoSliceMut::new)
                .collect();
            self.filled = match port.state.recv(port.socket(), &mut slices, &mut self.metas) {
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
        }
        let before = batch.len();
        while !batch.is_full() {
            let Some((datagram, meta)) = self.take() else {
                break;
            };
            let fits = self
                .bytes
                .get(datagram.clone())
                .is_some_and(|bytes| batch.push(bytes, Some(meta.addr)));
            self.oversized += u64::from(!fits);
        }
        Ok(batch.len() - before)
    }

    /// Steps to the next datagram.
    fn take(&mut self) -> Option<(std::ops::Range<usize>, RecvMeta)> {
        while self.next.0 < self.filled {
            let (buffer, offset) = self.next;
            let meta = *self.metas.get(buffer)?;
            if offset >= meta.len {
                self.next = (buffer + 1, 0);
                continue;
            }
            let length = meta.stride.max(1).min(meta.len - offset);
            self.next = (buffer, offset + length);
            let start = buffer * BUFFER_BYTES + offset;
            return Some((start..start + length, meta));
        }
        None
    }
}
