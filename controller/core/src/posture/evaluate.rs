//! Facts held against checks.

use std::collections::BTreeMap;
use std::time::Duration;

use gatereeve_shared::ids::CheckName;
use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::posture::verdict::{Failure, Verdict};
use gatereeve_shared::time::UnixMillis;

use super::Check;
use super::condition::{Condition, Shown};
use crate::policy::Policy;
use crate::state::device::StoredReport;

/// The verdict on every check of the policy, from a device's last report.
///
/// No report, a fact that is missing, unknown, malformed or too old: each fails the condition that
/// needs it. A verdict of [`Verdict::Compliant`] ends when the first fact it rests on becomes too old.
#[must_use]
pub fn evaluate(
    policy: &Policy,
    report: Option<&StoredReport>,
    now: UnixMillis,
) -> BTreeMap<CheckName, Verdict> {
    let facts = Facts::new(report, now);
    policy
        .checks()
        .map(|(name, check)| (name.clone(), judge(check, &facts, now)))
        .collect()
}

/// A report, ready to be looked up in.
enum Facts<'r> {
    /// There is none that could be used, and why.
    None(&'static str),
    /// Each fact and when it was observed.
    Some(BTreeMap<&'r str, (&'r Fact, UnixMillis)>),
}

impl<'r> Facts<'r> {
    fn new(report: Option<&'r StoredReport>, now: UnixMillis) -> Self {
        let Some(report) = report else {
            return Self::None("unknown: no report");
        };
        // A clock that was set back must not keep a report fresh for longer.
        let received = report.received.min(now);
        let mut facts = BTreeMap::new();
        for fact in &report.facts {
            let observed = received.saturating_sub(Duration::from_millis(fact.age_ms));
            if facts.insert(fact.id.as_str(), (fact, observed)).is_some() {
                return Self::None("unknown: the report is malformed, it has a fact twice");
            }
        }
        Self::Some(facts)
    }
}

fn judge(check: &Check, facts: &Facts<'_>, now: UnixMillis) -> Verdict {
    let mut until = UnixMillis::MAX;
    let mut failures = Vec::new();
    for condition in &check.conditions {
        match meets(condition, check.max_age, facts, now) {
            Ok(end) => until = until.min(end),
            Err(found) => failures.push(Failure {
                wanted: condition.to_string(),
                found,
            }),
        }
    }
    if failures.is_empty() && !check.conditions.is_empty() {
        Verdict::Compliant { until }
    } else {
        Verdict::NonCompliant { failures }
    }
}

/// Until when the condition is met, or what was found instead.
fn meets(
    condition: &Condition,
    max_age: Duration,
    facts: &Facts<'_>,
    now: UnixMillis,
) -> Result<UnixMillis, String> {
    let facts = match facts {
        Facts::None(why) => return Err((*why).to_owned()),
        Facts::Some(facts) => facts,
    };
    let mut until = UnixMillis::MAX;
    let mut values = Vec::new();
    let mut found = Vec::new();
    for id in condition.facts() {
        let Some((fact, observed)) = facts.get(id.as_str()) else {
            return Err("unknown: not reported".into());
        };
        let value = fact.value();
        if matches!(value, FactValue::Unknown(_)) {
            return Err(Shown(&value).to_string());
        }
        let end = observed.saturating_add(max_age);
        if end <= now {
            return Err(format!(
                "stale: observed at {observed}, more than {} ago",
                crate::policy::duration::show(max_age)
            ));
        }
        until = until.min(end);
        let source = FactValue::Text(fact.source.clone());
        found.push(format!("{} (from {})", Shown(&value), unquoted(&source)));
        values.push(value);
    }
    if condition.is_met(&values) {
        Ok(until)
    } else {
        Err(found.join(", "))
    }
}

fn unquoted(text: &FactValue) -> String {
    Shown(text).to_string().trim_matches('"').to_owned()
}
