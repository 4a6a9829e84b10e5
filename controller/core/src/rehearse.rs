//! What a state comes to: every device's network map and the policy's own tests, compiled without a
//! running controller, to be compared with what the same state comes to elsewhere.
//!
//! Posture counts as the journal has it, whatever its end: a comparison is about what the programs
//! make of a state, not about how long ago a device has reported.

use std::collections::{BTreeMap, BTreeSet};

use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::{OverlayPrefixes, PeerEntry, SelfEntry};

use crate::change::CheckVerdicts;
use crate::command::TestView;
use crate::map::build::{self, Endpoints};
use crate::pdp::{View, engine};
use crate::policy::resolve::Resolved;
use crate::policy::{Policy, selftest};
use crate::state::State;

/// A state with its policy compiled.
#[derive(Debug)]
pub struct Compiled<'s> {
    state: &'s State,
    policy: Policy,
    sets: Resolved,
    verdicts: BTreeMap<DeviceId, CheckVerdicts>,
    network: String,
    prefixes: OverlayPrefixes,
}

/// All that one device is told, but for where its peers can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceMap {
    /// The device itself.
    pub this: SelfEntry,
    /// Its peers.
    pub peers: BTreeMap<DeviceId, PeerEntry>,
}

impl<'s> Compiled<'s> {
    /// Compiles the policy in force in `state`.
    ///
    /// # Errors
    /// What is wrong with the policy, in words: a controller on this state would deny everything.
    pub fn new(
        state: &'s State,
        network: impl Into<String>,
        prefixes: OverlayPrefixes,
    ) -> Result<Self, String> {
        let policy = match state.policy() {
            None => Policy::empty(),
            Some(revision) => {
                Policy::from_pinned(&revision.text, &revision.pins).map_err(|problems| {
                    let first = problems.into_iter().find(|problem| !problem.is_warning);
                    let (line, message) =
                        first.map_or((0, String::new()), |first| (first.line, first.message));
                    format!(
                        "policy revision {} is not understood by this version: line {line}: {message}",
                        revision.revision
                    )
                })?
            }
        };
        let sets = Resolved::new(&policy, state.devices());
        Ok(Self {
            verdicts: timeless(state.verdicts()),
            network: network.into(),
            state,
            policy,
            sets,
            prefixes,
        })
    }

    fn view(&self) -> View<'_> {
        View {
            devices: self.state.devices(),
            verdicts: &self.verdicts,
            policy: &self.policy,
            sets: &self.sets,
        }
    }

    /// Runs the policy's own tests.
    #[must_use]
    pub fn tests(&self, now: UnixMillis) -> Vec<TestView> {
        selftest::run_tests(&self.view(), now)
    }

    /// What `device` would be told; `None` for one that is not there.
    #[must_use]
    pub fn map(&self, device: &DeviceId, now: UnixMillis) -> Option<DeviceMap> {
        let view = self.view();
        let own = self.state.devices().get(device)?;
        let nowhere = Endpoints::new();
        let peers = engine::related(&view, device)
            .into_iter()
            .filter_map(|peer| {
                let entry = build::peer(&view, device, &peer, &nowhere, now)?;
                Some((peer, entry))
            })
            .collect();
        Some(DeviceMap {
            this: build::this(&view, &self.network, &self.prefixes, own),
            peers,
        })
    }
}

/// Verdicts that hold for good, as far as they are met at all.
fn timeless(verdicts: &BTreeMap<DeviceId, CheckVerdicts>) -> BTreeMap<DeviceId, CheckVerdicts> {
    let hold = |verdict: &Verdict| match verdict {
        Verdict::Compliant { .. } => Verdict::Compliant {
            until: UnixMillis::MAX,
        },
        Verdict::NonCompliant { .. } => verdict.clone(),
    };
    verdicts
        .iter()
        .map(|(device, checks)| {
            let checks = checks
                .iter()
                .map(|(check, verdict)| (check.clone(), hold(verdict)))
                .collect();
            (*device, checks)
        })
        .collect()
}

/// What changes for one device from `before` to `after`, line by line; nothing where both are the
/// same.
#[must_use]
pub fn differences(before: Option<&DeviceMap>, after: Option<&DeviceMap>) -> Vec<String> {
    let (before, after) = match (before, after) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec!["the device is new".to_owned()],
        (Some(_), None) => return vec!["the device is gone".to_owned()],
        (Some(before), Some(after)) => (before, after),
    };
    let mut lines = Vec::new();
    if before.this != after.this {
        lines.push(format!(
            "what it is told of itself: {:?} becomes {:?}",
            before.this, after.this
        ));
    }
    let all: BTreeSet<&DeviceId> = before.peers.keys().chain(after.peers.keys()).collect();
    for peer in all {
        match (before.peers.get(peer), after.peers.get(peer)) {
            (None, None) => {}
            (None, Some(new)) => lines.push(format!("gains the peer {}", new.name)),
            (Some(old), None) => lines.push(format!("loses the peer {}", old.name)),
            (Some(old), Some(new)) => peer_differences(old, new, &mut lines),
        }
    }
    lines
}

fn peer_differences(old: &PeerEntry, new: &PeerEntry, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    let length = lines.len();
    rule_differences("may send to", &new.name, &old.egress, &new.egress, lines);
    rule_differences(
        "may be sent to by",
        &new.name,
        &old.ingress,
        &new.ingress,
        lines,
    );
    let bare = |entry: &PeerEntry| PeerEntry {
        ingress: Vec::new(),
        egress: Vec::new(),
        ..entry.clone()
    };
    if bare(old) != bare(new) {
        lines.push(format!(
            "what it is told of {}: {:?} becomes {:?}",
            new.name,
            bare(old),
            bare(new)
        ));
    }
    if lines.len() == length {
        // The order of rules says which one an answer names.
        lines.push(format!(
            "the rules with {} stand in another order",
            new.name
        ));
    }
}

fn rule_differences(
    direction: &str,
    peer: &DeviceName,
    old: &[FilterRule],
    new: &[FilterRule],
    lines: &mut Vec<String>,
) {
    for (word, these, those) in [("no longer ", old, new), ("", new, old)] {
        for rule in these.iter().filter(|rule| !those.contains(rule)) {
            let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
            lines.push(format!(
                "{word}{direction} {peer}: {} by rule {}, leased until {}",
                ports.join(", "),
                rule.rule,
                rule.lease.end()
            ));
        }
    }
}
