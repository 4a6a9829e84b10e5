//! Receiving: many datagrams per system call, coalesced ones whole, straight into a batch.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};

use quinn_udp::RecvMeta;

use gatereeve_client_core::datapath::Batch;
use gatereeve_client_core::packet::offload::Ecn;

use super::Port;
use super::pages;
use super::shape::{FEW, MANY, Shape};

/// Bytes received into buffers beyond the few before their memory is given back.
const SPARE: usize = 256 * 1024;

/// What one thread receives with from one socket.
#[derive(Debug)]
pub struct Receiver {
    shape: Shape,
    metas: Vec<RecvMeta>,
    /// Bytes of coalesced datagrams in buffers beyond the few, since the memory of these was given back.
    beyond: usize,
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

impl Receiver {
    /// One that has received nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let nothing = RecvMeta {
            addr: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            len: 0,
            stride: 0,
            ecn: None,
            dst_ip: None,
        };
        Self {
            shape: Shape::default(),
            metas: vec![nothing; MANY],
            beyond: 0,
        }
    }

    /// Fills free slots of `batch`, `most` of them at most, with what `port` has. Whether more may be waiting.
    ///
    /// The slots must hold 65,535 bytes, the most that the kernel coalesces: of what is longer than a slot
    /// the rest is lost.
    ///
    /// # Errors
    /// Those of the socket. Nothing being there is none.
    pub fn receive(&mut self, port: &Port, most: usize, batch: &mut Batch) -> io::Result<bool> {
        let mut offered = 0;
        let wanted = self.shape.offer().min(most);
        // A call that was not to bring more says nothing about what others should.
        let counts = wanted == self.shape.offer();
        let received = {
            let mut slots = batch.slots(wanted);
            let mut slices: [IoSliceMut<'_>; MANY] = std::array::from_fn(|_| {
                let slot = slots.next();
                offered += usize::from(slot.is_some());
                IoSliceMut::new(slot.unwrap_or_default())
            });
            let slices = slices.get_mut(..offered).unwrap_or_default();
            if slices.is_empty() {
                return Ok(true);
            }
            port.state.recv(port.socket(), slices, &mut self.metas)
        };
        let filled = match received {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if counts {
                    self.shape.note(offered, 0, false);
                }
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let mut coalesced = false;
        for meta in self.metas.iter().take(filled) {
            coalesced |= meta.stride < meta.len;
            let ecn = Ecn::new(meta.ecn.map_or(0, |ecn| ecn as u8));
            // An empty datagram takes up its slot, too.
            batch.commit_coalesced(meta.len, meta.stride.max(1), meta.addr, ecn);
        }
        if coalesced {
            let beyond = self.metas.iter().take(filled).skip(FEW);
            self.beyond += beyond.map(|meta| meta.len).sum::<usize>();
        }
        if counts || coalesced {
            self.shape.note(offered, filled, coalesced);
        }
        Ok(filled == offered)
    }

    /// Gives memory of the empty `batch` back that is not used any more: where coalesced datagrams came when single
    /// ones were expected, they filled far more buffers than they will again.
    pub fn give_back(&mut self, batch: &mut Batch) {
        if self.beyond > SPARE {
            self.beyond = 0;
            pages::give_back(batch.spare(FEW));
        }
    }

    #[cfg(test)]
    pub(super) fn metas(&self) -> &[RecvMeta] {
        &self.metas
    }
}
