//! Rotation of this device's WireGuard keys, as peers and the controller see it.

use gatereeve_client_core::datapath::DataPathEvent;
use gatereeve_client_core::output::Output;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::client::{ClientMessage, KeyUpdate};
use gatereeve_shared::wire::controller::Standing;

use crate::support::*;

const DAY: u64 = 86_400;

fn announced(log: &[(gatereeve_shared::time::Now, Output)]) -> Vec<KeyUpdate> {
    log.iter()
        .filter_map(|(_, output)| match output {
            Output::Send(ClientMessage::Keys(update)) => Some(update.clone()),
            _ => None,
        })
        .collect()
}

fn counters(world: &World) -> Vec<u64> {
    world
        .table
        .local_keys
        .iter()
        .map(|key| key.counter)
        .collect()
}

fn in_use(world: &mut World, device: DeviceId, local_counter: u64) {
    world.call(|engine, now| {
        engine.handle_event(
            DataPathEvent::KeyInUse {
                device,
                local_counter,
                remote_counter: 1,
            },
            now,
        );
    });
}

/// A world in which the next key has just been announced.
fn rotating() -> (World, u64) {
    let mut world = World::synced(vec![peer(2, at(3 * DAY)), peer(3, at(3 * DAY))]);
    let first = counters(&world)[0];
    let log = world.run(std::time::Duration::from_secs(DAY * 9 / 10 - 10), true);
    assert!(announced(&log).is_empty(), "not before nine tenths");
    assert_eq!(counters(&world), [first]);
    // Up to the announcement, and no further than a minute beyond.
    for _ in 0..(DAY / 10 / 60 + 2) {
        let log = world.run(60 * SECOND, true);
        if let Some(update) = announced(&log).first() {
            assert_eq!(update.current.counter, first);
            let next = update.next.as_ref().unwrap();
            assert_eq!(next.counter, first + 1);
            assert_eq!(next.verify(&pin()), Ok(()));
            assert_eq!(counters(&world), [first, first + 1]);
            // On disk before it was told.
            let position = |test: &dyn Fn(&Output) -> bool| log.iter().position(|(_, o)| test(o));
            let told = position(&|o| matches!(o, Output::Send(ClientMessage::Keys(_))));
            let saved = log[..told.unwrap()]
                .iter()
                .rposition(|(_, o)| matches!(o, Output::Save(_)));
            let published = log[..told.unwrap()]
                .iter()
                .rposition(|(_, o)| matches!(o, Output::Publish(_)));
            assert!(published < saved, "published, then saved, then told");
            return (world, first);
        }
    }
    panic!("no rotation within a day");
}

#[test]
fn every_peer_on_the_new_key_ends_the_overlap() {
    let (mut world, first) = rotating();
    in_use(&mut world, id(2), first + 1);
    in_use(&mut world, id(3), first);
    in_use(&mut world, id(9), first + 1);
    assert_eq!(world.sent().count(), 0);
    in_use(&mut world, id(3), first + 1);
    let update = world.sent().find_map(|message| match message {
        ClientMessage::Keys(update) => Some(update.clone()),
        _ => None,
    });
    let update = update.unwrap();
    assert_eq!((update.current.counter, update.next), (first + 1, None));
    // The old one stays for whoever has not heard, until their leases end or the next rotation.
    assert_eq!(counters(&world), [first, first + 1]);
}

#[test]
fn silent_peers_do_not_hold_it_up() {
    let (mut world, first) = rotating();
    let log = world.run(6 * 60 * SECOND, true);
    let updates = announced(&log);
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].current.counter, first + 1);
    assert_eq!(updates[0].next, None);
    let log = world.run(std::time::Duration::from_secs(DAY * 2), true);
    assert!(!announced(&log).is_empty());
    assert!(!counters(&world).contains(&first), "retired in the end");
}

#[test]
fn a_restart_within_a_rotation_goes_on_with_the_same_keys() {
    let (world, first) = rotating();
    let wall = world.now.unix;
    let mut again = World::restored(world.saved.clone(), wall);
    again.up();
    assert_eq!(counters(&again), [first, first + 1]);
    let keys = |world: &World| -> Vec<_> {
        let keys = world.table.local_keys.iter();
        keys.map(|key| key.secret.public()).collect()
    };
    assert_eq!(keys(&again), keys(&world));
    again.connected(Standing::Approved);
    let attach = again.attach().unwrap();
    assert_eq!(attach.keys.current.counter, first);
    assert_eq!(
        attach.keys.next.as_ref().map(|key| key.counter),
        Some(first + 1)
    );
}

#[test]
fn without_a_controller_no_rotation_begins() {
    let mut world = World::synced(vec![peer(2, at(3 * DAY))]);
    let first = counters(&world);
    world.lost();
    world.run(std::time::Duration::from_secs(2 * DAY), false);
    assert_eq!(counters(&world), first);
    world.call(|engine, now| engine.handle_connected(hello(Standing::Approved, now.unix), now));
    world.facts(true);
    let at_once = world
        .sent()
        .filter(|m| matches!(m, ClientMessage::Keys(_)))
        .count();
    let log = world.run(SECOND, true);
    assert_eq!(announced(&log).len() + at_once, 1);
    assert_eq!(counters(&world).len(), 2);
}

#[test]
fn a_device_that_lost_its_state_does_not_reuse_a_counter() {
    let old = counters(&World::synced(vec![]))[0];
    let mut fresh = World::restored(Default::default(), at(100));
    fresh.up();
    assert!(counters(&fresh)[0] > old);
}
