//! The policy decision point, in the words of NIST SP 800-207 the policy engine.
//!
//! [`engine`] alone says yes: a [`Grant`] cannot be made elsewhere. [`explain`] and [`reach`] ask it
//! and say why. What the controller does with grants (leases, maps, revocations) is the policy
//! administrator's part and lies outside.

pub mod engine;
pub mod explain;
pub(crate) mod live;
pub(crate) mod ports;
pub mod reach;

use std::collections::BTreeMap;

use gatereeve_shared::ids::{CheckName, DeviceId};
use gatereeve_shared::posture::verdict::Verdict;

use crate::policy::Policy;
use crate::policy::resolve::Resolved;
use crate::state::device::Device;

pub use engine::Grant;

/// Everything that a decision reads, at one generation.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// All devices, whatever their status.
    pub devices: &'a BTreeMap<DeviceId, Device>,
    /// The last verdicts. A check without one is not met.
    pub verdicts: &'a BTreeMap<DeviceId, BTreeMap<CheckName, Verdict>>,
    /// The policy in force.
    pub policy: &'a Policy,
    /// Made from that policy and those devices.
    pub sets: &'a Resolved,
}
