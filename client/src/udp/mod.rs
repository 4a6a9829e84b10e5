//! The WireGuard sockets: for every worker one per address family, all on one port.
//!
//! The kernel spreads what arrives over the workers' sockets by addresses and ports, so that one peer's
//! datagrams come to one worker, in order. That worker may have a socket for this peer alone ([`connected`]).

mod bind;
mod coalescing;
mod connected;
mod control;
mod pages;
mod path_mtu;
mod receive;
mod segmentation;
mod send;
mod shape;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn_udp::{UdpSockRef, UdpSocketState};

use gatereeve_client_core::api::UdpOffloads;

pub use connected::{Connections, Made};
pub use receive::Receiver;
pub use send::{Sender, TooBig};

use crate::routes::changes::NetworkChanges;
use coalescing::Coalescing;
use segmentation::Segmentation;

/// One socket.
#[derive(Debug)]
pub struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    /// Whom it is connected to, if it is.
    peer: Option<SocketAddr>,
    segmentation: Arc<Segmentation>,
    coalescing: Arc<Coalescing>,
    coalesces: bool,
}

impl Port {
    /// Whether it is connected to one peer.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.peer.is_some()
    }

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

/// How the sockets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Keeps the sockets' datagrams out of the overlay's own routes.
    pub mark: u32,
    /// How many threads receive; at least one.
    pub workers: usize,
    /// Whether the kernel is to cut and coalesce datagrams, where it can.
    pub offload: bool,
}

/// All sockets of the daemon.
#[derive(Debug)]
pub struct Udp {
    /// By worker, then by family.
    workers: Vec<Vec<Arc<Port>>>,
    options: UdpOptions,
    changes: Arc<NetworkChanges>,
    too_big: AtomicU64,
    unsent: AtomicU64,
}

impl Udp {
    /// How many workers there are sockets for.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// To be told of changes of the host's addresses and routes. Until it is, no socket is connected.
    #[must_use]
    pub fn changes(&self) -> &Arc<NetworkChanges> {
        &self.changes
    }

    /// The shared sockets of one worker.
    #[must_use]
    pub fn ports(&self, worker: usize) -> &[Arc<Port>] {
        self.workers.get(worker).map_or(&[], Vec::as_slice)
    }

    /// The port that they share.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports(0).first().map_or(0, |port| port.local.port())
    }

    /// Bytes that the path to `to` carries as far as the kernel knows, IP header included; `None` where it
    /// does not say.
    #[must_use]
    pub fn path_mtu(&self, to: SocketAddr) -> Option<usize> {
        match path_mtu::ask(to, self.options.mark) {
            Ok(mtu) => Some(mtu),
            Err(error) => {
                tracing::debug!(%error, %to, "the path's MTU is not to be had");
                None
            }
        }
    }

    /// Whether the path to `to` is known to carry less than a datagram of `size` bytes.
    fn is_too_narrow(&self, to: SocketAddr, size: usize) -> bool {
        let headers = if to.is_ipv6() { 48 } else { 28 };
        self.path_mtu(to)
            .is_some_and(|carried| carried < size.saturating_add(headers))
    }

    /// Datagrams that were not sent, by reason.
    #[must_use]
    pub fn drops(&self) -> [(&'static str, u64); 2] {
        [
            ("udp_path_mtu", self.too_big.load(Ordering::Relaxed)),
            ("udp_unsent", self.unsent.load(Ordering::Relaxed)),
        ]
    }

    /// What the kernel takes off the data path, on all sockets.
    #[must_use]
    pub fn offloads(&self) -> UdpOffloads {
        let all = |holds: fn(&Arc<Port>) -> bool| self.workers.iter().flatten().all(holds);
        UdpOffloads {
            gso: all(|port| port.segmentation.is_on()),
            gro: all(|port| port.coalesces),
        }
    }

    /// Whether many datagrams came, and none of them coalesced.
    fn comes_singly(&self) -> bool {
        let mut ports = self.workers.iter().flatten();
        let none = ports.clone().all(|port| !port.coalescing.came());
        none && ports.any(|port| port.coalescing.could_have())
    }

    /// What of the kernel's help was asked for and is not used, and why.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let UdpOffloads { gso, gro } = self.offloads();
        let mut missing = Vec::new();
        if self.options.offload && !gso {
            let supported = self
                .workers
                .iter()
                .flatten()
                .all(|port| port.segmentation.is_supported());
            let why = if supported {
                "the interface refuses it; it is tried again from time to time"
            } else {
                "the kernel does not have it (4.18 and later do)"
            };
            missing.push(format!("udp gso: {why}"));
        }
        if self.options.offload && !gro {
            missing.push("udp gro: the kernel does not have it (5.0 and later do)".to_owned());
        }
        if gro && self.comes_singly() {
            missing.push(
                "udp gro: datagrams come one by one, although many wait: where they come in, the interface may not \
                 coalesce them (`ethtool -k` tells)"
                    .to_owned(),
            );
        }
        let workers = self.workers.len();
        if workers < self.options.workers {
            missing.push(format!(
                "udp workers: the kernel lets {workers} of {} share the port",
                self.options.workers
            ));
        }
        missing
    }
}

#[cfg(test)]
mod tests;
