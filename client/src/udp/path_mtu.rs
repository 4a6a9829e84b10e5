//! What the kernel knows of the path to a peer.
//!
//! The sockets send with "do not fragment" and by the kernel's idea of the path: a router that has to
//! drop a datagram says so, and the kernel remembers it for ten minutes. From then on what is too long fails
//! with `EMSGSIZE`, and goes out again in fragments, one by one: nothing is lost, not even where somebody has
//! forged what the router said. Only then is it asked here how much the path carries.
//!
//! The modes are those of `IP_MTU_DISCOVER` in ip(7). `IP_PMTUDISC_WANT` alone would not do: to it, a segmented send is one
//! long datagram, and so goes out without "do not fragment". Routers would cut what is sent in bulk into
//! fragments and tell nobody, and drop the single datagrams in between.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover,
    set_ipv6_mtu_discover,
};
use socket2::SockRef;

/// Has `socket` follow the kernel's idea of a path, and send nothing in fragments.
pub(super) fn follow(socket: &UdpSocket, is_v4: bool) -> io::Result<()> {
    if !is_v4 {
        setsockopt(socket, sockopt::Ipv6DontFrag, &false)?;
    }
    set_fragmenting(socket, is_v4, false)
}

fn set_fragmenting(socket: &UdpSocket, is_v4: bool, on: bool) -> io::Result<()> {
    match (is_v4, on) {
        (true, true) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::WANT)?,
        (true, false) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?,
        (false, true) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::WANT)?,
        (false, false) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?,
    }
    Ok(())
}

/// As long as this lives, the kernel sends in fragments what is too long for its path.
///
/// The socket is shared: what another thread sends meanwhile may go in fragments, too, and where that thread does the
/// same, the first of the two to end ends it for both.
pub(super) struct Fragmenting<'a> {
    socket: &'a UdpSocket,
    is_v4: bool,
}

impl<'a> Fragmenting<'a> {
    pub(super) fn new(socket: &'a UdpSocket, is_v4: bool) -> io::Result<Self> {
        set_fragmenting(socket, is_v4, true)?;
        Ok(Self { socket, is_v4 })
    }
}

impl Drop for Fragmenting<'_> {
    fn drop(&mut self) {
        if let Err(error) = set_fragmenting(self.socket, self.is_v4, false) {
            tracing::warn!(%error, "a socket goes on sending in fragments");
        }
    }
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
