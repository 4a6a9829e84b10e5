//! When posture is collected, and what the controller hears of it.

use std::time::Duration;

use gatereeve_client_core::output::Output;
use gatereeve_shared::posture::fact::{FactValue, PostureReport};
use gatereeve_shared::posture::verdict::{CheckOutcome, Failure, Verdict};
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Standing};

use crate::support::*;

fn reports(world: &World) -> Vec<PostureReport> {
    world
        .sent()
        .filter_map(|message| match message {
            ClientMessage::Report(report) => Some(report.clone()),
            _ => None,
        })
        .collect()
}

fn collections(log: &[(Now, Output)]) -> Vec<Mono> {
    log.iter()
        .filter(|(_, output)| matches!(output, Output::CollectPosture { .. }))
        .map(|(now, _)| now.mono)
        .collect()
}

#[test]
fn the_attach_waits_for_facts_but_not_for_long() {
    let mut world = World::new();
    assert!(world.has(|output| matches!(output, Output::CollectPosture { .. })));
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    assert!(world.attach().is_none());
    world.facts(true);
    let report = &world.attach().unwrap().report;
    assert_eq!((report.counter, report.facts.len()), (1, 1));
    assert!(reports(&world).is_empty(), "not twice");

    let mut world = World::new();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    let log = world.run(3 * SECOND, false);
    let attached = log.iter().find_map(|(_, output)| match output {
        Output::Send(ClientMessage::Attach(attach)) => Some(attach.report.facts.len()),
        _ => None,
    });
    assert_eq!(attached, Some(0));
    world.facts(true);
    assert_eq!(reports(&world).len(), 1, "as soon as they are there");
}

#[test]
fn reports_come_by_the_interval_with_jitter() {
    let mut world = World::synced(vec![]);
    let mut last = world.now.mono;
    let mut gaps = Vec::new();
    for _ in 0..10_000 {
        let due = world.engine.poll_timeout().unwrap();
        world.now = world.now.after(due.since(world.now.mono));
        world.call(|engine, now| engine.handle_timeout(now));
        let collect = world.has(|output| matches!(output, Output::CollectPosture { .. }));
        world.pong();
        if collect {
            // A collector takes its time; what it finds has not changed.
            world.facts(true);
            assert_eq!(reports(&world).len(), 1);
            gaps.push(world.now.mono.since(last));
            last = world.now.mono;
        }
    }
    assert!(gaps.len() > 60);
    gaps.remove(0);
    let bounds = Duration::from_secs(27)..=Duration::from_secs(33);
    assert!(gaps.iter().all(|gap| bounds.contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < 29 * SECOND));
    assert!(gaps.iter().any(|gap| *gap > 31 * SECOND));
}

#[test]
fn a_change_is_reported_at_once_and_a_flood_once_a_second() {
    let mut world = World::synced(vec![]);
    world.run(5 * SECOND, true);
    world.facts(false);
    let first = reports(&world);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].facts[0].value(), FactValue::Bool(false));
    world.facts(false);
    assert!(reports(&world).is_empty(), "nothing new");
    let mut count = 0;
    for flip in 0..1000u32 {
        world.facts(flip % 2 == 0);
        count += reports(&world).len();
        let log = world.run(Duration::from_millis(10), true);
        count += log
            .iter()
            .filter(|(_, o)| matches!(o, Output::Send(ClientMessage::Report(_))))
            .count();
    }
    assert!((5..=11).contains(&count), "{count} reports in ten seconds");
}

#[test]
fn counters_rise_and_ages_are_measured_from_the_observation() {
    let mut world = World::synced(vec![]);
    world.run(2 * SECOND, true);
    let observed = world.now;
    world.sleep(3 * SECOND);
    world.call(|engine, now| {
        let old = fact("firewall", FactValue::Bool(false), observed);
        engine.handle_posture(vec![old], now);
    });
    let report = reports(&world).remove(0);
    assert!(report.counter > 1);
    assert_eq!(report.facts[0].age_ms, 3000);
}

#[test]
fn after_an_outage_old_facts_are_not_passed_off() {
    let mut world = World::synced(vec![]);
    world.lost();
    world.run(600 * SECOND, false);
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    assert!(world.attach().is_none());
    world.facts(true);
    assert_eq!(world.attach().unwrap().report.facts[0].age_ms, 0);
    // Control: young ones do for a short one.
    world.lost();
    world.sleep(SECOND);
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    assert_eq!(world.attach().unwrap().report.facts[0].age_ms, 1000);
}

#[test]
fn a_new_list_of_processes_is_collected_at_once() {
    let mut world = World::synced(vec![]);
    let mut update = delta(1, 2, &[], vec![]);
    let mut me = this();
    me.watched_processes = vec!["/opt/edr/agent".into()];
    me.report_every_secs = 5;
    update.this = Some(me);
    world.map(update);
    assert!(world.has(|output| matches!(output,
        Output::CollectPosture { watched } if watched == &["/opt/edr/agent".to_owned()])));
    let log = world.run(30 * SECOND, true);
    assert!((5..=7).contains(&collections(&log).len()));
}

#[test]
fn verdicts_are_shown() {
    let mut world = World::synced(vec![]);
    let outcome = |name: &str, verdict| CheckOutcome {
        check: name.parse().unwrap(),
        verdict,
    };
    let good = outcome("good", Verdict::Compliant { until: at(60) });
    let bad = outcome(
        "bad",
        Verdict::NonCompliant {
            failures: vec![Failure {
                wanted: "firewall = true".into(),
                found: "false".into(),
            }],
        },
    );
    world.say(ControllerMessage::Posture(vec![good.clone(), bad.clone()]));
    let status = world.engine.status(world.now);
    assert_eq!(status.failing_checks, vec![bad.clone()]);
    let (facts, checks) = world.engine.posture(world.now);
    assert_eq!(facts.len(), 1);
    assert_eq!(checks, [good, bad]);
    world.run(60 * SECOND, true);
    assert_eq!(world.engine.status(world.now).failing_checks.len(), 2);
}

#[test]
fn endpoints_are_told_when_they_change() {
    let mut world = World::synced(vec![]);
    let told = |world: &World| {
        let is = |m: &&ClientMessage| matches!(m, ClientMessage::Endpoints(_));
        world.sent().filter(is).count()
    };
    let one = "192.0.2.1:51820".parse().unwrap();
    let looping = "100.64.0.1:51820".parse().unwrap();
    world.call(|engine, now| engine.handle_endpoints(51820, vec![one], now));
    assert_eq!(told(&world), 1);
    world.call(|engine, now| engine.handle_endpoints(51820, vec![one, looping], now));
    assert_eq!(told(&world), 0);
}
