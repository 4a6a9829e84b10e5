//! What a device is told to let through: nothing but these rules.

use serde::{Deserialize, Serialize};

use super::port::PortSpec;
use crate::ids::RuleId;
use crate::lease::Lease;

/// One rule of the policy, as it applies between this device and one peer in one direction.
///
/// No list of rules, and no live rule on the list, means that nothing passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// The `id` of the rule in the policy.
    pub rule: RuleId,
    /// What may be reached.
    pub ports: Vec<PortSpec>,
    /// Until when.
    pub lease: Lease,
}
