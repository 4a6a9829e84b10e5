//! What the kernel knows of the path to a peer.
//!
//! The sockets send with "do not fragment" and by the kernel's idea of the path: a router that has to
//! drop a datagram says so, and the kernel remembers it for ten minutes. From then on a segmented send fails
//! with `EMSGSIZE`, and single datagrams go out in fragments: nothing is lost, not even where somebody has
//! forged what the router said. Only then is it asked here how much the path carries.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover,
    set_ipv6_mtu_discover,
};
use socket2::SockRef;

/// Has `socket` follow the kernel's idea of a path.
pub(super) fn follow(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv6() {
        set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?;
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
    } else {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?;
    }
    Ok(())
}

/// Bytes that the path to `to` carries, IP header included. Sends nothing.
///
/// # Errors
/// Where there is no route, or no socket to be had.
pub(super) fn ask(to: SocketAddr, mark: u32) -> io::Result<usize> {
    let any: IpAddr = if to.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Without the right to mark, the other sockets go unmarked, too.
    if let Err(error) = SockRef::from(&socket).set_mark(mark) {
        tracing::debug!(%error, "cannot mark a socket");
    }
    socket.connect(to)?;
    let mtu = if to.is_ipv6() {
        ipv6_mtu(&socket)?
    } else {
        ip_mtu(&socket)?
    };
    usize::try_from(mtu).map_err(io::Error::other)
}
