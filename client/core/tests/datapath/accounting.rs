//! What passes is counted, packet by packet, in the flow that it is part of.

use std::time::Duration;

use gatereeve_client_core::datapath::Direction;
use gatereeve_client_core::filter::{FlowPhase, FlowStats, Traffic};
use gatereeve_client_core::packet::ip::{TcpFlags, protocol};
use gatereeve_client_core::packet::offload::Ecn;
use gatereeve_client_core::packet::samples;

use crate::offload::{bytes, connected, families, offload, tcp, udp};
use crate::world::{World, device, endpoint, rules, v4, v6};

/// The flows of `node` with the other one.
fn flows(world: &World, node: usize) -> Vec<FlowStats> {
    let list = world.nodes[node].path.flows(None, 1_000, world.now);
    let tracked = list.tracked();
    let flows = list.into_flows();
    assert_eq!(flows.len(), tracked);
    assert!(
        flows
            .iter()
            .all(|(device_of, _)| *device_of == device(1 - node))
    );
    flows.into_iter().map(|(_, flow)| flow).collect()
}

/// The only flow of a protocol between these ports.
fn flow(world: &World, node: usize, protocol: u8, own: u16, peer: u16) -> FlowStats {
    let found: Vec<_> = flows(world, node)
        .into_iter()
        .filter(|flow| (flow.protocol, flow.own.port(), flow.peer.port()) == (protocol, own, peer))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn of<'a>(packets: impl IntoIterator<Item = &'a Vec<u8>>) -> Traffic {
    packets
        .into_iter()
        .fold(Traffic::default(), |sum, packet| Traffic {
            packets: sum.packets + 1,
            bytes: sum.bytes + u64::try_from(packet.len()).unwrap(),
        })
}

/// The bytes of all flows are those of the peer, on both sides.
fn assert_complete(world: &World) {
    for node in 0..2 {
        let stats = world.nodes[node].path.peer_stats()[0];
        let (mut sent, mut received) = (0, 0);
        for flow in flows(world, node) {
            sent += flow.sent.bytes;
            received += flow.received.bytes;
        }
        assert_eq!((sent, received), (stats.tx, stats.rx), "at {node}");
        assert!(sent + received > 0);
    }
}

#[test]
fn segments_count_each_on_both_sides() {
    let mut world = World::pair(&["tcp:443", "udp:443"]);
    for (from, to) in families() {
        let mut expected = Vec::new();
        for sequence in [1, 60_001] {
            let packet = tcp(from, to, sequence, TcpFlags::ACK, &bytes(50_000));
            world.send_offloaded(0, &packet, offload(&packet, Some(1348)));
            expected.extend(world.received(1));
        }
        assert_eq!(expected.len(), 2 * 50_000_usize.div_ceil(1348));
        let ours = flow_of(&world, 0, from.is_ipv4(), protocol::TCP);
        let theirs = flow_of(&world, 1, from.is_ipv4(), protocol::TCP);
        assert_eq!(ours.sent, of(&expected));
        assert_eq!(theirs.received, of(&expected));
        assert_eq!(
            (ours.received, theirs.sent),
            (Traffic::default(), Traffic::default())
        );
        assert_eq!(
            (ours.opener, theirs.opener),
            (Direction::Outbound, Direction::Inbound)
        );

        let packet = udp(from, to, &bytes(9_999));
        world.send_offloaded(0, &packet, offload(&packet, Some(1200)));
        let expected = world.received(1);
        assert_eq!(expected.len(), 9);
        let theirs = flow_of(&world, 1, from.is_ipv4(), protocol::UDP);
        assert_eq!(theirs.received, of(&expected));
        assert_eq!(theirs.phase, FlowPhase::Datagrams);
    }
    assert_complete(&world);
}

fn flow_of(world: &World, node: usize, ipv4: bool, protocol: u8) -> FlowStats {
    let found = flows(world, node)
        .into_iter()
        .find(|flow| flow.own.is_ipv4() == ipv4 && flow.protocol == protocol);
    found.unwrap()
}

#[test]
fn what_waits_for_a_session_counts_when_it_goes() {
    let mut world = World::pair(&["tcp:443"]);
    world.loses = Box::new(|_| true);
    let opens = samples::tcp((v4(0), 1), (v4(1), 443), TcpFlags::SYN);
    world.send(0, &opens);
    let waiting = flow(&world, 0, protocol::TCP, 1, 443);
    assert_eq!(waiting.sent, Traffic::default(), "it is tracked, and waits");
    world.loses = Box::new(|_| false);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.received(1).len(), 1);
    let gone = flow(&world, 0, protocol::TCP, 1, 443);
    assert_eq!(gone.sent, of([&opens]));
    assert_eq!((gone.phase, gone.age.as_secs()), (FlowPhase::Opening, 10));
    assert_complete(&world);
}

#[test]
fn answers_fragments_and_errors_belong_to_the_flow_that_let_them_pass() {
    let mut world = connected(&["udp:443", "tcp:443", "icmp"]);
    let asked = samples::echo(v6(0), v6(1), 77, true);
    let answered = samples::echo(v6(1), v6(0), 77, false);
    world.send(0, &asked);
    world.send(1, &answered);
    let echo = flow(&world, 0, protocol::ICMPV6, 77, 0);
    assert_eq!((echo.sent, echo.received), (of([&asked]), of([&answered])));

    let datagram = samples::udp((v4(0), 9), (v4(1), 443), &bytes(2_000));
    let payload = &datagram[20..];
    let ends = (v4(0), v4(1));
    let cut = [
        samples::fragment(ends, protocol::UDP, 5, 0, true, &payload[..1_200]),
        samples::fragment(ends, protocol::UDP, 5, 150, false, &payload[1_200..]),
    ];
    for fragment in &cut {
        world.send(0, fragment);
    }
    let refused = samples::port_unreachable(v4(1), v4(0), &datagram[..28]);
    world.send(1, &refused);
    assert_eq!(world.received(0), [answered, refused.clone()]);
    let udp = flow(&world, 0, protocol::UDP, 9, 443);
    assert_eq!((udp.sent, udp.received), (of(&cut), of([&refused])));
    let theirs = flow(&world, 1, protocol::UDP, 443, 9);
    assert_eq!((theirs.received, theirs.sent), (of(&cut), of([&refused])));
    assert_complete(&world);
}

#[test]
fn what_is_refused_is_not_counted() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    // The sender's table lets go what the receiver's does not let in.
    world.peer(1, 0).ingress = rules(&["tcp:443"], crate::world::FOREVER);
    world.publish(1);
    let datagram = samples::udp((v4(0), 9), (v4(1), 443), b"refused there");
    let segment = samples::tcp((v4(0), 1), (v4(1), 443), TcpFlags::ACK);
    let elsewhere = samples::udp((v4(0), 9), (v4(1), 80), b"refused here");
    for packet in [&datagram, &segment, &elsewhere] {
        world.send(0, packet);
    }
    assert_eq!(world.received(1), std::slice::from_ref(&segment));
    assert_eq!(
        (world.drops(0, "no_rule"), world.drops(1, "no_rule")),
        (1, 1)
    );
    assert_eq!(
        flow(&world, 0, protocol::UDP, 9, 443).sent,
        of([&datagram]),
        "it went"
    );
    let theirs = flows(&world, 1);
    assert!(theirs.iter().all(|flow| flow.protocol == protocol::TCP));
    assert_eq!(flow(&world, 1, protocol::TCP, 443, 1).received.packets, 2);
    assert_complete(&world);
}

#[test]
fn flows_that_go_in_the_middle_of_a_stretch_take_nothing_of_it() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    // So many that those which stay are moved together when the others have gone.
    for port in 0..200 {
        world.send(0, &samples::udp((v4(0), 2_000 + port), (v4(1), 443), b"x"));
    }
    let first = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(100));
    world.send_offloaded(0, &first, offload(&first, None));
    world.received(1);
    world.peer(1, 0).ingress = rules(&["tcp:443"], crate::world::FOREVER);
    world.publish(1);
    for number in 0..200_u16 {
        let sequence = 101 + u32::from(number) * 100;
        let segment = tcp(v4(0), v4(1), sequence, TcpFlags::ACK, &bytes(100));
        let datagram = samples::udp((v4(0), 2_000 + number), (v4(1), 443), b"y");
        for packet in [segment, datagram] {
            world.send_held(0, &packet);
        }
    }
    let wire: Vec<_> = world.take_wire().into_iter().map(|(.., one)| one).collect();
    assert_eq!(wire.len(), 400);
    world.arrive_together(1, endpoint(0), &wire, Ecn::NOT_ECT);
    assert_eq!(world.drops(1, "no_rule"), 200);
    let received = world.received(1);
    assert_eq!(received.len(), 200);
    assert_eq!(flows(&world, 1).len(), 2, "and the one that connected");
    let theirs = flow(&world, 1, protocol::TCP, 443, 1000);
    assert_eq!(theirs.received.packets, 201);
}

#[test]
fn another_connection_between_the_same_ports_begins_anew() {
    let mut world = World::pair(&["tcp:443"]);
    world.allow(1, 0, &["tcp:1"], crate::world::FOREVER);
    let segment = |from, flags| {
        let (us, them) = ((v4(0), 1), (v4(1), 443));
        let (source, destination) = if from == 0 { (us, them) } else { (them, us) };
        samples::tcp(source, destination, flags)
    };
    let (syn, ack) = (TcpFlags::SYN, TcpFlags::ACK);
    for (from, flags) in [(0, syn), (1, syn | ack), (0, ack), (0, TcpFlags::RST)] {
        world.send(from, &segment(from, flags));
    }
    let before = flow(&world, 0, protocol::TCP, 1, 443);
    assert_eq!((before.sent.packets, before.received.packets), (3, 1));
    assert_eq!(before.phase, FlowPhase::Reset);
    world.pass(Duration::from_secs(5));
    // The opener's own, after the end of the one before.
    let opens = segment(0, syn);
    world.send(0, &opens);
    let again = flow(&world, 0, protocol::TCP, 1, 443);
    assert_eq!(
        (again.sent, again.received),
        (of([&opens]), Traffic::default())
    );
    assert!(again.age < Duration::from_secs(2), "{again:?}");
    // The other side's: it is asked of the rules, and takes the place.
    world.send(1, &segment(1, syn));
    for node in [0, 1] {
        let ports = if node == 0 { (1, 443) } else { (443, 1) };
        let other = flow(&world, node, protocol::TCP, ports.0, ports.1);
        assert_eq!(other.sent.packets + other.received.packets, 1);
    }
}

#[test]
fn what_is_sent_to_a_silent_opener_is_counted_and_does_not_keep_the_flow() {
    let mut world = connected(&["udp:443", "tcp:443"]);
    world.send(0, &samples::udp((v4(0), 9), (v4(1), 443), b"asked once"));
    let answer = samples::udp((v4(1), 443), (v4(0), 9), b"and again");
    for minute in 1..=8 {
        world.pass(Duration::from_secs(60));
        world.send(1, &answer);
        let flow = flow(&world, 0, protocol::UDP, 9, 443);
        assert_eq!(flow.received.packets, minute);
        let kept_at = minute.min(7);
        assert_eq!(flow.idle.as_secs(), (minute - kept_at) * 60, "{minute}");
    }
    world.pass(Duration::from_secs(60));
    let is_udp = |flow: &FlowStats| flow.protocol == protocol::UDP;
    assert!(!flows(&world, 0).iter().any(is_udp), "two minutes later");
}

#[test]
fn the_busiest_are_listed_first_and_what_no_rule_allows_any_more_says_so() {
    let mut world = connected(&["udp:443", "tcp:443"]);
    for (port, len) in [(10_u16, 300), (11, 900), (12, 600)] {
        world.send(0, &samples::udp((v4(0), port), (v4(1), 443), &bytes(len)));
    }
    let path = &world.nodes[0].path;
    let list = path.flows(Some(device(1)), 2, world.now);
    assert_eq!(list.tracked(), 4);
    let ports: Vec<_> = list
        .into_flows()
        .into_iter()
        .map(|(_, flow)| flow.own.port())
        .collect();
    assert_eq!(ports, [11, 12]);
    assert_eq!(path.flows(Some(device(0)), 2, world.now).tracked(), 0);
    assert_eq!(path.flows(None, 0, world.now).into_flows(), []);

    assert!(flows(&world, 0).iter().all(|flow| flow.is_allowed));
    world.peer(0, 1).egress = rules(&["tcp:443"], crate::world::FOREVER);
    world.publish(0);
    for flow in flows(&world, 0) {
        assert_eq!(flow.is_allowed, flow.protocol == protocol::TCP);
    }
    // Two minutes without a packet.
    world.pass(Duration::from_secs(121));
    assert_eq!(flows(&world, 0), []);
}
