//! `[[allow]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gatereeve_shared::ids::{CheckName, DeviceId, DeviceName, RuleId};
use gatereeve_shared::limits;
use gatereeve_shared::policy::port::PortSpec;

use super::identities::principal;
use super::network::LEASE;
use super::reader::{Fields, Value, duration, fields, list, moment, short, string, tables};
use crate::policy::Policy;
use crate::policy::principal::Principal;
use crate::policy::problem::Problems;
use crate::policy::rule::Rule;
use crate::policy::schedule::Schedule;

/// Rules of one policy.
const RULES: usize = 2_000;

const KEYS: [&str; 9] = [
    "id",
    "from",
    "to",
    "ports",
    "posture",
    "to_posture",
    "schedule",
    "until",
    "lease",
];

pub(super) fn read(
    file: &Fields<'_, '_>,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
    problems: &mut Problems<'_>,
) {
    let entries = tables(problems, file.get("allow"), "allow");
    if entries.len() > RULES {
        let message = format!("a policy has at most {RULES} rules");
        problems.error(file.span_of("allow"), message, None);
        return;
    }
    let mut lines: BTreeMap<RuleId, usize> = BTreeMap::new();
    for entry in entries {
        let Some(rule) = rule(entry, policy, names, problems) else {
            continue;
        };
        if let Some(line) = lines.insert(rule.id.clone(), rule.line) {
            problems.error(
                rule.span.clone(),
                format!("the rule of line {line} has the ID `{}` already", rule.id),
                Some("the audit log names rules by their ID: give each its own".into()),
            );
        }
        policy.rules.push(rule);
    }
}

fn rule(
    entry: &Value<'_>,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
    problems: &mut Problems<'_>,
) -> Option<Rule> {
    let fields = fields(problems, entry, "a rule", KEYS)?;
    let id = fields.require(problems, "id", "the rule", "\"web-to-db\"");
    let from = principals(problems, &fields, "from", "[\"tag:web\"]", policy, names);
    let to = principals(problems, &fields, "to", "[\"tag:db\"]", policy, names);
    let ports = fields.require(problems, "ports", "the rule", "[\"tcp:443\"]");
    let ports = list(problems, ports, "ports", port);
    if ports.len() > limits::PORTS_PER_RULE {
        let message = format!("a rule has at most {} ports", limits::PORTS_PER_RULE);
        let help = "use ranges, or a second rule".to_owned();
        problems.error(fields.span_of("ports"), message, Some(help));
    }
    let checks: BTreeSet<CheckName> = policy.checks.keys().cloned().collect();
    let mut asked = |key| list(problems, fields.get(key), key, check_of(&checks));
    let posture = asked("posture");
    let to_posture = asked("to_posture");
    let schedule = fields
        .get("schedule")
        .and_then(|value| schedule(problems, value));
    let until = fields
        .get("until")
        .and_then(|value| moment(problems, value));
    let lease = fields
        .get("lease")
        .and_then(|value| duration(problems, value, LEASE.0, LEASE.1));
    let id = id?;
    match RuleId::new(string(problems, id)?) {
        Ok(name) => Some(Rule {
            id: name,
            line: problems.line(entry.span().start),
            span: id.span(),
            from,
            to,
            ports,
            posture,
            to_posture,
            schedule,
            until,
            lease: lease.unwrap_or(policy.network.lease),
        }),
        Err(error) => {
            problems.error(id.span(), error.to_string(), None);
            None
        }
    }
}

fn principals(
    problems: &mut Problems<'_>,
    fields: &Fields<'_, '_>,
    key: &str,
    example: &str,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
) -> Vec<Principal> {
    let value = fields.require(problems, key, "the rule", example);
    list(problems, value, key, |problems, text, span| {
        principal(problems, text, span, policy, names)
    })
}

/// Reads one entry of `ports`.
pub(super) fn port(
    problems: &mut Problems<'_>,
    text: &str,
    span: Range<usize>,
) -> Option<PortSpec> {
    match text.parse() {
        Ok(port) => Some(port),
        Err(error) => {
            problems.error(
                span,
                format!("`{}`: {error}", short(text)),
                Some("write tcp:22, udp:8000-8100, tcp:*, icmp or *".into()),
            );
            None
        }
    }
}

fn check_of(
    checks: &BTreeSet<CheckName>,
) -> impl FnMut(&mut Problems<'_>, &str, Range<usize>) -> Option<CheckName> {
    move |problems, text, span| {
        let found = checks.iter().find(|check| check.as_str() == text);
        if found.is_none() {
            problems.unknown(
                span,
                format!("there is no posture check `{}`", short(text)),
                text,
                checks.iter().map(CheckName::as_str),
                Some(format!("describe it in `[posture.{}]`", short(text))),
            );
        }
        found.cloned()
    }
}

fn schedule(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<Schedule> {
    match Schedule::parse(string(problems, value)?) {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            problems.error(value.span(), error.message, error.help);
            None
        }
    }
}
