//! Everything a client can say.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::message::messages;
use crate::generation::Generation;
use crate::identity::binding::KeyBinding;
use crate::ids::InviteId;
use crate::invite::InviteSecret;
use crate::limits;
use crate::policy::port::Protocol;
use crate::posture::fact::PostureReport;

messages!(
    /// A message from a client to a controller.
    ClientMessage, limit limits::CLIENT_FRAME, {
        /// First on every connection; frozen for all versions.
        1 => Hello(ClientHello),
        /// Ask to become a device of the network.
        2 => Enroll(Enroll),
        /// Begin the session proper; needs an approved device.
        3 => Attach(Attach),
        /// Posture, periodically and on change.
        4 => Report(PostureReport),
        /// Where this device can be reached has changed.
        5 => Endpoints(EndpointUpdate),
        /// The data path enforces this generation.
        6 => Ack(Generation),
        /// The device's WireGuard keys have changed.
        7 => Keys(KeyUpdate),
        /// May I reach this, and if not, why?
        8 => Why(WhyRequest),
        /// Are you there?
        9 => Ping(u64),
        /// Forget this device: `gatereeve leave`.
        10 => Leave(Leave),
        /// The held map does not fit the delta that came: send all of it.
        11 => Resync(Generation),
    }
);

/// What versions the client speaks. Nothing else: the controller has not proven itself yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// Oldest minor version spoken.
    pub min_minor: u16,
    /// Newest minor version spoken.
    pub max_minor: u16,
}

/// Asks to become a device. The identity key is the one proven in the TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// The invite, or `None` to wait for an administrator's approval.
    pub invite: Option<(InviteId, InviteSecret)>,
    /// What the host calls itself; the controller normalises it.
    pub name: String,
    /// The device's first WireGuard key.
    pub binding: KeyBinding,
}

/// Begins a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The WireGuard keys in use.
    pub keys: KeyUpdate,
    /// Where the device can be reached.
    pub endpoints: EndpointUpdate,
    /// The generation of the map that the device holds and enforces, if any. The controller sends a
    /// full map unless it is the one in force for this device.
    pub have: Option<Generation>,
    /// The first posture report of the session.
    pub report: PostureReport,
    /// The client's software version, for the registry.
    pub software: String,
}

/// The WireGuard key in use and, during a rotation, the one that will follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUpdate {
    /// The key in use.
    pub current: KeyBinding,
    /// The key that follows; its counter is higher.
    pub next: Option<KeyBinding>,
}

/// Where a device's WireGuard socket may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointUpdate {
    /// UDP port of the WireGuard socket; the controller adds the address it sees.
    pub listen_port: u16,
    /// Addresses of the device's interfaces with that port, best first.
    pub endpoints: Vec<SocketAddr>,
}

/// A question about one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyRequest {
    /// Chosen by the client; comes back in the reply.
    pub request: u64,
    /// Name, device ID or overlay address of the destination.
    pub peer: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination port; 0 for protocols without.
    pub port: u16,
}

/// Leaves the network for good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {}
