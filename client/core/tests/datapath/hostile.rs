//! Peers that do not keep to the rules.

use gatereeve_client_core::packet::ip::{TcpFlags, protocol};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::contract::permit;
use gatereeve_client_core::wg::{NoiseTunnels, Tunnel, TunnelFactory as _};

use crate::world::{FOREVER, World, addresses, endpoint, secret, v4, v6};

/// 0 is the victim; 1 and 2 may each reach it.
fn three() -> World {
    let mut world = World::new(3);
    world.allow(1, 0, &["*"], FOREVER);
    world.allow(2, 0, &["udp:53"], FOREVER);
    world.allow(0, 2, &["tcp:443"], FOREVER);
    world
}

#[test]
fn a_peer_speaks_for_no_other() {
    let mut world = three();
    world.send(1, &samples::udp((v4(1), 9), (v4(0), 53), b"x"));
    world.send(1, &samples::udp((v6(1), 9), (v6(0), 53), b"x"));
    assert_eq!(world.received(0).len(), 2, "control");
    // Device 1 takes itself for device 2.
    world.nodes[1].spec.own = Some(addresses(2));
    world.publish(1);
    world.send(1, &samples::udp((v4(2), 9), (v4(0), 53), b"x"));
    world.send(1, &samples::udp((v6(2), 9), (v6(0), 53), b"x"));
    assert!(world.received(0).is_empty());
    assert_eq!(world.drops(0, "spoofed_source"), 2);
    // Nor for nobody.
    world.nodes[1].spec.own = Some(addresses(77));
    world.publish(1);
    world.send(1, &samples::udp((v4(77), 9), (v4(0), 53), b"x"));
    assert_eq!(world.drops(0, "spoofed_source"), 3);
}

#[test]
fn nothing_is_forwarded() {
    let mut world = three();
    // Device 1 holds device 0's key and believes that it owns 2's addresses.
    world.peer(1, 0).addresses = addresses(2);
    world.publish(1);
    world.send(1, &samples::udp((v4(1), 9), (v4(2), 53), b"x"));
    assert!(world.received(0).is_empty());
    assert!(world.received(2).is_empty());
    assert_eq!(world.drops(0, "not_for_us"), 1);
}

#[test]
fn a_host_sends_from_its_own_address_only() {
    let mut world = three();
    world.send(1, &samples::udp((v4(2), 9), (v4(0), 53), b"x"));
    world.send(
        1,
        &samples::udp(("192.0.2.9".parse().unwrap(), 9), (v4(0), 53), b"x"),
    );
    assert_eq!(world.drops(1, "not_from_us"), 2);
    assert!(world.seen.is_empty());
}

#[test]
fn one_peers_flow_serves_no_other() {
    let mut world = three();
    let syn = samples::tcp((v4(0), 1000), (v4(2), 443), TcpFlags::SYN);
    let reply = samples::tcp((v4(2), 443), (v4(0), 1000), TcpFlags::SYN | TcpFlags::ACK);
    world.send(0, &syn);
    world.send(2, &reply);
    assert_eq!(world.received(0), std::slice::from_ref(&reply), "control");
    // The same packet, through device 1's own tunnel.
    world.nodes[1].spec.own = Some(addresses(2));
    world.publish(1);
    world.send(1, &reply);
    let reset = samples::tcp((v4(2), 443), (v4(0), 1000), TcpFlags::RST);
    world.send(1, &reset);
    assert!(world.received(0).is_empty());
    world.send(2, &samples::tcp((v4(2), 443), (v4(0), 1000), TcpFlags::ACK));
    assert_eq!(world.received(0).len(), 1, "the flow lives on");
}

#[test]
fn icmp_errors_pass_about_the_same_peers_flows_only() {
    let mut world = three();
    for (zero, one, two) in [(v4(0), v4(1), v4(2)), (v6(0), v6(1), v6(2))] {
        let query = samples::udp((two, 9), (zero, 53), b"query");
        world.send(2, &query);
        assert_eq!(world.received(0).len(), 1);
        // 0 says that nobody listens.
        world.send(0, &samples::port_unreachable(zero, two, &query));
        assert_eq!(world.received(2).len(), 1, "control");

        let syn = samples::tcp((zero, 1000), (two, 443), TcpFlags::SYN);
        world.send(0, &syn);
        world.received(2);
        world.send(2, &samples::port_unreachable(two, zero, &syn));
        assert_eq!(world.received(0).len(), 1, "control");
        // About another's flow, about none, about the wrong way round.
        let other = samples::tcp((zero, 1001), (two, 443), TcpFlags::SYN);
        world.send(1, &samples::port_unreachable(one, zero, &syn));
        world.send(2, &samples::port_unreachable(two, zero, &other));
        world.send(
            2,
            &samples::port_unreachable(
                two,
                zero,
                &samples::tcp((two, 443), (zero, 1000), TcpFlags::ACK),
            ),
        );
        assert!(world.received(0).is_empty());
    }
}

#[test]
fn neighbour_discovery_and_redirects_never_pass() {
    let mut world = three();
    for kind in [133, 134, 135, 136, 137, 130, 143] {
        let mut body = vec![0; 24];
        body[0] = kind;
        world.send(1, &samples::ip(v6(1), v6(0), protocol::ICMPV6, &body));
    }
    for kind in [5, 9, 10] {
        let mut body = vec![0; 24];
        body[0] = kind;
        world.send(1, &samples::ip(v4(1), v4(0), protocol::ICMP, &body));
    }
    assert_eq!(world.drops(1, "control_icmp"), 10);
    assert!(world.seen.is_empty());
    world.send(1, &samples::echo(v6(1), v6(0), 1, true));
    assert_eq!(world.received(0).len(), 1, "control");
}

#[test]
fn a_replayed_datagram_is_delivered_once() {
    let mut world = three();
    world.send(1, &samples::udp((v4(1), 9), (v4(0), 53), b"first"));
    world.received(0);
    world.send_held(1, &samples::udp((v4(1), 9), (v4(0), 53), b"again"));
    let (_, _, datagram) = world.take_wire().remove(0);
    for _ in 0..100 {
        world.arrive(0, endpoint(1), &datagram);
    }
    assert_eq!(world.received(0).len(), 1);
    assert_eq!(world.drops(0, "crypto"), 99);
}

#[test]
fn fragments_follow_their_first() {
    let mut world = World::pair(&["udp:53"]);
    for (addresses, id) in [((v4(0), v4(1)), 5), ((v6(0), v6(1)), 6)] {
        let part = |port: u16, id: u16, units: u16, more: bool| {
            let datagram = samples::udp((addresses.0, 9), (addresses.1, port), &[1; 24]);
            let body = &datagram[datagram.len() - 32..];
            let body = if units == 0 { body } else { &[2; 16] };
            samples::fragment(addresses, protocol::UDP, id, units, more, body)
        };
        world.send(0, &part(53, id, 4, false));
        assert!(world.received(1).is_empty(), "before the first");
        world.send(0, &part(53, id, 0, true));
        world.send(0, &part(53, id, 4, false));
        assert_eq!(world.received(1).len(), 2);
        world.send(0, &part(53, id, 1, true));
        assert!(world.received(1).is_empty(), "overlaps the first");
        world.send(0, &part(53, id, 4, false));
        assert!(world.received(1).is_empty(), "and spoils the datagram");
        world.send(0, &part(54, id + 10, 0, true));
        world.send(0, &part(54, id + 10, 4, false));
        assert!(world.received(1).is_empty(), "denied");
    }
    assert_eq!(world.drops(0, "bad_fragment"), 2);
    assert_eq!(world.drops(0, "fragment_without_verdict"), 6);
}

/// A session of device 1 with device 0, by a program of its own.
fn own_tunnel(world: &mut World) -> Box<dyn Tunnel> {
    let victim = secret(0, 1).public();
    let mut tunnel = NoiseTunnels
        .create(&secret(1, 1), &victim, 9, world.now)
        .unwrap();
    let mut out = [0; 148];
    let len = tunnel.initiate(world.now, &mut out).unwrap();
    world.arrive(0, endpoint(1), &out[..len]);
    let (_, _, mut response) = world.take_wire().pop().unwrap();
    let opened = tunnel.decapsulate(endpoint(0), &mut response, world.now, &mut out);
    assert!(opened.is_ok(), "{opened:?}");
    tunnel
}

/// What is in an authentic message is no packet, or not as long as it says.
#[test]
fn junk_from_a_peer_goes_nowhere() {
    let good = samples::udp((v4(1), 9), (v4(0), 53), b"x");
    let too_long = |by: u8| {
        let mut packet = good.clone();
        packet[3] += by;
        packet
    };
    let junk = [
        vec![0xff; 40],
        vec![0x45],
        vec![0x60; 39],
        vec![0; 64],
        good[..16].to_vec(),
        // Longer than all of it, padding included.
        too_long(4),
        too_long(200),
    ];
    // As the first message of a session, and later.
    for begins_with_junk in [true, false] {
        let mut world = three();
        let mut tunnel = own_tunnel(&mut world);
        let mut arrive = |world: &mut World, packet: &[u8]| {
            let mut out = [0; 2048];
            let permit = permit(&good);
            let len = tunnel.encapsulate(&permit, packet, world.now, &mut out);
            world.arrive(0, endpoint(1), &out[..len.unwrap()]);
        };
        if !begins_with_junk {
            arrive(&mut world, &good);
            assert_eq!(world.received(0).len(), 1, "control");
        }
        for (number, junk) in (1..).zip(&junk) {
            arrive(&mut world, junk);
            assert!(world.received(0).is_empty(), "{junk:?}");
            assert_eq!(world.drops(0, "malformed"), number, "{junk:?}");
        }
        arrive(&mut world, &good);
        assert_eq!(world.received(0), std::slice::from_ref(&good), "control");
    }
}
