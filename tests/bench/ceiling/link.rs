//! The UDP socket, with segmented sends and coalesced receives.

use std::io::{ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// Bytes that the kernel may hold for us, either way.
const SOCKET_BUFFER: usize = 8 << 20;

/// The way to the other end.
pub(crate) struct Link {
    socket: UdpSocket,
    state: UdpSocketState,
    peer: SocketAddr,
}

impl Link {
    pub(crate) fn open(listen: SocketAddr, peer: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(listen)?;
        socket.connect(peer)?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
        setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self {
            socket,
            state,
            peer,
        })
    }

    /// Sends one datagram, or several of `segment` bytes. What cannot be sent is dropped, as by a
    /// network.
    pub(crate) fn send(&self, contents: &[u8], segment: Option<usize>) {
        let transmit = Transmit {
            destination: self.peer,
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        while let Err(error) = self
            .state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
        {
            if error.kind() != ErrorKind::WouldBlock
                || wait(&self.socket, PollFlags::POLLOUT).is_err()
            {
                return;
            }
        }
    }

    /// Receives what is there, waiting for the first.
    pub(crate) fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> anyhow::Result<usize> {
        loop {
            match self
                .state
                .recv(UdpSockRef::from(&self.socket), buffers, meta)
            {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.socket, PollFlags::POLLIN)?;
                }
                // The other end is not there yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Waits until a descriptor is ready.
pub(crate) fn wait(on: &impl AsFd, flags: PollFlags) -> anyhow::Result<()> {
    let mut descriptors = [PollFd::new(on.as_fd(), flags)];
    poll(&mut descriptors, PollTimeout::NONE)?;
    Ok(())
}
