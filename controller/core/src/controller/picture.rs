//! Everything that a decision reads, as it is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gatereeve_shared::ids::{CheckName, DeviceId, DeviceName, RuleId};
use gatereeve_shared::limits;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;

use crate::change::CheckVerdicts;
use crate::pdp::{Grant, View, engine};
use crate::policy::Policy;
use crate::policy::resolve::Resolved;
use crate::posture::evaluate::evaluate;
use crate::state::State;
use crate::state::device::{Device, StoredReport};

/// The durable state with the policy compiled and the verdicts' ends as the last reports move them.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) state: State,
    /// Verdicts whose kind is that of `state`, and whose ends are newer. Reports move ends without
    /// a journal record.
    pub(crate) live: BTreeMap<DeviceId, CheckVerdicts>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) sets: Resolved,
}

/// Some devices.
pub(crate) type Devices = BTreeSet<DeviceId>;

/// What is granted, pair by pair of source and destination.
pub(crate) type Granted = BTreeMap<(DeviceId, DeviceId), Vec<Grant>>;

impl Picture {
    pub(crate) fn view(&self) -> View<'_> {
        View {
            devices: self.state.devices(),
            verdicts: &self.live,
            policy: &self.policy,
            sets: &self.sets,
        }
    }

    pub(crate) fn resolve(&mut self) {
        self.sets = Resolved::new(&self.policy, self.state.devices());
    }

    /// Everything granted to and by `devices`, or everything at all.
    pub(crate) fn granted(&self, devices: Option<&Devices>, now: UnixMillis) -> Granted {
        let view = self.view();
        let pairs: BTreeSet<(DeviceId, DeviceId)> = match devices {
            None => engine::pairs(&view).collect(),
            Some(devices) => devices
                .iter()
                .flat_map(|device| {
                    engine::related(&view, device)
                        .into_iter()
                        .flat_map(move |other| [(*device, other), (other, *device)])
                })
                .collect(),
        };
        pairs
            .into_iter()
            .filter_map(|(src, dst)| {
                let grants = engine::grants(&view, &src, &dst, now);
                (!grants.is_empty()).then_some(((src, dst), grants))
            })
            .collect()
    }

    /// A device's name, for people.
    pub(crate) fn label(&self, device: &DeviceId) -> String {
        self.state.devices().get(device).map_or_else(
            || device.to_string(),
            |device| format!("{} ({})", device.name, device.id),
        )
    }

    /// A device's bare name.
    pub(crate) fn name(&self, device: &DeviceId) -> Option<&DeviceName> {
        self.state.devices().get(device).map(|device| &device.name)
    }

    /// What opens and closes between two pictures of what is granted, line by line.
    pub(crate) fn difference(&self, before: &Granted, after: &Granted) -> Vec<String> {
        let name = |id: &DeviceId| {
            self.name(id)
                .map_or_else(|| id.to_string(), ToString::to_string)
        };
        let mut lines = Vec::new();
        for (word, these, those) in [("closes", before, after), ("opens", after, before)] {
            for ((src, dst), grants) in these {
                let others = those.get(&(*src, *dst)).map_or(&[][..], Vec::as_slice);
                for rule in rules(grants).difference(&rules(others)) {
                    lines.push(format!("{word} {} -> {} by {rule}", name(src), name(dst)));
                }
            }
        }
        lines
    }
}

fn rules(grants: &[Grant]) -> BTreeSet<RuleId> {
    grants.iter().map(|grant| grant.rule.clone()).collect()
}

/// How many pairs gained and lost ports.
pub(crate) fn changed_pairs(before: &Granted, after: &Granted) -> (usize, usize) {
    let more = |these: &Granted, those: &Granted| {
        these
            .iter()
            .filter(|(pair, grants)| {
                let others = those.get(*pair).map_or(&[][..], Vec::as_slice);
                !ports(grants).is_subset(&ports(others))
            })
            .count()
    };
    (more(after, before), more(before, after))
}

fn ports(grants: &[Grant]) -> BTreeSet<PortSpec> {
    grants
        .iter()
        .flat_map(|grant| grant.ports.iter().copied())
        .collect()
}

/// How a device does on the checks that concern it.
pub(crate) fn judge(
    policy: &Policy,
    device: &Device,
    report: Option<&StoredReport>,
    now: UnixMillis,
) -> CheckVerdicts {
    let concerned = policy.checks_of(device);
    if concerned.is_empty() {
        return CheckVerdicts::new();
    }
    evaluate(policy, report, now)
        .into_iter()
        .filter(|(check, _)| concerned.contains(check))
        .map(|(check, verdict)| (check, bounded(verdict)))
        .collect()
}

/// A verdict whose words are short: part of them is the device's own.
fn bounded(mut verdict: Verdict) -> Verdict {
    if let Verdict::NonCompliant { failures } = &mut verdict {
        for failure in failures {
            for text in [&mut failure.wanted, &mut failure.found] {
                if let Some((cut, _)) = text.char_indices().nth(limits::TEXT) {
                    text.truncate(cut);
                }
            }
        }
    }
    verdict
}

/// The checks that are met, whatever until.
pub(crate) fn met(verdicts: Option<&CheckVerdicts>) -> BTreeSet<&CheckName> {
    verdicts
        .into_iter()
        .flatten()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Compliant { .. }))
        .map(|(check, _)| check)
        .collect()
}

/// Moves the ends of verdicts to those just `judged`, where the journal and the judgement agree
/// that a check is met. Where they do not, nothing moves: that takes a record.
pub(crate) fn extend(
    live: Option<&mut CheckVerdicts>,
    durable: Option<&CheckVerdicts>,
    judged: CheckVerdicts,
) {
    let (Some(live), Some(durable)) = (live, durable) else {
        return;
    };
    for (check, verdict) in judged {
        let was_met = matches!(durable.get(&check), Some(Verdict::Compliant { .. }));
        let is_met = matches!(verdict, Verdict::Compliant { .. });
        if was_met == is_met && (!is_met || live.contains_key(&check)) {
            live.insert(check, verdict);
        }
    }
}
