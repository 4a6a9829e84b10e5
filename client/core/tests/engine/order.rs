//! What closes comes first; what is confirmed was enforced; the same memory does the same.

use std::time::Duration;

use gatereeve_client_core::api::Connection;
use gatereeve_client_core::engine::Engine;
use gatereeve_client_core::output::Output;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Standing};

use crate::support::*;

fn acks(world: &World) -> Vec<Generation> {
    world
        .sent()
        .filter_map(|message| match message {
            ClientMessage::Ack(generation) => Some(*generation),
            _ => None,
        })
        .collect()
}

#[test]
fn a_table_without_the_peer_comes_before_anything_else() {
    let mut world = World::synced(vec![peer(2, at(60)), peer(3, at(60))]);
    world.map(delta(1, 2, &[2], vec![peer(4, at(60))]));
    assert!(
        matches!(world.out.first(), Some(Output::Publish(table)) if table.peers.iter().all(|p| p.device != id(2)))
    );
    assert!(matches!(world.out.get(1), Some(Output::Save(_))));
    for standing in [Standing::Quarantined, Standing::Revoked] {
        let mut world = World::synced(vec![peer(2, at(60))]);
        world.say(ControllerMessage::Standing(standing));
        assert!(
            matches!(world.out.first(), Some(Output::Publish(table)) if table.peers.is_empty())
        );
        assert!(matches!(world.out.get(1), Some(Output::Save(_))));
    }
}

#[test]
fn a_generation_is_acknowledged_when_it_is_enforced_and_once() {
    let mut world = World::new();
    world.prompt = false;
    world.connected(Standing::Approved);
    world.map(whole(1, vec![peer(2, at(60))]));
    let first = world.table.serial;
    assert!(acks(&world).is_empty());
    assert_eq!(
        world.engine.status(world.now).connection,
        Connection::Waiting
    );
    world.map(delta(1, 2, &[], vec![peer(3, at(60))]));
    let second = world.table.serial;
    world.enforced(first - 1);
    assert!(acks(&world).is_empty());
    world.enforced(first);
    assert_eq!(acks(&world), [generation(1)]);
    world.enforced(first);
    assert!(acks(&world).is_empty());
    world.enforced(second);
    assert_eq!(acks(&world), [generation(2)]);
    assert_eq!(
        world.engine.status(world.now).connection,
        Connection::Synced
    );
    assert_eq!(world.engine.status(world.now).enforced, Some(generation(2)));
    // A table of the same generation needs no second word.
    world.run(60 * SECOND, true);
    world.enforced(world.table.serial);
    assert!(acks(&world).is_empty());
}

#[test]
fn two_steps_enforced_together_are_acknowledged_as_the_last() {
    let mut world = World::synced(vec![]);
    world.prompt = false;
    world.map(delta(1, 2, &[], vec![peer(2, at(60))]));
    world.map(delta(2, 3, &[], vec![peer(3, at(60))]));
    world.enforced(world.table.serial);
    assert_eq!(acks(&world), [generation(3)]);
}

#[test]
fn a_reconnect_names_what_is_enforced_and_only_that() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.lost();
    world.connected(Standing::Approved);
    assert_eq!(world.attach().map(|a| a.have), Some(Some(generation(1))));
    world.prompt = false;
    world.map(delta(1, 2, &[2], vec![]));
    world.lost();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    assert_eq!(world.attach().map(|a| a.have), Some(None));
}

#[test]
fn a_whole_map_is_acknowledged_even_under_the_same_generation() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.map(delta(7, 8, &[], vec![]));
    world.map(whole(1, vec![peer(2, at(60))]));
    assert_eq!(acks(&world), [generation(1)]);
}

#[test]
fn after_a_restart_the_whole_map_is_asked_for() {
    let world = World::synced(vec![peer(2, at(60))]);
    let mut world = World::restored(world.saved, at(5));
    world.up();
    assert_eq!(world.peers(), ids(&[2]), "and yet enforced meanwhile");
    world.connected(Standing::Approved);
    assert_eq!(world.attach().map(|a| a.have), Some(None));
}

#[test]
fn a_step_under_the_same_generation_is_taken() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.map(delta(1, 1, &[2], vec![peer(3, at(60))]));
    assert_eq!(world.peers(), ids(&[3]));
}

#[test]
fn a_reconnect_without_news_is_synced_soon() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.lost();
    world.connected(Standing::Approved);
    assert_eq!(
        world.engine.status(world.now).connection,
        Connection::Waiting
    );
    world.run(SECOND, true);
    assert_eq!(
        world.engine.status(world.now).connection,
        Connection::Synced
    );
}

#[test]
fn engines_with_the_same_memory_and_seed_do_the_same() {
    let saved = World::synced(vec![peer(2, at(60)), peer(3, at(7200))]).saved;
    let play = || {
        let mut world = World::restored(saved.clone(), at(5));
        let mut log = String::new();
        let note = |world: &World, log: &mut String| log.push_str(&format!("{:?}\n", world.out));
        world.up();
        note(&world, &mut log);
        for round in 0..5 {
            world.lost();
            log.push_str(&format!("{:?}\n", world.run(20 * SECOND, true)));
            world.connected(Standing::Approved);
            note(&world, &mut log);
            world.map(whole(2 + round, vec![peer(3, at(9000))]));
            log.push_str(&format!("{:?}\n", world.run(100 * SECOND, true)));
        }
        (log, world.saved)
    };
    assert_eq!(play(), play());
}

#[test]
fn reconnecting_backs_off_with_jitter_within_bounds() {
    let mut world = World::new();
    let mut delays = Vec::new();
    for attempt in 0..40 {
        world.lost();
        let failed = world.now;
        loop {
            let due = world.engine.poll_timeout().unwrap();
            world.now = world.now.after(due.since(world.now.mono));
            world.call(Engine::handle_timeout);
            if world.has(|output| matches!(output, Output::Connect { .. })) {
                break;
            }
        }
        let delay = world.now.mono.since(failed.mono);
        let cap = Duration::from_millis(250 << attempt.min(7)).min(30 * SECOND);
        assert!(delay <= cap, "attempt {attempt}: {delay:?}");
        delays.push(delay);
    }
    let late = &delays[8..];
    assert!(late.iter().any(|delay| *delay < 10 * SECOND));
    assert!(late.iter().any(|delay| *delay > 20 * SECOND));
}

#[test]
fn a_shell_that_never_answers_is_asked_again() {
    let mut world = World::new();
    let log = world.run(40 * SECOND, false);
    let connects = log
        .iter()
        .filter(|(_, output)| matches!(output, Output::Connect { .. }))
        .count();
    assert!((1..=2).contains(&connects), "{connects}");
}

#[test]
fn calls_out_of_place_do_nothing() {
    let mut world = World::restored(Default::default(), at(0));
    world.connected(Standing::Approved);
    assert!(world.attach().is_none());
    world.map(whole(1, vec![peer(2, at(60))]));
    world.lost();
    world.enforced(99);
    assert!(world.table.peers.is_empty());
    let now = Now::default();
    world.call(|engine, _| engine.handle_timeout(now));
    assert_eq!(world.engine.status(world.now).connection, Connection::Off);
}
