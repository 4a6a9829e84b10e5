//! Why a flow is allowed, or what is missing: for administrators everything, for a device only what
//! it may know.

mod missing;
mod why;

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::UnixMillis;

use super::View;
use super::engine::{Grant, grants};
use super::ports::{covers, overlaps};
use crate::command::{ExplainView, RuleView};
use crate::policy::rule::Rule;
use crate::state::device::Device;

pub use why::why;

/// Whether `src` may reach `dst` on `port` now; through which rule, or what is missing: first about the
/// devices, then about the rule that lacks least. A range of ports is allowed if all of it is.
///
/// `None` if there is no such device.
#[must_use]
pub fn explain(
    view: &View<'_>,
    src: &DeviceId,
    dst: &DeviceId,
    port: &PortSpec,
    now: UnixMillis,
) -> Option<ExplainView> {
    let (source, destination) = (view.devices.get(src)?, view.devices.get(dst)?);
    let granted = grants(view, src, dst, now);
    let answer = answer(&granted, port);
    let rules: Vec<&Rule> = view
        .sets
        .common_rules(src, dst)
        .filter_map(|at| view.policy.rules().get(at))
        .collect();
    let candidates: Vec<RuleView> = rules
        .iter()
        .filter(|rule| overlaps(&rule.ports, port))
        .map(|rule| RuleView {
            rule: rule.id.clone(),
            line: rule.line,
            missing: missing::of_rule(view, rule, (source, destination), port, now),
        })
        .collect();
    let mut missing = Vec::new();
    if answer.is_none() {
        missing.extend(missing::of_pair(source, destination, now));
        match candidates.iter().min_by_key(|rule| rule.missing.len()) {
            Some(nearest) => missing.extend(
                nearest
                    .missing
                    .iter()
                    .map(|what| format!("rule `{}`: {what}", nearest.rule)),
            ),
            None => missing.extend(no_candidate(view, &rules, (source, destination), port)),
        }
    }
    Some(ExplainView {
        from: source.name.clone(),
        to: destination.name.clone(),
        port: *port,
        allowed: answer.is_some(),
        rule: answer.map(|grant| grant.rule.clone()),
        until: answer.map(|grant| grant.lease.end()),
        candidates,
        missing,
    })
}

/// The grant that allows all of `port` for longest; where it takes several together, the one of them
/// that ends first. `None` is a denial.
fn answer<'g>(granted: &'g [Grant], port: &PortSpec) -> Option<&'g Grant> {
    let end = |grant: &&Grant| grant.lease.end();
    granted
        .iter()
        .filter(|grant| covers(&grant.ports, port))
        .max_by_key(end)
        .or_else(|| {
            let together: Vec<PortSpec> = granted.iter().flat_map(|g| g.ports.clone()).collect();
            covers(&together, port).then(|| {
                granted
                    .iter()
                    .filter(|grant| overlaps(&grant.ports, port))
                    .min_by_key(end)
            })?
        })
}

/// What to say where no rule names both devices and the port.
fn no_candidate(
    view: &View<'_>,
    rules: &[&Rule],
    (source, destination): (&Device, &Device),
    port: &PortSpec,
) -> Vec<String> {
    let (src, dst) = (&source.name, &destination.name);
    let mut missing = vec![format!("no rule lets {src} reach {dst} on {port}")];
    for rule in rules {
        let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
        missing.push(format!(
            "rule `{}` lets {src} reach {dst} on {} only",
            rule.id,
            ports.join(", ")
        ));
    }
    let position = |device: &Device| view.sets.position(&device.id);
    let named = |rules: Option<&crate::policy::bits::Bits>| rules.is_some_and(|r| !r.is_empty());
    if !named(position(source).and_then(|at| view.sets.as_source(at))) {
        missing.push(format!("no rule names {src} as a source"));
    }
    if !named(position(destination).and_then(|at| view.sets.as_destination(at))) {
        missing.push(format!("no rule names {dst} as a destination"));
    }
    missing
}
