//! The rules and tests of a policy, checked.

use std::ops::Range;
use std::time::Duration;

use gatereeve_shared::ids::{CheckName, RuleId};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::UnixMillis;

use super::principal::Principal;
use super::schedule::Schedule;

/// One `[[allow]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub id: RuleId,
    /// Line of the file at which it begins, from 1.
    pub line: usize,
    /// Bytes of its `id` in the file.
    pub(crate) span: Range<usize>,
    /// Who may reach; never empty.
    pub from: Vec<Principal>,
    /// Who may be reached; never empty.
    pub to: Vec<Principal>,
    /// On which ports; never empty.
    pub ports: Vec<PortSpec>,
    /// Checks that the source must meet.
    pub posture: Vec<CheckName>,
    /// Checks that the destination must meet.
    pub to_posture: Vec<CheckName>,
    /// When it holds; always if absent.
    pub schedule: Option<Schedule>,
    /// When it ends for good.
    pub until: Option<UnixMillis>,
    /// How long a grant outlives contact with the controller.
    pub lease: Duration,
}

/// One `[[test]]`.
#[derive(Clone, Debug)]
pub(crate) struct SelfTest {
    pub(crate) from: Principal,
    pub(crate) to: Principal,
    pub(crate) expectations: Vec<(PortSpec, bool)>,
    /// Whether the devices are taken to meet every posture check, or none.
    pub(crate) posture_met: bool,
}
