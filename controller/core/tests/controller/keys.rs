//! WireGuard keys: signed, never back, nobody else's.

use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::wire::client::{ClientMessage, KeyUpdate};
use gatereeve_shared::wire::controller::RefusalCode;

use crate::harness::{WEB_TO_DB, World};

fn update(world: &World, wg: u8, counter: u64, next: Option<(u8, u64)>) -> KeyUpdate {
    let key = &world.clients["web"].key;
    KeyUpdate {
        current: world.binding(key, wg, counter),
        next: next.map(|(wg, counter)| world.binding(key, wg, counter)),
    }
}

/// Sends keys as `web`; whether they were taken.
fn takes(world: &mut World, keys: &KeyUpdate) -> bool {
    world.client("web").refused.clear();
    world.say("web", ClientMessage::Keys(keys.clone()));
    let known = &world.controller.state().devices()[&world.id("web")];
    let taken = known.keys == *keys;
    let refusal = world.client("web").refusal();
    assert_eq!(refusal.is_none(), taken);
    assert!(refusal.is_none_or(|code| code == RefusalCode::Binding));
    taken
}

#[test]
fn keys_rotate_forward_and_peers_are_told() {
    let mut world = World::standard(WEB_TO_DB);
    let rotating = update(&world, 1, 1, Some((50, 2)));
    assert!(takes(&mut world, &rotating));
    let entry = |world: &World| {
        let map = world.clients["db"].map.clone().unwrap();
        map.peers[&world.id("web")].clone()
    };
    assert_eq!(entry(&world).next_key, rotating.next);
    let rotated = update(&world, 50, 2, None);
    assert!(takes(&mut world, &rotated));
    assert_eq!(entry(&world).key, rotated.current);
    assert_eq!(entry(&world).next_key, None);
    // The old key does not come back, by message or by a new session.
    let old = update(&world, 1, 1, None);
    assert!(!takes(&mut world, &old));
    world.client("web").keys = old;
    world.connect("web");
    world.attach("web");
    assert_eq!(
        world.client("web").closed_with(),
        Some(RefusalCode::Binding)
    );
    assert_eq!(entry(&world).key, rotated.current);
    world.client("web").keys = rotated;
    world.reconnect("web");
    assert!(world.client("web").session.is_some(), "the control");
}

#[test]
fn keys_of_others_of_no_one_and_of_small_order_are_refused() {
    let mut world = World::standard(WEB_TO_DB);
    let same_counter = update(&world, 51, 1, None);
    assert!(!takes(&mut world, &same_counter));
    let next_not_higher = update(&world, 1, 1, Some((52, 1)));
    assert!(!takes(&mut world, &next_not_higher));
    // The key of db, under web's own signature.
    let stolen = world.clients["db"].keys.current.wg_key;
    let web = IdentityKey::from_seed(&[1; 32]);
    let sign = |wg_key, network: &Fingerprint| KeyUpdate {
        current: KeyBinding::sign(&web, network, wg_key, 9),
        next: None,
    };
    let network = world.network;
    assert!(!takes(&mut world, &sign(stolen, &network)));
    assert!(!takes(&mut world, &sign(WgPublicKey([0; 32]), &network)));
    let good = WgSecret::from_bytes([60; 32]).public();
    assert!(!takes(&mut world, &sign(good, &Fingerprint([3; 32]))));
    let of_db = KeyUpdate {
        current: world.binding(&world.clients["db"].key, 61, 9),
        next: None,
    };
    assert!(!takes(&mut world, &of_db));
    assert!(takes(&mut world, &sign(good, &network)), "the control");
}
