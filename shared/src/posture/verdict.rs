//! What the controller makes of a device's facts.

use serde::{Deserialize, Serialize};

use crate::ids::CheckName;
use crate::time::UnixMillis;

/// Whether a device meets one posture check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It does, until the given time: then the facts are too old.
    Compliant {
        /// When the first fact that the check needs becomes stale.
        until: UnixMillis,
    },
    /// It does not, or it cannot be told; an unknown fact fails like a bad one, and says so.
    NonCompliant {
        /// Every condition that is not met.
        failures: Vec<Failure>,
    },
}

impl Verdict {
    /// Whether the check is met at `now`.
    #[must_use]
    pub fn is_compliant(&self, now: UnixMillis) -> bool {
        matches!(self, Self::Compliant { until } if now < *until)
    }
}

/// One condition that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the check asks for, such as `disk_encrypted = true`.
    pub wanted: String,
    /// What was found, such as `false (from /sys/block/dm-0)`, `unknown: no report` or `stale`.
    pub found: String,
}

/// One posture check and how a device does on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOutcome {
    /// The check's name in the policy.
    pub check: CheckName,
    /// The verdict.
    pub verdict: Verdict,
}
