//! Whatever happens, what a client has put together from deltas is the map it would be sent whole.

use std::collections::BTreeMap;
use std::time::Duration;

use gatereeve_controller_core::command::Command;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate};
use gatereeve_shared::wire::map::{PeerEntry, SelfEntry};
use proptest::prelude::*;

use crate::clients::Map;
use crate::harness::{LAPTOP_TOO, POSTURE, WEB_TO_DB, World, encrypted, tag};

const NAMES: [&str; 4] = ["web", "db", "laptop", "other"];
const TAGS: [&str; 3] = ["web", "db", "other"];
const POLICIES: [&str; 4] = [WEB_TO_DB, LAPTOP_TOO, POSTURE, "version = 1\n"];

/// After this time, what the journal has refused of a timer's changes is tried again.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Step {
    Apply(usize),
    Tag(usize, usize, bool),
    Quarantine(usize, bool),
    Rename(usize, u8),
    Report(usize, bool),
    Endpoint(usize, u8),
    Rotate(usize, u8),
    Reconnect(usize),
    Disconnect(usize),
    Pass(u16),
    Refuse(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..NAMES.len();
    prop_oneof![
        3 => (0..POLICIES.len()).prop_map(Step::Apply),
        3 => (device.clone(), 0..TAGS.len(), any::<bool>()).prop_map(|(d, t, a)| Step::Tag(d, t, a)),
        2 => (device.clone(), any::<bool>()).prop_map(|(d, lift)| Step::Quarantine(d, lift)),
        1 => (device.clone(), any::<u8>()).prop_map(|(d, n)| Step::Rename(d, n)),
        4 => (device.clone(), any::<bool>()).prop_map(|(d, good)| Step::Report(d, good)),
        1 => (device.clone(), 1..200u8).prop_map(|(d, n)| Step::Endpoint(d, n)),
        1 => (device.clone(), 100..200u8).prop_map(|(d, n)| Step::Rotate(d, n)),
        2 => device.clone().prop_map(Step::Reconnect),
        1 => device.prop_map(Step::Disconnect),
        3 => (1..200u16).prop_map(Step::Pass),
        // Within the time that a report is worth something.
        3 => (1..60u16).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => Just(Step::Restart),
    ]
}

fn take(world: &mut World, step: Step) {
    let id = |world: &World, device: usize| world.id(NAMES[device]).to_string();
    // A refused command is as good a step as another.
    match step {
        Step::Apply(policy) => drop(world.ask(Command::PolicyApply {
            text: POLICIES[policy].into(),
            if_generation: None,
        })),
        Step::Tag(device, name, is_added) => {
            let tags = vec![tag(TAGS[name])];
            let (add, remove) = if is_added {
                (tags, vec![])
            } else {
                (vec![], tags)
            };
            let device = id(world, device);
            drop(world.ask(Command::DeviceTag {
                device,
                add,
                remove,
            }));
        }
        Step::Quarantine(device, lift) => {
            let device = id(world, device);
            drop(world.ask(Command::DeviceQuarantine {
                device,
                lift,
                reason: None,
            }));
        }
        Step::Rename(device, n) => {
            let device = id(world, device);
            let name = format!("name-{n}").parse().unwrap();
            drop(world.ask(Command::DeviceRename { device, name }));
        }
        Step::Report(device, good) => world.report(NAMES[device], encrypted(good)),
        Step::Endpoint(device, n) => world.say(
            NAMES[device],
            ClientMessage::Endpoints(EndpointUpdate {
                listen_port: 1,
                endpoints: vec![([198, 51, 100, n], 1).into()],
            }),
        ),
        Step::Rotate(device, wg) => {
            let client = world.client(NAMES[device]);
            if client.session.is_none() {
                return;
            }
            let counter = client.keys.current.counter + 1;
            let key = gatereeve_shared::identity::identity_key::IdentityKey::from_seed(
                &client.key.seed(),
            );
            let current = world.binding(&key, wg, counter);
            let keys = gatereeve_shared::wire::client::KeyUpdate {
                current,
                next: None,
            };
            let client = world.client(NAMES[device]);
            client.refused.clear();
            world.say(NAMES[device], ClientMessage::Keys(keys.clone()));
            let known = world.controller.state().devices();
            if known[&world.id(NAMES[device])].keys == keys {
                world.client(NAMES[device]).keys = keys;
            }
        }
        Step::Reconnect(device) => world.reconnect(NAMES[device]),
        Step::Disconnect(device) => world.disconnect(NAMES[device]),
        Step::Pass(seconds) => world.pass(Duration::from_secs(u64::from(seconds))),
        Step::Refuse(refuse) => {
            let was_refusing = std::mem::replace(&mut world.refuse, refuse);
            if was_refusing && !refuse {
                world.pass(RETRY);
            }
        }
        Step::Restart => world.restart(),
    }
}

/// A map without the ends of leases: a whole map has fresh ones.
fn timeless(map: &Map) -> (SelfEntry, BTreeMap<DeviceId, PeerEntry>) {
    let mut peers = map.peers.clone();
    for peer in peers.values_mut() {
        for rule in peer.ingress.iter_mut().chain(&mut peer.egress) {
            let hard_end = rule.lease.hard_end();
            rule.lease = gatereeve_shared::lease::Lease::new(hard_end, hard_end);
        }
    }
    (map.this.clone(), peers)
}

/// Nothing that a connected client holds has ended without its being told.
fn compare_ends(world: &mut World) {
    let now = world.now.unix;
    for name in NAMES {
        let client = world.client(name);
        let (Some(_), Some(map)) = (client.session, &client.map) else {
            continue;
        };
        for peer in map.peers.values() {
            let mut rules = peer.ingress.iter().chain(&peer.egress);
            assert!(
                rules.all(|rule| rule.lease.is_live(now)),
                "{name}: {peer:?}"
            );
        }
    }
}

/// Asks for the whole map and compares.
fn compare(world: &mut World) {
    compare_ends(world);
    for name in NAMES {
        if world.client(name).session.is_none() {
            continue;
        }
        let Some(put_together) = world.client(name).map.clone() else {
            continue;
        };
        let generation = put_together.generation;
        world.say(name, ClientMessage::Resync(generation));
        let whole = world.client(name).map.clone().unwrap();
        assert_eq!(timeless(&put_together), timeless(&whole), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn deltas_add_up_to_the_whole_map(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::standard(LAPTOP_TOO);
        for step in steps {
            take(&mut world, step);
            // What a full disk keeps from being committed is not in force either.
            if !world.refuse {
                compare(&mut world);
            }
        }
        world.check();
    }
}

/// Time ends a rule, and the disk is full: the device that comes back holds the newest generation, and more than
/// that has by now.
#[test]
fn what_time_took_without_a_record_is_no_step_from_a_number_to_itself() {
    let mut world = World::standard(LAPTOP_TOO);
    for step in [
        Step::Report(2, true),
        Step::Apply(2),
        Step::Refuse(true),
        Step::Pass(60),
        Step::Reconnect(2),
    ] {
        take(&mut world, step);
    }
    world.check();
}

/// The same, and then there is room again: what time took closes by itself until the controller says so, too.
#[test]
fn what_time_took_while_the_disk_was_full_goes_when_there_is_room() {
    let mut world = World::standard(LAPTOP_TOO);
    for step in [
        Step::Apply(2),
        Step::Report(2, true),
        Step::Refuse(true),
        Step::Pass(60),
    ] {
        take(&mut world, step);
    }
    let is_open = |world: &mut World| {
        let now = world.now.unix;
        let map = world.client("web").map.clone().unwrap();
        let mut rules = map.peers.values().flat_map(|peer| &peer.ingress);
        rules.next().map(|rule| rule.lease.is_live(now))
    };
    assert_eq!(is_open(&mut world), Some(false));
    take(&mut world, Step::Refuse(false));
    assert_eq!(is_open(&mut world), None);
    compare(&mut world);
    world.check();
}

/// A policy that asks for fresh reports lets access end sooner than one that does not: when the second takes the place
/// of the first, what was granted for a short time is renewed in time.
#[test]
fn access_does_not_pause_when_a_policy_asks_for_less() {
    let mut world = World::standard(LAPTOP_TOO);
    for step in [Step::Report(2, true), Step::Apply(2), Step::Apply(1)] {
        take(&mut world, step);
    }
    for _ in 0..200 {
        take(&mut world, Step::Pass(1));
        compare_ends(&mut world);
    }
    let map = world.client("web").map.clone().unwrap();
    assert!(map.peers.values().any(|peer| !peer.ingress.is_empty()));
}

/// The same where the last report is old by then: what it has given ends before it would be renewed.
#[test]
fn access_does_not_pause_when_a_policy_asks_for_less_than_is_reported() {
    let mut world = World::standard(LAPTOP_TOO);
    let late = [
        Step::Apply(2),
        Step::Pass(13),
        Step::Report(2, true),
        Step::Pass(49),
        Step::Apply(1),
    ];
    for step in late {
        take(&mut world, step);
    }
    for _ in 0..200 {
        take(&mut world, Step::Pass(1));
        compare_ends(&mut world);
    }
    let map = world.client("web").map.clone().unwrap();
    assert!(map.peers.values().any(|peer| !peer.ingress.is_empty()));
}

/// A report that comes in the last moment gives access a later end; whoever holds the earlier one is told at once.
#[test]
fn access_does_not_pause_when_a_report_comes_late() {
    for late in 41..60 {
        let mut world = World::standard(LAPTOP_TOO);
        for step in [Step::Apply(2), Step::Report(2, true), Step::Pass(late)] {
            take(&mut world, step);
        }
        take(&mut world, Step::Report(2, true));
        for _ in 0..55 {
            take(&mut world, Step::Pass(1));
            compare_ends(&mut world);
        }
        let map = world.client("web").map.clone().unwrap();
        assert!(map.peers.values().any(|peer| !peer.ingress.is_empty()));
        world.check();
    }
}
