//! A peer whose keys or addresses do not hold up is left out, alone, and said so.

use std::net::SocketAddr;

use gatereeve_client_core::datapath::DataPathEvent;
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::limits;
use gatereeve_shared::wire::controller::Standing;
use gatereeve_shared::wire::map::PeerEntry;

use crate::support::*;

/// A world in which the second of two peers is bad, and a control that the first is not.
fn left_out(bad: PeerEntry) -> String {
    let mut world = World::synced(vec![peer(2, at(60)), bad]);
    assert_eq!(world.peers(), ids(&[2]));
    let warnings = world.warnings();
    assert!(warnings.contains("left out"), "{warnings}");
    // Mended, it comes back.
    world.map(delta(1, 2, &[], vec![peer(3, at(60))]));
    assert_eq!(world.peers(), ids(&[2, 3]));
    assert!(world.warnings().is_empty());
    warnings
}

#[test]
fn a_key_that_the_device_has_not_signed_for_this_network() {
    let elsewhere = Fingerprint::of(&identity(50).public());
    let other = KeyBinding::sign(&identity(3), &elsewhere, wg(3, 1).public(), 1);
    let mut changed = binding(3, 1);
    changed.wg_key = wg(99, 1).public();
    for key in [other, changed] {
        assert!(
            left_out(PeerEntry {
                key,
                ..peer(3, at(60))
            })
            .contains("not signed")
        );
    }
}

#[test]
fn a_key_signed_by_somebody_else() {
    let key = KeyBinding::sign(&identity(4), &pin(), wg(3, 1).public(), 1);
    assert!(
        left_out(PeerEntry {
            key,
            ..peer(3, at(60))
        })
        .contains("another device")
    );
}

#[test]
fn a_next_key_must_be_good_and_newer() {
    let next = |next_key| PeerEntry {
        key: binding(3, 1),
        next_key: Some(next_key),
        ..peer(3, at(60))
    };
    assert!(left_out(next(binding(3, 1))).contains("does not follow"));
    assert!(left_out(next(binding(4, 2))).contains("another device"));
    let world = World::synced(vec![next(binding(3, 2))]);
    let keys: Vec<u64> = world.table.peers[0].keys.iter().map(|k| k.0).collect();
    assert_eq!(keys, [1, 2]);
}

#[test]
fn a_weak_key_even_if_signed() {
    let weak = KeyBinding::sign(&identity(3), &pin(), WgPublicKey([0; 32]), 1);
    assert!(
        left_out(PeerEntry {
            key: weak,
            ..peer(3, at(60))
        })
        .contains("weak")
    );
}

#[test]
fn an_older_key_does_not_come_back_not_even_over_restarts() {
    let with = |counter| PeerEntry {
        key: binding(3, counter),
        ..peer(3, at(600))
    };
    let mut world = World::synced(vec![with(5)]);
    world.map(delta(1, 2, &[], vec![with(6)]));
    assert_eq!(world.peers(), ids(&[3]));
    world.map(delta(2, 3, &[], vec![with(5)]));
    assert!(world.peers().is_empty() && world.warnings().contains("older"));
    // Leaving and coming back does not help, nor does a restart.
    world.map(delta(3, 4, &[3], vec![]));
    let mut again = World::restored(world.saved.clone(), at(5));
    again.up();
    again.connected(Standing::Approved);
    again.map(whole(5, vec![with(5)]));
    assert!(again.peers().is_empty());
    again.map(delta(5, 6, &[], vec![with(6)]));
    assert_eq!(again.peers(), ids(&[3]));
    // The same counter with another key is another's.
    let other = KeyBinding::sign(&identity(3), &pin(), wg(42, 6).public(), 6);
    again.map(delta(
        6,
        7,
        &[],
        vec![PeerEntry {
            key: other,
            ..with(6)
        }],
    ));
    assert!(again.peers().is_empty());
}

#[test]
fn two_that_claim_one_key_or_address_the_incumbent_keeps_it() {
    let stolen = KeyBinding::sign(&identity(3), &pin(), wg(2, 1).public(), 1);
    let thief = PeerEntry {
        key: stolen,
        ..peer(3, at(60))
    };
    let mut world = World::synced(vec![peer(2, at(60)), peer(4, at(60))]);
    world.map(delta(1, 2, &[], vec![thief.clone()]));
    assert_eq!(world.peers(), ids(&[2, 4]));
    assert!(world.warnings().contains("peer-3 is left out"));
    // Both new: nobody can tell, so neither gets it.
    let world = World::synced(vec![peer(2, at(60)), thief, peer(4, at(60))]);
    assert_eq!(world.peers(), ids(&[4]));

    let squatter = PeerEntry {
        addresses: addresses(2),
        ..peer(3, at(60))
    };
    let world = World::synced(vec![peer(2, at(60)), squatter, peer(4, at(60))]);
    assert_eq!(world.peers(), ids(&[4]));
}

#[test]
fn this_devices_own_key_and_addresses_are_taken() {
    let world = World::synced(vec![]);
    let own = world.table.local_keys[0].secret.public();
    let mine = KeyBinding::sign(&identity(3), &pin(), own, 1);
    let mut world = World::synced(vec![PeerEntry {
        key: mine,
        ..peer(3, at(60))
    }]);
    assert!(world.peers().is_empty());
    let better = PeerEntry {
        key: binding(3, 2),
        ..peer(3, at(60))
    };
    world.map(delta(1, 2, &[], vec![better]));
    assert_eq!(world.peers(), ids(&[3]));
    for taken in [addresses(1), {
        let mut outside = addresses(3);
        outside.v4 = [8, 8, 8, 8].into();
        outside
    }] {
        left_out(PeerEntry {
            addresses: taken,
            ..peer(3, at(60))
        });
    }
}

#[test]
fn more_rules_or_ports_than_the_limits() {
    let mut many = peer(3, at(60));
    many.ingress = vec![rule("x", at(60)); limits::RULES_PER_PEER + 1];
    assert!(left_out(many).contains("limits"));
    let mut wide = peer(3, at(60));
    wide.egress[0].ports = vec!["tcp:1".parse().unwrap(); limits::PORTS_PER_RULE + 1];
    assert!(left_out(wide).contains("limits"));
}

#[test]
fn endpoints_that_would_loop_are_left_out_and_loopback_needs_a_local_controller() {
    let local: SocketAddr = "127.0.0.1:5".parse().unwrap();
    let good: SocketAddr = "192.0.2.9:5".parse().unwrap();
    let mut entry = peer(2, at(60));
    entry.endpoints = vec![local, "100.64.0.9:5".parse().unwrap(), good];
    let world = World::synced(vec![entry.clone()]);
    assert_eq!(world.table.peers[0].endpoints, [good]);

    let mut world = World::new();
    let mut greeting = hello(Standing::Approved, at(0));
    greeting.observed = "127.0.0.1:999".parse().unwrap();
    world.call(|engine, now| engine.handle_endpoints(5, vec![local, good], now));
    world.call(|engine, now| engine.handle_connected(greeting, now));
    world.facts(true);
    let attach = world.attach().unwrap();
    assert_eq!(attach.endpoints.endpoints, [local, good]);
    world.map(whole(1, vec![entry]));
    assert_eq!(world.table.peers[0].endpoints, [local, good]);
}

#[test]
fn a_learned_endpoint_stays_first_over_tables() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    let moved: SocketAddr = "203.0.113.5:9".parse().unwrap();
    let event = |device| DataPathEvent::EndpointMoved {
        device,
        endpoint: moved,
    };
    world.call(|engine, now| engine.handle_event(event(id(2)), now));
    world.call(|engine, now| engine.handle_event(event(id(8)), now));
    world.map(delta(1, 2, &[], vec![peer(3, at(600))]));
    let spec = world.table.peers.iter().find(|p| p.device == id(2));
    assert_eq!(spec.unwrap().endpoints[0], moved);
    let gone = DataPathEvent::HandshakeGivenUp { device: id(2) };
    world.call(|engine, now| engine.handle_event(gone, now));
    world.map(delta(2, 3, &[3], vec![]));
    assert_ne!(world.table.peers[0].endpoints[0], moved);
}

#[test]
fn a_peer_goes_with_its_last_live_rule() {
    let mut entry = peer(2, at(60));
    entry.ingress = vec![rule("web", at(30)), rule("dns", at(90))];
    let mut world = World::synced(vec![entry]);
    world.run(60 * SECOND, true);
    let spec = &world.table.peers[0];
    assert!(spec.egress.is_empty());
    assert_eq!(spec.ingress.len(), 1);
    world.run(30 * SECOND, true);
    assert!(world.peers().is_empty());
    assert!(world.engine.peers(world.now).is_empty());
    assert!(world.engine.whois(addresses(2).v4.into()).is_none());
    assert!(
        world
            .engine
            .whois(addresses(1).v6.into())
            .is_some_and(|who| who.is_self)
    );
}
