//! What the data path tells the slow path. Hints: bounded, may be lost, harmless when repeated.

use std::net::SocketAddr;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::Protocol;

use crate::drop_reason::DropReason;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From this device to a peer.
    Outbound,
    /// From a peer to this device.
    Inbound,
}

/// Something the slow path may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPathEvent {
    /// A handshake with the peer was completed.
    HandshakeDone {
        /// The peer.
        device: DeviceId,
    },
    /// An authenticated packet of the peer came from another address than before.
    EndpointMoved {
        /// The peer.
        device: DeviceId,
        /// Where it is reached from now on.
        endpoint: SocketAddr,
    },
    /// The session between these two keys carries authenticated data: older keys of the pair may go.
    KeyInUse {
        /// The peer.
        device: DeviceId,
        /// Counter of this device's key.
        local_counter: u64,
        /// Counter of the peer's key.
        remote_counter: u64,
    },
    /// The filter refused a packet. At most a few of these per second.
    Denied {
        /// The peer, where there is one.
        device: Option<DeviceId>,
        /// Which way the packet went.
        direction: Direction,
        /// Why.
        reason: DropReason,
        /// Its protocol.
        protocol: Protocol,
        /// Its destination port; 0 where there is none.
        port: u16,
    },
    /// The peer did not answer handshakes for 90 seconds; what waited for it is gone.
    HandshakeGivenUp {
        /// The peer.
        device: DeviceId,
    },
}
