//! What is refused is in the audit log as well: who asked for what, and why not.

use std::time::Duration;

use gatereeve_controller_core::audit::entry::{Actor, AuditEntry, Outcome};
use gatereeve_controller_core::command::{Command, ErrorCode, Request};
use gatereeve_controller_core::output::RequestId;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::wire::controller::{RefusalCode, Standing};

use crate::harness::{WEB_TO_DB, World};

/// The newest record: who, and its entry.
fn last(world: &World) -> (Actor, AuditEntry) {
    let record = world.records().pop().unwrap();
    (record.actor, record.audit)
}

#[test]
fn refused_commands_are_recorded_with_what_they_were_about() {
    let mut world = World::standard(WEB_TO_DB);
    let revoke = |device: &str| Command::DeviceRevoke {
        device: device.into(),
        reason: None,
    };
    let answer = world.ask(revoke("nobody"));
    assert_eq!(answer.map_err(|error| error.code), Err(ErrorCode::NotFound));
    let (_, entry) = last(&world);
    assert_eq!(
        (entry.action.as_str(), entry.subject.as_str(), entry.outcome),
        ("device.revoke", "device nobody", Outcome::Refused)
    );

    // Who may not administrate is answered and recorded, and nothing happens.
    let stranger = Actor::Local {
        uid: 1234,
        user: "mallory".into(),
    };
    for (number, command) in [revoke("web"), Command::DeviceList].into_iter().enumerate() {
        let request = RequestId(1_000_000 + number as u64);
        let asked = Request {
            command,
            wait_ms: None,
        };
        world
            .controller
            .handle_forbidden(request, &stranger, &asked, world.now);
        world.drain();
        let answer = world.replies.remove(&request).unwrap();
        assert_eq!(answer.map_err(|error| error.code), Err(ErrorCode::Refused));
        let (actor, entry) = last(&world);
        assert_eq!((actor, entry.outcome), (stranger.clone(), Outcome::Refused));
    }
    assert_eq!(world.count("device.revoke"), 2);
    assert_eq!(world.count("admin.read"), 1);
    let web = world.id("web");
    assert!(!world.controller.state().is_revoked(&web));
    world.revoke("web");
    assert!(world.controller.state().is_revoked(&web), "the control");

    // A flood of refusals does not fill the disk.
    let before = world.records().len();
    for _ in 0..200 {
        drop(world.ask(revoke("nobody")));
    }
    assert!(world.records().len() - before <= 10);
}

#[test]
fn known_keys_that_get_no_session_are_recorded() {
    let policy = format!("{WEB_TO_DB}\n[network]\nkey_expiry = \"1d\"\n");
    let mut world = World::new();
    world.apply(&policy);
    world.join("web", &["web"], None);
    world.pass(Duration::from_secs(2 * 86_400));
    world.connect("web");
    assert_eq!(world.client("web").standing, Some(Standing::Expired));
    let (actor, entry) = last(&world);
    assert_eq!(actor, Actor::Device(world.id("web")));
    assert_eq!(
        (entry.action.as_str(), entry.outcome),
        ("session.attach", Outcome::Refused)
    );
    assert_eq!(entry.reason.as_deref(), Some("the key has expired"));
}

#[test]
fn a_real_invite_with_a_forged_key_is_recorded() {
    let mut world = World::new();
    let invite = world.invite(&[], None, 1);
    world.add("web");
    world.connect("web");
    let own = world.client("web").keys.clone();
    let forged = world.binding(&IdentityKey::from_seed(&[200; 32]), 9, 1);
    world.client("web").keys.current = forged;
    let reply = world.enroll("web", Some(&invite));
    assert!(
        format!("{reply:?}").contains(&format!("{:?}", RefusalCode::Binding)),
        "{reply:?}"
    );
    let (_, entry) = last(&world);
    assert_eq!(
        (entry.action.as_str(), entry.outcome),
        ("device.enroll", Outcome::Refused)
    );
    assert_eq!(entry.subject, format!("invite {}", invite.id));
    // The invite is not used up by it.
    world.client("web").keys = own;
    world.enroll("web", Some(&invite));
    assert_eq!(last(&world).1.outcome, Outcome::Done);
}
