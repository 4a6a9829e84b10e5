//! Leases end by themselves: offline, over restarts, under any wall clock.

use std::time::Duration;

use gatereeve_client_core::api::Connection;
use gatereeve_client_core::output::Output;
use gatereeve_shared::time::{Mono, UnixMillis};
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Pong, Standing};
use gatereeve_shared::wire::map::{LeaseRenewal, PeerRenewal};

use crate::support::*;

#[test]
fn a_lease_ends_offline_at_its_end_and_not_before() {
    let mut world = World::synced(vec![peer(2, at(60)), peer(3, at(3600))]);
    let start = world.now;
    assert_eq!(world.peers(), ids(&[2, 3]));
    let end = |world: &World, seed| {
        let spec = world.table.peers.iter().find(|p| p.device == id(seed));
        spec.unwrap().egress[0].end
    };
    assert_eq!(end(&world, 2), start.mono.saturating_add(60 * SECOND));
    world.lost();
    world.run(Duration::from_millis(59_999), false);
    assert_eq!(world.peers(), ids(&[2, 3]));
    world.run(Duration::from_millis(1), false);
    assert_eq!(world.peers(), ids(&[3]));
    world.run(3600 * SECOND, false);
    assert!(world.peers().is_empty());
}

#[test]
fn the_wall_clock_has_no_say_while_the_controllers_time_is_known() {
    for wall in [UnixMillis(0), at(0), at(172_800), UnixMillis(u64::MAX)] {
        let mut world = World::synced(vec![peer(2, at(60))]);
        world.lost();
        world.now.unix = wall;
        world.run(59 * SECOND, false);
        assert_eq!(world.peers(), ids(&[2]), "wall clock at {wall}");
        world.run(SECOND, false);
        assert!(world.peers().is_empty(), "wall clock at {wall}");
    }
}

#[test]
fn a_device_with_a_wrong_clock_connects_and_keeps_the_controllers_ends() {
    for wall in [0, 1, EPOCH - 172_800_000, EPOCH + 172_800_000] {
        let mut world = World::restored(Default::default(), UnixMillis(wall));
        world.up();
        let greeting = hello(Standing::Approved, at(1000));
        world.call(|engine, now| engine.handle_connected(greeting, now));
        world.facts(true);
        assert!(world.attach().is_some());
        world.map(whole(1, vec![peer(2, at(1010)), peer(3, at(999))]));
        assert_eq!(world.peers(), ids(&[2]));
        world.lost();
        world.run(10 * SECOND, false);
        assert!(world.peers().is_empty());
    }
}

#[test]
fn after_a_restart_only_a_clock_at_or_past_the_floor_counts() {
    let mut before = World::synced(vec![peer(2, at(7200))]);
    before.run(1800 * SECOND, true);
    let saved = before.saved.clone();
    // The floor is at most a quarter of an hour old.
    let mut behind = World::restored(saved.clone(), at(800));
    behind.up();
    behind.lost();
    assert!(behind.peers().is_empty());
    assert!(behind.warnings().contains("clock is behind"));
    // The time service sets the clock later.
    behind.now.unix = at(2000);
    behind.run(2 * SECOND, false);
    assert_eq!(behind.peers(), ids(&[2]));

    let mut well = World::restored(saved.clone(), at(1900));
    well.up();
    well.lost();
    assert_eq!(well.peers(), ids(&[2]));
    well.run((7200 - 1900) * SECOND, false);
    assert!(well.peers().is_empty());

    let mut late = World::restored(saved, at(7200));
    late.up();
    late.lost();
    assert!(late.peers().is_empty());
}

#[test]
fn offline_the_clock_cannot_be_turned_back() {
    let before = World::synced(vec![peer(2, at(600))]);
    let mut world = World::restored(before.saved, at(10));
    world.up();
    world.lost();
    world.run(300 * SECOND, false);
    world.now.unix = at(11);
    assert_eq!(world.peers(), ids(&[2]));
    world.run(290 * SECOND, false);
    assert!(world.peers().is_empty());
}

#[test]
fn a_controller_clock_set_back_brings_nothing_back_but_a_renewal_does() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    world.run(60 * SECOND, true);
    assert!(world.peers().is_empty());
    world.lost();
    let greeting = hello(Standing::Approved, at(30));
    world.run(31 * SECOND, false);
    world.call(|engine, now| engine.handle_connected(greeting, now));
    world.facts(true);
    assert!(world.peers().is_empty());
    let renewal = |n, end| {
        ControllerMessage::Renew(LeaseRenewal {
            generation: generation(n),
            peers: vec![PeerRenewal {
                device: id(2),
                ingress: Vec::new(),
                egress: vec![(gatereeve_shared::ids::RuleId::new("ssh").unwrap(), end)],
            }],
        })
    };
    world.say(renewal(2, at(90)));
    assert!(world.peers().is_empty(), "for another generation");
    world.say(renewal(1, at(90)));
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn renewals_extend_to_the_hard_end_and_never_shorten() {
    let mut limited = peer(2, at(60));
    limited.egress = vec![hard_rule("ssh", at(60), at(100))];
    let mut world = World::synced(vec![limited]);
    let start = world.now.mono;
    let mut renew = |device, rule: &str, end| {
        world.say(ControllerMessage::Renew(LeaseRenewal {
            generation: generation(1),
            peers: vec![PeerRenewal {
                device,
                ingress: Vec::new(),
                egress: vec![(gatereeve_shared::ids::RuleId::new(rule).unwrap(), end)],
            }],
        }));
        // What only lengthens may come together with what came before.
        world.run(Duration::from_millis(100), true);
        world.table.peers[0].egress[0].end.since(start)
    };
    assert_eq!(renew(id(2), "ssh", at(80)), 80 * SECOND);
    assert_eq!(renew(id(2), "ssh", at(70)), 80 * SECOND);
    assert_eq!(renew(id(3), "ssh", at(90)), 80 * SECOND);
    assert_eq!(renew(id(2), "http", at(90)), 80 * SECOND);
    assert_eq!(renew(id(2), "ssh", UnixMillis::MAX), 100 * SECOND);
    world.run(100 * SECOND, true);
    assert!(world.peers().is_empty());
    world.say(ControllerMessage::Renew(LeaseRenewal {
        generation: generation(1),
        peers: vec![PeerRenewal {
            device: id(2),
            ingress: Vec::new(),
            egress: vec![(gatereeve_shared::ids::RuleId::new("ssh").unwrap(), at(999))],
        }],
    }));
    assert!(world.peers().is_empty());
}

#[test]
fn nothing_outlives_the_devices_own_key() {
    let mut world = World::new();
    world.connected(Standing::Approved);
    let mut map = whole(1, vec![peer(2, UnixMillis::MAX)]);
    map.this.as_mut().unwrap().key_expires = Some(at(50));
    world.map(map);
    world.lost();
    world.run(49 * SECOND, false);
    assert_eq!(world.peers(), ids(&[2]));
    world.run(SECOND, false);
    assert!(world.peers().is_empty());
}

#[test]
fn no_end_is_a_value_of_its_own() {
    let mut world = World::synced(vec![peer(2, UnixMillis::MAX)]);
    assert_eq!(world.table.peers[0].egress[0].end, Mono(u64::MAX));
    world.run(86_400 * SECOND, true);
    assert_eq!(world.peers(), ids(&[2]));
    assert_eq!(
        world.engine.status(world.now).leases_end,
        Some(UnixMillis::MAX)
    );
}

#[test]
fn a_pong_corrects_the_time_and_a_controller_that_falls_silent_is_left() {
    let mut world = World::synced(vec![peer(2, at(100))]);
    let log = world.run(20 * SECOND, true);
    assert!(!log.iter().any(|(_, o)| matches!(o, Output::Disconnect)));
    world.run(25 * SECOND, false);
    let nonce = world.ping();
    let nonce = nonce.or_else(|| {
        let log = world.run(15 * SECOND, false);
        log.iter().find_map(|(_, output)| match output {
            Output::Send(ClientMessage::Ping(n)) => Some(*n),
            _ => None,
        })
    });
    // An answer to nothing that was asked is not believed.
    world.say(ControllerMessage::Pong(Pong {
        nonce: u64::MAX,
        now: at(10_000),
    }));
    assert_eq!(world.peers(), ids(&[2]));
    if let Some(nonce) = nonce {
        world.say(ControllerMessage::Pong(Pong {
            nonce,
            now: at(10_000),
        }));
        assert!(world.peers().is_empty());
    }
    let log = world.run(60 * SECOND, false);
    assert!(log.iter().any(|(_, o)| matches!(o, Output::Disconnect)));
    assert_eq!(
        world.engine.status(world.now).connection,
        Connection::Connecting
    );
}

/// Who is on the way can hold an answer up, and must not make anything last longer by that.
#[test]
fn an_answer_that_is_held_up_makes_no_lease_longer() {
    let mut world = World::synced(vec![peer(2, at(60))]);
    let start = world.now.mono;
    let mut asked = None;
    while asked.is_none() {
        let log = world.run(SECOND, false);
        asked = log.into_iter().find_map(|(at, output)| match output {
            Output::Send(ClientMessage::Ping(nonce)) => Some((at, nonce)),
            _ => None,
        });
    }
    let (asked, nonce) = asked.unwrap();
    world.run(8 * SECOND, false);
    let pong = Pong {
        nonce,
        now: asked.unix,
    };
    world.say(ControllerMessage::Pong(pong));
    let (end, before) = (start.saturating_add(60 * SECOND), 10 * SECOND);
    world.run(end.since(world.now.mono) - before, true);
    assert_eq!(world.peers(), ids(&[2]));
    world.lost();
    world.run(before, false);
    assert!(world.peers().is_empty(), "a minute after it was granted");
}
