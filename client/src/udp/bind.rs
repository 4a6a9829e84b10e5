//! Binding: the first worker's sockets alone, so that nobody else holds the port, then the others beside
//! them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::path_mtu;
use super::segmentation::Segmentation;
use super::{Port, Udp, UdpOptions};

/// Bytes of a socket's buffers, at most: about 50 ms of 1 Gbit/s.
const KERNEL_BUFFER: usize = 7 * 1024 * 1024;
/// Bytes that the receive buffers of one family have together. The kernel takes twice as much and charges what is
/// in it to the service, whose memory is limited; with many workers each has a share of the load.
const RECEIVE_BUFFERS: usize = 2 * KERNEL_BUFFER;
/// Bytes of a receive buffer, at least.
const LEAST_BUFFER: usize = 1024 * 1024;
/// Attempts to find a port that is free in both families.
const PORT_ATTEMPTS: usize = 16;

impl Udp {
    /// Binds `addresses`, of which one may be missing on this host, to one port.
    ///
    /// # Errors
    /// When the port is taken or no address can be bound.
    pub fn bind(addresses: &[SocketAddr], options: UdpOptions) -> Result<Self> {
        let chosen_by_kernel = addresses.iter().all(|address| address.port() == 0);
        let attempts = if chosen_by_kernel { PORT_ATTEMPTS } else { 1 };
        let mut last = anyhow!("no address to listen on");
        for _ in 0..attempts {
            match bind_all(addresses, options) {
                Ok(first) => {
                    return Ok(Self {
                        workers: with_company(first, options),
                        options,
                        changes: Arc::default(),
                        too_big: AtomicU64::new(0),
                        unsent: AtomicU64::new(0),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// The sockets of all workers; fewer where the kernel lets no more share the port.
fn with_company(first: Vec<Arc<Port>>, options: UdpOptions) -> Vec<Vec<Arc<Port>>> {
    let addresses: Vec<SocketAddr> = first.iter().map(|port| port.local()).collect();
    let shared = first
        .iter()
        .try_for_each(|port| setsockopt(&port.socket, sockopt::ReusePort, &true));
    let mut workers = vec![first];
    if let Err(error) = shared {
        tracing::info!(%error, "the WireGuard port cannot be shared; one thread receives");
        return workers;
    }
    while workers.len() < options.workers {
        let buffer = receive_buffer(options.workers);
        let another: io::Result<Vec<_>> = addresses
            .iter()
            .map(|address| bind_one(*address, options, true, buffer).map(Arc::new))
            .collect();
        match another {
            Ok(ports) => workers.push(ports),
            Err(error) => {
                tracing::info!(%error, workers = workers.len(), "no more threads receive");
                break;
            }
        }
    }
    workers
}

fn bind_all(addresses: &[SocketAddr], options: UdpOptions) -> Result<Vec<Arc<Port>>> {
    let mut ports: Vec<Arc<Port>> = Vec::new();
    let mut missing = None;
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(ports.first().map_or(0, |port| port.local.port()));
        }
        match bind_one(address, options, false, receive_buffer(options.workers)) {
            Ok(port) => ports.push(Arc::new(port)),
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

/// One socket, whose receive buffer has `buffer` bytes; `shares` the port with those that are there.
pub(super) fn bind_one(
    address: SocketAddr,
    options: UdpOptions,
    shares: bool,
    buffer: usize,
) -> io::Result<Port> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Err(error) = socket.set_mark(options.mark) {
        tracing::warn!(%error, "cannot mark the WireGuard socket; it takes CAP_NET_ADMIN");
    }
    enlarge(&socket, buffer);
    if shares {
        socket.set_reuse_port(true)?;
    }
    let socket = UdpSocket::from(socket);
    let state = UdpSocketState::new((&socket).into())?;
    path_mtu::follow(&socket, address.is_ipv4())?;
    // Which of our addresses a datagram came to makes no difference here, and costs the kernel something with each.
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &false)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &false)?;
    }
    if !options.offload && state.gro_segments() > 1 {
        // It was switched on with `state`, where the kernel has it (Linux 5.0).
        setsockopt(&socket, sockopt::UdpGroSegment, &false)?;
    }
    // Last of all: what comes from now on comes in this form.
    SockRef::from(&socket).bind(&address.into())?;
    Ok(Port {
        local: socket.local_addr()?,
        peer: None,
        coalescing: Arc::default(),
        segmentation: Arc::new(Segmentation::new(
            options.offload && state.max_gso_segments() > 1,
        )),
        coalesces: options.offload && state.gro_segments() > 1,
        state,
        socket,
    })
}

/// Bytes of the receive buffer of each of so many workers.
fn receive_buffer(workers: usize) -> usize {
    (RECEIVE_BUFFERS / workers.max(1)).clamp(LEAST_BUFFER, KERNEL_BUFFER)
}

/// Bytes of the receive buffer of a socket that is connected to one peer.
pub(super) fn connected_buffer(workers: usize) -> usize {
    (receive_buffer(workers) / 2).max(LEAST_BUFFER)
}

/// Raises the kernel's buffers: past the host's limit where we may, up to it otherwise.
fn enlarge(socket: &Socket, receive: usize) {
    let forced = setsockopt(socket, sockopt::RcvBufForce, &receive)
        .and_then(|()| setsockopt(socket, sockopt::SndBufForce, &KERNEL_BUFFER));
    if forced.is_err() {
        let plain = socket
            .set_recv_buffer_size(receive)
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
mod tests {
    use super::super::connected::MAX_CONNECTED;
    use super::*;

    #[test]
    fn receive_buffers_fit_into_the_service_however_many_there_are() {
        const FAMILIES: usize = 2;
        const LIMIT: usize = 256 * 1024 * 1024;
        assert_eq!(receive_buffer(0), KERNEL_BUFFER);
        assert_eq!(receive_buffer(1), KERNEL_BUFFER);
        assert_eq!(receive_buffer(2), KERNEL_BUFFER);
        assert_eq!(receive_buffer(8), KERNEL_BUFFER / 4);
        assert_eq!(receive_buffer(1000), LEAST_BUFFER);
        for workers in 1..=8 {
            let doubled = 2 * receive_buffer(workers);
            assert!(FAMILIES * workers * doubled <= LIMIT / 4, "{workers}");
            let doubled = 2 * connected_buffer(workers);
            assert!(MAX_CONNECTED * workers * doubled <= LIMIT / 4, "{workers}");
        }
    }
}
