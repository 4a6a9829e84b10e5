//! Sessions are renewed without loss, end on time, and are silent when idle.

use std::time::Duration;

use gatereeve_client_core::packet::samples;

use crate::world::{FOREVER, World, v4};

fn query() -> Vec<u8> {
    samples::udp((v4(0), 9), (v4(1), 53), b"query")
}

fn answer() -> Vec<u8> {
    samples::udp((v4(1), 53), (v4(0), 9), b"answer")
}

#[test]
fn steady_traffic_crosses_every_renewal() {
    let mut world = World::pair(&["udp:53"]);
    for _ in 0..600 {
        world.send(0, &query());
        world.send(1, &answer());
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.received(1).len(), 600);
    assert_eq!(world.received(0).len(), 600);
    let handshakes = world.sent_of_type(1);
    assert!((5..=6).contains(&handshakes), "{handshakes} in 600 seconds");
}

#[test]
fn one_way_traffic_draws_keepalives_and_idleness_draws_nothing() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    let before = world.seen.len();
    world.pass(Duration::from_secs(9));
    assert_eq!(world.seen.len(), before);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.seen.len(), before + 1, "one keepalive for the data");
    world.pass(Duration::from_secs(600));
    assert_eq!(world.seen.len(), before + 1, "then silence");
}

#[test]
fn an_old_session_is_refused_even_if_no_timer_ran() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    world.received(1);
    world.send_held(0, &query());
    let late = world.take_wire();
    world.now = world.now.saturating_add(Duration::from_secs(180));
    for (from, _, datagram) in late {
        world.arrive(1, from, &datagram);
    }
    assert!(world.received(1).is_empty());
    assert_eq!(world.drops(1, "no_session"), 1);
    world.send(0, &query());
    assert_eq!(world.received(1).len(), 1, "a new handshake carries it");
    assert_eq!(world.sent_of_type(1), 2);
}

#[test]
fn tracked_flows_time_out() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    world.pass(Duration::from_secs(119));
    world.send(1, &answer());
    assert_eq!(world.received(0).len(), 1);
    world.pass(Duration::from_secs(121));
    world.send(1, &answer());
    assert!(world.received(0).is_empty());
    assert_eq!(world.drops(1, "no_rule"), 1);
}

#[test]
fn data_without_an_answer_brings_a_handshake() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    // The peer restarts: it has forgotten the session.
    let fresh = World::pair(&["udp:53"]).nodes.remove(1);
    world.nodes[1] = fresh;
    world.send(0, &query());
    assert!(world.received(1).is_empty());
    world.pass(Duration::from_secs(16));
    world.send(0, &query());
    assert_eq!(world.received(1).len(), 1);
}

#[test]
fn with_the_last_rule_the_session_goes() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    world.send(0, &query());
    assert_eq!((world.received(1).len(), world.sent_of_type(1)), (2, 1));
    // A table with the same rules keeps it.
    world.publish(0);
    world.send(0, &query());
    assert_eq!((world.received(1).len(), world.sent_of_type(1)), (1, 1));
    // Without a rule it is gone at once, and does not come back with the next table: no timer has run.
    world.peer(0, 1).egress.clear();
    world.publish(0);
    world.allow(0, 1, &["udp:53"], FOREVER);
    world.send(0, &query());
    assert_eq!((world.received(1).len(), world.sent_of_type(1)), (1, 2));
}

/// A device that has been restarted is sent to on a session that it no longer has.
fn restarted(greets: bool) -> World {
    let mut world = World::pair(&["udp:53"]);
    let packet = samples::udp((v4(0), 1000), (v4(1), 53), b"query");
    world.send(0, &packet);
    assert_eq!(world.received(1), [packet]);
    let had: Vec<_> = world.nodes[1].path.peer_stats();
    assert!(had.iter().all(|peer| peer.last_handshake.is_some()));
    world.restart(1);
    if greets {
        let devices = had.iter().map(|peer| peer.device);
        world.nodes[1].path.greet(devices);
    }
    world.publish(1);
    world
}

#[test]
fn a_restarted_device_greets_those_who_had_a_session() {
    let packet = samples::udp((v4(0), 1000), (v4(1), 53), b"again");
    let mut world = restarted(true);
    let before = world.sent_of_type(1);
    let due = world.nodes[1].path.next_tick();
    assert!(due.is_some_and(|due| due <= world.now), "{due:?}");
    world.tick(1);
    world.settle();
    assert_eq!(world.sent_of_type(1), before + 1);
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    // Once: with what was said there is nothing more to say.
    world.tick(1);
    world.publish(1);
    world.tick(1);
    assert_eq!(world.sent_of_type(1), before + 1);

    // The control: who is not greeted goes on with the session that is gone.
    let mut world = restarted(false);
    world.tick(1);
    assert_eq!(world.sent_of_type(1), before);
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
}

#[test]
fn nobody_is_greeted_who_is_not_in_the_table() {
    let mut world = restarted(true);
    let before = world.sent_of_type(1);
    world.nodes[1].spec.peers.clear();
    world.publish(1);
    world.tick(1);
    assert_eq!(world.sent_of_type(1), before);
    // Nor one whose rule has ended since.
    let mut world = World::new(2);
    let soon = world.now.saturating_add(Duration::from_secs(1));
    world.allow(0, 1, &["udp:53"], soon);
    world.restart(1);
    world.nodes[1].path.greet([crate::world::device(0)]);
    world.publish(1);
    world.pass(Duration::from_secs(2));
    world.tick(1);
    assert_eq!(world.sent_of_type(1), 0);
}
