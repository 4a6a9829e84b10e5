//! A device's own question.

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::controller::WhyReply;

use super::missing;
use crate::pdp::View;
use crate::pdp::engine::grants;
use crate::policy::rule::Rule;
use crate::state::device::Device;

/// Said of no rule and of no such name alike, so that names cannot be guessed.
const NO_RULE: &str = "no rule lets this device reach it";

/// Said whatever keeps the other side from being reached.
const OTHER_SIDE: &str = "the other side does not qualify now";

/// Whether the device may reach `dst`, for the device itself. It learns only of rules that name it as
/// source for that destination and port; of the other side only that it does not qualify.
/// [`Protocol::Any`] asks whether anything at all is allowed.
/// `dst` is `None` where there is no device of the name asked for.
#[must_use]
pub fn why(
    view: &View<'_>,
    src: &DeviceId,
    dst: Option<&DeviceId>,
    protocol: Protocol,
    port: u16,
    now: UnixMillis,
) -> WhyReply {
    let mut reply = WhyReply {
        request: 0,
        allowed: false,
        rule: None,
        until: None,
        missing: Vec::new(),
    };
    let Some(source) = view.devices.get(src) else {
        reply.missing.push(NO_RULE.to_owned());
        return reply;
    };
    let is_asked = |ports: &[PortSpec]| {
        protocol == Protocol::Any || ports.iter().any(|spec| spec.contains(protocol, port))
    };
    let granted = dst.map(|dst| grants(view, src, dst, now));
    let longest = granted
        .iter()
        .flatten()
        .filter(|grant| is_asked(&grant.ports))
        .max_by_key(|grant| grant.lease.end());
    if let Some(grant) = longest {
        reply.allowed = true;
        reply.rule = Some(grant.rule.clone());
        reply.until = Some(grant.lease.end());
        return reply;
    }
    let own = missing::of_device(source, now);
    reply
        .missing
        .extend(own.map(|what| format!("this device {what}")));
    let destination = dst.and_then(|dst| view.devices.get(dst));
    let nearest = destination.and_then(|destination| {
        view.sets
            .common_rules(src, &destination.id)
            .filter_map(|at| view.policy.rules().get(at))
            .filter(|rule| is_asked(&rule.ports))
            .map(|rule| (rule, lacking(view, rule, source, destination, now)))
            .min_by_key(|(_, missing)| missing.len())
    });
    match nearest {
        // A device is no peer of itself, whatever rules say.
        Some((rule, missing)) if dst != Some(src) => {
            reply.rule = Some(rule.id.clone());
            reply.missing.extend(missing);
        }
        Some(_) | None => reply.missing.push(NO_RULE.to_owned()),
    }
    reply
}

fn lacking(
    view: &View<'_>,
    rule: &Rule,
    source: &Device,
    destination: &Device,
    now: UnixMillis,
) -> Vec<String> {
    let mut missing: Vec<String> = missing::of_time(rule, now).into_iter().collect();
    missing.extend(rule.posture.iter().filter_map(|check| {
        missing::of_check(view, source, check, now).map(|what| format!("this device {what}"))
    }));
    let met = |check| missing::of_check(view, destination, check, now).is_none();
    if !destination.may_have_peers(now) || !rule.to_posture.iter().all(met) {
        missing.push(OTHER_SIDE.to_owned());
    }
    missing
}
