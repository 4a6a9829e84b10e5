//! Thousands of devices and hundreds of rules.

use std::fmt::Write as _;

use gatereeve_controller_core::pdp::engine::{grants, pairs, related};
use gatereeve_controller_core::pdp::reach::reach;
use gatereeve_controller_core::policy::diff::{PLAN_FLOWS, changed_pairs, plan};
use gatereeve_controller_core::policy::selftest::run_tests;

use crate::support::{NOON, World, device};

const DEVICES: u16 = 5_000;
const TAGS: u16 = 100;

/// Device `n` has the tags `n % 100` and `all`; rule `r` lets tag `r % 100` reach the next one.
fn policy(rules: u16) -> String {
    let mut text = String::from("version = 1\n[tags.\"tag:all\"]\n");
    for tag in 0..TAGS {
        writeln!(text, "[tags.\"tag:t{tag}\"]").unwrap();
    }
    for rule in 0..rules {
        let (from, to) = (rule % TAGS, (rule + 1) % TAGS);
        writeln!(
            text,
            "[[allow]]\nid = \"r{rule}\"\nfrom = [\"tag:t{from}\"]\nto = [\"tag:t{to}\"]\n\
             ports = [\"tcp:{}\"]\nschedule = \"Mon-Fri 08:00-19:00 Europe/Berlin\"",
            1_000 + rule
        )
        .unwrap();
    }
    text
}

#[test]
fn five_thousand_devices_and_two_hundred_rules() {
    let world = World::new((0..DEVICES).map(|n| {
        let tag = format!("t{}", n % TAGS);
        device(n, &format!("d{n}"), None, &[&tag, "all"])
    }));
    let decided = world.decide(&policy(200), NOON);
    let view = decided.view();

    let mut count = 0;
    let mut ports = 0;
    for (src, dst) in pairs(&view) {
        let granted = grants(&view, &src, &dst, NOON);
        count += 1;
        ports += granted.iter().map(|grant| grant.ports.len()).sum::<usize>();
    }
    // 50 devices of each tag, each of which reaches the 50 of the next by two rules.
    assert_eq!(count, 5_000 * 50);
    assert_eq!(ports, 2 * count);
    let first = world.id("d0");
    assert_eq!(related(&view, &first).len(), 100);

    let reached = reach(&view, &first, NOON).unwrap();
    assert_eq!((reached.reached.len(), reached.unreached), (4_999, 0));
    assert_eq!(reached.reached.last().map(|r| r.hops), Some(100));

    let fewer = world.decide(&policy(100), NOON);
    assert_eq!(changed_pairs(&view, &fewer.view(), NOON), (0, 250_000));
    assert_eq!(changed_pairs(&fewer.view(), &view, NOON), (250_000, 0));
    assert_eq!(plan(&fewer.view(), &view, NOON).0.len(), PLAN_FLOWS);
}

#[test]
fn everyone_to_everyone() {
    let world = World::new((0..DEVICES).map(|n| device(n, &format!("d{n}"), None, &["all"])));
    let open = "version = 1\n[tags.\"tag:all\"]\n\
        [[allow]]\nid = \"all\"\nfrom = [\"tag:all\"]\nto = [\"*\"]\nports = [\"tcp:1-100\"]\n\
        [[test]]\nfrom = \"tag:all\"\nto = \"*\"\nports = [\"tcp:5\", \"tcp:101\"]\nexpect = [\"allow\", \"deny\"]\n";
    let decided = world.decide(open, NOON);
    let none = world.decide("", NOON);
    let all = 5_000 * 4_999;
    assert_eq!(changed_pairs(&none.view(), &decided.view(), NOON), (all, 0));
    assert_eq!(related(&decided.view(), &world.id("d7")).len(), 4_999);
    let results = run_tests(&decided.view(), NOON);
    assert!(
        results
            .iter()
            .all(|result| result.allowed == result.expect_allow)
    );
    let reached = reach(&decided.view(), &world.id("d7"), NOON).unwrap();
    assert!(reached.reached.iter().all(|r| r.hops == 1));
}
