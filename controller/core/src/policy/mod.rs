//! The policy: one TOML file that says who may reach what.
//!
//! Pipeline: [`Policy::parse`] reads and checks a file, every problem with its place in it;
//! [`render`](render::render) draws it. [`resolve::Resolved`] turns principals into sets of devices;
//! [`crate::pdp::engine`] decides. [`diff`] compares two policies, [`selftest`] runs the file's tests.
//!
//! There is no deny rule and no order: what no rule allows is denied. Rules speak of identities, so
//! each covers IPv4 and IPv6 alike. What cannot be enforced is refused, never ignored.

mod advice;
pub(crate) mod bits;
pub mod diff;
pub(crate) mod duration;
mod parse;
pub mod principal;
mod problem;
pub mod render;
pub mod resolve;
pub mod rule;
pub mod schedule;
pub mod selftest;
mod suggest;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gatereeve_shared::ids::{CheckName, DeviceId, DeviceName, TagName};

use crate::command::PolicyProblem;
use crate::posture::Check;
use crate::state::device::Device;

use principal::{Groups, Principal, Subject};
use resolve::Resolved;
use rule::{Rule, SelfTest};

pub use render::render;

/// Largest policy file, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Longest time between posture reports, and the time where no check concerns a device.
const REPORT_AT_LEAST_EVERY: Duration = Duration::from_secs(300);
/// Longest time between renewals of leases.
const RENEW_AT_LEAST_EVERY: Duration = Duration::from_secs(120);
/// Shortest time between reports, and between renewals.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// A policy, parsed and checked. It keeps its text, so that it can be journaled and shown.
#[derive(Clone, Debug)]
pub struct Policy {
    text: String,
    pins: BTreeMap<DeviceName, DeviceId>,
    groups: Groups,
    tags: BTreeSet<TagName>,
    checks: BTreeMap<CheckName, Check>,
    network: Network,
    rules: Vec<Rule>,
    tests: Vec<SelfTest>,
}

/// The `[network]` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    lease: Duration,
    key_expiry: Option<Duration>,
    rotate_key: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(8 * 3600),
            key_expiry: None,
            rotate_key: Duration::from_secs(24 * 3600),
        }
    }
}

impl Policy {
    /// Reads a policy file. `names` are the devices known now, for `device:NAME`; those that the
    /// file mentions are pinned to their ID. Returns the policy and its warnings.
    ///
    /// # Errors
    /// Everything that is wrong with the file, warnings included, in the order of the file.
    pub fn parse(
        text: &str,
        names: &BTreeMap<DeviceName, DeviceId>,
    ) -> Result<(Self, Vec<PolicyProblem>), Vec<PolicyProblem>> {
        parse::parse(text, names)
    }

    /// Rebuilds a policy from its text and the pins recorded when it was applied.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_pinned(
        text: &str,
        pins: &BTreeMap<DeviceName, DeviceId>,
    ) -> Result<Self, Vec<PolicyProblem>> {
        parse::parse(text, pins).map(|(policy, _)| policy)
    }

    /// The policy of an empty file: it denies everything.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            text: String::new(),
            pins: BTreeMap::new(),
            groups: Groups::new(),
            tags: BTreeSet::new(),
            checks: BTreeMap::new(),
            network: Network::default(),
            rules: Vec::new(),
            tests: Vec::new(),
        }
    }

    /// The file, as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The devices that the file mentions by name.
    #[must_use]
    pub fn pins(&self) -> &BTreeMap<DeviceName, DeviceId> {
        &self.pins
    }

    /// How many `[[allow]]`s it has.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// How many `[[test]]`s it has.
    #[must_use]
    pub fn test_count(&self) -> usize {
        self.tests.len()
    }

    /// Its rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Names that the file mentions. A device may take one of them only with approval.
    #[must_use]
    pub fn mentioned_names(&self) -> BTreeSet<DeviceName> {
        self.pins.keys().cloned().collect()
    }

    /// Names of the posture checks.
    pub fn check_names(&self) -> impl Iterator<Item = &CheckName> {
        self.checks.keys()
    }

    /// The posture checks.
    pub fn checks(&self) -> impl Iterator<Item = (&CheckName, &Check)> {
        self.checks.iter()
    }

    /// How long a grant outlives contact with the controller, where a rule does not say: 8 hours
    /// unless `[network] lease` says otherwise.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.network.lease
    }

    /// The longest that a lease of this policy can be.
    #[must_use]
    pub fn longest_lease(&self) -> Duration {
        let leases = self.rules.iter().map(|rule| rule.lease);
        leases.fold(self.network.lease, Duration::max)
    }

    /// How long an identity key is good for; `None` is for ever.
    #[must_use]
    pub fn key_expiry(&self) -> Option<Duration> {
        self.network.key_expiry
    }

    /// How long a WireGuard key is used: 24 hours unless `[network] rotate_key` says otherwise.
    #[must_use]
    pub fn rotate_key(&self) -> Duration {
        self.network.rotate_key
    }

    /// The posture checks that a rule asks of this device, as source or destination.
    #[must_use]
    pub fn checks_of(&self, device: &Device) -> BTreeSet<CheckName> {
        let subject = Subject::from(device);
        let mut checks = BTreeSet::new();
        for rule in &self.rules {
            for (asked, principals) in [(&rule.posture, &rule.from), (&rule.to_posture, &rule.to)] {
                if !asked.is_empty() && self.any_matches(principals, &subject) {
                    checks.extend(asked.iter().cloned());
                }
            }
        }
        checks
    }

    /// How often the device is to report: three times within the shortest age that a check allows
    /// it, between a second and five minutes.
    #[must_use]
    pub fn posture_interval(&self, device: &Device) -> Duration {
        self.checks_of(device)
            .iter()
            .filter_map(|name| self.checks.get(name))
            .map(|check| check.max_age / 3)
            .min()
            .unwrap_or(REPORT_AT_LEAST_EVERY)
            .clamp(AT_MOST_EVERY, REPORT_AT_LEAST_EVERY)
    }

    /// Executables that devices are asked to look for; at most
    /// [`WATCHED_PROCESSES`](gatereeve_shared::limits::WATCHED_PROCESSES).
    #[must_use]
    pub fn watched_processes(&self) -> Vec<String> {
        let processes: BTreeSet<&str> = self.checks.values().flat_map(Check::processes).collect();
        processes.into_iter().map(str::to_owned).collect()
    }

    /// How often leases are to be renewed: three times within the shortest that can run out, between
    /// a second and two minutes.
    #[must_use]
    pub fn renew_every(&self) -> Duration {
        let leases = self.rules.iter().map(|rule| rule.lease);
        let ages = self.checks.values().map(|check| check.max_age);
        (leases.chain(ages).fold(self.network.lease, Duration::min) / 3)
            .clamp(AT_MOST_EVERY, RENEW_AT_LEAST_EVERY)
    }

    /// Warnings that depend on the devices there are: rules that match none of them now.
    #[must_use]
    pub fn idle_rules(&self, sets: &Resolved) -> Vec<PolicyProblem> {
        advice::idle_rules(self, sets)
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn tests(&self) -> &[SelfTest] {
        &self.tests
    }

    pub(crate) fn any_matches(&self, principals: &[Principal], subject: &Subject) -> bool {
        principals
            .iter()
            .any(|principal| principal.matches(subject, &self.groups))
    }
}
