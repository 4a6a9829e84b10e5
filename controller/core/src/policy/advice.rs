//! Warnings: what is allowed in a policy file and worth a look.

use super::Policy;
use super::principal::{Groups, Principal};
use super::problem::Problems;
use super::resolve::Resolved;
use super::rule::Rule;

use gatereeve_shared::policy::port::PortSpec;

use crate::command::PolicyProblem;

/// Pairs of rules compared for shadowing; beyond it the search would cost more than it tells.
const COMPARED: usize = 500;

/// Warnings that follow from the text alone.
pub(super) fn add(policy: &Policy, problems: &mut Problems<'_>) {
    for rule in policy.rules() {
        let any = |principals: &[Principal]| principals.contains(&Principal::Any);
        if any(&rule.from) && any(&rule.to) && rule.ports.contains(&PortSpec::ANY) {
            problems.warning(
                rule.span.clone(),
                format!(
                    "the rule `{}` lets every device reach every other on every port",
                    rule.id
                ),
                Some("name who needs what".into()),
            );
        }
    }
    for (at, rule) in policy.rules().iter().enumerate().take(COMPARED) {
        let shadow = policy
            .rules()
            .iter()
            .enumerate()
            .take(COMPARED)
            .find(|(other_at, other)| {
                // Of two that say the same, the later one is superfluous.
                *other_at != at
                    && shadows(other, rule, policy.groups())
                    && (*other_at < at || !shadows(rule, other, policy.groups()))
            });
        if let Some((_, other)) = shadow {
            problems.warning(
                rule.span.clone(),
                format!(
                    "the rule `{}` allows nothing that `{}` in line {} does not",
                    rule.id, other.id, other.line
                ),
                Some("remove one of the two".into()),
            );
        }
    }
}

/// Whether all that `narrow` grants is granted by `wide` too, at any time and to anyone.
fn shadows(wide: &Rule, narrow: &Rule, groups: &Groups) -> bool {
    let side = |wide: &[Principal], narrow: &[Principal]| {
        narrow
            .iter()
            .all(|narrow| wide.iter().any(|wide| wide.covers(narrow, groups)))
    };
    let time = wide.schedule.is_none() || wide.schedule == narrow.schedule;
    let end = match (wide.until, narrow.until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => wide >= narrow,
    };
    time && end
        && wide.lease >= narrow.lease
        && wide
            .posture
            .iter()
            .all(|check| narrow.posture.contains(check))
        && wide
            .to_posture
            .iter()
            .all(|check| narrow.to_posture.contains(check))
        && side(&wide.from, &narrow.from)
        && side(&wide.to, &narrow.to)
        && narrow
            .ports
            .iter()
            .all(|port| crate::pdp::ports::covers(&wide.ports, port))
}

/// Rules that match no device now, as source or as destination.
pub(super) fn idle_rules(policy: &Policy, sets: &Resolved) -> Vec<PolicyProblem> {
    let mut problems = Problems::new(policy.text());
    for (at, rule) in policy.rules().iter().enumerate() {
        let (sources, destinations) = sets.sizes(at);
        let side = match (sources, destinations) {
            (0, 0) => "as source or destination",
            (0, _) => "as source",
            (_, 0) => "as destination",
            (_, _) => continue,
        };
        problems.warning(
            rule.span.clone(),
            format!("the rule `{}` matches no device {side} now", rule.id),
            None,
        );
    }
    problems.into_sorted()
}
