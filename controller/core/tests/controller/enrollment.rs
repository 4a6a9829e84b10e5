//! Becoming a device: once per use, in time, with the right secret, under a name of one's own.

use std::time::Duration;

use gatereeve_controller_core::command::{Command, ErrorCode};
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::invite::{Invite, InviteSecret};
use gatereeve_shared::wire::client::{ClientMessage, Enroll, Leave};
use gatereeve_shared::wire::controller::{EnrollReply, RefusalCode, Standing};

use crate::harness::{LAPTOP_TOO, WEB_TO_DB, World, tag};

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn refused_with(reply: &EnrollReply) -> Option<RefusalCode> {
    match reply {
        EnrollReply::Refused(refusal) => Some(refusal.code),
        EnrollReply::Done(_) => None,
    }
}

#[test]
fn an_invite_for_three_lets_in_three_of_twelve_that_race() {
    let mut world = World::new();
    let invite = world.invite(&["web"], None, 3);
    for name in NAMES {
        world.add(name);
        world.connect(name);
    }
    // All ask before the journal has answered the first.
    world.hold = true;
    for name in NAMES {
        let binding = world.client(name).keys.current.clone();
        let enroll = Enroll {
            invite: Some((invite.id, invite.secret.clone())),
            name: name.into(),
            binding,
        };
        world.say(name, ClientMessage::Enroll(enroll));
    }
    world.hold = false;
    world.drain();
    let answers: Vec<_> = NAMES
        .iter()
        .map(|name| world.clients[name].enrolled.clone().unwrap())
        .collect();
    let done = |reply: &&EnrollReply| **reply == EnrollReply::Done(Standing::Approved);
    assert_eq!(answers.iter().filter(done).count(), 3);
    let refused = answers.iter().filter_map(refused_with);
    assert!(
        refused
            .clone()
            .all(|code| { matches!(code, RefusalCode::Invite | RefusalCode::RateLimited) })
    );
    assert_eq!(refused.count(), 9);
    assert_eq!(world.controller.state().devices().len(), 3);
    world.restart();
    world.connect("l");
    let again = world.enroll("l", Some(&invite));
    assert_eq!(refused_with(&again), Some(RefusalCode::Invite));
}

#[test]
fn expired_revoked_and_guessed_invites_let_nobody_in() {
    let mut world = World::new();
    let good = world.invite(&[], None, 5);
    let revoked = world.invite(&[], None, 5);
    world.commit(Command::InviteRevoke { id: revoked.id });
    let guessed = Invite {
        secret: InviteSecret([0; 32]),
        ..good.clone()
    };
    for (name, invite) in [("a", &revoked), ("b", &guessed)] {
        world.add(name);
        world.connect(name);
        let reply = world.enroll(name, Some(invite));
        assert_eq!(refused_with(&reply), Some(RefusalCode::Invite), "{name}");
    }
    world.add("c");
    world.connect("c");
    let reply = world.enroll("c", Some(&good));
    assert_eq!(reply, EnrollReply::Done(Standing::Approved), "the control");
    world.pass(Duration::from_secs(3600));
    world.add("d");
    world.connect("d");
    let reply = world.enroll("d", Some(&good));
    assert_eq!(refused_with(&reply), Some(RefusalCode::Invite));
    // The real but expired one is in the audit log; the guess is not.
    assert_eq!(world.count("device.enroll"), 2);
    // Only the hash is kept.
    let secret = good.secret.0;
    let holds = |bytes: &[u8]| bytes.windows(32).any(|window| window == secret);
    assert!(!world.journal.iter().any(|record| holds(&record.bytes)));
    assert!(!world.tables.values().any(|row| holds(row)));
}

#[test]
fn guesses_from_one_network_are_slowed_and_a_valid_invite_still_works() {
    let mut world = World::new();
    let good = world.invite(&[], None, 1);
    let guessed = Invite {
        secret: InviteSecret([0; 32]),
        ..good.clone()
    };
    world.add("a");
    world.connect("a");
    let codes: Vec<_> = (0..15)
        .map(|_| refused_with(&world.enroll("a", Some(&guessed))))
        .collect();
    let count = |code| codes.iter().filter(|c| **c == Some(code)).count();
    assert_eq!(count(RefusalCode::Invite), 10);
    assert_eq!(count(RefusalCode::RateLimited), 5);
    let reply = world.enroll("a", Some(&good));
    assert_eq!(reply, EnrollReply::Done(Standing::Approved));
}

#[test]
fn without_an_invite_a_device_waits_and_learns_nothing() {
    let mut world = World::standard(LAPTOP_TOO);
    world.add("new");
    world.connect("new");
    assert_eq!(world.client("new").standing, Some(Standing::Unknown));
    let records = world.journal.len();
    let reply = world.enroll("new", None);
    assert_eq!(reply, EnrollReply::Done(Standing::Pending));
    assert_eq!(world.journal.len(), records, "nothing is journaled");
    world.attach("new");
    assert_eq!(world.client("new").refusal(), Some(RefusalCode::Standing));
    assert!(world.client("new").map.is_none());
    assert!(
        world
            .devices()
            .iter()
            .any(|device| { device.status == DeviceStatus::Pending && device.addresses.is_none() })
    );

    world.commit(Command::DeviceApprove {
        device: "new".into(),
        name: None,
        tags: vec![tag("web")],
        user: None,
    });
    assert_eq!(world.client("new").standing, Some(Standing::Approved));
    world.attach("new");
    assert_eq!(world.peers("new"), ["db", "laptop"]);
}

#[test]
fn the_waiting_room_is_bounded_for_one_network_and_forgets_in_an_hour() {
    let mut world = World::new();
    for name in NAMES {
        world.add(name);
        world.connect_from(name, "203.0.113.7:1".parse().unwrap());
    }
    let answers: Vec<_> = NAMES
        .iter()
        .take(9)
        .map(|name| world.enroll(name, None))
        .collect();
    let pending = EnrollReply::Done(Standing::Pending);
    assert_eq!(answers.iter().filter(|a| **a == pending).count(), 8);
    assert_eq!(refused_with(&answers[8]), Some(RefusalCode::RateLimited));
    assert_eq!(world.devices().len(), 8);
    world.pass(Duration::from_secs(3601));
    assert_eq!(world.devices().len(), 0);
}

#[test]
fn names_are_unique_and_those_of_the_policy_need_an_administrator() {
    let mut world = World::standard(WEB_TO_DB);
    let text = format!(
        "{WEB_TO_DB}[[allow]]\nid = \"x\"\nfrom = [\"device:other\"]\nto = [\"tag:db\"]\nports = [\"tcp:1\"]\n"
    );
    world.apply(&text);
    assert_eq!(world.peers("other"), ["db"], "the pinned device has it");
    // A second device of a taken name gets a number, and none of the access.
    let invite = world.invite(&[], None, 9);
    world.add("twin");
    world.connect("twin");
    let binding = world.client("twin").keys.current.clone();
    let enroll = |name: &str, binding| {
        ClientMessage::Enroll(Enroll {
            invite: Some((invite.id, invite.secret.clone())),
            name: name.into(),
            binding,
        })
    };
    world.say("twin", enroll("OTHER.example.com", binding));
    world.attach("twin");
    let map = world.client("twin").map.clone().unwrap();
    assert_eq!(map.this.name.as_str(), "other-1");
    assert!(map.peers.is_empty());
    // The name becomes free, but the policy still speaks of it.
    world.commit(Command::DeviceDelete {
        device: "other".into(),
    });
    world.add("third");
    world.connect("third");
    let binding = world.client("third").keys.current.clone();
    world.say("third", enroll("other", binding));
    let reply = world.client("third").enrolled.clone();
    assert_eq!(reply, Some(EnrollReply::Done(Standing::Pending)));
    world.commit(Command::DeviceApprove {
        device: "other".into(),
        name: None,
        tags: vec![],
        user: None,
    });
    world.attach("third");
    let map = world.client("third").map.clone().unwrap();
    assert_eq!(map.this.name.as_str(), "other");
    assert!(map.peers.is_empty(), "the pin is to the device that was");
}

#[test]
fn addresses_rest_after_a_device_is_forgotten() {
    let mut world = World::new();
    world.join("a", &[], None);
    let before = world.client("a").map.clone().unwrap().this.addresses;
    world.say("a", ClientMessage::Leave(Leave {}));
    assert_eq!(world.client("a").standing, Some(Standing::Unknown));
    assert!(world.controller.state().devices().is_empty());
    world.client("a").map = None;
    let join_again = |world: &mut World| {
        let invite = world.invite(&[], None, 1);
        world.connect("a");
        world.enroll("a", Some(&invite));
        world.attach("a");
        world.client("a").map.clone().unwrap().this.addresses
    };
    // The address follows from the key, so only its rest keeps the same device from it.
    let during = join_again(&mut world);
    assert_ne!(during.v4, before.v4);
    assert_ne!(during.v6, before.v6);
    world.say("a", ClientMessage::Leave(Leave {}));
    world.client("a").map = None;
    world.pass(Duration::from_secs(31 * 24 * 3600));
    let invite = world.invite(&[], None, 1);
    world.add("b");
    world.connect("b");
    world.enroll("b", Some(&invite));
    assert_eq!(join_again(&mut world), before);
}

#[test]
fn a_revoked_key_stays_out_also_when_its_device_is_deleted() {
    let mut world = World::standard(LAPTOP_TOO);
    world.revoke("web");
    assert_eq!(world.client("web").standing, Some(Standing::Revoked));
    assert_eq!(
        world.client("web").closed_with(),
        Some(RefusalCode::Standing)
    );
    world.commit(Command::DeviceDelete {
        device: "web".into(),
    });
    world.restart();
    let invite = world.invite(&["web"], None, 1);
    world.connect("web");
    assert_eq!(world.client("web").standing, Some(Standing::Revoked));
    assert_eq!(
        world.client("web").closed_with(),
        Some(RefusalCode::Standing)
    );
    world.say("web", ClientMessage::Leave(Leave {}));
    assert!(world.controller.state().invites()[&invite.id].uses_left == 1);
}

#[test]
fn ephemeral_devices_vanish_when_they_are_gone() {
    let mut world = World::standard(LAPTOP_TOO);
    let invite = world.invite_with(Command::InviteCreate {
        tags: vec![tag("web")],
        user: None,
        uses: 1,
        expires_secs: 60,
        ephemeral: true,
        approve: false,
    });
    world.add("job");
    world.connect("job");
    world.enroll("job", Some(&invite));
    world.attach("job");
    world.pass(Duration::from_secs(4000));
    assert_eq!(world.peers("db"), ["job", "web"], "there while connected");
    world.disconnect("job");
    world.pass(Duration::from_secs(200));
    world.restart();
    world.reconnect("db");
    assert_eq!(world.peers("db"), ["job", "web"]);
    world.pass(Duration::from_secs(301));
    assert_eq!(world.peers("db"), ["web"]);
    world.connect("job");
    assert_eq!(world.client("job").standing, Some(Standing::Unknown));
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let mut world = World::standard(WEB_TO_DB);
    let generation = |world: &World| {
        let state = world.controller.state();
        (state.devices().clone(), state.policies().clone())
    };
    let before = generation(&world);
    let code = |world: &mut World, command| world.ask(command).unwrap_err().code;
    let device = || "db".to_owned();
    assert_eq!(
        code(&mut world, Command::DeviceShow { device: "x".into() }),
        ErrorCode::NotFound
    );
    assert_eq!(
        code(
            &mut world,
            Command::DeviceRename {
                device: device(),
                name: "web".parse().unwrap()
            }
        ),
        ErrorCode::Conflict
    );
    assert_eq!(
        code(
            &mut world,
            Command::PolicyApply {
                text: "version = 1\nnonsense = 2\n".into(),
                if_generation: None
            }
        ),
        ErrorCode::Usage
    );
    assert_eq!(
        code(
            &mut world,
            Command::PolicyApply {
                text: WEB_TO_DB.into(),
                if_generation: Some(7)
            }
        ),
        ErrorCode::Conflict
    );
    assert_eq!(
        code(&mut world, Command::PolicyRollback { revision: 9 }),
        ErrorCode::NotFound
    );
    let failing = format!(
        "{WEB_TO_DB}[[test]]\nfrom = \"tag:db\"\nto = \"tag:web\"\nports = [\"tcp:22\"]\nexpect = [\"allow\"]\n"
    );
    assert_eq!(
        code(
            &mut world,
            Command::PolicyApply {
                text: failing,
                if_generation: None
            }
        ),
        ErrorCode::Refused
    );
    assert_eq!(generation(&world), before);
    world.check();
}

#[test]
fn a_key_that_holds_too_many_connections_loses_the_oldest_and_not_its_session() {
    let mut world = World::standard(WEB_TO_DB);
    let key = world.client("web").key.public();
    let session = world.client("web").session;
    let from = world.address("web");
    for n in 0..20 {
        let extra = gatereeve_controller_core::output::SessionId(1_000_000 + n);
        world.controller.handle_opened(extra, key, from, world.now);
        world.drain();
    }
    assert_eq!(world.client("web").session, session);
    assert_eq!(world.closed_strangers, 17);
}
