//! Everything a controller can say.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::map::{LeaseRenewal, MapUpdate};
use super::message::messages;
use crate::identity::binding::ControllerBinding;
use crate::ids::{DeviceId, RuleId};
use crate::limits;
use crate::posture::verdict::CheckOutcome;
use crate::time::UnixMillis;

messages!(
    /// A message from a controller to a client.
    #[expect(
        clippy::large_enum_variant,
        reason = "one at a time is made, sent and dropped; an allocation would cost more than the copy"
    )]
    ControllerMessage, limit limits::CONTROLLER_FRAME, {
        /// First on every connection; frozen for all versions.
        1 => Hello(ControllerHello),
        /// Answer to an enrollment.
        2 => Enrolled(EnrollReply),
        /// A network map, or what has changed in it.
        3 => Map(MapUpdate),
        /// New ends of leases; unnumbered.
        4 => Renew(LeaseRenewal),
        /// Where peers can be reached has changed; unnumbered.
        5 => Endpoints(Vec<PeerEndpoints>),
        /// How the device does on the posture checks that concern it.
        6 => Posture(Vec<CheckOutcome>),
        /// Answer to a question.
        7 => Why(WhyReply),
        /// Yes, and this is the time here.
        8 => Pong(Pong),
        /// No, and why; the connection may close behind it.
        9 => Refused(Refusal),
        /// The standing of this device has changed.
        10 => Standing(Standing),
    }
);

/// Who the controller is, and how this device stands with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerHello {
    /// The minor version that the session speaks.
    pub minor: u16,
    /// The network key's word for the controller's TLS key. Check it before saying anything more.
    pub binding: ControllerBinding,
    /// The controller's clock; the device takes its offset from it.
    pub now: UnixMillis,
    /// How the device stands.
    pub standing: Standing,
    /// The address the connection came from.
    pub observed: SocketAddr,
}

/// How a device stands with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The key is not known: enroll.
    Unknown,
    /// Enrolled, and waiting for an administrator.
    Pending,
    /// A device of the network.
    Approved,
    /// A device of the network that may reach and be reached by nothing for now.
    Quarantined,
    /// Its key has expired: enroll again with a new one.
    Expired,
    /// Revoked, for good.
    Revoked,
}

/// Answer to an enrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrollReply {
    /// The device has this standing now.
    Done(Standing),
    /// It was refused, and nothing has changed.
    Refused(Refusal),
}

/// A refusal that crosses the network: a code, and words for a person. No internal detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind.
    pub code: RefusalCode,
    /// What failed, why, and what to do next.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No version is spoken by both.
    Version,
    /// The device's standing does not permit it.
    Standing,
    /// The invite is unknown, used up, expired or revoked; which, is not told.
    Invite,
    /// Too many requests.
    RateLimited,
    /// The message is malformed or out of place.
    Protocol,
    /// A key binding does not hold.
    Binding,
    /// The controller cannot commit the change now.
    Unavailable,
    /// The controller shuts down; connect again.
    ShuttingDown,
    /// The same device has attached from elsewhere.
    Replaced,
}

/// Where one peer can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEndpoints {
    /// The peer; one that the device's map has.
    pub device: DeviceId,
    /// All of its endpoints, best first.
    pub endpoints: Vec<SocketAddr>,
}

/// Answer to [`WhyRequest`](super::client::WhyRequest). "No rule" and "no such name" look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyReply {
    /// The client's number.
    pub request: u64,
    /// Whether it is allowed now.
    pub allowed: bool,
    /// The rule that grants it, or the nearest that would.
    pub rule: Option<RuleId>,
    /// Until when it is granted.
    pub until: Option<UnixMillis>,
    /// What is missing, in words, one condition each.
    pub missing: Vec<String>,
}

/// Answer to a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The client's number.
    pub nonce: u64,
    /// The controller's clock.
    pub now: UnixMillis,
}
