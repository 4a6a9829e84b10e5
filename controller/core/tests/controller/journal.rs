//! Two phases: memory is never ahead of the journal.

use std::time::Duration;

use gatereeve_controller_core::command::{Command, ErrorCode, Reply};
use gatereeve_controller_core::state::State;
use gatereeve_shared::ids::DeviceName;
use gatereeve_shared::wire::controller::{EnrollReply, RefusalCode, Standing};

use crate::harness::{LAPTOP_TOO, POSTURE, WEB_TO_DB, World, admin, encrypted, replay};

fn rename(to: &str) -> Command {
    Command::DeviceRename {
        device: "web".into(),
        name: DeviceName::new(to).unwrap(),
    }
}

#[test]
fn nobody_is_told_before_the_journal_has_it() {
    let mut world = World::standard(LAPTOP_TOO);
    world.hold = true;
    world.updated.clear();
    let request = world.start(
        Command::DeviceRevoke {
            device: "web".into(),
            reason: None,
        },
        None,
    );
    assert!(world.updated.is_empty());
    assert!(!world.replies.contains_key(&request));
    assert!(world.client("web").session.is_some());
    assert_eq!(world.peers("db"), ["web"]);
    world.release();
    world.updated.sort_unstable();
    assert_eq!(world.updated, ["db", "laptop"]);
    assert!(world.client("web").session.is_none());
    assert!(matches!(world.replies[&request], Ok(Reply::Committed(_))));
}

#[test]
fn a_failed_append_drops_what_was_staged_behind_it() {
    let mut world = World::standard(LAPTOP_TOO);
    let before = world.controller.state().clone();
    world.hold = true;
    let first = world.start(rename("one"), None);
    // Staged on top of it: the device has its new name already.
    let again = |to: &str| Command::DeviceRename {
        device: "one".into(),
        name: DeviceName::new(to).unwrap(),
    };
    let taken = world.start(again("db"), None);
    let second = world.start(again("two"), None);
    world.refuse = true;
    world.release();
    world.refuse = false;
    world.hold = false;
    world.drain();
    for request in [first, second] {
        let error = world.replies[&request].clone().unwrap_err();
        assert_eq!(error.code, ErrorCode::Failed);
        assert!(error.message.contains("no space left on device"));
    }
    let error = world.replies[&taken].clone().unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(world.controller.state().devices(), before.devices());
    assert_eq!(world.peers("db"), ["web"]);
    match world.ask(Command::Status) {
        Ok(Reply::Status(status)) => assert!(
            status.warnings.iter().any(|w| w.contains("no space left")),
            "{status:?}"
        ),
        other => panic!("{other:?}"),
    }
    // The control: with room on the disk it goes on.
    world.commit(rename("three"));
    assert_eq!(world.peers("db"), ["three"]);
    world.check();
}

#[test]
fn a_failure_leaves_what_is_in_flight_before_it() {
    let mut world = World::standard(LAPTOP_TOO);
    world.hold = true;
    let to = |device: &str, name: &str| Command::DeviceRename {
        device: device.into(),
        name: DeviceName::new(name).unwrap(),
    };
    let first = world.start(to("web", "one"), None);
    let second = world.start(to("one", "two"), None);
    let third = world.start(to("two", "three"), None);
    world.refuse_at(1);
    for request in [second, third] {
        assert!(world.replies[&request].is_err());
    }
    assert!(!world.replies.contains_key(&first));
    // Staged on what is left.
    let fourth = world.start(to("one", "four"), None);
    world.hold = false;
    world.drain();
    for request in [first, fourth] {
        assert!(world.replies[&request].is_ok());
    }
    assert_eq!(world.peers("db"), ["four"]);
    world.check();
}

#[test]
fn an_enrollment_that_cannot_be_kept_is_refused() {
    let mut world = World::new();
    let invite = world.invite(&[], None, 1);
    world.add("a");
    world.connect("a");
    world.refuse = true;
    match world.enroll("a", Some(&invite)) {
        EnrollReply::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::Unavailable),
        done @ EnrollReply::Done(_) => panic!("{done:?}"),
    }
    world.refuse = false;
    let reply = world.enroll("a", Some(&invite));
    assert_eq!(reply, EnrollReply::Done(Standing::Approved));
}

#[test]
fn a_posture_change_is_tried_again_when_the_disk_has_room() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    world.refuse = true;
    world.report("laptop", encrypted(false));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    world.pass(Duration::from_secs(6));
    world.refuse = false;
    world.pass(Duration::from_secs(6));
    assert_eq!(world.peers("laptop"), ["db"]);
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::standard(LAPTOP_TOO);
    world.revoke("laptop");
    world.apply(WEB_TO_DB);
    world.pass(Duration::from_secs(10));
    let state = world.controller.state().clone();
    world.restart();
    assert_eq!(world.controller.state(), &state);
    world.reconnect("db");
    assert_eq!(world.peers("db"), ["web"]);
    let committed = world.commit(Command::PolicyRollback { revision: 1 });
    assert_eq!(committed.revision, Some(3));
    assert_eq!(
        world.controller.state().policies()[&3].text,
        world.controller.state().policies()[&1].text
    );
}

#[test]
fn heads_are_signed_and_a_restore_raises_the_incarnation() {
    let mut world = World::standard(WEB_TO_DB);
    world.pass(Duration::from_secs(10));
    let checkpoint = world.checkpoints.last().unwrap();
    let state = world.controller.state();
    assert_eq!(checkpoint.generation, state.generation());
    assert_eq!(checkpoint.hash, state.head());
    // A backup of an earlier state, restored.
    let old = world.journal.len() / 2;
    let mut restored: State = replay(&world.journal[..old]);
    let record = restored.restored(admin(), world.now.unix);
    let sealed = record.seal(&restored.head()).unwrap();
    let followed = sealed
        .follow(restored.generation(), &restored.head())
        .unwrap();
    restored.apply(&followed, sealed.hash);
    assert!(restored.generation() > state.generation());
}

#[test]
fn a_stop_and_a_start_sign_what_is_not_signed_yet() {
    let mut world = World::standard(WEB_TO_DB);
    world.revoke("web");
    world.controller.handle_stopping(world.now);
    world.drain();
    let signed = |world: &World| world.checkpoints.last().unwrap().generation;
    assert_eq!(signed(&world), world.controller.state().generation());
    let before = world.checkpoints.len();
    world.controller.handle_stopping(world.now);
    world.drain();
    assert_eq!(world.checkpoints.len(), before, "once");
    world.revoke("db");
    assert!(signed(&world) < world.controller.state().generation());
    world.restart();
    assert_eq!(signed(&world), world.controller.state().generation());
}

#[test]
fn every_change_has_its_audit_entry() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.report("laptop", encrypted(false));
    world.revoke("web");
    assert!(world.ask(rename("db")).is_err());
    let records = world.records();
    assert_eq!(world.count("invite.create"), 4);
    assert_eq!(world.count("device.enroll"), 4);
    assert_eq!(world.count("session.attach"), 4);
    assert_eq!(world.count("device.revoke"), 1);
    assert_eq!(world.count("device.rename"), 1, "the refusal");
    let posture: Vec<_> = records
        .iter()
        .filter(|record| record.audit.action == "posture.change")
        .collect();
    assert_eq!(posture.len(), 2);
    assert_eq!(
        posture[0].audit.details,
        ["opens laptop -> web by alice-to-web"]
    );
    assert_eq!(
        posture[1].audit.details,
        ["closes laptop -> web by alice-to-web"]
    );
    let reason = posture[1].audit.reason.clone().unwrap();
    assert!(reason.contains("disk_encrypted = true"), "{reason}");
}
