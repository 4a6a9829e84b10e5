//! From unknown to approved, and back to nothing.

use gatereeve_client_core::output::Output;
use gatereeve_client_core::stored::Stored;
use gatereeve_shared::ids::InviteId;
use gatereeve_shared::invite::InviteSecret;
use gatereeve_shared::wire::client::{ClientMessage, Enroll};
use gatereeve_shared::wire::controller::{
    ControllerMessage, EnrollReply, Refusal, RefusalCode, Standing,
};

use crate::support::*;

fn asked(world: &World) -> Option<&Enroll> {
    world.sent().find_map(|message| match message {
        ClientMessage::Enroll(enroll) => Some(enroll),
        _ => None,
    })
}

fn answer(world: &World) -> Option<&EnrollReply> {
    world.out.iter().find_map(|output| match output {
        Output::Enrolled(reply) => Some(reply),
        _ => None,
    })
}

fn invite() -> Option<(InviteId, InviteSecret)> {
    Some((InviteId([1; 8]), InviteSecret([2; 32])))
}

fn joining(invite: Option<(InviteId, InviteSecret)>) -> World {
    let mut world = World::restored(Stored::default(), at(0));
    world.call(|engine, now| engine.handle_enroll(invite, "My\u{7} Laptop", now));
    world.up();
    world.connected(Standing::Unknown);
    world
}

#[test]
fn an_invite_makes_a_device() {
    let mut world = World::restored(Stored::default(), at(0));
    world.call(|engine, now| engine.handle_enroll(invite(), "laptop", now));
    // Keys and wish are on disk before anything is said.
    assert_eq!(
        world.saved.to_bytes().map(|b| Stored::from_bytes(&b)),
        Ok(Ok(world.saved.clone()))
    );
    assert!(world.saved.is_enrolled());
    world.up();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Unknown, now.unix), now));
    let enroll = asked(&world).unwrap();
    assert_eq!(enroll.invite, invite());
    assert_eq!(enroll.binding.verify(&pin()), Ok(()));
    assert_eq!(enroll.binding.identity, me().public());
    assert!(world.attach().is_none());
    world.facts(true);
    world.say(ControllerMessage::Enrolled(EnrollReply::Done(
        Standing::Approved,
    )));
    assert_eq!(answer(&world), Some(&EnrollReply::Done(Standing::Approved)));
    assert!(world.attach().is_some());
    world.map(whole(1, vec![peer(2, at(60))]));
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn pending_waits_for_approval_over_reconnects() {
    let mut world = joining(None);
    world.say(ControllerMessage::Enrolled(EnrollReply::Done(
        Standing::Pending,
    )));
    assert_eq!(answer(&world), Some(&EnrollReply::Done(Standing::Pending)));
    assert!(world.attach().is_none());
    world.lost();
    // The controller was restarted and has forgotten those who wait.
    world.connected(Standing::Unknown);
    assert!(world.saved.is_enrolled());
    world.lost();
    world.connected(Standing::Pending);
    assert!(world.attach().is_none());
    world.say(ControllerMessage::Standing(Standing::Approved));
    assert_eq!(answer(&world), Some(&EnrollReply::Done(Standing::Approved)));
    assert!(world.attach().is_some());
}

#[test]
fn a_used_invite_is_not_kept() {
    let mut world = joining(invite());
    world.say(ControllerMessage::Enrolled(EnrollReply::Done(
        Standing::Pending,
    )));
    world.lost();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Unknown, now.unix), now));
    assert_eq!(
        asked(&world).map(|enroll| enroll.invite.clone()),
        Some(None)
    );
}

#[test]
fn an_enrollment_goes_on_after_a_restart() {
    let world = joining(invite());
    let mut world = World::restored(world.saved, at(5));
    world.up();
    world.call(|engine, now| engine.handle_connected(hello(Standing::Unknown, now.unix), now));
    assert_eq!(
        asked(&world).map(|enroll| enroll.invite.clone()),
        Some(invite())
    );
}

#[test]
fn a_refused_invite_ends_the_attempt_and_a_busy_controller_does_not() {
    let refused = |code| {
        let mut world = joining(invite());
        world.say(ControllerMessage::Enrolled(EnrollReply::Refused(Refusal {
            code,
            message: "no\u{1b}[2J".into(),
        })));
        world
    };
    let world = refused(RefusalCode::Invite);
    assert!(matches!(answer(&world), Some(EnrollReply::Refused(_))));
    let error = world.engine.status(world.now).last_error.unwrap();
    assert!(error.starts_with("no") && !error.contains('\u{1b}'));
    assert!(!world.saved.is_enrolled() || world.saved != Stored::default());

    let mut world = refused(RefusalCode::RateLimited);
    assert!(answer(&world).is_none());
    let log = world.run(60 * SECOND, false);
    assert!(
        !log.iter().any(|(_, o)| matches!(o, Output::Connect { .. })),
        "not soon"
    );
    let log = world.run(120 * SECOND, false);
    assert!(log.iter().any(|(_, o)| matches!(o, Output::Connect { .. })));
    world.call(|engine, now| engine.handle_connected(hello(Standing::Unknown, now.unix), now));
    assert_eq!(
        asked(&world).map(|enroll| enroll.invite.clone()),
        Some(invite())
    );
}

#[test]
fn whoever_loses_standing_loses_everything_at_once_and_on_disk() {
    for standing in [
        Standing::Unknown,
        Standing::Pending,
        Standing::Quarantined,
        Standing::Expired,
        Standing::Revoked,
    ] {
        // While connected.
        let mut world = World::synced(vec![peer(2, at(7200))]);
        assert_eq!(world.peers(), ids(&[2]));
        world.say(ControllerMessage::Standing(standing));
        assert!(world.peers().is_empty(), "{standing:?}");
        let mut offline = World::restored(world.saved.clone(), at(5));
        offline.up();
        offline.lost();
        offline.run(10 * SECOND, false);
        assert!(offline.peers().is_empty(), "{standing:?} after a restart");
        assert_eq!(offline.engine.status(offline.now).standing, Some(standing));
        // Who is no device any longer has no addresses either.
        let is_none = matches!(standing, Standing::Unknown | Standing::Revoked);
        let host = world.out.iter().find_map(|output| match output {
            Output::Host(host) => Some(host.clone()),
            _ => None,
        });
        assert_eq!(host.is_some(), is_none, "{standing:?}");
        assert!(host.is_none_or(|host| host.up && host.addresses.is_none()));

        // On connecting.
        let mut world = World::synced(vec![peer(2, at(7200))]);
        world.lost();
        world.call(|engine, now| engine.handle_connected(hello(standing, now.unix), now));
        assert!(matches!(world.out.first(), Some(Output::Publish(t)) if t.peers.is_empty()));
        let mut offline = World::restored(world.saved.clone(), at(5));
        offline.up();
        offline.lost();
        assert!(offline.peers().is_empty());
    }
    // Control: an approved device keeps its map over the same restart.
    let world = World::synced(vec![peer(2, at(7200))]);
    let mut offline = World::restored(world.saved, at(5));
    offline.up();
    offline.lost();
    assert_eq!(offline.peers(), ids(&[2]));
}

#[test]
fn quarantine_keeps_the_session_and_lifting_it_takes_a_new_map() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.say(ControllerMessage::Standing(Standing::Quarantined));
    assert!(!world.has(|output| matches!(output, Output::Disconnect)));
    // Even a controller that sent peers now would not get them enforced.
    world.map(delta(1, 2, &[2], vec![]));
    let resync = |m: &ClientMessage| matches!(m, ClientMessage::Resync(_));
    assert!(world.sent().any(resync));
    world.map(whole(2, vec![peer(2, at(7200))]));
    assert!(world.peers().is_empty());
    world.map(delta(2, 3, &[2], vec![]));
    world.say(ControllerMessage::Standing(Standing::Approved));
    assert!(world.peers().is_empty());
    world.map(delta(3, 4, &[], vec![peer(2, at(7200))]));
    assert_eq!(world.peers(), ids(&[2]));
}

#[test]
fn a_revoked_device_asks_seldom() {
    let mut world = World::synced(vec![]);
    world.say(ControllerMessage::Standing(Standing::Revoked));
    assert!(
        world
            .engine
            .status(world.now)
            .last_error
            .is_some_and(|e| e.contains("revoked"))
    );
    world.lost();
    let log = world.run(600 * SECOND, false);
    assert!(!log.iter().any(|(_, o)| matches!(o, Output::Connect { .. })));
}

#[test]
fn replaced_does_not_answer_in_kind() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.say(ControllerMessage::Refused(Refusal {
        code: RefusalCode::Replaced,
        message: "attached from elsewhere".into(),
    }));
    world.lost();
    assert_eq!(
        world.engine.status(world.now).last_error.as_deref(),
        Some("attached from elsewhere")
    );
    let log = world.run(100 * SECOND, false);
    assert!(!log.iter().any(|(_, o)| matches!(o, Output::Connect { .. })));
    assert_eq!(world.peers(), ids(&[2]), "the leases held still count");
}

#[test]
fn leaving_says_so_closes_and_forgets() {
    let mut world = World::synced(vec![peer(2, at(7200))]);
    world.call(|engine, now| engine.handle_leave(now));
    assert!(matches!(world.out.first(), Some(Output::Publish(t)) if t.peers.is_empty()));
    assert!(world.sent().any(|m| matches!(m, ClientMessage::Leave(_))));
    assert!(world.has(|o| matches!(o, Output::Disconnect)));
    assert_eq!(world.saved, Stored::default());
    let mut again = World::restored(world.saved, at(5));
    again.up();
    again.lost();
    assert!(again.peers().is_empty());
}

#[test]
fn another_networks_or_devices_state_is_not_used() {
    let saved = World::synced(vec![peer(2, at(7200))]).saved;
    let bytes = saved.to_bytes().unwrap();
    let same = Stored::from_bytes(&bytes).unwrap();
    let start = |identity: u8, network: u8| {
        let config = gatereeve_client_core::engine::EngineConfig {
            software: "test".into(),
            identity: std::sync::Arc::new(crate::support::identity(identity)),
            network: gatereeve_shared::identity::fingerprint::Fingerprint::of(
                &crate::support::identity(network).public(),
            ),
        };
        let now = World::restored(Stored::default(), at(5)).now;
        let engine = gatereeve_client_core::engine::Engine::new(config, same.clone(), [1; 32], now);
        engine.status(now).generation
    };
    assert_eq!(start(1, 200), Some(generation(1)));
    assert_eq!(start(2, 200), None);
    assert_eq!(start(1, 202), None);
}

#[test]
fn a_controller_of_another_network_gets_nothing() {
    let mut world = World::new();
    let mut greeting = hello(Standing::Approved, at(0));
    greeting.binding = gatereeve_shared::identity::binding::ControllerBinding::sign(
        &identity(77),
        identity(201).public(),
        gatereeve_shared::time::UnixMillis::MAX,
    );
    world.call(|engine, now| engine.handle_connected(greeting, now));
    world.facts(true);
    assert_eq!(world.sent().count(), 0);
    let error = world.engine.status(world.now).last_error;
    assert_eq!(error.as_deref(), Some("controller key mismatch"));
}
