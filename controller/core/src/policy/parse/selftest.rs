//! `[[test]]`.

use std::collections::BTreeMap;
use std::ops::Range;

use gatereeve_shared::ids::{DeviceId, DeviceName};
use gatereeve_shared::policy::port::PortSpec;

use super::identities::principal;
use super::reader::{Fields, Value, fields, short, some_strings, string, tables};
use super::rule::port;
use crate::policy::Policy;
use crate::policy::principal::Principal;
use crate::policy::problem::Problems;
use crate::policy::rule::SelfTest;

/// Tests of one policy.
const TESTS: usize = 2_000;
/// Ports of one test.
const PORTS: usize = 64;

const KEYS: [&str; 5] = ["from", "to", "ports", "expect", "posture"];

pub(super) fn read(
    file: &Fields<'_, '_>,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
    problems: &mut Problems<'_>,
) {
    let entries = tables(problems, file.get("test"), "test");
    if entries.len() > TESTS {
        let message = format!("a policy has at most {TESTS} tests");
        problems.error(file.span_of("test"), message, None);
        return;
    }
    for entry in entries {
        let test = test(entry, policy, names, problems);
        policy.tests.extend(test);
    }
}

fn test(
    entry: &Value<'_>,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
    problems: &mut Problems<'_>,
) -> Option<SelfTest> {
    let fields = fields(problems, entry, "a test", KEYS)?;
    let from = one_principal(problems, &fields, "from", policy, names);
    let to = one_principal(problems, &fields, "to", policy, names);
    let ports = fields.require(problems, "ports", "the test", "[\"tcp:443\"]");
    let expect = fields.require(problems, "expect", "the test", "[\"allow\"]");
    let posture_met = match fields.get("posture") {
        None => true,
        Some(value) => {
            let text = string(problems, value)?;
            word(problems, text, value.span(), ["met", "unmet"])?
        }
    };
    let (ports_value, expect_value) = (ports?, expect?);
    let mut ports: Vec<PortSpec> = Vec::new();
    for (text, span) in some_strings(problems, ports_value, "ports") {
        ports.push(port(problems, text, span)?);
    }
    let mut expected = Vec::new();
    for (text, span) in some_strings(problems, expect_value, "expect") {
        expected.push(word(problems, text, span, ["allow", "deny"])?);
    }
    if ports.len() > PORTS {
        let message = format!("a test has at most {PORTS} ports");
        problems.error(ports_value.span(), message, None);
        return None;
    }
    // One word stands for all ports.
    if let ([only], true) = (expected.as_slice(), expect_value.get_ref().is_str()) {
        expected = vec![*only; ports.len()];
    }
    if expected.len() != ports.len() {
        problems.error(
            expect_value.span(),
            format!(
                "the test has {} ports and expects {} results",
                ports.len(),
                expected.len()
            ),
            Some("give one result for each port, in the same order".into()),
        );
        return None;
    }
    Some(SelfTest {
        from: from?,
        to: to?,
        expectations: ports.into_iter().zip(expected).collect(),
        posture_met,
    })
}

/// Whether the word is the first of the two; an error if it is neither.
fn word(
    problems: &mut Problems<'_>,
    text: &str,
    span: Range<usize>,
    [yes, no]: [&'static str; 2],
) -> Option<bool> {
    if text == yes || text == no {
        return Some(text == yes);
    }
    let message = format!("`{}` is neither \"{yes}\" nor \"{no}\"", short(text));
    problems.unknown(span, message, text, [yes, no], None);
    None
}

fn one_principal(
    problems: &mut Problems<'_>,
    fields: &Fields<'_, '_>,
    key: &str,
    policy: &mut Policy,
    names: &BTreeMap<DeviceName, DeviceId>,
) -> Option<Principal> {
    let value = fields.require(problems, key, "the test", "\"tag:web\"")?;
    let text = string(problems, value)?;
    principal(problems, text, value.span(), policy, names)
}
