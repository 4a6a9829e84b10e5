//! A path that carries less than the overlay's packets: TCP fits itself to it, the rest is told.

use std::net::IpAddr;
use std::time::Duration;

use gatereeve_client_core::datapath::{Batch, DataPathEvent, Outbox};
use gatereeve_client_core::packet::ip::{IpPacket, TcpFlags, Transport, protocol};
use gatereeve_client_core::packet::samples;

use crate::offload::{
    assert_sums, bytes, connected, families, offload, pseudo, sum, tcp, transport_at, udp,
};
use crate::world::World;

/// Bytes that the path carries, IP header included, and what is left for a packet.
const OUTER: usize = 1400;
const INNER: usize = (OUTER - 20 - 8 - 32) / 16 * 16;

fn narrowed() -> World {
    let world = connected(&["tcp:443", "udp:443"]);
    let to = world.nodes[1].endpoint;
    assert!(to.is_ipv4());
    world.nodes[0].path.path_mtu(to, OUTER, world.now);
    world
}

fn longest_datagram(world: &mut World) -> usize {
    let sent = std::mem::take(&mut world.seen);
    sent.iter()
        .map(|(_, _, bytes)| bytes.len())
        .max()
        .unwrap_or(0)
}

#[test]
fn tcp_is_cut_to_fit() {
    for (from, to) in families() {
        let mut world = narrowed();
        let packet = tcp(from, to, 1, TcpFlags::ACK, &bytes(20_000));
        longest_datagram(&mut world);
        world.send_offloaded(0, &packet, offload(&packet, Some(1360)));
        assert!(longest_datagram(&mut world) + 28 <= OUTER);
        let received = world.received(1);
        received.iter().for_each(|one| assert_sums(one));
        let header = transport_at(&packet) + 32;
        let payload: Vec<u8> = received
            .iter()
            .flat_map(|one| one[header..].to_vec())
            .collect();
        assert!(payload == bytes(20_000));
    }
}

#[test]
fn what_cannot_be_cut_is_told_how_much_fits() {
    for (from, to) in families() {
        let headers = transport_at(&udp(from, to, b"")) + 8;
        let (fits, does_not) = (
            udp(from, to, &bytes(INNER - headers)),
            udp(from, to, &bytes(INNER - headers + 1)),
        );
        let mut world = connected(&["tcp:443", "udp:443"]);
        world.send(0, &does_not);
        assert_eq!(
            world.received(1).len(),
            1,
            "the control: on a wide path it passes"
        );
        let mut world = narrowed();
        world.send(0, &fits);
        assert_eq!(world.received(1).len(), 1);
        world.send(0, &does_not);
        assert_eq!(world.received(1).len(), 0);
        check_too_big(&mut world, from, to);
        // Two datagrams in one packet.
        let two = udp(from, to, &bytes(2 * (INNER - headers + 1)));
        world.send_offloaded(0, &two, offload(&two, Some(INNER - headers + 1)));
        assert_eq!(world.received(1).len(), 0);
        check_too_big(&mut world, from, to);
        assert_eq!(world.drops(0, "too_big"), 2);
    }
}

/// The application at node 0 was told, by an error that it can believe.
fn check_too_big(world: &mut World, from: IpAddr, to: IpAddr) {
    let answers = world.received(0);
    assert_eq!(answers.len(), 1);
    let answer = &answers[0];
    let parsed = IpPacket::parse(answer).unwrap();
    assert_eq!((parsed.source, parsed.destination), (to, from));
    let at = parsed.transport_at;
    assert!(matches!(
        parsed.transport,
        Transport::Error(quoted) if (quoted.source, quoted.destination) == (from, to)
    ));
    let kind = if from.is_ipv4() { [3, 4] } else { [2, 0] };
    assert_eq!(answer[at..at + 2], kind);
    assert_eq!(
        usize::from(u16::from_be_bytes([answer[at + 6], answer[at + 7]])),
        INNER
    );
    if from.is_ipv4() {
        assert_eq!(sum(&[&answer[at..]]), 0xffff);
    } else {
        assert_eq!(answer[6], protocol::ICMPV6);
    }
}

/// A SYN that announces segments of 1380 bytes, behind options that are none of our business.
fn syn(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut segment = [1000u16.to_be_bytes(), 443u16.to_be_bytes()].concat();
    segment.extend([
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0x80,
        TcpFlags::SYN,
        0x10,
        0,
        0,
        0,
        0,
        0,
    ]);
    segment.extend([1, 3, 3, 7, 4, 2]);
    segment.extend([2, 4]);
    segment.extend(1380u16.to_be_bytes());
    segment.extend([1, 1]);
    let mut packet = samples::ip(from, to, protocol::TCP, &segment);
    let at = transport_at(&packet);
    let whole = !sum(&[&pseudo(&packet), &packet[at..]]);
    packet[at + 16..at + 18].copy_from_slice(&whole.to_be_bytes());
    packet
}

fn announced(packet: &[u8]) -> u16 {
    let at = transport_at(packet) + 28;
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[test]
fn announced_segments_fit_both_ways() {
    for (from, to) in families() {
        let fits = u16::try_from(INNER - transport_at(&syn(from, to)) - 20).unwrap();
        for (narrow_at, is_narrow) in [(0, true), (1, true), (0, false)] {
            let mut world = connected(&["tcp:443"]);
            if is_narrow {
                let other = world.nodes[1 - narrow_at].endpoint;
                world.nodes[narrow_at]
                    .path
                    .path_mtu(other, OUTER, world.now);
            }
            world.send(0, &syn(from, to));
            let received = world.received(1);
            let at = transport_at(&received[0]);
            assert_eq!(sum(&[&pseudo(&received[0]), &received[0][at..]]), 0xffff);
            assert_eq!(announced(&received[0]), if is_narrow { fits } else { 1380 });
        }
    }
}

/// The same packet of IPv4, which may be cut on its way.
fn without_df(packet: &[u8], identification: u16) -> Vec<u8> {
    fragment(packet, identification, 0)
}

fn fragment(packet: &[u8], identification: u16, field: u16) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    packet[6..8].copy_from_slice(&field.to_be_bytes());
    packet[10..12].fill(0);
    let header = !sum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet
}

/// Puts together what came of one packet of IPv4.
fn whole(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (place, fragment) in fragments.iter().enumerate() {
        assert_eq!(sum(&[&fragment[..20]]), 0xffff, "the header's checksum");
        assert_eq!(fragment[4..6], fragments[0][4..6]);
        assert!(fragment.len() <= INNER);
        let field = u16::from_be_bytes([fragment[6], fragment[7]]);
        assert_eq!(usize::from(field & 0x1fff) * 8, payload.len());
        assert_eq!(field & 0x2000 != 0, place + 1 < fragments.len());
        payload.extend(&fragment[20..]);
    }
    payload
}

#[test]
fn what_may_be_cut_on_its_way_is_cut() {
    let (from, to) = families()[0];
    let mut world = narrowed();
    let packet = udp(from, to, &bytes(1350));
    world.send(0, &packet);
    assert!(world.received(1).is_empty(), "the control");
    assert_eq!((world.received(0).len(), world.drops(0, "too_big")), (1, 1));

    let packet = without_df(&packet, 7);
    world.send(0, &packet);
    let came = world.received(1);
    assert_eq!(came.len(), 2);
    assert!(whole(&came) == packet[20..]);
    // As many as it takes.
    let long = without_df(&udp(from, to, &bytes(5000)), 8);
    world.send_offloaded(0, &long, offload(&long, None));
    let came = world.received(1);
    assert_eq!(came.len(), 4);
    let datagram = whole(&came);
    assert!(datagram[8..] == bytes(5000));
    assert_eq!(sum(&[&pseudo(&long), &datagram]), 0xffff);
    assert!(world.received(0).is_empty(), "nobody is told");
    assert_eq!(world.drops(0, "too_big"), 1);

    // Of a packet that is many in one, each.
    let many = without_df(&udp(from, to, &bytes(3 * 1350)), 9);
    world.send_offloaded(0, &many, offload(&many, Some(1350)));
    let came = world.received(1);
    assert_eq!(came.len(), 6);
    // One behind the other, however many they are.
    for (place, pair) in came.chunks(2).enumerate() {
        let datagram = whole(pair);
        let length = u16::from_be_bytes([datagram[4], datagram[5]]);
        assert_eq!(usize::from(length), 1358, "borders stay where they are");
        assert!(datagram[8..] == bytes(3 * 1350)[place * 1350..][..1350]);
        let one = [&pair[0][..20], &datagram].concat();
        assert_eq!(sum(&[&pseudo(&one), &datagram]), 0xffff);
    }

    // A path that was found narrow, with what it carries.
    let mut world = connected(&["tcp:443", "udp:443"]);
    hole(&mut world);
    flow(&mut world, &udp(from, to, &bytes(1392)), 5);
    world.send(0, &packet);
    assert!(whole(&world.received(1)) == packet[20..]);
}

#[test]
fn a_fragment_is_cut_again() {
    let (from, to) = families()[0];
    let mut world = narrowed();
    let long = without_df(&udp(from, to, &bytes(3000)), 8);
    // As the host's own stack cuts it for the interface.
    for (offset, more) in [(0, true), (1400, true), (2800, false)] {
        let payload = &long[20 + offset..(1420 + offset).min(long.len())];
        let packet = samples::ip(from, to, protocol::UDP, payload);
        let field = u16::try_from(offset / 8).unwrap() | u16::from(more) << 13;
        world.send(0, &fragment(&packet, 8, field));
    }
    let came = world.received(1);
    assert_eq!(came.len(), 5);
    assert!(whole(&came) == long[20..]);
}

#[test]
fn a_flood_of_refusals_does_not_keep_back_how_much_a_path_carries() {
    let (from, to) = families()[0];
    let mut world = narrowed();
    let denied = samples::udp((from, 1000), (to, 9), &bytes(10));
    for _ in 0..1000 {
        world.send(0, &denied);
    }
    let told = world.received(0).len();
    assert!((1..1000).contains(&told), "the control");
    world.send(0, &udp(from, to, &bytes(1350)));
    assert_eq!(world.received(0).len(), 1);
}

#[test]
fn what_gets_no_answer_costs_none() {
    let (from, to) = families()[0];
    let mut world = narrowed();
    let denied = |flags| samples::tcp((from, 1000), (to, 9), flags);
    for _ in 0..1000 {
        world.send(0, &denied(TcpFlags::RST));
    }
    assert!(world.received(0).is_empty());
    world.send(0, &denied(TcpFlags::SYN));
    assert_eq!(world.received(0).len(), 1);
    // The control: what is answered does cost.
    for _ in 0..1000 {
        world.send(0, &denied(TcpFlags::SYN));
    }
    assert!(world.received(0).len() < 1000);
}

#[test]
fn a_path_becomes_wide_again() {
    let mut world = narrowed();
    let (from, to) = families()[0];
    let packet = udp(from, to, &bytes(1350));
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
    world.pass(Duration::from_secs(601));
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
    let elsewhere = "198.51.100.9:1".parse().unwrap();
    world.nodes[0].path.path_mtu(elsewhere, OUTER, world.now);
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1, "another path is another path");
}

/// Sends a packet every 250 ms for `secs`; how many came.
fn flow(world: &mut World, packet: &[u8], secs: u64) -> usize {
    let mut came = 0;
    for _ in 0..secs * 4 {
        world.send(0, packet);
        came += world.received(1).len();
        world.pass(Duration::from_millis(250));
    }
    came
}

/// Datagrams that the path does not carry are gone, and nobody says so.
fn hole(world: &mut World) {
    let to = world.nodes[1].endpoint;
    world.loses = Box::new(move |(_, at, bytes)| *at == to && bytes.len() + 28 > OUTER);
}

#[test]
fn a_path_that_drops_in_silence_is_found_out() {
    for (from, to) in families() {
        let mut world = connected(&["tcp:443", "udp:443"]);
        let headers = transport_at(&udp(from, to, b"")) + 8;
        let packet = udp(from, to, &bytes(1420 - headers));
        assert_eq!(flow(&mut world, &packet, 5), 20, "the control");
        hole(&mut world);
        // The path was proven: for ten seconds, it is believed to be wide.
        assert_eq!(flow(&mut world, &packet, 5), 0);
        assert_eq!(world.drops(0, "too_big"), 0);
        assert_eq!(flow(&mut world, &packet, 5), 0);
        assert!(world.drops(0, "too_big") > 0);
        let answers = world.received(0);
        assert!(!answers.is_empty());
        world.nodes[0].received.push(answers[0].clone());
        check_too_big(&mut world, from, to);

        world.send(0, &udp(from, to, &bytes(INNER - headers)));
        assert_eq!(world.received(1).len(), 1);
        let packet = tcp(from, to, 1, TcpFlags::ACK, &bytes(20_000));
        longest_datagram(&mut world);
        world.send_offloaded(0, &packet, offload(&packet, Some(1348)));
        assert!(longest_datagram(&mut world) + 28 <= OUTER);
        let payload = world.received(1).iter().map(|one| one.len()).sum::<usize>();
        assert!(payload > 20_000);

        world.loses = Box::new(|_| false);
        let packet = udp(from, to, &bytes(INNER - headers));
        flow(&mut world, &packet, 601);
        world.send(0, &udp(from, to, &bytes(1420 - headers)));
        assert_eq!(world.received(1).len(), 1, "wide again");
        // Nothing of this is the hosts' business.
        assert_eq!(world.drops(1, "spoofed_source"), 0);
        let denied = |node: usize| world.nodes[node].events.iter();
        let denied = denied(0).chain(denied(1));
        let denied = denied.filter(|event| matches!(event, DataPathEvent::Denied { .. }));
        assert_eq!(denied.count(), 0);
    }
}

#[test]
fn a_path_below_the_least_of_ipv6_carries_tcp_all_the_same() {
    let (from, to) = families()[1];
    assert!(from.is_ipv6());
    let mut world = connected(&["tcp:443", "udp:443"]);
    let far = world.nodes[1].endpoint;
    world.loses = Box::new(move |(_, at, bytes)| *at == far && bytes.len() + 28 > 1200);
    let long = udp(from, to, &bytes(1420 - 48));
    flow(&mut world, &long, 6);
    assert!(world.drops(0, "too_big") > 0);
    // The sender is told the least that it heeds.
    world.received(0);
    world.send(0, &long);
    let told = &world.received(0)[0];
    let at = IpPacket::parse(told).unwrap().transport_at;
    assert_eq!(told[at + 4..at + 8], 1280_u32.to_be_bytes());
    // A retransmission of a flow that is open: one segment, longer than what passes.
    let packet = tcp(from, to, 1, TcpFlags::ACK, &bytes(1300));
    world.send_offloaded(0, &packet, offload(&packet, None));
    let received = world.received(1);
    assert_eq!(received.len(), 2);
    received.iter().for_each(|one| assert_sums(one));
    let header = transport_at(&packet) + 32;
    let payload: Vec<u8> = received
        .iter()
        .flat_map(|one| one[header..].to_vec())
        .collect();
    assert!(payload == bytes(1300));
}

#[test]
fn who_does_not_answer_makes_no_path_narrow() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let (from, to) = families()[0];
    let back = world.nodes[0].endpoint;
    // A path that carries nothing back: nothing can be concluded from silence.
    world.loses = Box::new(move |(_, at, _)| *at == back);
    let packet = udp(from, to, &bytes(1392));
    assert_eq!(flow(&mut world, &packet, 14), 56);
    assert_eq!(world.drops(0, "too_big"), 0);
}

#[test]
fn a_probe_is_never_a_piece_of_a_segmented_send() {
    let world = connected(&["tcp:443", "udp:443"]);
    let (from, to) = families()[0];
    let mut batch = Batch::new(64, 2048);
    for _ in 0..10 {
        assert!(batch.push(&samples::udp((from, 1000), (to, 443), &bytes(1392)), None));
    }
    let mut out = Outbox::new();
    world.nodes[0]
        .path
        .outbound(&mut batch, world.now, &mut out);
    let runs: Vec<_> = out.runs().map(|run| (run.count(), run.segment)).collect();
    assert_eq!(runs, [(10, 1452), (1, 1452), (1, 96)]);
}

#[test]
fn a_flow_that_waits_longer_and_longer_is_helped_by_time() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let (from, to) = families()[0];
    let packet = udp(from, to, &bytes(1392));
    assert_eq!(flow(&mut world, &packet, 1), 4, "the control");
    hole(&mut world);
    // Seconds between retransmissions.
    for pause in [1, 2, 4, 8, 16] {
        world.send(0, &packet);
        world.pass(Duration::from_secs(pause));
    }
    assert_eq!(world.drops(0, "too_big"), 0);
    world.send(0, &packet);
    assert_eq!(world.drops(0, "too_big"), 1);
    // The search is over, and nobody is looked at for it.
    world.pass(Duration::from_secs(900));
    assert_eq!(world.nodes[0].path.next_tick(), None);
}

#[test]
fn one_path_says_nothing_of_the_next() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let (from, to) = families()[0];
    // A flow that can be answered.
    world.send(0, &udp(from, to, &bytes(10)));
    assert_eq!(world.received(1).len(), 1);
    hole(&mut world);
    let packet = udp(from, to, &bytes(1392));
    flow(&mut world, &packet, 5);
    assert!(world.drops(0, "too_big") > 0);
    world.send(0, &packet);
    assert!(world.received(1).is_empty());
    // The peer is somewhere else now, and is heard from there.
    let elsewhere = "198.51.100.9:7".parse().unwrap();
    world.nodes[1].endpoint = elsewhere;
    let answer = samples::udp((to, 443), (from, 1000), &bytes(10));
    world.send(1, &answer);
    assert_eq!(world.received(0).last(), Some(&answer), "the control");
    world.send(0, &packet);
    assert_eq!(world.received(1).len(), 1);
}
