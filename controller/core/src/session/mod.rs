//! One control session: a connection that has proven a key, from Hello to Attach.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::Mono;

pub(crate) mod bucket;
pub(crate) mod endpoints;
pub(crate) mod keys;

use bucket::Bucket;

/// How long a connection may be without becoming a control session or waiting for approval.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// Connections that one key may hold.
pub(crate) const PER_DEVICE: usize = 4;
/// Messages that may be dropped for coming too fast before the session is closed.
pub(crate) const DROPS: u32 = 500;

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// What it has proven.
    pub(crate) key: IdentityPublicKey,
    /// Whose that is, known or not.
    pub(crate) device: DeviceId,
    /// Where it comes from.
    pub(crate) from: SocketAddr,
    /// How far it has come.
    pub(crate) phase: Phase,
    /// Counter of its last posture report.
    pub(crate) report: Option<u64>,
    /// How fast it may speak; in tenths of a message.
    pub(crate) bucket: Bucket,
    /// Messages dropped since it was last within its rate.
    pub(crate) drops: u32,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was said.
    Fresh,
    /// Hello was exchanged.
    Greeted,
    /// It has a network map.
    Attached,
}

impl Session {
    pub(crate) fn new(key: IdentityPublicKey, from: SocketAddr, now: Mono) -> Self {
        Self {
            key,
            device: key.device_id(),
            from: SocketAddr::new(from.ip().to_canonical(), from.port()),
            phase: Phase::Fresh,
            report: None,
            bucket: Bucket::new(400, 200, Duration::from_secs(1), now),
            drops: 0,
        }
    }
}

/// The network that an address is counted with: /24 or /56.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) & 0xffff_ff00).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 72)).into()),
    }
}
