//! The WireGuard sockets: one per address family, on one port.

mod receive;
mod send;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

pub use receive::Receiver;
pub use send::Sender;

/// Bytes of the kernel's buffers: about 50 ms of 1 Gbit/s.
const KERNEL_BUFFER: usize = 7 * 1024 * 1024;
/// Attempts to find a port that is free in both families.
const PORT_ATTEMPTS: usize = 16;

/// One socket.
#[derive(Debug)]
pub struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Port {
    /// Readable when datagrams are waiting.
    #[must_use]
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where it is bound.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    fn socket(&self) -> UdpSockRef<'_> {
        (&self.socket).into()
    }
}

/// All sockets of the daemon.
#[derive(Debug)]
pub struct Udp {
    ports: Vec<Port>,
    too_big: AtomicU64,
    unsent: AtomicU64,
}

impl Udp {
    /// Binds `addresses`, of which one may be missing on this host, to one port. `mark` keeps the sockets'
    /// datagrams out of the overlay's own routes.
    ///
    /// # Errors
    /// When the port is taken or no address can be bound.
    pub fn bind(addresses: &[SocketAddr], mark: u32) -> Result<Self> {
        let chosen_by_kernel = addresses.iter().all(|address| address.port() == 0);
        let attempts = if chosen_by_kernel { PORT_ATTEMPTS } else { 1 };
        let mut last = anyhow!("no address to listen on");
        for _ in 0..attempts {
            match bind_all(addresses, mark) {
                Ok(ports) => {
                    return Ok(Self {
                        ports,
                        too_big: AtomicU64::new(0),
                        unsent: AtomicU64::new(0),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The sockets.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The port that they share.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.first().map_or(0, |port| port.local.port())
    }

    /// Datagrams that were not sent, by reason.
    #[must_use]
    pub fn drops(&self) -> [(&'static str, u64); 2] {
        [
            ("udp_path_mtu", self.too_big.load(Ordering::Relaxed)),
            ("udp_unsent", self.unsent.load(Ordering::Relaxed)),
        ]
    }
}

fn bind_all(addresses: &[SocketAddr], mark: u32) -> Result<Vec<Port>> {
    let mut ports: Vec<Port> = Vec::new();
    let mut missing = None;
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(ports.first().map_or(0, |port| port.local.port()));
        }
        match bind_one(address, mark) {
            Ok(port) => ports.push(port),
            // A host without one of the families is fine; a port that is taken is not.
            Err(error) if is_family_missing(&error) => missing = Some((address, error)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot listen on UDP {address}"));
            }
        }
    }
    match missing {
        Some((address, error)) if ports.is_empty() => {
            Err(error).with_context(|| format!("cannot listen on UDP {address}"))
        }
        Some((address, error)) => {
            tracing::info!(%address, %error, "an address family is not available on this host");
            Ok(ports)
        }
        None if ports.is_empty() => bail!("no address to listen on"),
        None => Ok(ports),
    }
}

fn bind_one(address: SocketAddr, mark: u32) -> io::Result<Port> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Err(error) = socket.set_mark(mark) {
        tracing::warn!(%error, "cannot mark the WireGuard socket; it takes CAP_NET_ADMIN");
    }
    enlarge(&socket);
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    let state = UdpSocketState::new((&socket).into())?;
    Ok(Port {
        local: socket.local_addr()?,
        state,
        socket,
    })
}

/// Raises the kernel's buffers: past the host's limit where we may, up to it otherwise.
fn enlarge(socket: &Socket) {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &KERNEL_BUFFER)
        .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &KERNEL_BUFFER));
    if forced.is_err() {
        let plain = socket
            .set_recv_buffer_size(KERNEL_BUFFER)
            .and_then(|()| socket.set_send_buffer_size(KERNEL_BUFFER));
        if let Err(error) = plain {
            tracing::debug!(%error, "the UDP buffers keep their size");
        }
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests;
