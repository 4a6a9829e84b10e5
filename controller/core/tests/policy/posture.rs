//! Facts against checks: nothing but a good, known, fresh fact of the right type will do.

use gatereeve_controller_core::policy::Policy;
use gatereeve_controller_core::posture::evaluate::evaluate;
use gatereeve_controller_core::state::device::StoredReport;
use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::posture::verdict::{Failure, Verdict};
use gatereeve_shared::time::UnixMillis;

use crate::support::{MINUTE, NOON, World, device, fact};

fn text(value: &str) -> FactValue {
    FactValue::Text(value.into())
}

fn policy(conditions: &str) -> Policy {
    let file = format!("version = 1\n[posture.c]\n{conditions}\n");
    match Policy::parse(&file, &Default::default()) {
        Ok((policy, _)) => policy,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn verdict(conditions: &str, facts: Vec<Fact>, now: UnixMillis) -> Verdict {
    let report = StoredReport {
        received: NOON,
        facts,
    };
    let verdicts = evaluate(&policy(conditions), Some(&report), now);
    verdicts.into_values().next().unwrap()
}

#[track_caller]
fn failures(verdict: Verdict) -> Vec<Failure> {
    match verdict {
        Verdict::NonCompliant { failures } => {
            assert!(!failures.is_empty());
            failures
        }
        Verdict::Compliant { .. } => panic!("compliant"),
    }
}

#[test]
fn each_condition_takes_the_good_value_and_no_other() {
    let on = || FactValue::Bool(true);
    let off = || FactValue::Bool(false);
    type Row<'a> = (&'a str, &'a str, &'a [FactValue], &'a [FactValue]);
    let rows: &[Row<'_>] = &[
        ("disk_encrypted = true", "disk_encrypted", &[on()], &[off()]),
        ("firewall = true", "firewall", &[on()], &[off()]),
        ("secure_boot = true", "secure_boot", &[on()], &[off()]),
        ("screen_lock = true", "screen_lock", &[on()], &[off()]),
        (
            "process = [\"/opt/edr\"]",
            "process:/opt/edr",
            &[on()],
            &[off()],
        ),
        (
            "process = \"/opt/edr\"",
            "process:/opt/edr",
            &[on()],
            &[off()],
        ),
        (
            "kernel = \">= 6.1\"",
            "kernel",
            &[text("6.18.0-5-amd64"), text("6.1")],
            &[text("5.10.0"), text("six"), text("")],
        ),
        (
            "pending_security_updates = \"<= 0\"",
            "pending_security_updates",
            &[FactValue::Int(0)],
            &[FactValue::Int(1), FactValue::Int(-1), text("0")],
        ),
        (
            "pending_security_updates = 3",
            "pending_security_updates",
            &[FactValue::Int(0), FactValue::Int(3)],
            &[FactValue::Int(4), FactValue::Int(-1)],
        ),
        (
            "custom.x = true",
            "custom.x",
            &[on()],
            &[off(), text("true"), FactValue::Int(1)],
        ),
        ("custom.x = false", "custom.x", &[off()], &[on(), text("")]),
        (
            "custom.x = 3",
            "custom.x",
            &[FactValue::Int(3)],
            &[FactValue::Int(4), text("3")],
        ),
        (
            "custom.x = \"gold\"",
            "custom.x",
            &[text("gold")],
            &[text("Gold"), on()],
        ),
        (
            "custom.x = \">= 3\"",
            "custom.x",
            &[
                FactValue::Int(3),
                FactValue::Int(12),
                text("3.1"),
                text("12"),
            ],
            &[FactValue::Int(2), text("2.9"), text("x"), on()],
        ),
        (
            "custom.x = \">= 3.2\"",
            "custom.x",
            &[text("3.2"), text("3.10"), FactValue::Int(4)],
            &[text("3.1"), FactValue::Int(3), on()],
        ),
    ];
    for (conditions, id, good, bad) in rows {
        for value in *good {
            let verdict = verdict(conditions, vec![fact(id, value, 0)], NOON);
            assert!(verdict.is_compliant(NOON), "{conditions}: {value:?}");
        }
        let unknown = FactValue::Unknown("unreadable".into());
        for value in bad.iter().chain([&unknown]) {
            let failures = failures(verdict(conditions, vec![fact(id, value, 0)], NOON));
            assert_eq!(failures.len(), 1, "{conditions}: {value:?}");
        }
        failures(verdict(conditions, vec![], NOON));
        failures(verdict(conditions, vec![fact("other", &good[0], 0)], NOON));
    }
}

#[test]
fn the_system_is_one_of_those_named_in_a_good_version() {
    let conditions = "os = { debian = \">= 12\", ubuntu = \">= 22.04\", arch = \"*\" }";
    let system = |os: &str, version: Option<&str>| {
        let mut facts = vec![fact("os", &text(os), 0)];
        facts.extend(version.map(|version| fact("os_version", &text(version), 0)));
        verdict(conditions, facts, NOON).is_compliant(NOON)
    };
    assert!(system("debian", Some("12")) && system("debian", Some("12.7")));
    assert!(system("ubuntu", Some("22.04")) && system("arch", Some("rolling")));
    assert!(!system("debian", Some("11")) && !system("ubuntu", Some("20.04")));
    assert!(!system("fedora", Some("99")) && !system("debian", None));
    assert!(!system("debian", Some("sid")) && !system("Debian", Some("12")));
}

#[test]
fn failures_say_what_was_wanted_and_found() {
    let facts = vec![
        fact("firewall", &FactValue::Bool(false), 0),
        fact(
            "disk_encrypted",
            &FactValue::Unknown("no sysfs\u{1b}[31m".into()),
            0,
        ),
        fact("kernel", &text("5.10.0"), 0),
    ];
    let conditions =
        "firewall = true\ndisk_encrypted = true\nkernel = \">= 6.1\"\nprocess = [\"/opt/edr\"]";
    let found: Vec<(String, String)> = failures(verdict(conditions, facts, NOON))
        .into_iter()
        .map(|failure| (failure.wanted, failure.found))
        .collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        found,
        [
            pair("disk_encrypted = true", "unknown: no sysfs\u{fffd}[31m"),
            pair("firewall = true", "false (from test)"),
            pair("kernel >= 6.1", "\"5.10.0\" (from test)"),
            pair("process /opt/edr running", "unknown: not reported"),
        ]
    );
}

#[test]
fn a_fact_is_good_until_it_is_too_old() {
    let conditions = "firewall = true\ndisk_encrypted = true\nmax_age = \"15m\"";
    let facts = || {
        let on = FactValue::Bool(true);
        vec![
            fact("firewall", &on, 0),
            fact("disk_encrypted", &on, 5 * MINUTE),
        ]
    };
    let until = UnixMillis(NOON.0 + 10 * MINUTE);
    assert_eq!(
        verdict(conditions, facts(), NOON),
        Verdict::Compliant { until }
    );
    let before = UnixMillis(until.0 - 1);
    assert!(verdict(conditions, facts(), before).is_compliant(before));
    let stale = failures(verdict(conditions, facts(), until));
    assert_eq!(stale.len(), 1);
    assert!(
        stale[0]
            .found
            .starts_with("stale: observed at 2026-11-23T11:55"),
        "{stale:?}"
    );
    // A clock that is set back does not make a fact younger.
    let earlier = UnixMillis(NOON.0 - 60 * MINUTE);
    let until = UnixMillis(earlier.0 + 10 * MINUTE);
    assert_eq!(
        verdict(conditions, facts(), earlier),
        Verdict::Compliant { until }
    );
    // An absurd age is old, not new.
    let absurd = vec![fact("firewall", &FactValue::Bool(true), u64::MAX)];
    failures(verdict("firewall = true", absurd, NOON));
}

#[test]
fn without_a_usable_report_nothing_is_met() {
    let policy = policy("firewall = true\nmax_age = \"5m\"");
    let verdicts = evaluate(&policy, None, NOON);
    let none = failures(verdicts.into_values().next().unwrap());
    assert_eq!(none[0].found, "unknown: no report");
    let on = FactValue::Bool(true);
    let twice = vec![fact("firewall", &on, 0), fact("firewall", &on, 0)];
    let twice = failures(verdict("firewall = true", twice, NOON));
    assert!(twice[0].found.contains("malformed"));
}

#[test]
fn devices_report_often_enough_for_the_checks_that_concern_them() {
    let world = World::new([
        device(1, "laptop", Some("alice@example.com"), &[]),
        device(2, "web", None, &["web"]),
        device(3, "other", None, &[]),
    ]);
    let file = "version = 1\n[tags.\"tag:web\"]\n\
        [posture.source]\nfirewall = true\nmax_age = \"30s\"\n\
        [posture.target]\nfirewall = true\nmax_age = \"1m\"\n\
        [posture.unused]\nfirewall = true\nmax_age = \"2s\"\n\
        [[allow]]\nid = \"r\"\nfrom = [\"alice@example.com\"]\nto = [\"tag:web\"]\nports = [\"*\"]\n\
        posture = [\"source\"]\nto_posture = [\"target\"]\n";
    let policy = world.decide(file, NOON).policy;
    let interval = |name| {
        policy
            .posture_interval(&world.devices[&world.id(name)])
            .as_secs()
    };
    assert_eq!(interval("laptop"), 10);
    assert_eq!(interval("web"), 20);
    assert_eq!(interval("other"), 300);
    assert_eq!(policy.renew_every().as_secs(), 1);
}
