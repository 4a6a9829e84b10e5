//! Packets that are many in one: cut on the way out, joined on the way in, judged once.

use std::net::IpAddr;
use std::time::Duration;

use gatereeve_client_core::datapath::{Batch, Outbox};
use gatereeve_client_core::packet::ip::{TcpFlags, protocol};
use gatereeve_client_core::packet::offload::{ChecksumAt, Ecn, Offload, SegmentKind, SegmentsOf};
use gatereeve_client_core::packet::samples;
use proptest::prelude::*;

use crate::world::{World, v4, v6};

const IPV4: usize = 20;
const IPV6: usize = 40;

/// RFC 1071, pair by pair.
pub(crate) fn sum(pieces: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in pieces.concat().chunks(2) {
        sum += (u32::from(pair[0]) << 8) + u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

pub(crate) fn transport_at(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }
}

fn is_tcp(packet: &[u8]) -> bool {
    let at = if transport_at(packet) == IPV4 { 9 } else { 6 };
    packet[at] == protocol::TCP
}

pub(crate) fn header_len(packet: &[u8]) -> usize {
    let at = transport_at(packet);
    if is_tcp(packet) {
        at + usize::from(packet[at + 12] >> 4) * 4
    } else {
        at + 8
    }
}

/// The pseudo-header of TCP or UDP.
pub(crate) fn pseudo(packet: &[u8]) -> Vec<u8> {
    let at = transport_at(packet);
    let addresses = if at == IPV4 { 12..20 } else { 8..40 };
    let len = u32::try_from(packet.len() - at).unwrap();
    let kind = if is_tcp(packet) {
        protocol::TCP
    } else {
        protocol::UDP
    };
    let mut pseudo = packet[addresses].to_vec();
    pseudo.extend(len.to_be_bytes());
    pseudo.extend([0, 0, 0, kind]);
    pseudo
}

pub(crate) fn assert_sums(packet: &[u8]) {
    let at = transport_at(packet);
    if at == IPV4 {
        assert_eq!(sum(&[&packet[..IPV4]]), 0xffff, "IPv4 header");
    }
    assert_eq!(sum(&[&pseudo(packet), &packet[at..]]), 0xffff, "transport");
}

/// Without what joining and cutting may change: sums, and the identification of what is never a fragment.
fn essence(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = transport_at(&packet);
    if at == IPV4 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    let sum_at = at + if is_tcp(&packet) { 16 } else { 6 };
    packet[sum_at..sum_at + 2].fill(0);
    packet
}

/// As a host would cut it: a new packet for each piece of the payload.
fn cut(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (at, header) = (transport_at(packet), header_len(packet));
    let count = (packet.len() - header).div_ceil(size);
    let mut sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
    let pieces = packet[header..].chunks(size).enumerate();
    pieces
        .map(|(number, payload)| {
            let mut one = [&packet[..header], payload].concat();
            let len = u16::try_from(one.len()).unwrap();
            if at == IPV4 {
                one[2..4].copy_from_slice(&len.to_be_bytes());
            } else {
                one[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            }
            if is_tcp(packet) {
                one[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                if number + 1 < count {
                    one[at + 13] &= !(TcpFlags::FIN | TcpFlags::PSH);
                }
                if number > 0 {
                    one[at + 13] &= !TcpFlags::CWR;
                }
            } else {
                let len = u16::try_from(one.len() - at).unwrap();
                one[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
            }
            sequence = sequence.wrapping_add(u32::try_from(payload.len()).unwrap());
            one
        })
        .collect()
}

/// What is written joined is, cut again, what was delivered.
pub(crate) fn check_joined(out: &Outbox) {
    let mut expanded = Vec::new();
    for joined in out.joined() {
        let mut whole = joined.head.to_vec();
        joined.tails().for_each(|tail| whole.extend(tail));
        assert!(whole.len() <= 65_535);
        match joined.offload.checksum {
            None if joined.count() == 2 => {
                let first = joined.head.len() + joined.tails().next().unwrap().len();
                expanded.extend(cut_in_two(&whole, first));
            }
            None => expanded.push(whole),
            Some(at) => {
                let (start, offset) = (usize::from(at.start), usize::from(at.offset));
                assert_eq!(start, transport_at(&whole));
                let left = u16::from_be_bytes(
                    whole[start + offset..start + offset + 2]
                        .try_into()
                        .unwrap(),
                );
                assert_eq!(left, sum(&[&pseudo(&whole)]), "the pseudo-header is summed");
                let size = joined.offload.segments.map(|of| {
                    assert_eq!(usize::from(of.header), header_len(&whole));
                    usize::from(of.size)
                });
                expanded.extend(cut(&whole, size.unwrap_or(usize::MAX)));
            }
        }
    }
    let delivered: Vec<_> = out.deliveries().map(essence_or_same).collect();
    let expanded: Vec<_> = expanded.iter().map(|one| essence_or_same(one)).collect();
    assert_eq!(expanded, delivered);
}

/// The two fragments of a datagram, the first of `len` bytes.
fn cut_in_two(whole: &[u8], len: usize) -> [Vec<u8>; 2] {
    assert_eq!(sum(&[&whole[..IPV4]]), 0xffff, "the header's checksum");
    assert_eq!(
        whole[2..4],
        u16::try_from(whole.len()).unwrap().to_be_bytes()
    );
    let offset = u16::try_from((len - IPV4) / 8).unwrap();
    let last = [&whole[..IPV4], &whole[len..]].concat();
    [(whole[..len].to_vec(), 0x2000), (last, offset)].map(|(mut fragment, field)| {
        let total = u16::try_from(fragment.len()).unwrap();
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment[6..8].copy_from_slice(&field.to_be_bytes());
        put_checksum(&mut fragment);
        fragment
    })
}

fn put_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !sum(&[&packet[..IPV4]]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn essence_or_same(packet: &[u8]) -> Vec<u8> {
    let is_plain = match packet[0] {
        0x45 => packet[6] & 0x3f == 0 && packet[7] == 0,
        first => first >> 4 == 6,
    };
    let at = transport_at(packet);
    let protocol = packet[if at == IPV4 { 9 } else { 6 }];
    let has_header = match protocol {
        protocol::TCP => packet.len() >= at + 20,
        protocol::UDP => packet.len() >= at + 8,
        _ => false,
    };
    if is_plain && has_header {
        essence(packet)
    } else {
        packet.to_vec()
    }
}

/// A TCP packet with options and payload, its sum that of the pseudo-header.
pub(crate) fn tcp(from: IpAddr, to: IpAddr, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = [1000u16.to_be_bytes(), 443u16.to_be_bytes()].concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 9, 0x80, flags, 0x10, 0, 0, 0, 0, 0]);
    segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    segment.extend(payload);
    left_to_us(samples::ip(from, to, protocol::TCP, &segment), 16)
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    left_to_us(samples::udp((from, 1000), (to, 443), payload), 6)
}

fn left_to_us(mut packet: Vec<u8>, offset: usize) -> Vec<u8> {
    let at = transport_at(&packet) + offset;
    let partial = sum(&[&pseudo(&packet)]);
    packet[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    packet
}

pub(crate) fn offload(packet: &[u8], size: Option<usize>) -> Offload {
    let kind = match (is_tcp(packet), transport_at(packet)) {
        (true, IPV4) => SegmentKind::Tcp4,
        (true, _) => SegmentKind::Tcp6,
        (false, _) => SegmentKind::Udp,
    };
    Offload {
        checksum: Some(ChecksumAt {
            start: u16::try_from(transport_at(packet)).unwrap(),
            offset: if is_tcp(packet) { 16 } else { 6 },
        }),
        segments: size.map(|size| SegmentsOf {
            kind,
            header: u16::try_from(header_len(packet)).unwrap(),
            size: u16::try_from(size).unwrap(),
        }),
    }
}

pub(crate) fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from(n * 7 % 251).unwrap())
        .collect()
}

pub(crate) fn families() -> [(IpAddr, IpAddr); 2] {
    [(v4(0), v4(1)), (v6(0), v6(1))]
}

/// A pair whose tunnel is up.
pub(crate) fn connected(ports: &[&str]) -> World {
    let mut world = World::pair(ports);
    let opens = samples::tcp((v4(0), 1), (v4(1), 443), TcpFlags::SYN);
    world.send(0, &opens);
    assert_eq!(world.received(1).len(), 1);
    world.nodes[1].joined.clear();
    world
}

#[test]
fn a_super_packet_arrives_as_its_segments_and_is_written_as_one() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    for (from, to) in families() {
        let flags = TcpFlags::ACK | TcpFlags::PSH;
        for (packet, size) in [
            (tcp(from, to, u32::MAX - 5000, flags, &bytes(50_000)), 1348),
            (udp(from, to, &bytes(9_999)), 1200),
            (tcp(from, to, 1, flags, &bytes(1_341)), 1340),
            (tcp(from, to, 1, flags, &bytes(100)), 2),
        ] {
            world.send_offloaded(0, &packet, offload(&packet, Some(size)));
            let received = world.received(1);
            received.iter().for_each(|one| assert_sums(one));
            let essences: Vec<_> = received.iter().map(|one| essence(one)).collect();
            let expected: Vec<_> = cut(&packet, size).iter().map(|one| essence(one)).collect();
            assert!(essences == expected, "{} bytes in {size}", packet.len());
            assert_eq!(std::mem::take(&mut world.nodes[1].joined), [expected.len()]);
        }
    }
}

#[test]
fn identifications_of_segments_count_up() {
    let mut world = connected(&["tcp:443"]);
    let packet = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(3000));
    world.send_offloaded(0, &packet, offload(&packet, Some(1000)));
    let received = world.received(1);
    let ids: Vec<u8> = received.iter().map(|one| one[5]).collect();
    assert_eq!(ids, [0, 1, 2]);
}

#[test]
fn a_checksum_that_is_left_to_us_is_completed() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    for (from, to) in families() {
        for packet in [
            tcp(from, to, 1, TcpFlags::ACK, b"odd"),
            udp(from, to, b"even"),
        ] {
            world.send_offloaded(0, &packet, offload(&packet, None));
            let received = world.received(1);
            let [one] = &received[..] else {
                panic!("{received:?}");
            };
            assert_eq!(essence(one), essence(&packet));
            let at = transport_at(one);
            assert_eq!(sum(&[&pseudo(one), &one[at..]]), 0xffff);
        }
    }
}

#[test]
fn one_decision_denies_or_allows_all_of_it() {
    let mut world = connected(&["tcp:443"]);
    for (from, to) in families() {
        let denied = udp(from, to, &bytes(9_000));
        let before = world.drops(0, "no_rule");
        world.send_offloaded(0, &denied, offload(&denied, Some(1000)));
        assert!(world.received(1).is_empty());
        assert_eq!(world.drops(0, "no_rule"), before + 1);
        let allowed = tcp(from, to, 1, TcpFlags::ACK, &bytes(9_000));
        world.send_offloaded(0, &allowed, offload(&allowed, Some(1000)));
        assert_eq!(world.received(1).len(), 9);
    }
    // When the lease ends, super-packets do not pass either.
    world.pass(Duration::from_secs(2));
    world.peer(0, 1).egress.clear();
    world.publish(0);
    let packet = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(9_000));
    world.send_offloaded(0, &packet, offload(&packet, Some(1000)));
    assert!(world.received(1).is_empty());
}

#[test]
fn what_contradicts_its_header_is_dropped_whole() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let packet = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(5_000));
    let good = offload(&packet, Some(1000));
    let of = |kind, size| Offload {
        segments: good.segments.map(|of| SegmentsOf { kind, size, ..of }),
        ..good
    };
    let beyond = Offload {
        checksum: Some(ChecksumAt {
            start: 60_000,
            offset: 16,
        }),
        segments: None,
    };
    for bad in [
        of(SegmentKind::Tcp6, 1000),
        of(SegmentKind::Udp, 1000),
        of(SegmentKind::Tcp4, 0),
        beyond,
    ] {
        world.send_offloaded(0, &packet, bad);
        assert!(world.received(1).is_empty(), "{bad:?}");
    }
    let opens = tcp(v4(0), v4(1), 1, TcpFlags::SYN, &bytes(5_000));
    world.send_offloaded(0, &opens, good);
    assert!(world.received(1).is_empty());
    assert_eq!(world.drops(0, "malformed"), 5);
    world.send_offloaded(0, &packet, good);
    assert_eq!(world.received(1).len(), 5, "the control");
}

/// Whoever writes packets in this form on the host (a container, say) chooses where the checksum goes, and by two bytes of payload what it
/// is: what was judged as port 443 must not leave for another.
#[test]
fn a_checksum_makes_no_other_packet_of_what_was_judged() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let mut wrong = 0;
    for (from, to) in [(v4(0), v4(1)), (v6(0), v6(1))] {
        for packet in [
            udp(from, to, &bytes(100)),
            tcp(from, to, 1, TcpFlags::ACK, &bytes(100)),
        ] {
            let good = offload(&packet, None);
            let own = good.checksum.expect("one that is left to us");
            for offset in (0..own.start + 20).step_by(2) {
                let checksum = Some(ChecksumAt { start: 0, offset });
                world.send_offloaded(0, &packet, Offload { checksum, ..good });
                for received in world.received(1) {
                    let ports = transport_at(&packet)..transport_at(&packet) + 4;
                    assert_eq!(received[ports.clone()], packet[ports], "{offset}");
                }
            }
            for offset in [0, 2] {
                let checksum = Some(ChecksumAt { offset, ..own });
                world.send_offloaded(0, &packet, Offload { checksum, ..good });
                assert!(world.received(1).is_empty(), "{offset}");
                wrong += 1;
            }
            // Another place that says nothing to the filter: the payload, as of a tunnel.
            let offset = 40;
            for checksum in [own, ChecksumAt { offset, ..own }] {
                let checksum = Some(checksum);
                world.send_offloaded(0, &packet, Offload { checksum, ..good });
                assert_eq!(world.received(1).len(), 1, "the control");
            }
        }
    }
    assert!(world.drops(0, "malformed") >= wrong);
}

#[test]
fn what_would_be_cut_into_thousands_is_dropped() {
    let mut world = connected(&["tcp:443"]);
    let packet = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(4_096));
    for (size, segments) in [(1, 0), (2, 2048)] {
        world.send_offloaded(0, &packet, offload(&packet, Some(size)));
        assert_eq!(world.received(1).len(), segments, "{size}");
    }
    assert_eq!(world.drops(0, "malformed"), 1);
}

#[test]
fn what_waits_for_a_handshake_waits_in_pieces() {
    let mut world = World::pair(&["tcp:443"]);
    let packet = tcp(v4(0), v4(1), 1, TcpFlags::ACK, &bytes(5_000));
    world.send_offloaded(0, &packet, offload(&packet, Some(1000)));
    let received = world.received(1);
    assert_eq!(received.len(), 5);
    received.iter().for_each(|one| assert_sums(one));
}

/// The two fragments of a UDP datagram with `id`.
fn fragments(from: IpAddr, to: IpAddr, id: u8) -> [Vec<u8>; 2] {
    let mut first = samples::udp((from, 1000), (to, 443), &bytes(1368));
    let mut later = samples::ip(from, to, protocol::UDP, &bytes(24));
    for (packet, field) in [(&mut first, 0x2000u16), (&mut later, 1376 / 8)] {
        packet[5] = id;
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        put_checksum(packet);
    }
    [first, later]
}

#[test]
fn fragments_do_not_break_runs_nor_overtake_their_first() {
    let mut world = connected(&["udp:443", "tcp:443"]);
    // The first long packet has the path looked at.
    world.send(0, &samples::udp((v4(0), 1000), (v4(1), 443), &bytes(1300)));
    assert_eq!(world.received(1).len(), 1);
    let mut batch = Batch::new(64, 2048);
    for id in 0..10 {
        for fragment in fragments(v4(0), v4(1), id) {
            assert!(batch.push(&fragment, None));
        }
    }
    let mut out = Outbox::new();
    let (path, now) = (&world.nodes[0].path, world.now);
    path.outbound(&mut batch, now, &mut out);
    let runs: Vec<usize> = out.runs().map(|run| run.count()).collect();
    assert_eq!(runs, [10, 10], "two runs, not twenty");
    let datagrams: Vec<_> = out.transmits().map(|(_, bytes)| bytes.to_vec()).collect();
    let from = world.nodes[0].endpoint;
    world.nodes[1].joined.clear();
    world.arrive_together(1, from, &datagrams, Ecn::NOT_ECT);
    let received = world.received(1);
    assert_eq!(received.len(), 20);
    for id in 0..10 {
        let [first, later] = fragments(v4(0), v4(1), id);
        let at = |packet: &Vec<u8>| received.iter().position(|one| one == packet);
        assert!(at(&first).is_some() && at(&first) < at(&later));
    }
    assert_eq!(world.drops(1, "fragment_without_verdict"), 0);
    assert_eq!(std::mem::take(&mut world.nodes[1].joined), [2; 10], "whole");
    // Without its first one, of three, and with one of another batch they are written as they came.
    let [first, later] = fragments(v4(0), v4(1), 99);
    let mut middle = later.clone();
    middle[6] |= 0x20;
    let mut end = later;
    end[6..8].copy_from_slice(&(1400 / 8_u16).to_be_bytes());
    put_checksum(&mut middle);
    put_checksum(&mut end);
    for together in [vec![&first, &middle, &end], vec![&first], vec![&end]] {
        let packets: Vec<_> = together.into_iter().cloned().collect();
        let datagrams = on_the_wire(&mut world, &packets);
        world.arrive_together(1, from, &datagrams, Ecn::NOT_ECT);
        assert_eq!(world.received(1), packets);
        let written = std::mem::take(&mut world.nodes[1].joined);
        assert_eq!(written, vec![1; packets.len()]);
    }
}

#[test]
fn a_fragment_whose_first_was_in_another_batch_does_not_wait() {
    let world = connected(&["udp:443", "tcp:443"]);
    let mut later_than_first = Batch::new(64, 2048);
    let [first, _] = fragments(v4(0), v4(1), 0);
    let mut single = Batch::new(1, 2048);
    assert!(single.push(&first, None));
    let [_, later] = fragments(v4(0), v4(1), 0);
    assert!(later_than_first.push(&later, None));
    for id in 1..10 {
        for fragment in fragments(v4(0), v4(1), id) {
            assert!(later_than_first.push(&fragment, None));
        }
    }
    let mut out = Outbox::new();
    let (path, now) = (&world.nodes[0].path, world.now);
    path.outbound(&mut single, now, &mut out);
    out.clear();
    path.outbound(&mut later_than_first, now, &mut out);
    let runs: Vec<usize> = out.runs().map(|run| run.count()).collect();
    assert_eq!(runs, [1, 9, 9]);
    let short = out.transmits().next().map(|(_, bytes)| bytes.len());
    assert!(short.unwrap() < 200, "the later fragment is out first");
}

/// Datagrams that `node` 0 has sent for packets that node 1 is to receive in one batch.
fn on_the_wire(world: &mut World, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().for_each(|packet| world.send_held(0, packet));
    let wire = world.take_wire();
    wire.into_iter().map(|(_, _, datagram)| datagram).collect()
}

#[test]
fn congestion_is_told_to_those_who_understand() {
    let mut world = connected(&["tcp:443", "udp:443"]);
    let from = world.nodes[0].endpoint;
    for (a, b) in families() {
        for (inner, outer, delivered) in [
            (0, 0, Some(0)),
            (0, 3, None),
            (1, 3, Some(3)),
            (2, 3, Some(3)),
            (3, 3, Some(3)),
            (2, 0, Some(2)),
            (3, 0, Some(3)),
        ] {
            let mut packet = udp(a, b, b"payload");
            if a.is_ipv4() {
                packet[1] |= inner;
            } else {
                packet[1] |= inner << 4;
            }
            let datagrams = on_the_wire(&mut world, &[packet]);
            world.arrive_together(1, from, &datagrams, Ecn::new(outer));
            let received = world.received(1);
            let bits = received.first().map(|one| {
                if a.is_ipv4() {
                    assert!(outer != 3 || inner == 3 || sum(&[&one[..IPV4]]) == 0xffff);
                    one[1] & 3
                } else {
                    one[1] >> 4 & 3
                }
            });
            assert_eq!(bits, delivered, "inner {inner}, outer {outer}");
        }
    }
    assert_eq!(world.drops(1, "congestion"), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever two flows send, in whatever order: joined and cut again it is what was delivered
    /// (`check_joined`, on every batch), and what was sent.
    #[test]
    fn joining_loses_and_changes_nothing(
        steps in proptest::collection::vec((0u8..8, 1usize..300, any::<bool>()), 1..70),
        is_v4: bool,
    ) {
        let mut world = connected(&["tcp:443", "udp:443"]);
        let (from, to) = if is_v4 { (v4(0), v4(1)) } else { (v6(0), v6(1)) };
        let mut sequence = 1u32;
        let mut packets = Vec::new();
        for (kind, len, full) in steps {
            let len = if full { 300 } else { len };
            let next = sequence.wrapping_add(u32::try_from(len).unwrap());
            let flags = if kind == 3 { TcpFlags::ACK | TcpFlags::PSH } else { TcpFlags::ACK };
            let mut packet = match kind {
                0..=3 => tcp(from, to, sequence, flags, &bytes(len)),
                4 => tcp(from, to, sequence.wrapping_add(1), flags, &bytes(len)),
                5 => tcp(from, to, sequence, flags, b""),
                _ => udp(from, to, &bytes(len)),
            };
            if kind == 7 {
                // Another port.
                let at = transport_at(&packet);
                packet[at + 1] ^= 1;
            }
            if kind < 4 {
                sequence = next;
            }
            packets.push(packet);
        }
        let datagrams = on_the_wire(&mut world, &packets);
        let endpoint = world.nodes[0].endpoint;
        world.arrive_together(1, endpoint, &datagrams, Ecn::NOT_ECT);
        prop_assert_eq!(world.received(1), packets);
    }
}
