//! `--wait`: it returns when every connected device concerned enforces the change.

use std::time::Duration;

use gatereeve_controller_core::command::{Command, Committed, Reply};
use gatereeve_controller_core::output::RequestId;

use crate::harness::{LAPTOP_TOO, POSTURE, WEB_TO_DB, World, encrypted, tag};

fn revoke(device: &str) -> Command {
    Command::DeviceRevoke {
        device: device.into(),
        reason: None,
    }
}

fn apply(policy: &str) -> Command {
    Command::PolicyApply {
        text: policy.into(),
        if_generation: None,
    }
}

fn answer(world: &World, request: RequestId) -> Option<Committed> {
    match world.replies.get(&request) {
        None => None,
        Some(Ok(Reply::Committed(committed))) => Some(committed.clone()),
        Some(other) => panic!("{other:?}"),
    }
}

fn names(committed: &Committed) -> (Vec<String>, Vec<String>) {
    let confirmed = committed.confirmed.iter().map(ToString::to_string);
    let unconfirmed = committed.unconfirmed.iter().map(|u| u.name.to_string());
    (confirmed.collect(), unconfirmed.collect())
}

#[test]
fn it_returns_when_the_last_data_path_has_confirmed() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.client("web").confirms = false;
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(answer(&world, request), None, "db has not confirmed");
    world.client("db").confirms = true;
    world.confirm();
    let committed = answer(&world, request).unwrap();
    let (confirmed, unconfirmed) = names(&committed);
    assert_eq!(confirmed, ["db", "laptop"]);
    // The device that loses access is not waited for, though it never confirmed.
    assert!(unconfirmed.is_empty());
    assert!(committed.waited);
    assert_eq!(committed.lost_pairs, 2);
    let record = world.records().pop().unwrap();
    assert_eq!(committed.at, record.at);
    assert_eq!(committed.generation, record.generation);
}

#[test]
fn it_names_who_has_not_confirmed_and_until_when() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    let request = world.start(revoke("web"), Some(2_000));
    world.confirm();
    world.pass(Duration::from_millis(1_999));
    assert_eq!(answer(&world, request), None);
    world.pass(Duration::from_millis(2));
    let committed = answer(&world, request).unwrap();
    let (confirmed, unconfirmed) = names(&committed);
    assert_eq!(confirmed, ["laptop"]);
    assert_eq!(unconfirmed, ["db"]);
    let db = &committed.unconfirmed[0];
    assert!(db.connected);
    assert!(db.leases_end.unwrap() > world.now.unix);
}

#[test]
fn devices_that_are_away_are_named_with_the_end_of_their_leases() {
    let mut world = World::standard(LAPTOP_TOO);
    world.disconnect("db");
    world.pass(Duration::from_secs(600));
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    let committed = answer(&world, request).unwrap();
    let (confirmed, unconfirmed) = names(&committed);
    assert_eq!(
        (confirmed, unconfirmed),
        (vec!["laptop".into()], vec!["db".into()])
    );
    let db = &committed.unconfirmed[0];
    let held = &world.clients["db"].map.as_ref().unwrap().peers[&world.id("web")];
    assert!(!db.connected);
    assert_eq!(db.leases_end, Some(held.ingress[0].lease.end()));

    // After a restart what it holds is not known: the longest is assumed.
    let mut world = World::standard(LAPTOP_TOO);
    let held = world.clients["db"].map.clone().unwrap().peers[&world.id("web")].clone();
    world.restart();
    let request = world.start(revoke("web"), Some(30_000));
    let committed = answer(&world, request).unwrap();
    let db = committed
        .unconfirmed
        .iter()
        .find(|u| u.name.as_str() == "db");
    assert!(db.unwrap().leases_end >= Some(held.ingress[0].lease.end()));

    // With its leases over it can do nothing, and is not named.
    let mut world = World::standard(LAPTOP_TOO);
    world.disconnect("db");
    world.pass(Duration::from_secs(9 * 3600));
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(
        names(&answer(&world, request).unwrap()).1,
        Vec::<String>::new()
    );
}

fn quarantine(device: &str) -> Command {
    Command::DeviceQuarantine {
        device: device.into(),
        lift: false,
        reason: None,
    }
}

/// What takes access already is not sent again by what takes it for good.
#[test]
fn it_waits_for_what_an_earlier_change_has_taken() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.confirm();
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(answer(&world, request), None, "db may let web through");
    world.client("db").confirms = true;
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed), (vec!["db".into()], Vec::new()));

    // What has been confirmed is not waited for.
    let mut world = World::standard(LAPTOP_TOO);
    world.ask(quarantine("web")).unwrap();
    world.confirm();
    world.client("db").confirms = false;
    let request = world.start(revoke("web"), Some(30_000));
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed), (Vec::new(), Vec::new()));

    // Nor is what is about somebody else.
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    let request = world.start(revoke("other"), Some(30_000));
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert!(!names(&committed).1.contains(&"db".to_owned()));
}

#[test]
fn it_names_who_was_sent_an_earlier_change_and_went_away() {
    let mut world = World::standard(LAPTOP_TOO);
    let held = world.clients["db"].map.clone().unwrap().peers[&world.id("web")].clone();
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.disconnect("db");
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, ["db"]);
    let db = &committed.unconfirmed[0];
    assert!(!db.connected);
    assert_eq!(db.leases_end, Some(held.ingress[0].lease.end()));

    // It comes back and is sent all; until it has confirmed that, it may have what it had.
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.confirm();
    world.disconnect("db");
    world.client("db").map = None;
    world.reconnect("db");
    let request = world.start(revoke("web"), Some(2_000));
    world.confirm();
    assert_eq!(answer(&world, request), None);
    world.pass(Duration::from_secs(3));
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, ["db"]);
    assert!(committed.unconfirmed[0].connected);

    // What it could have is over by itself.
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.disconnect("db");
    world.pass(Duration::from_secs(9 * 3600));
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(
        names(&answer(&world, request).unwrap()).1,
        Vec::<String>::new()
    );
}

/// Nobody knows what a device holds that comes to a controller that has just started.
#[test]
fn after_a_restart_it_waits_for_who_has_not_confirmed_the_whole() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.restart();
    world.reconnect("db");
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(answer(&world, request), None, "db may let web through");
    world.client("db").confirms = true;
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert!(names(&committed).0.contains(&"db".to_owned()));
}

/// The same while they have not come back: who may not have heard of it is named.
#[test]
fn after_a_restart_it_names_who_may_not_have_heard() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.restart();
    let request = world.start(revoke("web"), Some(30_000));
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, ["db", "laptop", "other"]);
    let ends = committed.unconfirmed.iter().map(|late| late.leases_end);
    assert!(ends.min().unwrap() > Some(world.now.unix));
    // What it could have is over by itself.
    let mut world = World::standard(LAPTOP_TOO);
    world.ask(quarantine("web")).unwrap();
    world.restart();
    world.pass(Duration::from_secs(9 * 3600));
    let request = world.start(revoke("web"), Some(30_000));
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, Vec::<String>::new());
}

/// When devices were last seen is soft state. Without it they are no new ones.
#[test]
fn after_a_loss_of_soft_state_it_waits_for_and_names_the_same() {
    let start = || {
        let mut world = World::standard(LAPTOP_TOO);
        world.client("db").confirms = false;
        world.ask(quarantine("web")).unwrap();
        world.soft.clear();
        world.restart();
        world
    };
    let mut world = start();
    world.reconnect("db");
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(answer(&world, request), None, "db may let web through");

    let mut world = start();
    let request = world.start(revoke("web"), Some(30_000));
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, ["db", "laptop", "other"]);
}

/// Who has lost a role is not suspect for that, and may still let through whom it served.
#[test]
fn it_waits_for_who_has_lost_a_role() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    let untag = Command::DeviceTag {
        device: "db".into(),
        add: Vec::new(),
        remove: vec![tag("db")],
    };
    world.ask(untag).unwrap();
    world.confirm();
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert_eq!(answer(&world, request), None, "db may let web through");
    world.client("db").confirms = true;
    world.confirm();
    assert!(
        names(&answer(&world, request).unwrap())
            .0
            .contains(&"db".to_owned())
    );
}

/// What is known of nobody holds up only what can be about it.
#[test]
fn it_does_not_wait_for_who_can_have_nothing_of_it() {
    // A change that is about no device.
    let mut world = World::standard(LAPTOP_TOO);
    let invite = world.invite(&["web"], None, 1);
    world.restart();
    world.client("db").confirms = false;
    world.reconnect("db");
    let withdraw = Command::InviteRevoke { id: invite.id };
    let request = world.start(withdraw, Some(30_000));
    assert!(answer(&world, request).is_some());

    // A device that has just come into being.
    let mut world = World::standard(LAPTOP_TOO);
    world.add("new");
    world.client("new").confirms = false;
    let invite = world.invite(&["other"], None, 1);
    world.connect("new");
    world.enroll("new", Some(&invite));
    world.attach("new");
    assert!(world.client("new").map.is_some());
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    assert!(answer(&world, request).is_some());

    // One that was taken out meanwhile.
    let mut world = World::standard(LAPTOP_TOO);
    world.client("web").confirms = false;
    world
        .ask(apply(&WEB_TO_DB.replace("5432", "5433")))
        .unwrap();
    world.ask(quarantine("web")).unwrap();
    world.confirm();
    let request = world.start(apply(WEB_TO_DB), Some(30_000));
    world.confirm();
    assert!(answer(&world, request).is_some());
}

/// Who has lost its access may be hostile: it holds nobody's change up by not confirming.
#[test]
fn it_does_not_wait_for_who_has_lost_access() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("web").confirms = false;
    world.ask(quarantine("web")).unwrap();
    world.confirm();
    let request = world.start(apply(WEB_TO_DB), Some(30_000));
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, Vec::<String>::new());

    // The same for one that fails a check.
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.confirm();
    world.client("laptop").confirms = false;
    world.report("laptop", encrypted(false));
    world.confirm();
    let request = world.start(revoke("web"), Some(30_000));
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, Vec::<String>::new());
}

#[test]
fn a_change_that_concerns_nobody_does_not_wait() {
    let mut world = World::standard(WEB_TO_DB);
    for name in ["web", "db", "laptop", "other"] {
        world.client(name).confirms = false;
    }
    let request = world.start(revoke("laptop"), Some(30_000));
    assert!(answer(&world, request).unwrap().unconfirmed.is_empty());
    // Without a wish to wait, the devices concerned are named at once.
    let request = world.start(revoke("web"), None);
    let committed = answer(&world, request).unwrap();
    assert_eq!(names(&committed).1, ["db"]);
    assert!(!committed.waited);
}

#[test]
fn a_device_that_comes_back_confirms_by_what_it_then_enforces() {
    let mut world = World::standard(LAPTOP_TOO);
    world.client("db").confirms = false;
    let request = world.start(revoke("web"), Some(30_000));
    world.disconnect("db");
    world.confirm();
    assert_eq!(answer(&world, request), None);
    world.client("db").confirms = true;
    world.reconnect("db");
    assert_eq!(names(&answer(&world, request).unwrap()).0, ["db", "laptop"]);
}

#[test]
fn a_policy_waits_for_both_ends() {
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    for name in ["web", "db", "laptop", "other"] {
        world.client(name).confirms = false;
    }
    let apply = Command::PolicyApply {
        text: WEB_TO_DB.into(),
        if_generation: Some(1),
    };
    let request = world.start(apply, Some(30_000));
    for name in ["laptop", "web", "db"] {
        assert_eq!(answer(&world, request), None, "before {name}");
        world.client(name).confirms = true;
        world.confirm();
    }
    // Another interval of reports is a change for all, so `other` is concerned as well.
    world.client("other").confirms = true;
    world.confirm();
    let committed = answer(&world, request).unwrap();
    assert_eq!(committed.revision, Some(2));
    assert_eq!((committed.gained_pairs, committed.lost_pairs), (1, 2));
}
