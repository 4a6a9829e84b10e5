//! Who has a name, and who may ask.

use std::net::IpAddr;
use std::time::Duration;

use gatereeve_client_core::packet::ip::{IpPacket, TcpFlags};
use gatereeve_client_core::packet::samples;

use crate::world::{FOREVER, World, rules, v4, v6};

const NO_ERROR: u8 = 0;
const NO_NAME: u8 = 3;

fn resolvers() -> [IpAddr; 2] {
    ["100.64.0.0".parse().unwrap(), "fd00::".parse().unwrap()]
}

/// Asks for the address of `name` in `acme.internal`.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [name, "acme", "internal"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The code and the address that `node` is told.
fn ask(world: &mut World, node: usize, name: &str) -> (u8, Option<IpAddr>) {
    let [resolver, _] = resolvers();
    let packet = samples::udp((v4(node), 1000), (resolver, 53), &question(name));
    world.send(node, &packet);
    let received = world.received(node);
    assert_eq!(received.len(), 1);
    let answer = &received[0];
    let packet = IpPacket::parse(answer).unwrap();
    assert_eq!((packet.source, packet.destination), (resolver, v4(node)));
    let message = &answer[packet.transport_at + 8..];
    assert_eq!(message[..2], [0x12, 0x34]);
    let address: Option<[u8; 4]> =
        (message[7] == 1).then(|| message[message.len() - 4..].try_into().unwrap());
    (message[3] & 15, address.map(IpAddr::from))
}

/// Whether `node` is told whose the address of `other` is.
fn is_named(world: &mut World, node: usize, other: usize) -> bool {
    let [resolver, _] = resolvers();
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let last = (other + 1).to_string();
    for label in [last.as_str(), "0", "64", "100", "in-addr", "arpa"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 12, 0, 1]);
    world.send(
        node,
        &samples::udp((v4(node), 1000), (resolver, 53), &query),
    );
    let received = world.received(node);
    let packet = IpPacket::parse(&received[0]).unwrap();
    received[0][packet.transport_at + 8 + 7] == 1
}

#[test]
fn a_name_is_had_by_those_who_may_be_reached() {
    let mut world = World::new(4);
    world.allow(0, 1, &["tcp:443"], FOREVER);
    world.allow(2, 0, &["tcp:22"], FOREVER);
    assert_eq!(ask(&mut world, 0, "node-0"), (NO_ERROR, Some(v4(0))));
    assert_eq!(ask(&mut world, 0, "node-1"), (NO_ERROR, Some(v4(1))));
    // It may reach this one; that is no reason for this one to call it.
    assert_eq!(ask(&mut world, 0, "node-2"), (NO_NAME, None));
    assert!(is_named(&mut world, 0, 2), "whose packets come is known");
    assert_eq!(ask(&mut world, 0, "node-3"), (NO_NAME, None));
    assert!(!is_named(&mut world, 0, 3));
    assert_eq!(ask(&mut world, 2, "node-0"), (NO_ERROR, Some(v4(0))));
    assert_eq!(world.sent_of_type(1), 0, "nobody else is asked");
}

#[test]
fn a_name_ends_with_its_rule_and_with_the_peer() {
    let mut world = World::new(3);
    let soon = world.now.saturating_add(Duration::from_secs(30));
    world.allow(0, 1, &["tcp:443"], soon);
    world.allow(0, 2, &["tcp:443"], FOREVER);
    assert_eq!(ask(&mut world, 0, "node-1").0, NO_ERROR);
    assert!(is_named(&mut world, 0, 1) && is_named(&mut world, 0, 2));
    world.pass(Duration::from_secs(31));
    assert_eq!(ask(&mut world, 0, "node-1"), (NO_NAME, None));
    assert!(!is_named(&mut world, 0, 1) && is_named(&mut world, 0, 2));
    assert_eq!(ask(&mut world, 0, "node-2").0, NO_ERROR);
    world.nodes[0].spec.peers.clear();
    world.publish(0);
    assert_eq!(ask(&mut world, 0, "node-2"), (NO_NAME, None));
}

#[test]
fn only_this_host_asks_and_only_with_its_own_address() {
    let mut world = World::pair(&["*"]);
    world.peer(1, 0).egress = rules(&["*"], FOREVER);
    world.publish(1);
    for (resolver, own, peer) in [
        (resolvers()[0], v4(0), v4(1)),
        (resolvers()[1], v6(0), v6(1)),
    ] {
        let query = question("node-1");
        world.send(0, &samples::udp((own, 1000), (resolver, 53), &query));
        assert_eq!(world.received(0).len(), 1);
        // A container behind the host, with an address of its own or somebody else's.
        world.send(0, &samples::udp((peer, 1000), (resolver, 53), &query));
        assert!(world.received(0).is_empty());
        // The resolver is nobody behind the tunnel, whoever says so.
        world.send(1, &samples::udp((resolver, 53), (own, 1000), b"forged"));
        assert!(world.received(0).is_empty());
    }
    // An address is not the resolver's for another's saying so either.
    world.peer(0, 1).addresses.v4 = "100.64.0.0".parse().unwrap();
    world.publish(0);
    assert_eq!(ask(&mut world, 0, "node-0").0, NO_ERROR);
    assert_eq!(world.received(1).len(), 0);
}

#[test]
fn what_is_no_question_is_refused_like_anything_else() {
    let mut world = World::pair(&["*"]);
    let [resolver, _] = resolvers();
    world.send(
        0,
        &samples::tcp((v4(0), 1000), (resolver, 53), TcpFlags::SYN),
    );
    let answers = world.received(0);
    let reset = IpPacket::parse(&answers[0]).unwrap();
    assert_eq!((answers.len(), reset.source), (1, resolver));
    world.send(
        0,
        &samples::udp((v4(0), 1000), (resolver, 53), b"no question"),
    );
    assert_eq!(world.received(0).len(), 1);
    assert_eq!(world.drops(0, "no_route"), 2);
}

#[test]
fn a_device_that_is_shut_out_answers_no_names() {
    let mut world = World::pair(&["*"]);
    assert_eq!(ask(&mut world, 0, "node-1").0, NO_ERROR);
    world.nodes[0].path.shut();
    let [resolver, _] = resolvers();
    world.send(
        0,
        &samples::udp((v4(0), 1000), (resolver, 53), &question("node-1")),
    );
    let received = world.received(0);
    let refusal = IpPacket::parse(&received[0]).unwrap();
    assert_eq!(received[0][9], 1, "ICMP");
    assert_eq!(refusal.source, resolver);
}
