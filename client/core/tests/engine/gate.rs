//! The data path is open only while the engine lives and has missed nothing.

use std::time::Duration;

use gatereeve_client_core::output::Output;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::controller::{ControllerMessage, Pong, Standing};

use crate::support::*;

/// How long the data path stays open without another word of the engine.
const SPAN: Duration = Duration::from_secs(7);

fn opened(world: &World) -> Option<Mono> {
    world.out.iter().rev().find_map(|output| match output {
        Output::OpenUntil(until) => Some(*until),
        _ => None,
    })
}

fn shut(world: &World) -> bool {
    world.has(|output| matches!(output, Output::Shut))
}

#[test]
fn it_opens_with_the_map_and_stays_open_by_heartbeats() {
    let mut world = World::new();
    assert!(shut(&world) && opened(&world).is_none());
    world.connected(Standing::Approved);
    assert!(opened(&world).is_none());
    world.map(whole(1, vec![peer(2, at(3600))]));
    assert_eq!(opened(&world), Some(world.now.mono.saturating_add(SPAN)));
    let mut until = world.now.mono.saturating_add(SPAN);
    let log = world.run(60 * SECOND, true);
    for (now, output) in log {
        if let Output::OpenUntil(next) = output {
            assert_eq!(next.since(now.mono), SPAN);
            // A machine that is slow to run the engine has this long.
            assert!(until.since(now.mono) >= 3 * SECOND);
            // Everybody looks at the same instants.
            assert_eq!(now.mono.0 % 4_000_000_000, 0);
            until = next;
        }
    }
    assert!(until > world.now.mono, "never closes in between");
}

#[test]
fn a_gap_shuts_it_until_the_controller_has_answered() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.sleep(Duration::from_secs(61));
    world.call(|engine, now| engine.handle_timeout(now));
    assert!(shut(&world) && opened(&world).is_none());
    let nonce = world.ping().unwrap();
    let now = world.now.unix;
    world.say(ControllerMessage::Pong(Pong {
        nonce: nonce + 1,
        now,
    }));
    assert!(opened(&world).is_none(), "an answer to another question");
    world.say(ControllerMessage::Pong(Pong { nonce, now }));
    assert!(opened(&world).is_some());
}

#[test]
fn a_short_gap_does_not() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.sleep(Duration::from_secs(60));
    world.call(|engine, now| engine.handle_timeout(now));
    assert!(!shut(&world) && opened(&world).is_some());
}

#[test]
fn after_a_gap_it_opens_when_the_controller_is_out_of_reach() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.sleep(Duration::from_secs(600));
    // The old session ends: that says nothing.
    world.lost();
    assert!(shut(&world) && opened(&world).is_none());
    let log = world.run(SECOND, false);
    assert!(log.iter().any(|(_, o)| matches!(o, Output::Connect { .. })));
    assert!(!log.iter().any(|(_, o)| matches!(o, Output::OpenUntil(_))));
    // A new one cannot be had: that does.
    world.lost();
    assert!(opened(&world).is_some());
}

#[test]
fn after_a_gap_the_wait_is_five_seconds_at_most() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.sleep(Duration::from_secs(600));
    world.call(|engine, now| engine.handle_timeout(now));
    let log = world.run(Duration::from_millis(4999), false);
    assert!(!log.iter().any(|(_, o)| matches!(o, Output::OpenUntil(_))));
    world.run(Duration::from_millis(1), false);
    assert!(opened(&world).is_some());
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn a_lease_that_ended_in_a_gap_is_gone_before_anything_opens() {
    let mut world = World::synced(vec![peer(2, at(60)), peer(3, at(7200))]);
    world.sleep(Duration::from_secs(600));
    world.call(|engine, now| engine.handle_timeout(now));
    assert!(matches!(world.out.first(), Some(Output::Publish(table)) if table.peers.len() == 1));
    assert!(opened(&world).is_none());
    assert_eq!(world.peers(), ids(&[3]));
}

#[test]
fn down_shuts_and_empties_and_up_brings_it_back() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.call(|engine, now| engine.handle_up(false, now));
    assert!(
        matches!(world.out.first(), Some(Output::Publish(table)) if table.peers.is_empty() && table.local_keys.is_empty())
    );
    assert!(shut(&world) && world.has(|o| matches!(o, Output::Disconnect)));
    assert!(world.has(|o| matches!(o, Output::Host(host) if !host.up)));
    let log = world.run(600 * SECOND, false);
    assert!(
        log.iter().all(|(_, o)| matches!(o, Output::Save(_))),
        "{log:?}"
    );
    world.up();
    assert!(world.has(|o| matches!(o, Output::Host(host) if host.up && host.addresses.is_some())));
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn a_start_without_a_controller_comes_up_on_the_stored_map() {
    let before = World::synced(vec![peer(2, at(7200))]);
    let mut world = World::restored(before.saved, at(10));
    world.up();
    assert_eq!(world.peers(), ids(&[2]));
    assert!(opened(&world).is_none());
    world.lost();
    assert!(opened(&world).is_some());
}

#[test]
fn another_address_of_the_host_ends_the_wait_for_the_next_attempt() {
    let mut world = World::synced(vec![peer(2, at(3600))]);
    let here = |n: u8| vec![([192, 0, 2, n], 7).into()];
    let connects = |world: &World| world.has(|output| matches!(output, Output::Connect { .. }));
    world.call(|engine, now| engine.handle_endpoints(7, here(1), now));
    assert!(!connects(&world), "connected already");
    world.lost();
    assert!(!connects(&world), "not before the delay is over");
    world.call(|engine, now| engine.handle_endpoints(7, here(1), now));
    assert!(!connects(&world), "nothing has changed");
    world.call(|engine, now| engine.handle_endpoints(7, Vec::new(), now));
    assert!(!connects(&world), "no address is no way");
    world.call(|engine, now| engine.handle_endpoints(7, here(2), now));
    assert!(connects(&world));
}
