//! Posture: what a report opens and closes, and what silence does.

use std::time::Duration;

use gatereeve_shared::posture::fact::{Fact, FactValue, PostureReport};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::RefusalCode;

use crate::harness::{POSTURE, World, encrypted};

#[test]
fn a_device_that_turns_bad_loses_what_asks_for_posture_and_gets_it_back() {
    let mut world = World::standard(POSTURE);
    assert_eq!(world.peers("laptop"), ["db"]);
    world.report("laptop", encrypted(true));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    assert_eq!(world.peers("web"), ["laptop"]);
    world.updated.clear();
    world.report("laptop", encrypted(false));
    assert_eq!(world.peers("laptop"), ["db"]);
    assert_eq!(world.peers("web"), Vec::<String>::new());
    assert!(!world.updated.contains(&"db") && !world.updated.contains(&"other"));
    let shown = format!("{:?}", world.client("laptop").posture);
    assert!(shown.contains("disk_encrypted"), "{shown}");
    world.report("laptop", encrypted(true));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
}

#[test]
fn reports_that_change_nothing_are_not_journaled() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    let records = world.journal.len();
    for _ in 0..30 {
        world.pass(Duration::from_secs(20));
        world.report("laptop", encrypted(true));
    }
    assert_eq!(world.journal.len(), records);
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    let map = world.clients["web"].map.as_ref().unwrap();
    let end = map.peers[&world.id("laptop")].ingress[0].lease.end();
    assert!(end > world.now.unix, "leases follow the reports");
    assert!(end <= world.now.unix.saturating_add(Duration::from_secs(60)));
}

#[test]
fn silence_ends_what_asks_for_posture_and_nothing_else() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.pass(Duration::from_secs(59));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.peers("laptop"), ["db"]);
    assert_eq!(world.peers("web"), Vec::<String>::new());
    assert_eq!(world.peers("db"), ["laptop"]);
}

#[test]
fn a_restart_keeps_verdicts_to_their_original_ends() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.pass(Duration::from_secs(30));
    world.restart();
    world.reconnect("web");
    assert_eq!(world.peers("web"), ["laptop"]);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.peers("web"), Vec::<String>::new());

    // The same with the soft state lost.
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.soft.clear();
    world.restart();
    world.reconnect("web");
    world.pass(Duration::from_secs(30));
    assert_eq!(world.peers("web"), ["laptop"]);
    world.pass(Duration::from_secs(31));
    assert_eq!(world.peers("web"), Vec::<String>::new());
}

#[test]
fn missing_unknown_old_and_malformed_facts_are_no_good() {
    let good = || Fact::new("disk_encrypted", &FactValue::Bool(true), "test", 0);
    let mut world = World::standard(POSTURE);
    let unknown = FactValue::Unknown("no sysfs".into());
    for facts in [
        vec![],
        vec![Fact::new("disk_encrypted", &unknown, "test", 0)],
        vec![Fact::new("disk_encrypted", &FactValue::Int(1), "test", 0)],
        vec![Fact::new(
            "disk_encrypted",
            &FactValue::Bool(true),
            "test",
            60_000,
        )],
        vec![good(), good()],
        (0..300)
            .map(|n| Fact::new(format!("custom.{n}"), &FactValue::Int(n), "test", 0))
            .chain([good()])
            .collect(),
    ] {
        world.report("laptop", vec![good()]);
        assert_eq!(world.peers("laptop"), ["db", "web"], "the control");
        world.report("laptop", facts.clone());
        assert_eq!(world.peers("laptop"), ["db"], "{facts:?}");
        world.pass(Duration::from_secs(30));
    }
}

#[test]
fn a_replayed_report_is_refused() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.report("laptop", encrypted(false));
    let counter = world.client("laptop").report - 1;
    let replayed = PostureReport {
        counter,
        facts: encrypted(true),
    };
    world.say("laptop", ClientMessage::Report(replayed));
    assert_eq!(
        world.client("laptop").refusal(),
        Some(RefusalCode::Protocol)
    );
    assert_eq!(world.peers("laptop"), ["db"]);
}

#[test]
fn a_device_that_floods_slows_only_itself() {
    let mut world = World::standard(POSTURE);
    let records = world.journal.len();
    for n in 0..1000 {
        world.report("laptop", encrypted(n % 2 == 0));
    }
    assert!(
        world.client("laptop").refusal() == Some(RefusalCode::RateLimited)
            || world.client("laptop").closed_with() == Some(RefusalCode::RateLimited)
    );
    assert!(
        world.journal.len() < records + 45,
        "{}",
        world.journal.len()
    );
    world.say("web", ClientMessage::Ping(7));
    let last = format!("{:?}", world.client("web").inbox.last());
    assert!(last.contains("nonce: 7"), "{last}");
}

#[test]
fn a_posture_check_that_a_policy_brings_is_judged_with_it() {
    let mut world = World::standard(&POSTURE.replace("posture = [\"workstation\"]\n", ""));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    world.report("laptop", encrypted(true));
    world.updated.clear();
    world.apply(POSTURE);
    assert_eq!(world.peers("laptop"), ["db", "web"], "no gap in between");
    let web: Vec<_> = world
        .updated
        .iter()
        .filter(|name| **name == "web")
        .collect();
    assert!(web.len() <= 1);
}
