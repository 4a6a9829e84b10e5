//! `[posture.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use gatereeve_shared::ids::CheckName;
use gatereeve_shared::limits;
use gatereeve_shared::posture::fact::{FactValue, names};

use super::reader::{Fields, Value, duration, fields, integer, list, short, string, table};
use crate::policy::Policy;
use crate::policy::problem::Problems;
use crate::posture::condition::{Condition, Wanted};
use crate::posture::version::{Comparator, VersionReq};
use crate::posture::{Check, DEFAULT_MAX_AGE};

const MAX_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 86_400));

/// Checks of one policy: every device is held against each.
const CHECKS: usize = 64;

/// Conditions of all checks together. Their verdicts travel in one message.
const CONDITIONS: usize = 1_024;
/// Systems that one check allows.
const SYSTEMS: usize = 16;
/// Bytes of a version requirement, and of the name of a system.
const SHORT: usize = 63;

/// Facts that are yes or no, and asked for by `= true`.
const SWITCHES: [&str; 4] = [
    names::DISK_ENCRYPTED,
    names::FIREWALL,
    names::SECURE_BOOT,
    names::SCREEN_LOCK,
];

const OTHERS: [&str; 6] = [
    "os",
    "kernel",
    names::PENDING_SECURITY_UPDATES,
    "process",
    "custom",
    "max_age",
];

const VERSION_HELP: &str = "write a comparison and a version in numbers, such as \">= 12\"";

pub(super) fn read(file: &Fields<'_, '_>, policy: &mut Policy, problems: &mut Problems<'_>) {
    let Some(section) = file.get("posture").and_then(|value| table(problems, value)) else {
        return;
    };
    for (key, value) in section {
        let name = match CheckName::new(key.get_ref().as_ref()) {
            Ok(name) => name,
            Err(error) => {
                problems.error(key.span(), error.to_string(), None);
                continue;
            }
        };
        let known = SWITCHES.into_iter().chain(OTHERS);
        let Some(fields) = fields(problems, value, "a posture check", known) else {
            continue;
        };
        let check = Check {
            conditions: conditions(&fields, problems),
            max_age: fields
                .get("max_age")
                .and_then(|value| duration(problems, value, MAX_AGE.0, MAX_AGE.1))
                .unwrap_or(DEFAULT_MAX_AGE),
        };
        let mut keys = SWITCHES.into_iter().chain(OTHERS);
        if !keys.any(|key| key != "max_age" && fields.get(key).is_some()) {
            problems.error(
                key.span(),
                format!("the posture check `{name}` asks for nothing"),
                Some("add a condition, such as `disk_encrypted = true`".into()),
            );
        }
        policy.checks.insert(name, check);
    }
    let checks = policy.checks.values();
    let conditions: Vec<&Condition> = checks.flat_map(|check| &check.conditions).collect();
    let facts: BTreeSet<String> = conditions.iter().flat_map(|c| c.facts()).collect();
    for (count, most, what) in [
        (policy.checks.len(), CHECKS, "posture checks"),
        (conditions.len(), CONDITIONS, "conditions in its checks"),
        (facts.len(), limits::FACTS, "facts to ask for"),
    ] {
        if count > most {
            let message = format!("a policy has at most {most} {what}, and this has {count}");
            problems.error(file.span_of("posture"), message, None);
        }
    }
}

fn conditions(fields: &Fields<'_, '_>, problems: &mut Problems<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for key in SWITCHES {
        if let Some(value) = fields.get(key)
            && is_true(problems, value, key)
        {
            conditions.push(Condition::True(key));
        }
    }
    conditions.extend(fields.get("os").and_then(|value| os(problems, value)));
    conditions.extend(
        fields
            .get("kernel")
            .and_then(|value| version(problems, value))
            .map(Condition::Kernel),
    );
    conditions.extend(
        fields
            .get(names::PENDING_SECURITY_UPDATES)
            .and_then(|value| pending(problems, value)),
    );
    let processes = list(problems, fields.get("process"), "process", process);
    conditions.extend(processes.into_iter().map(Condition::Process));
    if let Some(custom) = fields
        .get("custom")
        .and_then(|value| table(problems, value))
    {
        if custom.is_empty() {
            let span = fields.span_of("custom");
            problems.error(span, "`custom` asks for no fact", None);
        }
        for (key, value) in custom {
            conditions.extend(custom_fact(problems, key.get_ref(), key.span(), value));
        }
    }
    conditions
}

fn is_true(problems: &mut Problems<'_>, value: &Value<'_>, key: &str) -> bool {
    let is_true = value.get_ref().as_bool() == Some(true);
    if !is_true {
        problems.error(
            value.span(),
            format!("`{key}` can only be asked to be true"),
            Some("leave the line out where it does not matter".into()),
        );
    }
    is_true
}

fn version(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<VersionReq> {
    let text = string(problems, value)?;
    let version = VersionReq::parse(text).filter(|_| text.len() <= SHORT);
    if version.is_none() {
        let message = format!("`{}` is no version requirement", short(text));
        problems.error(value.span(), message, Some(VERSION_HELP.into()));
    }
    version
}

fn os(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<Condition> {
    let systems = table(problems, value)?;
    let mut wanted = BTreeMap::new();
    for (key, value) in systems {
        let name = key.get_ref().as_ref();
        let is_plain = !name.is_empty()
            && name.len() <= SHORT
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        if !is_plain {
            problems.error(
                key.span(),
                format!("`{}` is no operating system", short(name)),
                Some("write the ID of its os-release, such as `debian`".into()),
            );
        } else if value.get_ref().as_str() == Some("*") {
            wanted.insert(name.to_owned(), None);
        } else if let Some(version) = version(problems, value) {
            wanted.insert(name.to_owned(), Some(version));
        }
    }
    if systems.is_empty() || systems.len() > SYSTEMS {
        let message = format!("`os` allows 1 to {SYSTEMS} systems");
        problems.error(value.span(), message, None);
    }
    (!wanted.is_empty()).then_some(Condition::Os(wanted))
}

fn pending(problems: &mut Problems<'_>, value: &Value<'_>) -> Option<Condition> {
    if value.get_ref().is_str() {
        let text = string(problems, value)?;
        let parsed = Comparator::split(text)
            .and_then(|(comparator, number)| Some((comparator, number.parse::<u32>().ok()?)));
        if parsed.is_none() {
            problems.error(
                value.span(),
                format!("`{}` is no number of updates", short(text)),
                Some("write the most there may be, such as 0, or \"<= 0\"".into()),
            );
        }
        let (comparator, number) = parsed?;
        return Some(Condition::PendingUpdates(comparator, i64::from(number)));
    }
    let number = integer(problems, value)?;
    if number < 0 {
        problems.error(value.span(), "there cannot be less than 0 updates", None);
        return None;
    }
    Some(Condition::PendingUpdates(Comparator::AtMost, number))
}

fn process(problems: &mut Problems<'_>, text: &str, span: Range<usize>) -> Option<String> {
    let fits = names::PROCESS_PREFIX.len() + text.len() <= limits::TEXT;
    let is_path = text.starts_with('/') && text.len() > 1 && !text.chars().any(char::is_control);
    if !(fits && is_path) {
        problems.error(
            span,
            format!("`{}` is no path of an executable", short(text)),
            Some("write the whole path, such as \"/opt/edr/agent\", in at most 247 bytes".into()),
        );
        return None;
    }
    Some(text.to_owned())
}

fn custom_fact(
    problems: &mut Problems<'_>,
    name: &str,
    span: Range<usize>,
    value: &Value<'_>,
) -> Option<Condition> {
    // The same form as other names: no space, no control character, bounded.
    if let Err(error) = CheckName::new(name) {
        let help = Some("facts have names such as `mdm_enrolled`".into());
        problems.error(
            span,
            error.to_string().replace("posture check", "fact"),
            help,
        );
        return None;
    }
    let wanted = if let Some(value) = value.get_ref().as_bool() {
        Wanted::Is(FactValue::Bool(value))
    } else if value.get_ref().is_integer() {
        Wanted::Is(FactValue::Int(integer(problems, value)?))
    } else {
        let text = string(problems, value)?;
        match Comparator::split(text) {
            None if text.len() > limits::TEXT => {
                problems.error(value.span(), "the text is too long", None);
                return None;
            }
            None => Wanted::Is(FactValue::Text(text.to_owned())),
            Some((comparator, number)) => match number.parse::<i64>() {
                Ok(number) => Wanted::Number(comparator, number),
                Err(_) => Wanted::Compares(version(problems, value)?),
            },
        }
    };
    Some(Condition::Custom(name.to_owned(), wanted))
}
