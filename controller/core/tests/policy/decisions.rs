//! What follows from a policy, case by case.

use gatereeve_controller_core::pdp::engine::{grants, next_change, pairs, related};
use gatereeve_controller_core::pdp::explain::{explain, why};
use gatereeve_controller_core::pdp::reach::reach;
use gatereeve_controller_core::policy::diff::plan;
use gatereeve_controller_core::policy::selftest::run_tests;
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::time::UnixMillis;

use crate::support::{Decided, HOUR, MINUTE, NOON, World, device, fact};

const POLICY: &str = r#"version = 1
[groups]
engineering = ["alice@example.com", "bob@example.com", "carol@example.com"]
[tags."tag:web"]
[tags."tag:db"]
[tags."tag:spare"]
[posture.workstation]
disk_encrypted = true
max_age = "15m"
[posture.server]
firewall = true

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]
to_posture = ["server"]

[[allow]]
id = "engineers-ssh"
from = ["group:engineering"]
to = ["tag:web", "tag:db"]
ports = ["tcp:22", "tcp:8000-8100"]
posture = ["workstation"]
schedule = "Mon-Fri 08:00-19:00 Europe/Berlin"
until = 2027-06-30T00:00:00Z

[[allow]]
id = "spare"
from = ["tag:spare"]
to = ["tag:db"]
ports = ["icmp"]
"#;

fn world() -> World {
    let mut world = World::new([
        device(1, "laptop", Some("alice@example.com"), &[]),
        device(2, "tablet", Some("bob@example.com"), &[]),
        device(3, "web", None, &["web"]),
        device(4, "db", None, &["db"]),
        device(5, "stranger", Some("mallory@example.com"), &[]),
    ]);
    let on = FactValue::Bool(true);
    world.report("laptop", NOON, vec![fact("disk_encrypted", &on, 0)]);
    let off = FactValue::Bool(false);
    world.report("tablet", NOON, vec![fact("disk_encrypted", &off, 0)]);
    world.report("db", NOON, vec![fact("firewall", &on, 0)]);
    world
}

fn port(text: &str) -> PortSpec {
    text.parse().unwrap()
}

/// The ends of what one device is granted at another.
fn ends(
    world: &World,
    decided: &Decided<'_>,
    src: &str,
    dst: &str,
    now: UnixMillis,
) -> Vec<(u64, u64)> {
    grants(&decided.view(), &world.id(src), &world.id(dst), now)
        .into_iter()
        .map(|grant| (grant.lease.end().0, grant.lease.hard_end().0))
        .collect()
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    let world = world();
    for text in ["", "version = 1"] {
        let decided = world.decide(text, NOON);
        assert_eq!(pairs(&decided.view()).count(), 0);
        for src in world.devices.keys() {
            assert!(related(&decided.view(), src).is_empty());
            for dst in world.devices.keys() {
                assert_eq!(grants(&decided.view(), src, dst, NOON), []);
            }
        }
    }
}

#[test]
fn a_grant_ends_with_whatever_ends_first() {
    let mut world = world();
    let decided = world.decide(POLICY, NOON);
    // The verdict lasts 15 minutes; the window closes at 19:00 in Berlin.
    let closes = NOON.0 + 6 * HOUR;
    let laptop = [(NOON.0 + 15 * MINUTE, closes)];
    assert_eq!(ends(&world, &decided, "laptop", "web", NOON), laptop);
    assert_eq!(ends(&world, &decided, "laptop", "db", NOON), laptop);
    // One direction only, and not for those who do not qualify.
    assert_eq!(ends(&world, &decided, "web", "laptop", NOON), []);
    assert_eq!(ends(&world, &decided, "tablet", "web", NOON), []);
    assert_eq!(ends(&world, &decided, "stranger", "web", NOON), []);
    // The server's verdict lasts an hour; nothing else ends.
    let web = [(NOON.0 + HOUR, u64::MAX)];
    assert_eq!(ends(&world, &decided, "web", "db", NOON), web);
    let later = UnixMillis(NOON.0 + HOUR);
    assert_eq!(ends(&world, &decided, "web", "db", later), []);
    assert_eq!(
        ends(&world, &decided, "laptop", "web", UnixMillis(closes)),
        []
    );
    // The expiry of either key is a hard end.
    drop(decided);
    world.device("db").key_expires = Some(UnixMillis(NOON.0 + MINUTE));
    let decided = world.decide(POLICY, NOON);
    let key = [(NOON.0 + MINUTE, NOON.0 + MINUTE)];
    assert_eq!(ends(&world, &decided, "web", "db", NOON), key);
    assert_eq!(ends(&world, &decided, "laptop", "db", NOON), key);
    let expired = UnixMillis(NOON.0 + MINUTE);
    assert_eq!(ends(&world, &decided, "web", "db", expired), []);
}

#[test]
fn a_device_out_of_standing_reaches_and_is_reached_by_nothing() {
    for status in [
        DeviceStatus::Quarantined,
        DeviceStatus::Revoked,
        DeviceStatus::Pending,
    ] {
        let mut world = world();
        world.device("web").status = status;
        let decided = world.decide(POLICY, NOON);
        assert_eq!(ends(&world, &decided, "web", "db", NOON), []);
        assert_eq!(ends(&world, &decided, "laptop", "web", NOON), []);
        assert_eq!(ends(&world, &decided, "laptop", "db", NOON).len(), 1);
        // It is still looked at when something changes.
        assert!(related(&decided.view(), &world.id("db")).contains(&world.id("web")));
    }
}

#[test]
fn a_device_that_the_sets_do_not_know_is_allowed_nothing() {
    let world = world();
    let decided = world.decide(POLICY, NOON);
    let mut more = World::new(world.devices.values().cloned());
    let late = device(9, "late", None, &["web"]);
    more.devices.insert(late.id, late.clone());
    let mut view = decided.view();
    view.devices = &more.devices;
    let db = world.id("db");
    assert_eq!(grants(&view, &late.id, &db, NOON), []);
    assert_eq!(grants(&view, &DeviceId([9; 20]), &db, NOON), []);
    assert_eq!(
        explain(&view, &DeviceId([9; 20]), &db, &PortSpec::ANY, NOON),
        None
    );
    assert_eq!(reach(&view, &DeviceId([9; 20]), NOON), None);
}

#[test]
fn explain_names_the_rule_or_what_is_missing() {
    let world = world();
    let decided = world.decide(POLICY, NOON);
    let view = decided.view();
    let ask = |src: &str, dst: &str, text: &str, now| {
        explain(&view, &world.id(src), &world.id(dst), &port(text), now).unwrap()
    };
    let yes = ask("laptop", "web", "tcp:22", NOON);
    assert!(yes.allowed && yes.missing.is_empty());
    assert_eq!(yes.rule.unwrap().as_str(), "engineers-ssh");
    assert_eq!(yes.until, Some(UnixMillis(NOON.0 + 15 * MINUTE)));
    assert_eq!(yes.candidates.len(), 1);
    assert_eq!(yes.candidates[0].line, 20);
    assert!(ask("laptop", "web", "tcp:8000-8100", NOON).allowed);

    let posture = ask("tablet", "web", "tcp:22", NOON);
    assert!(!posture.allowed && posture.rule.is_none());
    assert_eq!(
        posture.missing,
        [
            "rule `engineers-ssh`: tablet does not meet posture check `workstation`: \
          disk_encrypted = true wanted, found false (from test)"
        ]
    );
    let evening = UnixMillis(NOON.0 + 7 * HOUR);
    let closed = ask("laptop", "web", "tcp:22", evening);
    assert_eq!(closed.candidates[0].missing.len(), 2);
    assert!(
        closed.missing[0].contains("opens at 2026-11-24T07:00:00.000Z"),
        "{closed:?}"
    );
    assert!(
        closed.missing[1].contains("its last report is too old"),
        "{closed:?}"
    );
    let range = ask("laptop", "web", "tcp:8000-9000", NOON);
    assert!(!range.allowed);
    assert!(
        range.missing[0].contains("it covers tcp:22, tcp:8000-8100 only"),
        "{range:?}"
    );
    let other_port = ask("laptop", "web", "tcp:23", NOON);
    assert!(other_port.candidates.is_empty());
    assert_eq!(
        other_port.missing[0],
        "no rule lets laptop reach web on tcp:23"
    );
    assert!(other_port.missing[1].contains("tcp:22, tcp:8000-8100 only"));
    let stranger = ask("stranger", "laptop", "icmp", NOON);
    assert_eq!(
        stranger.missing,
        [
            "no rule lets stranger reach laptop on icmp",
            "no rule names stranger as a source",
            "no rule names laptop as a destination"
        ]
    );
    let itself = ask("web", "web", "icmp", NOON);
    assert!(itself.missing[0].contains("does not reach itself"));
}

#[test]
fn explain_speaks_of_the_devices_first() {
    let mut world = world();
    world.device("web").status = DeviceStatus::Quarantined;
    world.device("db").key_expires = Some(NOON);
    let decided = world.decide(POLICY, NOON);
    let (web, db) = (world.id("web"), world.id("db"));
    let view = explain(&decided.view(), &web, &db, &port("tcp:5432"), NOON).unwrap();
    assert_eq!(
        view.missing,
        [
            "web is quarantined",
            "db has a key that expired at 2026-11-23T12:00:00.000Z"
        ]
    );
}

#[test]
fn a_device_learns_only_of_rules_that_name_it_as_source() {
    let mut world = world();
    world.device("db").status = DeviceStatus::Quarantined;
    let decided = world.decide(POLICY, NOON);
    let view = decided.view();
    let ask_of = |src: &str, dst: Option<&str>, protocol, port| {
        let dst = dst.map(|dst| world.id(dst));
        why(&view, &world.id(src), dst.as_ref(), protocol, port, NOON)
    };
    let ask = |src: &str, dst: Option<&str>, port| ask_of(src, dst, Protocol::Tcp, port);
    let yes = ask("laptop", Some("web"), 22);
    assert!(yes.allowed && yes.rule.unwrap().as_str() == "engineers-ssh");
    let own = ask("tablet", Some("web"), 22);
    assert_eq!(own.rule.as_ref().unwrap().as_str(), "engineers-ssh");
    assert_eq!(own.missing.len(), 1);
    assert!(own.missing[0].starts_with("this device does not meet posture check `workstation`"));
    // The quarantine of the other side is not told, nor what it lacks.
    let other = ask("laptop", Some("db"), 22);
    assert_eq!(other.missing, ["the other side does not qualify now"]);
    // No rule, no such port, no such name, itself: one answer.
    let none = ask("laptop", None, 22);
    assert_eq!(none.missing.len(), 1);
    for same in [
        ask("laptop", Some("stranger"), 22),
        ask("laptop", Some("web"), 5432),
        ask("laptop", Some("laptop"), 22),
        ask("stranger", Some("web"), 22),
        ask("stranger", None, 22),
    ] {
        assert_eq!(same, none);
    }
    // Without a port: whether anything is allowed.
    let any = |src, dst| ask_of(src, dst, Protocol::Any, 0);
    let yes = any("laptop", Some("web"));
    assert!(yes.allowed && yes.rule.unwrap().as_str() == "engineers-ssh");
    assert_eq!(any("tablet", Some("web")), own);
    assert_eq!(any("laptop", Some("db")), other);
    assert_eq!(any("laptop", Some("stranger")), none);
    assert_eq!(any("laptop", None), none);
    // No rule covers port 0.
    assert_eq!(ask("laptop", Some("web"), 0), none);
}

#[test]
fn what_the_other_side_fails_is_not_told() {
    let mut world = world();
    world.reports.remove(&world.id("db"));
    let decided = world.decide(POLICY, NOON);
    let (web, db) = (world.id("web"), world.id("db"));
    let reply = why(&decided.view(), &web, Some(&db), Protocol::Tcp, 5432, NOON);
    assert_eq!(reply.rule.unwrap().as_str(), "web-to-db");
    assert_eq!(reply.missing, ["the other side does not qualify now"]);
    // An administrator is told.
    let view = explain(&decided.view(), &web, &db, &port("tcp:5432"), NOON).unwrap();
    assert!(
        view.missing[0].contains("db does not meet posture check `server`"),
        "{view:?}"
    );
    assert!(view.missing[0].contains("unknown: no report"), "{view:?}");
}

#[test]
fn reach_goes_through_others() {
    let world = world();
    let chain = "version = 1\n[tags.\"tag:web\"]\n[tags.\"tag:db\"]\n\
        [[allow]]\nid = \"a\"\nfrom = [\"alice@example.com\"]\nto = [\"tag:web\"]\nports = [\"tcp:22\", \"tcp:23\"]\n\
        [[allow]]\nid = \"b\"\nfrom = [\"tag:web\"]\nto = [\"tag:db\"]\nports = [\"tcp:5432\"]\n\
        [[allow]]\nid = \"c\"\nfrom = [\"tag:db\"]\nto = [\"tag:web\", \"alice@example.com\"]\nports = [\"*\"]\n";
    let decided = world.decide(chain, NOON);
    let view = reach(&decided.view(), &world.id("laptop"), NOON).unwrap();
    let found: Vec<(&str, usize, usize)> = view
        .reached
        .iter()
        .map(|r| (r.device.as_str(), r.hops, r.through.len()))
        .collect();
    assert_eq!(found, [("web", 1, 0), ("db", 2, 1)]);
    assert_eq!(view.reached[0].ports, [port("tcp:22-23")]);
    assert_eq!(view.reached[1].through[0].as_str(), "web");
    assert_eq!(view.reached[1].rules[0].as_str(), "b");
    assert_eq!(view.unreached, 2);
}

#[test]
fn a_plan_shows_what_opens_and_closes() {
    let world = world();
    let old = world.decide(POLICY, NOON);
    let text = POLICY.replace("tcp:22\", \"tcp:8000-8100", "tcp:22-23\", \"tcp:8050-8100");
    let new = world.decide(&text, NOON);
    let (opens, closes) = plan(&old.view(), &new.view(), NOON);
    let shown = |flows: &[gatereeve_controller_core::command::FlowView]| -> Vec<String> {
        flows
            .iter()
            .map(|f| {
                let ports: Vec<String> = f.ports.iter().map(ToString::to_string).collect();
                let rules: Vec<&str> = f.rules.iter().map(|rule| rule.as_str()).collect();
                format!(
                    "{} {} {} {}",
                    f.from,
                    f.to,
                    ports.join(","),
                    rules.join(",")
                )
            })
            .collect()
    };
    assert_eq!(
        shown(&opens),
        [
            "laptop db tcp:23 engineers-ssh",
            "laptop web tcp:23 engineers-ssh"
        ]
    );
    assert_eq!(
        shown(&closes),
        [
            "laptop db tcp:8000-8049 engineers-ssh",
            "laptop web tcp:8000-8049 engineers-ssh"
        ]
    );
}

#[test]
fn a_verdict_that_ran_out_holds_nowhere() {
    let world = world();
    // Judged at noon, asked half an hour later.
    let decided = world.decide(POLICY, NOON);
    let view = decided.view();
    let none = world.decide("", NOON);
    let reaches = |now| {
        reach(&view, &world.id("laptop"), now)
            .unwrap()
            .reached
            .len()
    };
    let opens = |now| plan(&none.view(), &view, now).0.len();
    assert_eq!((reaches(NOON), opens(NOON)), (2, 3));
    let late = UnixMillis(NOON.0 + 30 * MINUTE);
    assert_eq!((reaches(late), opens(late)), (0, 1));
    assert_eq!(ends(&world, &decided, "laptop", "web", late), []);
}

#[test]
fn next_change_is_when_time_alone_changes_something() {
    let mut world = world();
    let evening = UnixMillis(NOON.0 + 6 * HOUR);
    {
        let decided = world.decide(POLICY, NOON);
        assert_eq!(next_change(&decided.view(), NOON), Some(evening));
        let morning = UnixMillis(NOON.0 + 19 * HOUR);
        assert_eq!(next_change(&decided.view(), evening), Some(morning));
    }
    world.device("web").key_expires = Some(UnixMillis(NOON.0 + MINUTE));
    {
        let decided = world.decide(POLICY, NOON);
        let expiry = UnixMillis(NOON.0 + MINUTE);
        assert_eq!(next_change(&decided.view(), NOON), Some(expiry));
        assert_eq!(next_change(&decided.view(), expiry), Some(evening));
    }
    let short = POLICY.replace("2027-06-30T00:00:00Z", "2026-11-23T13:00:00+00:30");
    let decided = world.decide(&short, NOON);
    let end = UnixMillis(NOON.0 + HOUR / 2);
    let before = UnixMillis(NOON.0 + 2 * MINUTE);
    assert_eq!(next_change(&decided.view(), before), Some(end));
    assert_eq!(next_change(&decided.view(), end), None);
    assert_eq!(next_change(&world.decide("", NOON).view(), end), None);
}

#[test]
fn idle_rules_are_warned_about() {
    let world = world();
    let decided = world.decide(POLICY, NOON);
    let warnings = decided.policy.idle_rules(&decided.sets);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0]
            .message
            .contains("`spare` matches no device as source now")
    );
    assert!(warnings[0].is_warning);
    assert_eq!(warnings[0].line, 30);
}

#[test]
fn a_pinned_device_stays_the_one_it_was() {
    let text = "version = 1\n[[allow]]\nid = \"r\"\nfrom = [\"device:laptop\"]\nto = [\"device:web\"]\nports = [\"*\"]\n";
    let mut world = world();
    let pins = world.decide(text, NOON).policy.pins().clone();
    let laptop = world.id("laptop");
    let (web, tablet) = (world.id("web"), world.id("tablet"));
    // Another device takes the name; the rule still means the first.
    world.device("laptop").name = "old".parse().unwrap();
    world.device("tablet").name = "laptop".parse().unwrap();
    let mut decided = world.decide("", NOON);
    decided.policy = gatereeve_controller_core::policy::Policy::from_pinned(text, &pins).unwrap();
    decided.sets =
        gatereeve_controller_core::policy::resolve::Resolved::new(&decided.policy, &world.devices);
    assert_eq!(grants(&decided.view(), &laptop, &web, NOON).len(), 1);
    assert_eq!(grants(&decided.view(), &tablet, &web, NOON), []);
    assert_eq!(decided.policy.mentioned_names().len(), 2);
}

/// Runs one test; whether each of its ports is as expected.
#[track_caller]
fn run(world: &World, test: &str) -> Vec<bool> {
    let text = format!("{POLICY}\n[[test]]\n{test}\n");
    let decided = world.decide(&text, NOON);
    run_tests(&decided.view(), NOON)
        .iter()
        .map(|result| result.allowed == result.expect_allow)
        .collect()
}

#[test]
fn the_files_tests_hold_or_fail() {
    let world = world();
    let check = |test: &str, expected: &[bool]| {
        assert_eq!(run(&world, test), expected, "{test}");
        // What no device is there for is imagined: the policy is the same.
        assert_eq!(run(&World::default(), test), expected, "{test}");
    };
    let web_db = "from = \"tag:web\"\nto = \"tag:db\"\nports = [\"tcp:5432\", \"tcp:22\"]\n";
    check(
        &format!("{web_db}expect = [\"allow\", \"deny\"]"),
        &[true, true],
    );
    check(
        &format!("{web_db}expect = [\"deny\", \"allow\"]"),
        &[false, false],
    );
    check(&format!("{web_db}expect = \"allow\""), &[true, false]);
    check(
        &format!("{web_db}expect = [\"allow\", \"deny\"]\nposture = \"unmet\""),
        &[false, true],
    );
    let ssh = "to = \"tag:db\"\nports = [\"tcp:22\"]\n";
    check(
        &format!("from = \"group:engineering\"\n{ssh}expect = \"allow\""),
        &[true],
    );
    check(
        &format!("from = \"carol@example.com\"\n{ssh}expect = \"allow\""),
        &[true],
    );
    check(
        &format!("from = \"mallory@example.com\"\n{ssh}expect = \"deny\""),
        &[true],
    );
    check(&format!("from = \"*\"\n{ssh}expect = \"allow\""), &[false]);
    // A range: "allow" wants all of it, "deny" none of it.
    let range = "from = \"alice@example.com\"\nto = \"tag:web\"\nports = [\"tcp:8000-8100\", \"tcp:8100-8200\", \"tcp:9000-9100\"]\n";
    check(&format!("{range}expect = \"allow\""), &[true, false, false]);
    check(&format!("{range}expect = \"deny\""), &[false, false, true]);
}

#[test]
fn a_test_holds_only_if_it_holds_for_every_device() {
    let mut world = world();
    let test =
        "from = \"tag:web\"\nto = \"tag:spare\"\nports = [\"tcp:5432\"]\nexpect = [\"deny\"]";
    assert_eq!(run(&world, test), [true]);
    // One device with both tags is reached as a database.
    let both = device(8, "both", None, &["spare", "db"]);
    world.devices.insert(both.id, both);
    assert_eq!(run(&world, test), [false]);
}

#[test]
fn an_ended_rule_fails_its_test() {
    let world = world();
    let text = POLICY.replace("2027-06-30", "2026-06-30")
        + "[[test]]\nfrom = \"alice@example.com\"\nto = \"tag:db\"\nports = [\"tcp:22\"]\nexpect = [\"allow\"]\n";
    let decided = world.decide(&text, NOON);
    assert!(!run_tests(&decided.view(), NOON)[0].allowed);
    let before = UnixMillis(NOON.0 - 300 * 24 * HOUR);
    assert!(run_tests(&decided.view(), before)[0].allowed);
}
