//! Text to a checked [`Policy`]. Every value keeps its place in the text until it is checked, so
//! that what is wrong is reported where it stands; nothing unknown is skipped.

mod check;
mod identities;
mod network;
mod reader;
mod rule;
mod selftest;

use std::collections::BTreeMap;

use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::limits;
use toml::de::DeTable;

use crate::command::PolicyProblem;

use super::problem::Problems;
use super::{MAX_BYTES, Policy, advice};
use reader::{Fields, fields_of};

/// What may stand at the top of the file.
const SECTIONS: [&str; 7] = [
    "version", "groups", "tags", "posture", "network", "allow", "test",
];

/// Sections of the language that nothing enforces yet, and what to do without.
const NOT_YET: [(&str, &str); 4] = [
    ("segment", "use tags and rules"),
    ("subnet", "run a client on the machines behind it"),
    ("dns", "use overlay addresses"),
    ("relay", "make the devices' endpoints reachable"),
];

pub(super) fn parse(
    text: &str,
    names: &BTreeMap<DeviceName, DeviceId>,
) -> Result<(Policy, Vec<PolicyProblem>), Vec<PolicyProblem>> {
    if text.len() > MAX_BYTES {
        // The text is left out: nothing is to be looked up in it.
        let mut problems = Problems::new("");
        problems.error(
            0..0,
            format!(
                "the file has {} bytes; a policy has at most {MAX_BYTES}",
                text.len()
            ),
            Some("groups and tags say in one line what lists of devices say in many".into()),
        );
        return Err(problems.into_sorted());
    }
    let mut problems = Problems::new(text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            problems.error(span, error.message(), None);
            return Err(problems.into_sorted());
        }
    };
    let policy = read(text, document.get_ref(), names, &mut problems);
    if !problems.has_errors() {
        advice::add(&policy, &mut problems);
    }
    let refused = problems.has_errors();
    let found = problems.into_sorted();
    if refused {
        Err(found)
    } else {
        Ok((policy, found))
    }
}

fn read(
    text: &str,
    document: &DeTable<'_>,
    names: &BTreeMap<DeviceName, DeviceId>,
    problems: &mut Problems<'_>,
) -> Policy {
    let mut policy = Policy {
        text: text.to_owned(),
        ..Policy::empty()
    };
    if document.is_empty() {
        return policy;
    }
    for (key, _) in document {
        if let Some((section, instead)) = NOT_YET.iter().find(|(name, _)| key.get_ref() == name) {
            problems.error(
                key.span(),
                format!("`[{section}]` is not supported yet"),
                Some((*instead).to_owned()),
            );
        }
    }
    let known = SECTIONS
        .into_iter()
        .chain(NOT_YET.into_iter().map(|(name, _)| name));
    let fields = fields_of(problems, document, 0..0, "a policy", known);
    version(&fields, problems);
    network::read(&fields, &mut policy, problems);
    identities::read(&fields, &mut policy, problems);
    check::read(&fields, &mut policy, problems);
    rule::read(&fields, &mut policy, names, problems);
    selftest::read(&fields, &mut policy, names, problems);
    if policy.watched_processes().len() > limits::WATCHED_PROCESSES {
        problems.error(
            fields.span_of("posture"),
            format!(
                "the checks name more than {} processes",
                limits::WATCHED_PROCESSES
            ),
            None,
        );
    }
    policy
}

fn version(fields: &Fields<'_, '_>, problems: &mut Problems<'_>) {
    match fields.get("version") {
        None => problems.error(
            0..0,
            "the file does not say which version of the language it is in",
            Some("begin it with `version = 1`".into()),
        ),
        Some(value) => {
            if reader::integer(problems, value).is_some_and(|version| version != 1) {
                problems.error(
                    value.span(),
                    "this controller knows version 1 of the policy language only",
                    Some("write `version = 1`".into()),
                );
            }
        }
    }
}
