//! Compiled decisions equal those of the model, on random policies, devices and postures.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use gatereeve_controller_core::pdp::engine::{grants, pairs, related};
use gatereeve_controller_core::pdp::explain::{explain, why};
use gatereeve_controller_core::pdp::reach::reach;
use gatereeve_controller_core::policy::diff::{changed_pairs, plan};
use gatereeve_controller_core::state::device::{DeviceStatus, StoredReport};
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::Verdict;
use gatereeve_shared::time::UnixMillis;

use crate::model::{Check, Machine, Model, Rule, Said, Who};
use crate::support::{HOUR, MINUTE, NOON, World, device, fact};

const USERS: usize = 3;
const GROUPS: usize = 2;
const TAGS: usize = 3;
const CHECKS: usize = 2;
const FACTS: [&str; 3] = ["disk_encrypted", "firewall", "custom.ring"];
const MACHINES: usize = 6;
/// Ports around the edges of the ranges in use.
const PROBES: [u16; 8] = [1, 21, 22, 23, 79, 80, 90, 65_535];

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        1 => Just(Who::Any),
        3 => (0..USERS).prop_map(Who::User),
        3 => (0..GROUPS).prop_map(Who::Group),
        4 => (0..TAGS).prop_map(Who::Tag),
        2 => (0..MACHINES).prop_map(Who::Device),
    ]
}

fn port() -> impl Strategy<Value = (Protocol, u16, u16)> {
    let range = prop_oneof![
        Just((22, 22)),
        Just((80, 90)),
        Just((1, 79)),
        Just((23, 65_535)),
        Just((0, 65_535)),
    ];
    let protocol = prop_oneof![
        8 => Just(Protocol::Tcp),
        4 => Just(Protocol::Udp),
        2 => Just(Protocol::Icmp),
        1 => Just(Protocol::Any),
    ];
    (protocol, range).prop_map(|(protocol, (first, last))| (protocol, first, last))
}

prop_compose! {
    fn rule(now: u64)(
        from in vec(who(), 1..3),
        to in vec(who(), 1..3),
        ports in vec(port(), 1..3),
        posture in vec(0..CHECKS, 0..2),
        to_posture in vec(0..CHECKS, 0..2),
        hours in option::weighted(0.3, (0..24_u64, 1..24_u64)),
        until in option::weighted(0.3, 0..4_u64),
        lease_minutes in option::of(1..600_u64),
    ) -> Rule {
        Rule {
            from,
            to,
            ports,
            posture,
            to_posture,
            hours: hours.map(|(opens, length)| (opens, (opens + length) % 24)),
            // Before, at and behind the present; RFC 3339 to the millisecond.
            until: until.map(|n| now - HOUR + n * HOUR),
            lease_minutes,
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        6 => (0..70_u64).prop_map(|minutes_ago| Said::Good { minutes_ago }),
        1 => Just(Said::Bad),
        1 => Just(Said::Unknown),
        1 => Just(Said::WrongType),
        1 => Just(Said::Nothing),
    ]
}

prop_compose! {
    fn machine(now: u64)(
        user in option::of(0..USERS),
        tags in vec(prop::bool::ANY, TAGS),
        approved in prop::bool::weighted(0.85),
        key_expires in option::weighted(0.3, 0..4_u64),
        says in option::weighted(0.85, vec(said(), FACTS.len())),
    ) -> Machine {
        Machine {
            user,
            tags,
            approved,
            key_expires: key_expires.map(|n| now - HOUR + n * HOUR),
            says,
        }
    }
}

fn check() -> impl Strategy<Value = Check> {
    let facts = vec(prop::bool::ANY, FACTS.len());
    let facts = facts.prop_filter("asks for something", |facts| facts.contains(&true));
    (facts, 30..90_u64).prop_map(|(facts, max_age_minutes)| Check {
        facts,
        max_age_minutes,
    })
}

prop_compose! {
    fn model(now: u64)(
        groups in vec(vec(prop::bool::ANY, USERS), GROUPS),
        checks in vec(check(), CHECKS),
        machines in vec(machine(now), MACHINES),
        rules in vec(rule(now), 0..6),
    ) -> Model {
        Model { groups, checks, machines, rules }
    }
}

fn spec((protocol, first, last): (Protocol, u16, u16)) -> PortSpec {
    PortSpec::new(protocol, first, last).unwrap()
}

/// The policy file that says what the model says.
fn text(model: &Model) -> String {
    let name = |who: &Who| match who {
        Who::Any => "\"*\"".to_owned(),
        Who::User(n) => format!("\"u{n}@example.com\""),
        Who::Group(n) => format!("\"group:g{n}\""),
        Who::Tag(n) => format!("\"tag:t{n}\""),
        Who::Device(n) => format!("\"device:m{n}\""),
    };
    let list = |who: &[Who]| who.iter().map(name).collect::<Vec<_>>().join(", ");
    let checks = |checks: &[usize]| {
        let names: Vec<String> = checks.iter().map(|n| format!("\"c{n}\"")).collect();
        names.join(", ")
    };
    let mut out = String::from("version = 1\n[groups]\n");
    for (n, members) in model.groups.iter().enumerate() {
        let members = members.iter().enumerate().filter(|(_, is)| **is);
        let members: Vec<String> = members.map(|(u, _)| name(&Who::User(u))).collect();
        writeln!(out, "g{n} = [{}]", members.join(", ")).unwrap();
    }
    for n in 0..TAGS {
        writeln!(out, "[tags.\"tag:t{n}\"]").unwrap();
    }
    for (n, check) in model.checks.iter().enumerate() {
        writeln!(
            out,
            "[posture.c{n}]\nmax_age = \"{}m\"",
            check.max_age_minutes
        )
        .unwrap();
        for (fact, asked) in FACTS.iter().zip(&check.facts) {
            if *asked {
                let wanted = if *fact == "custom.ring" {
                    "\"stable\""
                } else {
                    "true"
                };
                writeln!(out, "{fact} = {wanted}").unwrap();
            }
        }
    }
    for (n, rule) in model.rules.iter().enumerate() {
        let ports: Vec<String> = rule
            .ports
            .iter()
            .map(|p| format!("\"{}\"", spec(*p)))
            .collect();
        writeln!(
            out,
            "[[allow]]\nid = \"r{n}\"\nfrom = [{}]\nto = [{}]\nports = [{}]",
            list(&rule.from),
            list(&rule.to),
            ports.join(", ")
        )
        .unwrap();
        if !rule.posture.is_empty() {
            writeln!(out, "posture = [{}]", checks(&rule.posture)).unwrap();
        }
        if !rule.to_posture.is_empty() {
            writeln!(out, "to_posture = [{}]", checks(&rule.to_posture)).unwrap();
        }
        if let Some((opens, closes)) = rule.hours {
            writeln!(out, "schedule = \"{opens:02}:00-{closes:02}:00 UTC\"").unwrap();
        }
        if let Some(until) = rule.until {
            writeln!(out, "until = {}", UnixMillis(until)).unwrap();
        }
        if let Some(minutes) = rule.lease_minutes {
            writeln!(out, "lease = \"{minutes}m\"").unwrap();
        }
    }
    out
}

fn world(model: &Model, now: UnixMillis) -> World {
    let mut world = World::default();
    for (n, machine) in model.machines.iter().enumerate() {
        let number = u16::try_from(n).unwrap();
        let user = machine.user.map(|user| format!("u{user}@example.com"));
        let tags: Vec<String> = (0..TAGS).map(|tag| format!("t{tag}")).collect();
        let tags: Vec<&str> = tags
            .iter()
            .zip(&machine.tags)
            .filter_map(|(tag, has)| has.then_some(tag.as_str()))
            .collect();
        let mut device = device(number, &format!("m{n}"), user.as_deref(), &tags);
        if !machine.approved {
            device.status = DeviceStatus::Quarantined;
        }
        device.key_expires = machine.key_expires.map(UnixMillis);
        if let Some(says) = &machine.says {
            // The report came ten minutes ago.
            let delay = 10 * MINUTE;
            let facts = FACTS.iter().zip(says).filter_map(|(id, said)| {
                let (value, minutes_ago) = match said {
                    Said::Good { minutes_ago } if *id == "custom.ring" => {
                        (FactValue::Text("stable".into()), *minutes_ago)
                    }
                    Said::Good { minutes_ago } => (FactValue::Bool(true), *minutes_ago),
                    Said::Bad if *id == "custom.ring" => (FactValue::Text("beta".into()), 0),
                    Said::Bad => (FactValue::Bool(false), 0),
                    Said::Unknown => (FactValue::Unknown("unreadable".into()), 0),
                    Said::WrongType => (FactValue::Int(1), 0),
                    Said::Nothing => return None,
                };
                Some(fact(id, &value, minutes_ago * MINUTE))
            });
            let report = StoredReport {
                received: UnixMillis(now.0 - delay),
                facts: facts.collect(),
            };
            world.reports.insert(device.id, report);
        }
        world.devices.insert(device.id, device);
    }
    world
}

/// The report's delay makes every fact ten minutes older than the device said.
fn aged(mut model: Model) -> Model {
    for machine in &mut model.machines {
        for said in machine.says.iter_mut().flatten() {
            if let Said::Good { minutes_ago } = said {
                *minutes_ago += 10;
            }
        }
    }
    model
}

fn moments() -> impl Strategy<Value = (u64, Model)> {
    (0..96_u64).prop_flat_map(|halves| {
        let now = NOON.0 + halves * HOUR / 2;
        (Just(now), model(now))
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        // PROPTEST_CASES asks for more.
        cases: ProptestConfig::default().cases.max(1_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn decisions_equal_the_model((now, said) in moments()) {
        let unix = UnixMillis(now);
        let world = world(&said, unix);
        let file = text(&said);
        let decided = world.decide(&file, unix);
        let view = decided.view();
        let model = aged(said);
        let ids: Vec<DeviceId> = world.devices.keys().copied().collect();

        for (m, id) in ids.iter().enumerate() {
            for check in 0..CHECKS {
                let name = format!("c{check}").parse().unwrap();
                let verdict = &decided.verdicts[id][&name];
                let until = match verdict {
                    Verdict::Compliant { until } => Some(until.0),
                    Verdict::NonCompliant { failures } => {
                        prop_assert!(!failures.is_empty());
                        None
                    }
                };
                prop_assert_eq!(until, model.meets(check, m, now), "{}", file);
            }
        }

        let empty = World { devices: world.devices.clone(), ..World::default() };
        let nothing = empty.decide("", unix);
        let (opens, closes) = plan(&nothing.view(), &view, unix);
        prop_assert!(closes.is_empty());
        let mut granted_pairs = BTreeSet::new();
        for (s, src) in ids.iter().enumerate() {
            for (d, dst) in ids.iter().enumerate() {
                let found: Vec<_> = grants(&view, src, dst, unix)
                    .into_iter()
                    .map(|g| (g.rule.to_string(), g.ports, g.lease.end().0, g.lease.hard_end().0))
                    .collect();
                let expected: Vec<_> = (0..model.rules.len())
                    .filter_map(|r| {
                        let (end, hard) = model.grants(r, s, d, now)?;
                        let mut ports: Vec<PortSpec> = Vec::new();
                        for port in &model.rules[r].ports {
                            if !ports.contains(&spec(*port)) {
                                ports.push(spec(*port));
                            }
                        }
                        Some((format!("r{r}"), ports, end, hard))
                    })
                    .collect();
                prop_assert_eq!(&found, &expected, "m{} to m{}\n{}", s, d, file);
                if !found.is_empty() {
                    granted_pairs.insert((*src, *dst));
                    prop_assert!(related(&view, src).contains(dst));
                    prop_assert!(related(&view, dst).contains(src));
                }
                let flow = opens.iter().find(|flow| {
                    flow.from == world.devices[src].name && flow.to == world.devices[dst].name
                });
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                    for port in PROBES {
                        let expected = model.allows((s, d), (protocol, port), now);
                        let passes = |ports: &[PortSpec]| ports.iter().any(|p| p.contains(protocol, port));
                        prop_assert_eq!(found.iter().any(|g| passes(&g.1)), expected);
                        let planned = flow.is_some_and(|flow| passes(&flow.ports));
                        prop_assert_eq!(planned, expected, "plan m{} to m{} {} {}\n{}", s, d, protocol as u8, port, file);
                        let question = PortSpec::new(protocol, port, port).unwrap();
                        let explained = explain(&view, src, dst, &question, unix).unwrap();
                        prop_assert_eq!(explained.allowed, expected);
                        prop_assert_eq!(explained.missing.is_empty(), expected);
                        prop_assert_eq!(explained.rule.is_some(), expected);
                        let reply = why(&view, src, Some(dst), protocol, port, unix);
                        prop_assert_eq!(reply.allowed, expected);
                        prop_assert_eq!(reply.missing.is_empty(), expected);
                        prop_assert_eq!(reply.until, explained.until);
                    }
                }
            }
        }
        let candidates: BTreeSet<_> = pairs(&view).collect();
        prop_assert!(granted_pairs.is_subset(&candidates));
        prop_assert_eq!(changed_pairs(&nothing.view(), &view, unix), (granted_pairs.len(), 0));
        prop_assert_eq!(changed_pairs(&view, &nothing.view(), unix), (0, granted_pairs.len()));
        prop_assert_eq!(changed_pairs(&view, &view, unix), (0, 0));

        for src in &ids {
            let mut closure = BTreeSet::from([*src]);
            loop {
                let more: Vec<DeviceId> = granted_pairs
                    .iter()
                    .filter(|(from, to)| closure.contains(from) && !closure.contains(to))
                    .map(|(_, to)| *to)
                    .collect();
                if more.is_empty() {
                    break;
                }
                closure.extend(more);
            }
            let view = reach(&view, src, unix).unwrap();
            prop_assert_eq!(view.reached.len(), closure.len() - 1);
            prop_assert!(view.reached.iter().all(|r| r.hops == r.through.len() + 1));
            prop_assert!(view.reached.iter().all(|r| !r.ports.is_empty() && !r.rules.is_empty()));
        }
    }
}
