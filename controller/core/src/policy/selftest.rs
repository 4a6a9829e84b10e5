//! The policy file's own tests.
//!
//! A `[[test]]` speaks of principals, and holds if it holds for every device that they mean. For a principal
//! that means no device yet, and for every member of a group who has none, one is imagined: with that tag, of
//! that user. Devices are taken to be in good standing, to meet every posture check (none, with `posture =
//! "unmet"`), and schedules to be open; `until` counts. "allow" expects that all of a range of ports is
//! allowed, "deny" that none of it is.

use std::collections::{BTreeMap, BTreeSet};

use gatereeve_shared::ids::{DeviceId, UserName};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::UnixMillis;

use crate::command::TestView;
use crate::pdp::View;
use crate::pdp::ports::{covers, overlaps};

use super::bits::Bits;
use super::principal::{Principal, Subject};
use super::rule::SelfTest;

/// Runs every test; one result for each port of each. A result holds if `allowed` is `expect_allow`.
#[must_use]
pub fn run_tests(view: &View<'_>, now: UnixMillis) -> Vec<TestView> {
    let tests = view.policy.tests().iter();
    tests.flat_map(|test| run(view, test, now)).collect()
}

fn run(view: &View<'_>, test: &SelfTest, now: UnixMillis) -> Vec<TestView> {
    let mut active = Bits::new(view.policy.rule_count());
    for (at, rule) in view.policy.rules().iter().enumerate() {
        let asks_posture = !(rule.posture.is_empty() && rule.to_posture.is_empty());
        let lives = rule.until.is_none_or(|until| now < until);
        if lives && (test.posture_met || !asks_posture) {
            active.insert(at);
        }
    }
    let sources = classes(view, subjects(view, &test.from), Side::Source);
    let destinations = classes(view, subjects(view, &test.to), Side::Destination);
    let mut pairs = pairs(view, &active, &sources, &destinations);
    if pairs.is_empty() {
        // One device is all that both mean: a second one is imagined for it to reach.
        let second = classes(view, imagined(view, &test.to, true), Side::Destination);
        pairs = self::pairs(view, &active, &sources, &second);
    }
    test.expectations
        .iter()
        .map(|(port, expect_allow)| TestView {
            from: test.from.to_string(),
            to: test.to.to_string(),
            port: *port,
            expect_allow: *expect_allow,
            allowed: if *expect_allow {
                !pairs.is_empty() && pairs.iter().all(|ports| covers(ports, port))
            } else {
                pairs.iter().any(|ports| overlaps(ports, port))
            },
        })
        .collect()
}

/// Devices that the same rules name; `None` is one that is imagined.
type Class = BTreeSet<Option<DeviceId>>;

/// What the active rules open between each two classes.
fn pairs(
    view: &View<'_>,
    active: &Bits,
    sources: &BTreeMap<Bits, Class>,
    destinations: &BTreeMap<Bits, Class>,
) -> Vec<Vec<PortSpec>> {
    let mut pairs = Vec::new();
    for (source, from) in sources {
        for (destination, to) in destinations {
            // A pair of a device with itself is no pair.
            let one = from.len() == 1 && from == to && from.first().is_some_and(Option::is_some);
            if !one {
                let rules = source.common(destination).filter(|at| active.contains(*at));
                let rules = rules.filter_map(|at| view.policy.rules().get(at));
                pairs.push(rules.flat_map(|rule| rule.ports.iter().copied()).collect());
            }
        }
    }
    pairs
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

/// Subjects by the rules that name them on one side.
fn classes(view: &View<'_>, subjects: Vec<Subject>, side: Side) -> BTreeMap<Bits, Class> {
    let mut classes: BTreeMap<Bits, Class> = BTreeMap::new();
    for subject in subjects {
        let known = subject.id.and_then(|id| view.sets.position(&id));
        let known = known.and_then(|at| match side {
            Side::Source => view.sets.as_source(at),
            Side::Destination => view.sets.as_destination(at),
        });
        let rules = known.cloned().unwrap_or_else(|| {
            let mut rules = Bits::new(view.policy.rule_count());
            for (at, rule) in view.policy.rules().iter().enumerate() {
                let principals = match side {
                    Side::Source => &rule.from,
                    Side::Destination => &rule.to,
                };
                if view.policy.any_matches(principals, &subject) {
                    rules.insert(at);
                }
            }
            rules
        });
        classes.entry(rules).or_default().insert(subject.id);
    }
    classes
}

/// The devices that a principal means, and the imagined ones.
fn subjects(view: &View<'_>, principal: &Principal) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = view
        .devices
        .values()
        .map(Subject::from)
        .filter(|subject| principal.matches(subject, view.policy.groups()))
        .collect();
    let has_one: BTreeSet<UserName> = subjects.iter().filter_map(|s| s.user.clone()).collect();
    let mut more = imagined(view, principal, subjects.is_empty());
    more.retain(|subject| {
        !subject
            .user
            .as_ref()
            .is_some_and(|user| has_one.contains(user))
    });
    subjects.append(&mut more);
    subjects
}

/// Devices that a principal would mean if there were any: for a group always, one of each member.
fn imagined(view: &View<'_>, principal: &Principal, wanted: bool) -> Vec<Subject> {
    let of_user = |user: &UserName| Subject {
        user: Some(user.clone()),
        ..Subject::default()
    };
    let one = match principal {
        Principal::Group(group) => {
            let members = view.policy.groups().get(group);
            return members.into_iter().flatten().map(of_user).collect();
        }
        Principal::Any => Subject::default(),
        Principal::User(user) => of_user(user),
        Principal::Tag(tag) => Subject {
            tags: BTreeSet::from([tag.clone()]),
            ..Subject::default()
        },
        Principal::Device(_, id) => Subject {
            id: Some(*id),
            ..Subject::default()
        },
    };
    if wanted { vec![one] } else { Vec::new() }
}
