//! The policy engine: the only place that says yes.

use std::collections::BTreeSet;

use gatereeve_shared::ids::{CheckName, DeviceId, RuleId};
use gatereeve_shared::lease::Lease;
use gatereeve_shared::limits;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;

use crate::policy::rule::Rule;
use crate::state::device::Device;

use super::View;

/// Proof that a rule lets a source reach a destination now. Only [`grants`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The rule.
    pub rule: RuleId,
    /// On which ports.
    pub ports: Vec<PortSpec>,
    /// Until when.
    pub lease: Lease,
    _made_here: MadeHere,
}

/// Keeps [`Grant`]s from being made elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MadeHere;

/// All that `src` may reach at `dst` now: one live grant for each rule, in the order of the file, at most
/// [`RULES_PER_PEER`](limits::RULES_PER_PEER). No grant is a denial.
///
/// The lease ends when the rule's lease is over, and before that when a verdict it rests on becomes
/// too old, and never behind its hard end: the rule's `until`, the end of the schedule's window, the expiry
/// of either device's key.
#[must_use]
pub fn grants(view: &View<'_>, src: &DeviceId, dst: &DeviceId, now: UnixMillis) -> Vec<Grant> {
    let Some(keys_end) = pair_until(view, src, dst, now) else {
        return Vec::new();
    };
    view.sets
        .common_rules(src, dst)
        .filter_map(|at| view.policy.rules().get(at))
        .filter_map(|rule| grant(view, rule, (src, dst), keys_end, now))
        .take(limits::RULES_PER_PEER)
        .collect()
}

/// Until when both may have peers at all, if they may. A device is no peer of itself.
fn pair_until(
    view: &View<'_>,
    src: &DeviceId,
    dst: &DeviceId,
    now: UnixMillis,
) -> Option<UnixMillis> {
    if src == dst {
        return None;
    }
    let until = |device: &Device| {
        device
            .may_have_peers(now)
            .then(|| device.key_expires.unwrap_or(UnixMillis::MAX))
    };
    let (src, dst) = (view.devices.get(src)?, view.devices.get(dst)?);
    Some(until(src)?.min(until(dst)?))
}

fn grant(
    view: &View<'_>,
    rule: &Rule,
    (src, dst): (&DeviceId, &DeviceId),
    keys_end: UnixMillis,
    now: UnixMillis,
) -> Option<Grant> {
    let posture_end = posture_until(view, src, &rule.posture, now)?.min(posture_until(
        view,
        dst,
        &rule.to_posture,
        now,
    )?);
    let hard_end = keys_end.min(time_until(rule, now)?);
    let end = now.saturating_add(rule.lease).min(posture_end);
    let lease = Lease::new(end, hard_end);
    lease.is_live(now).then(|| Grant {
        rule: rule.id.clone(),
        ports: rule.ports.clone(),
        lease,
        _made_here: MadeHere,
    })
}

/// Until when the rule's `until` and schedule allow it, if they do now.
pub(crate) fn time_until(rule: &Rule, now: UnixMillis) -> Option<UnixMillis> {
    let until = rule.until.unwrap_or(UnixMillis::MAX);
    if until <= now {
        return None;
    }
    match &rule.schedule {
        None => Some(until),
        Some(schedule) => schedule.open_until(now).map(|end| end.min(until)),
    }
}

/// Until when the device meets all of the checks, if it does now.
pub(crate) fn posture_until(
    view: &View<'_>,
    device: &DeviceId,
    checks: &[CheckName],
    now: UnixMillis,
) -> Option<UnixMillis> {
    let mut end = UnixMillis::MAX;
    for check in checks {
        match view.verdicts.get(device)?.get(check)? {
            Verdict::Compliant { until } if now < *until => end = end.min(*until),
            Verdict::Compliant { .. } | Verdict::NonCompliant { .. } => return None,
        }
    }
    Some(end)
}

/// All devices that a rule connects with this one, in either direction, whatever conditions it has.
#[must_use]
pub fn related(view: &View<'_>, device: &DeviceId) -> BTreeSet<DeviceId> {
    let Some(at) = view.sets.position(device) else {
        return BTreeSet::new();
    };
    let mut devices = view.sets.reachable(at);
    devices.add_all(&view.sets.reaching(at));
    devices.remove(at);
    devices
        .iter()
        .filter_map(|at| view.sets.id(at))
        .copied()
        .collect()
}

/// All pairs of source and destination that a rule connects, whatever conditions it has.
pub fn pairs<'a>(view: &View<'a>) -> impl Iterator<Item = (DeviceId, DeviceId)> + 'a {
    let sets = view.sets;
    (0..sets.device_count()).flat_map(move |src| {
        let mut destinations = sets.reachable(src);
        destinations.remove(src);
        let reached: Vec<usize> = destinations.iter().collect();
        reached
            .into_iter()
            .filter_map(move |dst| Some((*sets.id(src)?, *sets.id(dst)?)))
    })
}

/// The next moment at which time alone changes a grant: a schedule opens or closes, a rule or a key
/// ends. Leases and verdicts are not looked at: they end by what they say themselves.
#[must_use]
pub fn next_change(view: &View<'_>, now: UnixMillis) -> Option<UnixMillis> {
    let rules = view
        .policy
        .rules()
        .iter()
        .filter(|rule| rule.until.is_none_or(|until| now < until))
        .flat_map(|rule| {
            let schedule = rule.schedule.as_ref();
            let turn = schedule.and_then(|schedule| schedule.next_change(now));
            [rule.until, turn]
        })
        .flatten();
    let keys = view
        .devices
        .values()
        .filter(|device| device.may_have_peers(now))
        .filter_map(|device| device.key_expires);
    rules.chain(keys).filter(|at| now < *at).min()
}
