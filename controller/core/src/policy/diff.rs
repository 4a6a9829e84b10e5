//! What a change opens and closes.

use std::collections::{BTreeMap, BTreeSet};

use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::time::UnixMillis;

use crate::command::FlowView;
use crate::pdp::View;
use crate::pdp::live::Live;
use crate::pdp::ports::{PortSet, overlaps};

use super::bits::Bits;
use super::rule::Rule;

/// Most flows that [`plan`] lists in each direction. [`changed_pairs`] counts them all.
pub const PLAN_FLOWS: usize = 10_000;

/// What would be allowed now under `new` and is not under `old`, and the other way round: one entry for
/// each pair of devices, in the order of their names, at most [`PLAN_FLOWS`] each.
///
/// Conditions count as they are now: what a schedule or a posture check denies at this moment opens
/// nothing.
#[must_use]
pub fn plan(old: &View<'_>, new: &View<'_>, now: UnixMillis) -> (Vec<FlowView>, Vec<FlowView>) {
    let classes = Classes::new(old, new, now);
    let (mut opens, mut closes) = (Vec::new(), Vec::new());
    classes.each_change(|src, dst, change| {
        list(
            &mut opens,
            new,
            (src, dst),
            &change.gained,
            &change.new_rules,
        );
        list(
            &mut closes,
            old,
            (src, dst),
            &change.lost,
            &change.old_rules,
        );
    });
    opens.sort();
    closes.sort();
    (opens, closes)
}

/// How many pairs of source and destination gain something, and how many lose something.
#[must_use]
pub fn changed_pairs(old: &View<'_>, new: &View<'_>, now: UnixMillis) -> (usize, usize) {
    let classes = Classes::new(old, new, now);
    let (mut gained, mut lost) = (0, 0);
    classes.each_change(|src, dst, change| {
        let pairs = src.len() * dst.len() - src.intersection(dst).count();
        gained += if change.gained.is_empty() { 0 } else { pairs };
        lost += if change.lost.is_empty() { 0 } else { pairs };
    });
    (gained, lost)
}

/// What changes between the devices of two classes.
struct Change<'a> {
    gained: PortSet,
    lost: PortSet,
    old_rules: Vec<&'a Rule>,
    new_rules: Vec<&'a Rule>,
}

/// Devices that the same live rules name, under the old policy and under the new one, are alike: one look
/// at two classes says what changes between all of their devices.
struct Classes<'a> {
    old: &'a [Rule],
    new: &'a [Rule],
    sources: BTreeMap<(Bits, Bits), BTreeSet<DeviceId>>,
    destinations: BTreeMap<(Bits, Bits), BTreeSet<DeviceId>>,
}

impl<'a> Classes<'a> {
    fn new(old: &View<'a>, new: &View<'a>, now: UnixMillis) -> Self {
        let (old_live, new_live) = (Live::new(old, now), Live::new(new, now));
        let mut classes = Self {
            old: old.policy.rules(),
            new: new.policy.rules(),
            sources: BTreeMap::new(),
            destinations: BTreeMap::new(),
        };
        let devices: BTreeSet<&DeviceId> = old.devices.keys().chain(new.devices.keys()).collect();
        for id in devices {
            let rules = |view: &View<'_>, side: &dyn Fn(usize) -> Option<Bits>| {
                view.sets.position(id).and_then(side).unwrap_or_default()
            };
            let source = (
                rules(old, &|at| old_live.as_source(at).cloned()),
                rules(new, &|at| new_live.as_source(at).cloned()),
            );
            let destination = (
                rules(old, &|at| old_live.as_destination(at).cloned()),
                rules(new, &|at| new_live.as_destination(at).cloned()),
            );
            classes.sources.entry(source).or_default().insert(*id);
            classes
                .destinations
                .entry(destination)
                .or_default()
                .insert(*id);
        }
        classes
    }

    fn each_change(
        &self,
        mut found: impl FnMut(&BTreeSet<DeviceId>, &BTreeSet<DeviceId>, &Change<'a>),
    ) {
        for ((old_src, new_src), sources) in &self.sources {
            for ((old_dst, new_dst), destinations) in &self.destinations {
                let old_rules: Vec<&Rule> = old_src
                    .common(old_dst)
                    .filter_map(|at| self.old.get(at))
                    .collect();
                let new_rules: Vec<&Rule> = new_src
                    .common(new_dst)
                    .filter_map(|at| self.new.get(at))
                    .collect();
                if old_rules.is_empty() && new_rules.is_empty() {
                    continue;
                }
                let ports = |rules: &[&Rule]| {
                    rules
                        .iter()
                        .flat_map(|rule| &rule.ports)
                        .collect::<PortSet>()
                };
                let (old, new) = (ports(&old_rules), ports(&new_rules));
                let change = Change {
                    gained: new.minus(&old),
                    lost: old.minus(&new),
                    old_rules,
                    new_rules,
                };
                if !(change.gained.is_empty() && change.lost.is_empty()) {
                    found(sources, destinations, &change);
                }
            }
        }
    }
}

/// Adds one flow for each pair of two classes.
fn list(
    flows: &mut Vec<FlowView>,
    view: &View<'_>,
    (sources, destinations): (&BTreeSet<DeviceId>, &BTreeSet<DeviceId>),
    ports: &PortSet,
    rules: &[&Rule],
) {
    if ports.is_empty() {
        return;
    }
    let ports = ports.specs();
    let rules: Vec<_> = rules
        .iter()
        .filter(|rule| ports.iter().any(|port| overlaps(&rule.ports, port)))
        .map(|rule| rule.id.clone())
        .collect();
    let name = |id: &DeviceId| -> Option<DeviceName> { Some(view.devices.get(id)?.name.clone()) };
    for from in sources {
        for to in destinations {
            if flows.len() >= PLAN_FLOWS {
                return;
            }
            if from != to
                && let (Some(from), Some(to)) = (name(from), name(to))
            {
                flows.push(FlowView {
                    from,
                    to,
                    ports: ports.clone(),
                    rules: rules.clone(),
                });
            }
        }
    }
}
