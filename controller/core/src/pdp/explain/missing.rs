//! Conditions that are not met, in words.

use gatereeve_shared::ids::CheckName;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;

use crate::pdp::View;
use crate::pdp::ports::covers;
use crate::policy::rule::Rule;
use crate::state::device::{Device, DeviceStatus};

/// What keeps the devices from having peers at all.
pub(super) fn of_pair(source: &Device, destination: &Device, now: UnixMillis) -> Vec<String> {
    if source.id == destination.id {
        return vec!["a device does not reach itself through the network".to_owned()];
    }
    [source, destination]
        .into_iter()
        .filter_map(|device| of_device(device, now).map(|what| format!("{} {what}", device.name)))
        .collect()
}

/// What keeps one device from having peers: the end of a sentence about it.
pub(super) fn of_device(device: &Device, now: UnixMillis) -> Option<String> {
    match device.status {
        DeviceStatus::Pending => Some("waits for approval".into()),
        DeviceStatus::Quarantined => Some("is quarantined".into()),
        DeviceStatus::Revoked => Some("is revoked".into()),
        DeviceStatus::Approved => device
            .key_expires
            .filter(|end| *end <= now)
            .map(|end| format!("has a key that expired at {end}")),
    }
}

/// What a rule that names both devices lacks.
pub(super) fn of_rule(
    view: &View<'_>,
    rule: &Rule,
    (source, destination): (&Device, &Device),
    port: &PortSpec,
    now: UnixMillis,
) -> Vec<String> {
    let mut missing = Vec::new();
    if !covers(&rule.ports, port) {
        let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
        missing.push(format!("it covers {} only", ports.join(", ")));
    }
    missing.extend(of_time(rule, now));
    for (device, checks) in [(source, &rule.posture), (destination, &rule.to_posture)] {
        missing.extend(checks.iter().filter_map(|check| {
            of_check(view, device, check, now).map(|what| format!("{} {what}", device.name))
        }));
    }
    missing
}

/// What the rule's `until` and schedule lack.
pub(super) fn of_time(rule: &Rule, now: UnixMillis) -> Option<String> {
    if let Some(until) = rule.until.filter(|until| *until <= now) {
        return Some(format!("the rule ended at {until}"));
    }
    let schedule = rule.schedule.as_ref()?;
    if schedule.open_until(now).is_some() {
        return None;
    }
    Some(match schedule.next_change(now) {
        Some(opens) => format!("its schedule `{schedule}` opens at {opens}"),
        None => format!("its schedule `{schedule}` is closed"),
    })
}

/// What a device lacks for a check: the end of a sentence about it.
pub(super) fn of_check(
    view: &View<'_>,
    device: &Device,
    check: &CheckName,
    now: UnixMillis,
) -> Option<String> {
    let verdict = view
        .verdicts
        .get(&device.id)
        .and_then(|verdicts| verdicts.get(check));
    let why = match verdict {
        Some(Verdict::Compliant { until }) if now < *until => return None,
        Some(Verdict::Compliant { .. }) => "its last report is too old".to_owned(),
        None => "unknown: no report".to_owned(),
        Some(Verdict::NonCompliant { failures }) => {
            let failures: Vec<String> = failures
                .iter()
                .map(|failure| format!("{} wanted, found {}", failure.wanted, failure.found))
                .collect();
            failures.join("; ")
        }
    };
    Some(format!("does not meet posture check `{check}`: {why}"))
}
