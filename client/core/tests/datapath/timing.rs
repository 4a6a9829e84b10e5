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
    world.now = world.now.after(Duration::from_secs(180));
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
