//! Receiving: many datagrams per system call, coalesced ones whole, straight into a batch.

use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use quinn_udp::{EcnCodepoint, RecvMeta};

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
    /// Room for what the kernel says beside a lone datagram.
    control: Vec<u8>,
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
            // The length that is coalesced, and the mark of either family: all that the sockets are bound to say.
            control: nix::cmsg_space!(i32, i32, i32),
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
        let wanted = self.shape.offer().min(most);
        // A call that was not to bring more says nothing about what others should.
        let counts = wanted == self.shape.offer();
        let (offered, received) = if wanted == 1 {
            self.one(port, batch)
        } else {
            self.many(port, wanted, batch)
        };
        if offered == 0 {
            return Ok(true);
        }
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
        if coalesced || filled == MANY {
            port.coalescing.note(coalesced);
        }
        Ok(filled == offered)
    }

    /// Fills `wanted` slots, one call for all of them. How many there were, and how many of them are filled.
    fn many(
        &mut self,
        port: &Port,
        wanted: usize,
        batch: &mut Batch,
    ) -> (usize, io::Result<usize>) {
        let mut offered = 0;
        let mut slots = batch.slots(wanted);
        let mut slices: [IoSliceMut<'_>; MANY] = std::array::from_fn(|_| {
            let slot = slots.next();
            offered += usize::from(slot.is_some());
            IoSliceMut::new(slot.unwrap_or_default())
        });
        let slices = slices.get_mut(..offered).unwrap_or_default();
        if slices.is_empty() {
            return (0, Ok(0));
        }
        let received = port.state.recv(port.socket(), slices, &mut self.metas);
        (offered, received)
    }

    /// The same with one slot. The call for many clears the headers of 32 on nine kilobytes of stack, which a lone
    /// datagram finds in no cache.
    fn one(&mut self, port: &Port, batch: &mut Batch) -> (usize, io::Result<usize>) {
        let (Some(slot), Some(meta)) = (batch.slot(), self.metas.first_mut()) else {
            return (0, Ok(0));
        };
        let received = receive_one(port, slot, &mut self.control).map(|received| {
            *meta = received;
            1
        });
        (1, received)
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

/// The next datagram, or several that are coalesced.
fn receive_one(port: &Port, slot: &mut [u8], control: &mut [u8]) -> io::Result<RecvMeta> {
    let mut slices = [IoSliceMut::new(slot)];
    let socket = port.socket.as_raw_fd();
    let mut receive = || {
        let control = Some(&mut *control);
        recvmsg::<SockaddrStorage>(socket, &mut slices, control, MsgFlags::empty()).map(|message| {
            let (mut stride, mut mark) = (message.bytes, 0);
            // Where there is too little room for what the kernel says, the bytes count as one datagram, which does not
            // authenticate.
            for said in message.cmsgs().into_iter().flatten() {
                if let ControlMessageOwned::UdpGroSegments(bytes) = said {
                    stride = usize::try_from(bytes).unwrap_or(stride);
                } else if let ControlMessageOwned::Ipv4Tos(bits) = said {
                    mark = bits;
                } else if let ControlMessageOwned::Ipv6TClass(bits) = said {
                    mark = bits.to_le_bytes()[0];
                }
            }
            let from = message.address.as_ref().and_then(address);
            from.map(|addr| RecvMeta {
                addr,
                len: message.bytes,
                stride,
                ecn: EcnCodepoint::from_bits(mark),
                dst_ip: None,
            })
        })
    };
    loop {
        match receive() {
            Ok(Some(meta)) => return Ok(meta),
            // From nobody, or interrupted.
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(from) = from.as_sockaddr_in() {
        return Some(SocketAddrV4::from(*from).into());
    }
    from.as_sockaddr_in6()
        .map(|from| SocketAddrV6::from(*from).into())
}
