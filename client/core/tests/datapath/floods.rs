//! Floods of handshake messages: bounded in what they cost, and nobody is kept out by one in their name.

use std::net::SocketAddr;
use std::time::Duration;

use blake2::digest::Mac as _;
use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{NoiseTunnels, TunnelFactory};

use crate::world::{FOREVER, World, endpoint, secret, v4};

fn query() -> Vec<u8> {
    samples::udp((v4(0), 9), (v4(1), 53), b"query")
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_others_get_through() {
    let mut world = World::pair(&["udp:53"]);
    let ours = secret(1, 1);
    let mut stranger = NoiseTunnels
        .create(&secret(9, 1), &ours.public(), 5, world.now)
        .unwrap();
    let flooder: SocketAddr = "203.0.113.66:1".parse().unwrap();
    let before = world.seen.len();
    for _ in 0..500 {
        let mut out = [0; 148];
        stranger.initiate(world.now, &mut out).unwrap();
        world.arrive(1, flooder, &out);
    }
    assert_eq!(world.drops(1, "unknown_key"), 5);
    assert_eq!(world.drops(1, "under_load"), 495);
    let told = world.seen.split_off(before);
    assert!(
        told.iter().all(|(_, _, bytes)| bytes[0] == 3),
        "to prove it"
    );
    // With the proof it has as many once more, and then no answer.
    let (_, _, mut cookie) = told.last().unwrap().clone();
    stranger
        .decapsulate(endpoint(1), &mut cookie, world.now, &mut [0; 256])
        .unwrap();
    for _ in 0..400 {
        let mut out = [0; 148];
        stranger.initiate(world.now, &mut out).unwrap();
        world.arrive(1, flooder, &out);
    }
    assert_eq!(world.seen.len(), before);
    assert_eq!(world.drops(1, "unknown_key"), 10);
    assert_eq!(world.drops(1, "handshake_rate"), 395);
    world.take_wire();
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
}

/// Initiations of somebody who knows the second one's key.
fn forged(world: &World, count: usize) -> Vec<Vec<u8>> {
    let mut stranger = NoiseTunnels
        .create(&secret(9, 1), &secret(1, 1).public(), 5, world.now)
        .unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut out = vec![0; 148];
        stranger.initiate(world.now, &mut out).unwrap();
        all.push(out);
    }
    all
}

#[test]
fn neighbours_who_have_proved_to_be_there_do_not_keep_a_peer_out() {
    let mut world = World::pair(&["udp:53"]);
    let ours = secret(1, 1).public();
    // More than their /24 may cost, which is the peer's as well.
    let mut neighbours: Vec<_> = (100..160_u8)
        .map(|n| {
            let stranger = NoiseTunnels.create(&secret(9, 1), &ours, 5, world.now);
            (SocketAddr::from(([192, 0, 2, n], 1)), stranger.unwrap())
        })
        .collect();
    let mut flood = |world: &mut World| {
        // So that everybody has to prove it.
        for (n, message) in (0_u32..).zip(forged(world, 1_100)) {
            let from = std::net::Ipv4Addr::from(0x0b00_0000 + n);
            world.arrive(1, SocketAddr::from((from, 1)), &message);
        }
        for (from, stranger) in &mut neighbours {
            for _ in 0..8 {
                let mut out = [0; 148];
                stranger.initiate(world.now, &mut out).unwrap();
                let before = world.seen.len();
                world.arrive(1, *from, &out);
                if let Some((_, _, mut cookie)) = world.seen.get(before).cloned() {
                    let opened =
                        stranger.decapsulate(endpoint(1), &mut cookie, world.now, &mut [0; 256]);
                    assert!(opened.is_ok());
                }
            }
        }
        world.take_wire();
    };
    flood(&mut world);
    assert!(world.drops(1, "handshake_rate") > 200, "control");
    world.send(0, &query());
    assert_eq!(
        world.received(1),
        [] as [Vec<u8>; 0],
        "it was asked to prove it"
    );
    world.now = world.now.saturating_add(Duration::from_millis(5_400));
    flood(&mut world);
    world.tick(0);
    world.settle();
    assert_eq!(world.received(1), [query()]);
}

/// What somebody sends in a peer's name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flood {
    /// Initiations of their own.
    Forged,
    /// The same, and more than are worked off, from elsewhere.
    ForgedByMany,
    /// One that the peer has sent.
    Replayed,
    /// Cookies that nobody has asked for.
    Cookies,
}

#[test]
fn a_flood_in_a_peers_name_keeps_the_peer_out_of_nothing() {
    let kinds = [
        Flood::Forged,
        Flood::ForgedByMany,
        Flood::Replayed,
        Flood::Cookies,
    ];
    for kind in kinds {
        for begins in [0, 1] {
            let mut world = World::pair(&["udp:53"]);
            world.allow(1, 0, &["udp:53"], FOREVER);
            world.send(0, &query());
            let (_, _, initiation) = world.seen[0].clone();
            let (_, _, data) = world.seen.last().unwrap().clone();
            world.pass(Duration::from_secs(200));
            let flood = match kind {
                Flood::Forged => forged(&world, 700),
                Flood::ForgedByMany => forged(&world, 9_000),
                Flood::Replayed => vec![initiation; 700],
                Flood::Cookies => {
                    // For an index that was on the wire.
                    let mut cookie = vec![0xa5; 64];
                    cookie[..4].copy_from_slice(&[3, 0, 0, 0]);
                    cookie[4..8].copy_from_slice(&data[4..8]);
                    vec![cookie; 700]
                }
            };
            let mut flood = flood.iter();
            let mut elsewhere = 0_u32;
            let mut arrive = |world: &mut World, count| {
                for message in flood.by_ref().take(count) {
                    world.arrive(1, endpoint(0), message);
                }
                if kind == Flood::ForgedByMany {
                    for message in flood.by_ref().take(12) {
                        elsewhere += 1;
                        let from = std::net::Ipv4Addr::from(0x0b00_0000 + elsewhere % 2_000);
                        world.arrive(1, SocketAddr::from((from, 1)), message);
                    }
                }
                world.settle();
            };
            arrive(&mut world, 50);
            let (from, to) = (begins, 1 - begins);
            let packet = samples::udp((v4(from), 9), (v4(to), 53), b"again");
            world.send(from, &packet);
            for _ in 0..620 {
                arrive(&mut world, 1);
                world.now = world.now.saturating_add(Duration::from_millis(10));
                world.tick(from);
                world.settle();
            }
            // It may take a proof, which the second attempt has.
            let received = world.received(to);
            assert_eq!(received.last(), Some(&packet), "{kind:?} {begins}");
            let asked = world.drops(1, "under_load");
            let floods = [Flood::Forged, Flood::ForgedByMany].contains(&kind);
            assert_eq!(asked > 0, floods, "{kind:?} {asked}");
            if kind == Flood::ForgedByMany {
                let worked_off = world.drops(1, "unknown_key");
                assert!((6_000..7_300).contains(&worked_off), "{worked_off}");
            }
        }
    }
}

#[test]
fn a_peer_may_begin_so_many_handshakes_and_no_more_wherever_it_is() {
    let mut world = World::pair(&["udp:53"]);
    let ours = secret(1, 1).public();
    let mut itself = NoiseTunnels
        .create(&secret(0, 1), &ours, 5, world.now)
        .unwrap();
    for source in 0..200_u8 {
        let from = SocketAddr::from(([198, 51, 100, source], 1));
        let mut out = [0; 148];
        itself.initiate(world.now, &mut out).unwrap();
        world.arrive(1, from, &out);
    }
    assert_eq!(world.sent_of_type(2), 50);
    assert_eq!(world.drops(1, "handshake_rate"), 150);
}

/// An initiation for the second one that was changed, with the first MAC right again: for it no secret is needed.
fn signed_again(mut initiation: Vec<u8>) -> Vec<u8> {
    let ours = secret(1, 1).public();
    let key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(ours.0)
        .finalize();
    let (message, macs) = initiation.split_at_mut(116);
    let mac = Blake2sMac::<U16>::new_from_slice(&key).unwrap();
    let mac = mac.chain_update(message).finalize().into_bytes();
    macs[..16].copy_from_slice(&mac);
    initiation
}

#[test]
fn what_names_a_peer_without_being_it_costs_the_peer_nothing() {
    let mut world = World::pair(&["udp:53"]);
    world.send_held(0, &query());
    let (_, _, mut initiation) = world.take_wire().remove(0);
    // Whom it is from can be read, but what only the peer can have made is wrong. Each from elsewhere.
    initiation[100] ^= 1;
    for source in 0..200_u8 {
        let from = SocketAddr::from(([198, 51, 100, source], 1));
        let mut message = initiation.clone();
        message[101] = source;
        world.arrive(1, from, &signed_again(message));
    }
    assert_eq!(world.drops(1, "crypto"), 200);
    assert_eq!(world.drops(1, "handshake_rate"), 0);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn who_does_not_know_the_key_keeps_no_peer_out() {
    let mut world = World::pair(&["udp:53"]);
    // Handshake messages in the peer's name, from somebody who can forge its address.
    let mut initiation = vec![0xa5; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    let mut response = vec![0xa5; 92];
    response[..4].copy_from_slice(&[2, 0, 0, 0]);
    for number in 0..500_u16 {
        // Each is another one: what came before costs nothing anyway.
        initiation[20..22].copy_from_slice(&number.to_le_bytes());
        response[20..22].copy_from_slice(&number.to_le_bytes());
        world.arrive(1, endpoint(0), &initiation);
        world.arrive(1, endpoint(0), &response);
    }
    assert_eq!(world.drops(1, "handshake_rate"), 0);
    assert_eq!(world.drops(1, "under_load"), 0);
    world.send(0, &query());
    assert_eq!(world.received(1), [query()]);
}

#[test]
fn answers_of_who_does_not_know_the_key_keep_none_out() {
    let mut world = World::pair(&["udp:53"]);
    world.send_held(0, &query());
    let (_, _, initiation) = world.take_wire().remove(0);
    // For the index that is waited for, which was on the wire.
    let mut forged = vec![0xa5; 92];
    forged[..4].copy_from_slice(&[2, 0, 0, 0]);
    forged[8..12].copy_from_slice(&initiation[4..8]);
    for number in 0..500_u16 {
        forged[20..22].copy_from_slice(&number.to_le_bytes());
        world.arrive(0, endpoint(1), &forged);
    }
    assert_eq!(world.drops(0, "unknown_key"), 500);
    world.arrive(1, endpoint(0), &initiation);
    world.settle();
    assert_eq!(world.received(1), [query()], "at the first attempt");
}

#[test]
fn what_was_asked_for_a_proof_is_not_held_to_have_come() {
    let mut world = World::pair(&["udp:53"]);
    let spent: SocketAddr = "203.0.113.66:1".parse().unwrap();
    for message in forged(&world, 5) {
        world.arrive(1, spent, &message);
    }
    world.send_held(0, &query());
    let (_, _, initiation) = world.take_wire().remove(0);
    world.arrive(1, spent, &initiation);
    assert_eq!(world.drops(1, "under_load"), 1);
    // The same over another path.
    world.arrive(1, endpoint(0), &initiation);
    assert_eq!(world.drops(1, "repeated_handshake"), 0);
    assert_eq!(world.sent_of_type(2), 1);
}

#[test]
fn under_load_a_sender_proves_its_address_first() {
    let mut world = World::pair(&["udp:53"]);
    for (number, message) in forged(&world, 1_200).iter().enumerate() {
        let source = u8::try_from(number / 5).unwrap();
        let from = SocketAddr::from(([198, 51, 100, source], 1));
        world.arrive(1, from, message);
    }
    assert_eq!(world.drops(1, "unknown_key"), 1_000);
    assert_eq!(world.drops(1, "under_load"), 200);
    assert!(
        world
            .take_wire()
            .iter()
            .all(|(_, _, bytes)| bytes.len() == 64)
    );
    world.send(0, &query());
    assert_eq!(world.drops(1, "under_load"), 201);
    assert!(world.received(1).is_empty());
    let learned = world.nodes[0].path.peer_stats()[0].endpoint;
    assert_eq!(learned, None, "a cookie proves nothing");
    world.pass(Duration::from_secs(6));
    assert_eq!(world.received(1), [query()], "with the cookie it gets in");
}

#[test]
fn an_answer_that_is_replayed_costs_nobody_anything() {
    let mut world = World::pair(&["udp:53"]);
    world.allow(1, 0, &["udp:53"], FOREVER);
    world.send_held(0, &query());
    let (_, _, initiation) = world.take_wire().remove(0);
    world.arrive(1, endpoint(0), &initiation);
    let (_, _, answer) = world.take_wire().remove(0);
    assert_eq!(answer[0], 2);
    // While it is waited for, and when nothing is.
    for _ in 0..100 {
        world.arrive(0, endpoint(1), &answer);
    }
    world.settle();
    for _ in 0..100 {
        world.arrive(0, endpoint(1), &answer);
    }
    assert_eq!(world.received(1), [query()], "the first was good");
    let repeats = world.drops(0, "repeated_handshake");
    assert_eq!(repeats + world.drops(0, "crypto"), 199);
    let spent =
        |world: &World| ["under_load", "handshake_rate"].map(|reason| world.drops(0, reason));
    assert_eq!(spent(&world), [0, 0]);
    // Also when so many others have come since that nobody remembers it.
    let mut stranger = NoiseTunnels
        .create(&secret(9, 1), &secret(0, 1).public(), 5, world.now)
        .unwrap();
    for source in 0..100_u8 {
        let mut other = [0; 148];
        stranger.initiate(world.now, &mut other).unwrap();
        world.arrive(0, SocketAddr::from(([198, 51, 100, source], 1)), &other);
    }
    assert_eq!(world.drops(0, "unknown_key"), 100, "the control");
    for _ in 0..100 {
        world.arrive(0, endpoint(1), &answer);
    }
    assert_eq!(world.drops(0, "repeated_handshake"), repeats);
    assert_eq!(spent(&world), [0, 0]);
}
