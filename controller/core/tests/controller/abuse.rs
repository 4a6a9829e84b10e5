//! What a device of the network can cost the others, the journal and the disk.

use std::time::Duration;

use gatereeve_shared::posture::fact::{Fact, FactValue};
use gatereeve_shared::wire::client::{ClientMessage, EndpointUpdate, Leave};
use gatereeve_shared::wire::controller::{ControllerMessage, EnrollReply, RefusalCode, Standing};

use gatereeve_controller_core::command::{Command, Reply};

use crate::harness::{POSTURE, WEB_TO_DB, World, encrypted};

fn move_to(world: &mut World, port: u16) {
    let update = EndpointUpdate {
        listen_port: port,
        endpoints: vec![],
    };
    world.say("web", ClientMessage::Endpoints(update));
}

fn told_of_moves(world: &World) -> Vec<u16> {
    let inbox = world.clients["db"].inbox.iter();
    inbox
        .filter_map(|message| match message {
            ControllerMessage::Endpoints(changes) => Some(changes[0].endpoints[0].port()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_device_that_moves_without_end_is_heard_of_now_and_then() {
    let mut world = World::standard(WEB_TO_DB);
    world.client("db").inbox.clear();
    move_to(&mut world, 1000);
    assert_eq!(told_of_moves(&world), [1000], "the control: at once");
    for port in 1001..1400 {
        move_to(&mut world, port);
        world.pass(Duration::from_millis(100));
    }
    let told = told_of_moves(&world).len();
    assert!((20..=45).contains(&told), "{told}");
    world.pass(Duration::from_secs(5));
    assert_eq!(told_of_moves(&world).last(), Some(&1399), "where it is now");
    world.pass(Duration::from_secs(60));
    move_to(&mut world, 2000);
    assert_eq!(told_of_moves(&world).last(), Some(&2000), "at once again");
}

#[test]
fn whole_maps_are_not_had_for_the_asking() {
    let mut world = World::standard(WEB_TO_DB);
    world.pass(Duration::from_secs(10));
    world.client("web").confirms = false;
    world.client("web").inbox.clear();
    let generation = world.controller.state().generation();
    for _ in 0..40 {
        world.say("web", ClientMessage::Resync(generation));
    }
    let maps = |world: &World| {
        let inbox = world.clients["web"].inbox.iter();
        inbox
            .filter(|message| matches!(message, ControllerMessage::Map(_)))
            .count()
    };
    assert_eq!(maps(&world), 4);
    world.pass(Duration::from_secs(1));
    world.say("web", ClientMessage::Resync(generation));
    assert_eq!(maps(&world), 5, "in time it gets another");
}

/// Who asks for all by coming back gets it no more often.
#[test]
fn whole_maps_are_not_had_by_coming_back() {
    let mut world = World::standard(WEB_TO_DB);
    world.pass(Duration::from_secs(60));
    let mut maps = 0;
    let mut come_back = |world: &mut World| {
        world.client("web").map = None;
        world.reconnect("web");
        let inbox = &world.clients["web"].inbox;
        let is_map = |message: &&ControllerMessage| matches!(message, ControllerMessage::Map(_));
        maps += inbox.iter().filter(is_map).count();
        maps
    };
    for _ in 0..40 {
        come_back(&mut world);
    }
    assert_eq!(come_back(&mut world), 10);
    let closed = world.clients["web"].closed.clone().flatten();
    assert_eq!(closed.unwrap().code, RefusalCode::RateLimited);
    world.pass(Duration::from_secs(2));
    assert_eq!(come_back(&mut world), 11, "in time it gets another");

    // Nor by coming back for what it has, and asking then.
    world.pass(Duration::from_secs(60));
    world.reconnect("web");
    let mut maps = 0;
    for _ in 0..20 {
        world.reconnect("web");
        let generation = world.controller.state().generation();
        for _ in 0..3 {
            world.say("web", ClientMessage::Resync(generation));
        }
        let inbox = world.clients["web"].inbox.iter();
        maps += inbox
            .filter(|message| matches!(message, ControllerMessage::Map(_)))
            .count();
    }
    assert!((5..10).contains(&maps), "{maps}");
}

/// How old facts are is the device's own word, and what is old is renewed out of turn.
#[test]
fn facts_that_are_called_old_do_not_keep_others_busy() {
    let old = || {
        let age = 50_000;
        vec![Fact::new(
            "disk_encrypted",
            &FactValue::Bool(true),
            "test",
            age,
        )]
    };
    let mut world = World::standard(POSTURE);
    world.report("laptop", encrypted(true));
    world.report("laptop", old());
    world.client("web").inbox.clear();
    for _ in 0..600 {
        world.pass(Duration::from_millis(100));
        world.report("laptop", old());
    }
    let inbox = world.clients["web"].inbox.iter();
    let is_renewal = |message: &&ControllerMessage| matches!(message, ControllerMessage::Renew(_));
    let renewals = inbox.filter(is_renewal).count();
    assert!((6..=20).contains(&renewals), "{renewals} in a minute");
}

const CHECKS: usize = 15;

fn facts(good: usize) -> Vec<Fact> {
    (0..CHECKS)
        .map(|n| {
            Fact::new(
                format!("custom.f{n}"),
                &FactValue::Bool(n < good),
                "test",
                0,
            )
        })
        .collect()
}

/// Laptop's access to web asks for many checks.
fn many_checks() -> String {
    let checks: Vec<String> = (0..CHECKS)
        .map(|n| format!("[posture.c{n}]\ncustom.f{n} = true\nmax_age = \"1h\"\n"))
        .collect();
    let names: Vec<String> = (0..CHECKS).map(|n| format!("\"c{n}\"")).collect();
    format!(
        "version = 1\n[tags.\"tag:web\"]\n{}[[allow]]\nid = \"alice-to-web\"\n\
         from = [\"alice@example.com\"]\nto = [\"tag:web\"]\nports = [\"tcp:22\"]\n\
         posture = [{}]\n",
        checks.concat(),
        names.join(", ")
    )
}

#[test]
fn flapping_posture_does_not_fill_the_journal() {
    let mut world = World::standard(&many_checks());
    world.report("laptop", facts(CHECKS));
    assert_eq!(world.peers("laptop"), ["web"], "the control");
    world.report("laptop", facts(0));
    assert_eq!(world.peers("laptop"), Vec::<String>::new());
    let records = world.journal.len();
    // All met at once, then lost one by one, for an hour.
    for _ in 0..225 {
        world.report("laptop", facts(CHECKS));
        for good in (0..CHECKS).rev() {
            world.report("laptop", facts(good));
            world.pass(Duration::from_secs(1));
        }
    }
    let written = world.journal.len() - records;
    assert!(written <= 2 * (20 + 3600 / 15), "{written}");
    // Closing never waits.
    world.pass(Duration::from_secs(600));
    world.report("laptop", facts(CHECKS));
    assert_eq!(world.peers("laptop"), ["web"]);
    world.report("laptop", facts(CHECKS - 1));
    assert_eq!(world.peers("laptop"), Vec::<String>::new());
}

#[test]
fn days_of_flapping_are_slowed_and_told() {
    let mut world = World::standard(POSTURE);
    let flap = |world: &mut World| {
        world.report("laptop", encrypted(true));
        world.report("laptop", encrypted(false));
    };
    flap(&mut world);
    assert_eq!(warnings(&mut world), 0, "the control: nothing to tell");
    let records = world.journal.len();
    // Slower than the burst limits, for three days.
    let every = Duration::from_secs(20);
    let days = 3;
    for _ in 0..days * 86_400 / every.as_secs() {
        flap(&mut world);
        world.pass(every);
    }
    let written = world.journal.len() - records;
    let limit = 300 + days * 86_400 / 300;
    // One record to open and one to close.
    assert!(written as u64 <= 2 * limit, "{written}");
    assert_eq!(warnings(&mut world), 1);
    // Well for a day, it is let in at once again, and cut at once.
    world.pass(Duration::from_secs(86_400));
    world.report("laptop", encrypted(true));
    assert_eq!(world.peers("laptop"), ["db", "web"]);
    world.report("laptop", encrypted(false));
    assert_eq!(world.peers("laptop"), ["db"]);
    assert_eq!(warnings(&mut world), 0);
}

fn warnings(world: &mut World) -> usize {
    let Ok(Reply::Status(status)) = world.ask(Command::Status) else {
        panic!("no status");
    };
    let slowed = status.warnings.iter();
    slowed
        .filter(|text| text.starts_with("laptop changes its posture or keys so often"))
        .count()
}

#[test]
fn the_last_of_many_reports_is_the_one_that_is_kept() {
    let mut world = World::standard(POSTURE);
    for n in 0..30 {
        world.report("laptop", encrypted(n % 2 == 0));
    }
    world.report("laptop", encrypted(false));
    world.pass(Duration::from_secs(2));
    world.restart();
    world.reconnect("web");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.peers("web"), Vec::<String>::new());
}

#[test]
fn a_quarantined_device_does_not_leave_its_quarantine() {
    let mut world = World::new();
    let invite = world.invite(&["web"], None, 9);
    for name in ["good", "bad"] {
        world.add(name);
        world.connect(name);
        let reply = world.enroll(name, Some(&invite));
        assert_eq!(reply, EnrollReply::Done(Standing::Approved));
        world.attach(name);
    }
    world.commit(Command::DeviceQuarantine {
        device: "bad".into(),
        lift: false,
        reason: None,
    });
    for name in ["good", "bad"] {
        world.say(name, ClientMessage::Leave(Leave {}));
        world.connect(name);
    }
    assert_eq!(world.devices().len(), 1);
    let reply = world.enroll("bad", Some(&invite));
    assert_eq!(reply, EnrollReply::Done(Standing::Quarantined));
    let reply = world.enroll("good", Some(&invite));
    assert_eq!(reply, EnrollReply::Done(Standing::Approved), "the control");
    world.connect("bad");
    world.say("bad", ClientMessage::Leave(Leave {}));
    assert_eq!(
        world.client("bad").closed_with(),
        Some(RefusalCode::Standing)
    );
}
