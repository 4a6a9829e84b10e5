//! A device takes steps from exactly what it holds, and never goes back.

use std::time::Duration;

use gatereeve_client_core::output::Output;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::limits;
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, PeerEndpoints, Standing};
use gatereeve_shared::wire::map::MapUpdate;

use crate::support::*;

fn resyncs(world: &World) -> usize {
    world
        .sent()
        .filter(|message| matches!(message, ClientMessage::Resync(_)))
        .count()
}

#[test]
fn a_delta_from_elsewhere_asks_for_the_whole_map_once() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.map(delta(5, 6, &[2], vec![peer(3, at(60))]));
    assert_eq!(resyncs(&world), 1);
    assert_eq!(world.peers(), ids(&[2]), "what is held stays in force");
    world.map(delta(6, 7, &[], vec![peer(4, at(60))]));
    assert_eq!(resyncs(&world), 0);
    world.map(whole(7, vec![peer(3, at(60)), peer(4, at(60))]));
    assert_eq!(world.peers(), ids(&[3, 4]));
    // And deltas count again.
    world.map(delta(7, 8, &[3], vec![]));
    assert_eq!(world.peers(), ids(&[4]));
    assert!(world.warnings().is_empty(), "{}", world.warnings());
}

#[test]
fn parts_are_applied_together() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    let part = |removed: &[u8], peers, more| MapUpdate {
        more,
        ..delta(1, 2, removed, peers)
    };
    world.map(part(&[2], vec![peer(3, at(60))], true));
    assert_eq!(world.peers(), ids(&[2]));
    world.map(part(&[], vec![peer(4, at(60))], false));
    assert_eq!(world.peers(), ids(&[3, 4]));
    assert_eq!(
        world.engine.status(world.now).generation,
        Some(generation(2))
    );
}

#[test]
fn parts_of_different_updates_do_not_mix() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    let first = MapUpdate {
        more: true,
        ..delta(1, 2, &[2], vec![])
    };
    world.map(first.clone());
    world.map(delta(1, 3, &[], vec![peer(3, at(60))]));
    assert_eq!(resyncs(&world), 1);
    assert_eq!(world.peers(), ids(&[2]));
    // A part that a lost session left behind is not continued either.
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.map(first);
    world.lost();
    world.connected(Standing::Approved);
    world.map(delta(1, 2, &[], vec![peer(3, at(60))]));
    assert_eq!(world.peers(), ids(&[2, 3]));
}

#[test]
fn an_older_map_is_refused_with_an_alarm() {
    let mut world = World::synced(vec![]);
    world.map(delta(1, 9, &[], vec![peer(2, at(600))]));
    world.lost();
    world.connected(Standing::Approved);
    world.map(whole(8, vec![peer(3, at(600))]));
    assert_eq!(world.peers(), ids(&[2]));
    assert_eq!(
        world.engine.status(world.now).generation,
        Some(generation(9))
    );
    assert!(world.warnings().contains("older map"));
    // The floor of generations is on disk, soon after.
    world.run(5 * SECOND, true);
    let mut again = World::restored(world.saved.clone(), at(5));
    again.up();
    again.connected(Standing::Approved);
    again.map(whole(8, vec![peer(3, at(600))]));
    assert_eq!(again.peers(), ids(&[2]));
    again.lost();
    again.connected(Standing::Approved);
    again.map(whole(9, vec![peer(2, at(600))]));
    assert_eq!(again.peers(), ids(&[2]), "control: the one held is taken");
    again.map(delta(9, 10, &[2], vec![]));
    assert!(again.peers().is_empty());
}

#[test]
fn an_impossible_jump_is_refused() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.map(delta(1, 1 << 40, &[2], vec![]));
    assert_eq!(world.peers(), ids(&[2]));
    assert!(world.warnings().contains("impossible generation"));
}

#[test]
fn other_content_under_the_generation_held_is_refused() {
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.lost();
    world.connected(Standing::Approved);
    let mut moved = peer(2, at(600));
    moved.addresses = addresses(77);
    world.map(whole(1, vec![moved]));
    assert_eq!(world.table.peers[0].addresses, addresses(2));
    assert!(world.warnings().contains("another map"));
}

#[test]
fn a_restored_network_is_followed_with_a_warning() {
    let restored = |key: Option<&IdentityKey>, signed: u32| {
        let at_start = |incarnation| Generation { incarnation, n: 0 };
        let mut map = whole(0, vec![peer(3, at(600))]);
        map.to = at_start(1);
        map.checkpoint = key.map(|key| Checkpoint::sign(key, at_start(signed), [0; 32], at(0)));
        map
    };
    // Not without the network key's word for this very incarnation.
    for unproven in [
        restored(None, 1),
        restored(Some(&identity(7)), 1),
        restored(Some(&network()), 0),
    ] {
        let mut world = World::synced(vec![peer(2, at(600))]);
        world.map(unproven);
        assert_eq!(world.peers(), ids(&[2]));
        assert!(world.warnings().contains("journal head"));
        assert!(!world.warnings().contains("restored from a backup"));
    }
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.map(restored(Some(&network()), 1));
    assert_eq!(world.peers(), ids(&[3]));
    assert!(world.warnings().contains("restored from a backup"));
    world.map(whole(2, vec![peer(2, at(600))]));
    assert_eq!(world.peers(), ids(&[3]), "the old incarnation is over");
}

#[test]
fn a_journal_head_must_be_signed_by_the_network() {
    let with = |key: &IdentityKey, to| {
        let mut map = delta(1, to, &[2], vec![]);
        map.checkpoint = Some(Checkpoint::sign(key, generation(to), [0; 32], at(0)));
        map
    };
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.map(with(&identity(7), 2));
    assert_eq!(world.peers(), ids(&[2]));
    assert!(world.warnings().contains("journal head"));
    let mut world = World::synced(vec![peer(2, at(600))]);
    world.map(with(&network(), 2));
    assert!(world.peers().is_empty() && world.warnings().is_empty());
}

#[test]
fn what_is_beyond_the_limits_is_not_taken() {
    let twice = delta(1, 2, &[], vec![peer(3, at(60)), peer(3, at(60))]);
    let gone_twice = delta(1, 2, &[2, 2], vec![]);
    let mut watched = delta(1, 2, &[2], vec![]);
    watched.this = Some(this());
    if let Some(this) = &mut watched.this {
        this.watched_processes = vec!["/x".into(); limits::WATCHED_PROCESSES + 1];
    }
    let mut outside = delta(1, 2, &[2], vec![]);
    outside.this = Some(this());
    if let Some(this) = &mut outside.this {
        this.addresses.v4 = [10, 0, 0, 1].into();
    }
    for update in [twice, gone_twice, watched, outside] {
        let mut world = World::synced(vec![peer(2, at(60))]);
        world.map(update);
        assert_eq!(world.peers(), ids(&[2]));
        assert_eq!(resyncs(&world), 1);
        // What comes in answer is no better: asking again would not end.
        world.map(MapUpdate {
            this: None,
            ..whole(2, vec![])
        });
        assert_eq!(resyncs(&world), 0);
        assert_eq!(world.peers(), ids(&[2]));
        assert!(!world.warnings().is_empty());
    }
}

#[test]
fn a_map_for_another_device_is_refused() {
    let mut world = World::new();
    world.connected(Standing::Approved);
    let mut map = whole(1, vec![peer(2, at(60))]);
    if let Some(this) = &mut map.this {
        this.device = id(9);
    }
    world.map(map);
    assert!(world.peers().is_empty());
    assert!(world.warnings().contains("another device"));
    world.map(whole(1, vec![peer(1, at(60))]));
    assert!(world.peers().is_empty(), "itself as a peer");
}

#[test]
fn a_map_before_the_attach_is_not_taken() {
    let mut world = World::new();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Pending, now.unix), now));
    world.map(whole(1, vec![peer(2, at(60))]));
    assert!(world.peers().is_empty());
    world.say(ControllerMessage::Standing(Standing::Approved));
    world.facts(true);
    world.map(whole(1, vec![peer(2, at(60))]));
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn endpoints_change_without_a_generation_for_held_peers_only() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    let endpoint = "198.51.100.9:7".parse().unwrap();
    let change = |device| PeerEndpoints {
        device,
        endpoints: vec![endpoint, "224.0.0.1:7".parse().unwrap()],
    };
    world.say(ControllerMessage::Endpoints(vec![
        change(id(2)),
        change(id(3)),
    ]));
    assert_eq!(world.table.peers[0].endpoints, [endpoint]);
    assert_eq!(world.table.generation, generation(1));
    assert_eq!(world.peers(), ids(&[2]));
    // The same again is no reason for a new table.
    world.say(ControllerMessage::Endpoints(vec![change(id(2))]));
    assert!(!world.has(|output| matches!(output, Output::Publish(_))));
}

fn moved(port: u16) -> ControllerMessage {
    ControllerMessage::Endpoints(vec![PeerEndpoints {
        device: id(2),
        endpoints: vec![([192, 0, 2, 9], port).into()],
    }])
}

/// Peers that move without end cost one table at once and one a moment later; what takes something waits for neither.
#[test]
fn what_takes_nothing_waits_for_what_comes_with_it() {
    let mut world = World::synced(vec![peer(2, at(3600)), peer(3, at(3600))]);
    world.run(Duration::from_secs(1), true);
    let first = world.table.serial;
    for port in 1..=50 {
        world.say(moved(port));
    }
    assert_eq!(world.table.serial, first + 1, "the first at once");
    let port = |world: &World| {
        let mut peers = world.table.peers.iter();
        let peer = peers.find(|peer| peer.device == id(2)).unwrap();
        peer.endpoints[0].port()
    };
    assert_eq!(port(&world), 1);
    world.map(delta(1, 2, &[3], Vec::new()));
    assert_eq!(world.table.serial, first + 2);
    assert_eq!(world.peers(), ids(&[2]), "at once");
    for port in 51..=60 {
        world.say(moved(port));
    }
    assert_eq!(world.table.serial, first + 2);
    world.run(Duration::from_millis(100), true);
    assert_eq!(world.table.serial, first + 3, "and all of the rest as one");
    assert_eq!(port(&world), 60);
    world.run(Duration::from_millis(500), true);
    assert_eq!(world.table.serial, first + 3);
}
