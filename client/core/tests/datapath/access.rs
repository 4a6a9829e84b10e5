//! Who reaches whom: allowed, denied, answered, cut.

use std::net::IpAddr;
use std::time::Duration;

use gatereeve_client_core::datapath::DataPathEvent;
use gatereeve_client_core::packet::ip::{IpPacket, TcpFlags, Transport};
use gatereeve_client_core::packet::samples;

use crate::world::{FOREVER, World, v4, v6};

fn families() -> [(IpAddr, IpAddr); 2] {
    [(v4(0), v4(1)), (v6(0), v6(1))]
}

#[test]
fn exactly_what_is_allowed_passes_in_both_families() {
    let mut world = World::pair(&["tcp:443", "udp:53", "icmp"]);
    let (mut passed, mut denied) = (0, 0);
    for (a, b) in families() {
        for (packet, is_allowed) in [
            (samples::tcp((a, 1000), (b, 443), TcpFlags::SYN), true),
            (samples::tcp((a, 1000), (b, 444), TcpFlags::SYN), false),
            (samples::udp((a, 1000), (b, 53), b"query"), true),
            (samples::udp((a, 1000), (b, 443), b"query"), false),
            (samples::echo(a, b, 7, true), true),
            (samples::echo(a, b, 8, false), false),
            (samples::ip(a, b, 132, &[0; 20]), false),
            (samples::ip(a, b, 47, &[0; 20]), false),
            (samples::ip(a, b, 50, &[0; 20]), false),
            (samples::ip(a, b, 255, &[0; 20]), false),
        ] {
            world.send(0, &packet);
            if is_allowed {
                assert_eq!(world.received(1), [packet]);
                passed += 1;
            } else {
                assert!(world.received(1).is_empty(), "{packet:?}");
                denied += 1;
            }
        }
    }
    assert_eq!((passed, denied), (6, 14));
    assert_eq!(world.drops(0, "no_rule"), 14);
    assert_eq!(world.sent_of_type(1), 1, "one handshake for all of it");
}

#[test]
fn the_destination_checks_for_itself() {
    let mut world = World::pair(&["tcp:443"]);
    // The source has been tampered with: it lets everything out.
    world.peer(0, 1).egress = crate::world::rules(&["*"], FOREVER);
    world.publish(0);
    for (a, b) in families() {
        world.send(0, &samples::tcp((a, 1000), (b, 443), TcpFlags::SYN));
        assert_eq!(world.received(1).len(), 1);
        world.send(0, &samples::tcp((a, 1000), (b, 22), TcpFlags::SYN));
        world.send(0, &samples::udp((a, 1000), (b, 443), b"x"));
        world.send(0, &samples::echo(a, b, 1, true));
        assert!(world.received(1).is_empty());
    }
    assert_eq!(world.drops(1, "no_rule"), 6);
}

#[test]
fn replies_pass_and_the_other_side_opens_nothing() {
    let mut world = World::pair(&["tcp:443", "icmp"]);
    for (a, b) in families() {
        let reply = samples::tcp((b, 443), (a, 1000), TcpFlags::SYN | TcpFlags::ACK);
        world.send(1, &reply);
        assert!(world.received(0).is_empty(), "nothing to reply to");
        world.send(0, &samples::tcp((a, 1000), (b, 443), TcpFlags::SYN));
        world.send(1, &reply);
        assert_eq!(world.received(0), [reply]);
        world.send(1, &samples::tcp((b, 443), (a, 1000), TcpFlags::SYN));
        world.send(1, &samples::tcp((b, 443), (a, 1001), TcpFlags::ACK));
        world.send(1, &samples::echo(b, a, 3, true));
        assert!(world.received(0).is_empty());
        world.send(0, &samples::echo(a, b, 3, true));
        world.send(1, &samples::echo(b, a, 3, false));
        assert_eq!(world.received(0).len(), 1);
        world.received(1);
    }
}

#[test]
fn a_denial_is_answered_at_once() {
    let mut world = World::pair(&["tcp:443"]);
    for (a, b) in families() {
        let nobody = if a.is_ipv4() { v4(9) } else { v6(9) };
        for destination in [b, nobody] {
            world.send(
                0,
                &samples::tcp((a, 1000), (destination, 22), TcpFlags::SYN),
            );
            world.send(0, &samples::udp((a, 1000), (destination, 53), b"x"));
            let answers = world.received(0);
            let kinds: Vec<_> = answers
                .iter()
                .map(|answer| {
                    let packet = IpPacket::parse(answer).unwrap();
                    assert_eq!((packet.source, packet.destination), (destination, a));
                    packet.transport
                })
                .collect();
            assert!(matches!(kinds[0], Transport::Tcp { flags, .. } if flags.has(TcpFlags::RST)));
            assert!(matches!(kinds[1], Transport::Error(_)));
        }
    }
    for port in 0..1000 {
        world.send(0, &samples::udp((v4(0), port), (v4(1), 53), b"x"));
    }
    let answers = world.received(0).len();
    assert!(
        (80..=100).contains(&answers),
        "{answers} answers at one instant"
    );
    assert!(world.seen.is_empty(), "and nothing on the wire");
}

#[test]
fn a_new_table_cuts_an_established_flow_at_either_end() {
    for cutting in [0, 1] {
        let mut world = World::pair(&["tcp:443", "udp:53"]);
        for (a, b) in families() {
            world.send(0, &samples::tcp((a, 1000), (b, 443), TcpFlags::SYN));
            world.send(
                1,
                &samples::tcp((b, 443), (a, 1000), TcpFlags::SYN | TcpFlags::ACK),
            );
        }
        assert_eq!((world.received(0).len(), world.received(1).len()), (2, 2));

        let other = 1 - cutting;
        let peer = world.peer(cutting, other);
        for rules in [&mut peer.ingress, &mut peer.egress] {
            for rule in rules {
                rule.ports.retain(|ports| ports.to_string() == "udp:53");
            }
        }
        world.publish(cutting);
        for (a, b) in families() {
            world.send(0, &samples::tcp((a, 1000), (b, 443), TcpFlags::ACK));
            world.send(1, &samples::tcp((b, 443), (a, 1000), TcpFlags::ACK));
        }
        let cut_off: Vec<_> = world
            .received(0)
            .into_iter()
            .filter(|packet| {
                // The local reset is an answer, not a delivery.
                !matches!(IpPacket::parse(packet).unwrap().transport,
                    Transport::Tcp { flags, .. } if flags.has(TcpFlags::RST))
            })
            .collect();
        assert!(cutting == 1 || cut_off.is_empty(), "{cut_off:?}");
        let to_server = world.received(1);
        assert!(
            to_server.iter().all(|packet| {
                matches!(IpPacket::parse(packet).unwrap().transport,
                    Transport::Tcp { flags, .. } if flags.has(TcpFlags::RST))
            }),
            "{to_server:?}"
        );
        // Positive control: the rule that stayed still works.
        world.send(0, &samples::udp((v4(0), 9), (v4(1), 53), b"x"));
        assert_eq!(world.received(1).len(), 1);
    }
}

#[test]
fn a_removed_peer_is_cut_off_with_its_keys() {
    let mut world = World::pair(&["udp:53"]);
    let packet = samples::udp((v4(0), 9), (v4(1), 53), b"x");
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    world.send_held(0, &packet);
    let in_flight = world.take_wire();
    world.nodes[1].spec.peers.clear();
    world.publish(1);
    for (from, _, datagram) in in_flight {
        world.arrive(1, from, &datagram);
    }
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
    assert_eq!(world.drops(1, "unknown_index"), 2);
    // Back in the table it needs a new session, and gets it.
    world.allow(0, 1, &["udp:53"], FOREVER);
    world.send(0, &packet);
    world.pass(Duration::from_secs(25));
    world.send(0, &packet);
    assert!(!world.received(1).is_empty());
}

#[test]
fn a_lease_ends_by_itself_and_a_renewal_prolongs_it() {
    let mut world = World::new(2);
    let end = world.now.saturating_add(Duration::from_secs(60));
    world.allow(0, 1, &["udp:53"], end);
    let packet = samples::udp((v4(0), 9), (v4(1), 53), b"x");
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    world.pass(Duration::from_millis(59_750));
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    let renewed = end.saturating_add(Duration::from_secs(60));
    world.allow(0, 1, &["udp:53"], renewed);
    world.pass(Duration::from_secs(1));
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1, "renewed");
    world.pass(Duration::from_secs(60));
    world.send(0, &packet);
    assert!(world.received(1).is_empty(), "over");
    // The receiver holds the end on its own, whatever the sender thinks.
    world.peer(0, 1).egress = crate::world::rules(&["udp:53"], FOREVER);
    world.publish(0);
    world.send(0, &packet);
    world.pass(Duration::from_secs(10));
    assert!(world.received(1).is_empty());
    assert!(world.drops(1, "no_rule") > 0);
}

#[test]
fn nothing_passes_while_shut() {
    let mut world = World::pair(&["udp:53"]);
    let packet = samples::udp((v4(0), 9), (v4(1), 53), b"x");
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    world.nodes[1].path.shut();
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
    let until = world.now.saturating_add(Duration::from_secs(1));
    world.nodes[1].path.open_until(until);
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    world.now = world.now.saturating_add(Duration::from_secs(1));
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
    world.nodes[0].path.shut();
    let before = world.seen.len();
    world.send(0, &packet);
    assert_eq!(world.seen.len(), before);
    assert_eq!(world.drops(0, "shut"), 1);
}

#[test]
fn without_an_allowed_packet_nothing_is_on_the_wire() {
    let mut world = World::pair(&["udp:53"]);
    world.send(0, &samples::udp((v4(0), 9), (v4(1), 54), b"x"));
    world.send(1, &samples::udp((v4(1), 53), (v4(0), 9), b"x"));
    world.pass(Duration::from_secs(600));
    assert!(world.seen.is_empty());
    assert_eq!(world.received(1).len(), 1, "the local answer");
    world.send(0, &samples::udp((v4(0), 9), (v4(1), 53), b"x"));
    assert_eq!(world.received(1).len(), 1);
}

#[test]
fn an_acknowledgement_waits_for_the_batch_in_flight() {
    let mut world = World::pair(&["udp:53"]);
    let serial = world.nodes[0].path.serial();
    let worker = world.nodes[0].path.worker();
    assert_eq!(worker.begin(), serial);
    world.publish(0);
    assert_eq!(world.nodes[0].path.serial(), serial + 1);
    assert_eq!(world.nodes[0].path.enforced(), serial);
    worker.done();
    assert_eq!(world.nodes[0].path.enforced(), serial + 1);
    let mut stale = world.nodes[0].spec.clone();
    stale.serial = serial;
    stale.peers.clear();
    world.nodes[0].path.publish(stale, world.now);
    assert_eq!(world.nodes[0].path.serial(), serial + 1, "no way back");
}

#[test]
fn refusals_that_are_of_no_flow_keep_back_none_that_are() {
    let told = |world: &World| {
        let events = world.nodes[0].events.iter();
        let denied = events.filter(|event| matches!(event, DataPathEvent::Denied { .. }));
        denied.count()
    };
    let mut world = World::pair(&["icmp"]);
    // Timestamp requests.
    let control = samples::ip(v4(0), v4(1), 1, &[13; 20]);
    for _ in 0..100 {
        world.send(0, &control);
    }
    assert_eq!((world.drops(0, "control_icmp"), told(&world)), (100, 0));
    for port in 0..100 {
        world.send(0, &samples::tcp((v4(0), port), (v4(1), 9), TcpFlags::SYN));
    }
    assert_eq!(told(&world), 10, "the control: these have an end");
}
