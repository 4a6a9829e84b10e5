//! Handshakes: on demand, to every candidate, bounded in what they cost.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_client_core::datapath::DataPathEvent;
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{NoiseTunnels, TunnelFactory};

use crate::world::{World, device, endpoint, secret, v4};

fn query() -> Vec<u8> {
    samples::udp((v4(0), 9), (v4(1), 53), b"query")
}

#[test]
fn every_candidate_is_tried_and_the_one_that_answers_is_kept() {
    let mut world = World::pair(&["udp:53"]);
    let elsewhere: SocketAddr = "198.51.100.7:51820".parse().unwrap();
    let inside: SocketAddr = "100.64.0.9:51820".parse().unwrap();
    world.peer(0, 1).endpoints = vec![inside, elsewhere, endpoint(1)];
    world.publish(0);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
    assert!(world.seen.iter().any(|(_, to, _)| *to == elsewhere));
    assert!(world.seen.iter().all(|(_, to, _)| *to != inside), "a loop");
    assert_eq!(
        world.nodes[0].path.peer_stats()[0].endpoint,
        Some(endpoint(1))
    );
    let before = world.seen.len();
    world.send(0, &query());
    assert_eq!(world.seen.len(), before + 1, "data goes to one place");
    let done = DataPathEvent::HandshakeDone { device: device(1) };
    assert!(world.nodes[0].events.contains(&done));
}

#[test]
fn the_last_of_many_candidates_is_tried_as_well() {
    let mut world = World::pair(&["udp:53"]);
    // Bridges of containers, say, and last where the controller sees it; before them where it was heard last.
    let bridge = |n: u8| SocketAddr::from(([172, n, 0, 1], 51820));
    let mut endpoints: Vec<_> = (16..32).map(bridge).collect();
    endpoints.push(endpoint(1));
    world.peer(0, 1).endpoints = endpoints;
    world.publish(0);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn an_initiation_that_comes_over_two_paths_is_answered_once() {
    let mut world = World::pair(&["udp:53"]);
    world.send_held(0, &query());
    let (_, _, initiation) = world.take_wire().remove(0);
    let other: SocketAddr = "203.0.113.5:51820".parse().unwrap();
    world.arrive(1, endpoint(0), &initiation);
    world.arrive(1, other, &initiation);
    assert_eq!(world.sent_of_type(2), 1);
    assert_eq!(world.drops(1, "repeated_handshake"), 1);
    world.settle();
    assert_eq!(world.received(1), [query()], "the first was good");
    // Another one is another one.
    world.pass(Duration::from_secs(130));
    world.send(0, &query());
    assert_eq!(world.sent_of_type(2), 2);
    assert_eq!(world.drops(1, "repeated_handshake"), 1);
}

#[test]
fn who_sends_an_initiation_is_not_decided_by_where_it_comes_from() {
    let mut world = World::new(3);
    let end = world.now.saturating_add(Duration::from_secs(3600));
    for (from, to) in [(0, 2), (1, 2)] {
        world.allow(from, to, &["udp:53"], end);
    }
    for node in 0..3 {
        world.publish(node);
    }
    let query = samples::udp((v4(0), 9), (v4(2), 53), b"query");
    world.send_held(0, &query);
    let (_, _, initiation) = world.take_wire().remove(0);
    // From where the second is known to be: it is answered to the first all the same.
    world.arrive(2, endpoint(1), &initiation);
    let (_, to, response) = world.take_wire().remove(0);
    assert_eq!(to, endpoint(1));
    world.arrive(0, endpoint(2), &response);
    world.settle();
    assert_eq!(world.received(2), [query]);
    // An initiation of nobody's from there is nobody's, and keeps the second out of nothing.
    let ours = secret(2, 1).public();
    let mut stranger = NoiseTunnels
        .create(&secret(9, 1), &ours, 5, world.now)
        .unwrap();
    let mut forged = [0; 148];
    stranger.initiate(world.now, &mut forged).unwrap();
    let answers = world.sent_of_type(2);
    world.arrive(2, endpoint(1), &forged);
    assert_eq!(world.drops(2, "unknown_key"), 1);
    assert_eq!(world.sent_of_type(2), answers);
    let other = samples::udp((v4(1), 9), (v4(2), 53), b"other");
    world.send(1, &other);
    assert_eq!(world.received(2), [other]);
}

#[test]
fn the_endpoint_follows_authentic_data_only() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    let moved: SocketAddr = "203.0.113.5:4000".parse().unwrap();
    world.send_held(0, &query());
    let (_, _, datagram) = world.take_wire().remove(0);
    let mut forged = datagram.clone();
    forged[40] ^= 1;
    world.arrive(1, moved, &forged);
    let learned = |world: &World| world.nodes[1].path.peer_stats()[0].endpoint;
    assert_eq!(learned(&world), Some(endpoint(0)));
    world.arrive(1, "100.64.0.1:4000".parse().unwrap(), &datagram);
    assert_eq!(learned(&world), Some(endpoint(0)), "not inside the overlay");
    assert_eq!(world.drops(1, "overlay_endpoint"), 1);
    world.arrive(1, moved, &datagram);
    assert_eq!(learned(&world), Some(moved));
    world.arrive(1, endpoint(0), &datagram);
    assert_eq!(learned(&world), Some(moved), "a replay moves nothing");
}

#[test]
fn what_waits_is_bounded_and_given_up_after_ninety_seconds() {
    let mut world = World::pair(&["udp:53"]);
    world.loses = Box::new(|_| true);
    for _ in 0..10_000 {
        world.send(0, &query());
    }
    assert_eq!(world.drops(0, "queue_full"), 10_000 - 64);
    assert_eq!(world.sent_of_type(1), 1);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.drops(0, "handshake_timeout"), 64);
    let tries = world.sent_of_type(1);
    assert!((16..=18).contains(&tries), "{tries}");
    assert_eq!(world.received(0).len(), 64, "each is told: unreachable");
    let given_up = DataPathEvent::HandshakeGivenUp { device: device(1) };
    assert!(world.nodes[0].events.contains(&given_up));
    // A new packet begins anew.
    world.loses = Box::new(|_| false);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn a_peer_that_cannot_be_reached_is_said_to_be() {
    let mut world = World::pair(&["udp:53"]);
    world.peer(0, 1).endpoints.clear();
    world.publish(0);
    world.send(0, &query());
    assert_eq!(world.drops(0, "no_endpoint"), 1);
    assert_eq!(world.received(0).len(), 1, "the answer");
    // The other side knows where we are, and its data tells us where it is.
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    world.send(1, &samples::udp((v4(1), 9), (v4(0), 53), b"query"));
    assert_eq!(world.received(0).len(), 1);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);

    world.peer(0, 1).keys = vec![(2, secret(0, 1).public())];
    world.publish(0);
    world.send(0, &query());
    assert_eq!(world.drops(0, "no_session"), 1, "our own key is no peer's");
    assert_eq!(world.received(0).len(), 1);
}

#[test]
fn what_waits_survives_a_change_of_keys() {
    let mut world = World::pair(&["udp:53"]);
    world.peer(0, 1).keys = vec![(2, secret(1, 2).public())];
    world.publish(0);
    world.send(0, &query());
    assert!(world.received(1).is_empty(), "not its key");
    world.peer(0, 1).keys = vec![(1, secret(1, 1).public())];
    world.publish(0);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn what_waited_is_judged_again() {
    let mut world = World::pair(&["udp:53", "udp:54"]);
    let other = samples::udp((v4(0), 9), (v4(1), 54), b"query");
    world.send_held(0, &query());
    world.send_held(0, &other);
    world.peer(0, 1).egress[0].ports.truncate(1);
    world.publish(0);
    world.settle();
    assert_eq!(world.received(1), [query()]);
    assert_eq!(world.drops(0, "no_rule"), 1);
}

#[test]
fn a_session_is_confirmed_by_what_waits_or_else_by_an_empty_message() {
    let empty = |world: &World| {
        let data = world.seen.iter().filter(|(_, _, bytes)| bytes[0] == 4);
        let (empty, full): (Vec<_>, Vec<_>) = data.partition(|(_, _, bytes)| bytes.len() == 32);
        (empty.len(), full.len())
    };
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
    assert_eq!(empty(&world), (0, 1), "it confirms the session itself");
    let back = samples::udp((v4(1), 9), (v4(0), 53), b"query");
    world.send(1, &back);
    assert_eq!(world.received(0), std::slice::from_ref(&back));
    assert_eq!(world.sent_of_type(1), 1);

    // Nothing of what waited may go any more: the other side can use the session all the same.
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    world.send_held(0, &query());
    world.peer(0, 1).egress.clear();
    world.publish(0);
    world.settle();
    assert!(world.received(1).is_empty());
    assert_eq!(world.drops(0, "no_rule"), 1);
    assert_eq!(empty(&world), (1, 0));
    world.send(1, &back);
    assert_eq!(world.received(0), [back]);
    assert_eq!(world.sent_of_type(1), 1);

    // And nothing waits where a session is renewed by the clock.
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &query());
    world.pass(Duration::from_secs(121));
    assert_eq!(empty(&world), (1, 1), "nothing was answered for 10 seconds");
    world.send(0, &query());
    assert_eq!(world.sent_of_type(2), 2);
    assert_eq!(empty(&world), (2, 2));
    let mut data = world.seen.iter().filter(|(_, _, bytes)| bytes[0] == 4);
    let (from, _, last) = data.next_back().unwrap();
    assert_eq!((*from, last.len()), (endpoint(0), 32));
}

#[test]
fn where_the_message_that_confirms_is_lost_both_can_send_all_the_same() {
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    world.loses = Box::new(|(_, _, bytes)| bytes[0] == 4);
    world.send(0, &query());
    assert!(world.received(1).is_empty());
    world.loses = Box::new(|_| false);
    // The other one has no session that it may use, and begins one.
    let back = samples::udp((v4(1), 9), (v4(0), 53), b"query");
    world.send(1, &back);
    assert_eq!(world.received(0), [back]);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
    assert_eq!(world.sent_of_type(1), 2);
}

#[test]
fn lost_handshakes_are_repeated() {
    let mut world = World::pair(&["udp:53"]);
    world.loses = Box::new(|(_, _, bytes)| bytes[0] == 2);
    world.send(0, &query());
    assert!(world.received(1).is_empty());
    world.loses = Box::new(|_| false);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn both_may_begin_at_once() {
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    let back = samples::udp((v4(1), 9), (v4(0), 53), b"query");
    world.send_held(0, &query());
    world.send_held(1, &back);
    world.settle();
    world.pass(Duration::from_secs(12));
    assert_eq!(world.received(0), std::slice::from_ref(&back));
    assert_eq!(world.received(1), [query()]);
    for _ in 0..20 {
        world.send(0, &query());
        world.send(1, &back);
        world.pass(Duration::from_secs(20));
    }
    assert_eq!(world.received(0).len(), 20);
    assert_eq!(world.received(1).len(), 20);
}

#[test]
fn junk_is_not_answered() {
    let mut world = World::pair(&["udp:53"]);
    for len in 0..1500 {
        for kind in [0, 1, 2, 3, 4, 5, 255] {
            let mut junk = vec![0xa5; len];
            if let Some(head) = junk.first_chunk_mut::<4>() {
                *head = [kind, 0, 0, 0];
            }
            world.arrive(1, endpoint(0), &junk);
        }
    }
    assert!(world.seen.is_empty());
    assert!(world.drops(1, "junk") > 5000);
    world.now = world.now.saturating_add(Duration::from_secs(5));
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn an_answer_that_comes_after_the_peers_own_session_is_taken() {
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], crate::world::FOREVER);
    // The second begins, and the first answers that; then the first begins, before the second has confirmed.
    world.send_held(1, &samples::udp((v4(1), 9), (v4(0), 53), b"query"));
    let (_, _, theirs) = world.take_wire().remove(0);
    world.arrive(0, endpoint(1), &theirs);
    let (_, _, answer) = world.take_wire().remove(0);
    world.send_held(0, &query());
    let (_, _, ours) = world.take_wire().remove(0);
    assert_eq!((answer[0], ours[0]), (2, 1));
    world.arrive(1, endpoint(0), &answer);
    let confirming = world.take_wire();
    world.arrive(1, endpoint(0), &ours);
    let (_, _, late) = world.take_wire().remove(0);
    assert_eq!(late[0], 2);
    for (from, _, datagram) in confirming {
        world.arrive(0, from, &datagram);
    }
    world.arrive(0, endpoint(1), &late);
    assert_eq!(world.drops(0, "crypto"), 0);
    world.settle();
    assert_eq!(world.received(1), [query()]);
    assert_eq!(world.received(0).len(), 1);
}
