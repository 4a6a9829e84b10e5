//! The daemon under admin commands: what was acknowledged is there after a restart, whatever
//! happened to the tables.

use crate::support::{Place, run_on};

const POLICY: &str = r#"
version = 1

[tags."tag:web"]
[tags."tag:db"]

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]
"#;

fn generation(place: &Place) -> u64 {
    let status = place.json(&["status"]).ok().json();
    status["generation"]["n"].as_u64().unwrap()
}

#[test]
fn changes_are_answered_journaled_and_there_after_a_restart() {
    let place = Place::initialised();
    let daemon = place.start().unwrap();
    let status = place.json(&["status"]).ok().json();
    assert_eq!(status["kind"], "status");
    assert_eq!(status["policy_revision"], 0);

    let invite = place
        .json(&["invite", "create", "--tag", "tag:web", "--uses", "3"])
        .ok()
        .json();
    assert_eq!(invite["kind"], "invite");
    let file = place.file("policy.toml", POLICY);
    let applied = place
        .json(&["policy", "apply", &file, "--wait=1s"])
        .ok()
        .json();
    assert_eq!(applied["revision"], 1);
    assert_eq!(
        place
            .run(&["policy", "apply", &file, "--if-generation", "0"])
            .status,
        5
    );
    place
        .run(&["policy", "apply", &file, "--if-generation", "1"])
        .ok();
    assert_eq!(place.run(&["policy", "show"]).ok().out, POLICY);
    assert_eq!(place.run(&["device", "show", "nobody"]).status, 4);
    let n = generation(&place);
    drop(daemon);

    let _daemon = place.start().unwrap();
    assert_eq!(generation(&place), n);
    let status = place.json(&["status"]).ok().json();
    assert_eq!(status["policy_revision"], 2);
    assert_eq!(status["warnings"], serde_json::json!([]));
    let invites = place.json(&["invite", "list"]).ok().json();
    assert_eq!(invites["invites"][0]["uses_left"], 3);
    let verified = place.json(&["audit", "verify"]).ok().json();
    assert_eq!(verified["head"]["n"], n);
    assert_eq!(
        verified["signed_up_to"], n,
        "the head is signed on the way out"
    );
    let log = place.run(&["audit", "export"]).ok().out;
    assert_eq!(log.lines().count() as u64, n);
    // The secret of an invite is nowhere but in the answer.
    let secret = invite["invite"].as_str().unwrap();
    assert!(!log.contains(secret));
}

#[test]
fn a_bad_policy_points_at_its_place_and_changes_nothing() {
    let place = Place::initialised();
    let _daemon = place.start().unwrap();
    let in_force = || place.json(&["policy", "show"]).ok().json();
    let before = in_force();
    let bad = place.file(
        "bad.toml",
        &POLICY.replace("[\"tag:db\"]", "[\"database\"]"),
    );
    let refused = place.run(&["policy", "apply", &bad]);
    assert_ne!(refused.status, 0);
    assert!(refused.err.contains("bad.toml:10:"), "{}", refused.err);
    assert!(
        refused.err.contains("to = [\"database\"]"),
        "{}",
        refused.err
    );
    let json = place.json(&["policy", "check", &bad]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(error["error"]["problems"][0]["line"], 10);
    assert_eq!(in_force(), before);
    // The attempt itself is on record, once the disk has it: a refusal is answered before.
    let patience = std::time::Duration::from_millis(20);
    let mut audit = String::new();
    for _ in 0..500 {
        audit = place.run(&["audit", "tail"]).ok().out;
        if audit.contains("REFUSED policy.apply") {
            break;
        }
        std::thread::sleep(patience);
    }
    assert!(audit.contains("REFUSED policy.apply"), "{audit}");
    let good = place.file("good.toml", POLICY);
    place.run(&["policy", "apply", &good]).ok();
    assert_ne!(in_force(), before);
}

#[test]
fn lost_and_damaged_tables_are_rebuilt_with_nothing_lost() {
    let place = Place::initialised();
    let daemon = place.start().unwrap();
    let file = place.file("policy.toml", POLICY);
    for _ in 0..5 {
        place.run(&["policy", "apply", &file]).ok();
    }
    let n = generation(&place);
    drop(daemon);
    let tables = place.state().join("tables");
    std::fs::remove_dir_all(&tables).unwrap();
    let daemon = place.start().unwrap();
    assert_eq!(generation(&place), n);
    drop(daemon);
    for name in ["db", "conf"] {
        std::fs::write(tables.join(name), b"noise").unwrap();
    }
    let _daemon = place.start().unwrap();
    assert_eq!(generation(&place), n);
    assert_eq!(place.json(&["policy", "show"]).ok().json()["revision"], 5);
}

#[test]
fn damage_below_what_was_acknowledged_refuses_to_start_and_says_how_to_mend_it() {
    let place = Place::initialised();
    let daemon = place.start().unwrap();
    let file = place.file("policy.toml", POLICY);
    for _ in 0..3 {
        place.run(&["policy", "apply", &file]).ok();
    }
    let n = generation(&place);
    drop(daemon);
    let segment = place.state().join("journal/00000000000000000001.log");
    let good = std::fs::read(&segment).unwrap();
    // The control: a tail that was never acknowledged goes.
    std::fs::write(
        &segment,
        [good.as_slice(), b"GRVB and then nothing"].concat(),
    )
    .unwrap();
    let daemon = place.start().unwrap();
    assert_eq!(generation(&place), n);
    drop(daemon);
    let damages = [
        good[..good.len() - 1].to_vec(),
        good[..good.len() / 2].to_vec(),
        [&good[..200], b"x", &good[201..]].concat(),
        Vec::new(),
    ];
    for damage in damages {
        std::fs::write(&segment, &damage).unwrap();
        let why = place.start().err().unwrap();
        assert!(why.contains("restore"), "{why}");
        assert_eq!(
            std::fs::read(&segment).unwrap(),
            damage,
            "nothing was changed"
        );
        assert_ne!(place.run(&["audit", "verify"]).status, 0);
    }
    std::fs::remove_file(&segment).unwrap();
    assert!(place.start().is_err());
    std::fs::write(&segment, &good).unwrap();
    let _daemon = place.start().unwrap();
    assert_eq!(generation(&place), n);
}

#[test]
fn a_second_daemon_is_told_who_has_the_state() {
    let place = Place::initialised();
    let daemon = place.start().unwrap();
    let other_socket = place.root.path().join("other.sock");
    let refused = run_on(
        &place.state(),
        &other_socket,
        &["serve", "--listen", "127.0.0.1:0"],
    );
    assert_eq!(refused.status, 5, "{refused:?}");
    let pid = std::process::id().to_string();
    assert!(refused.err.contains(&pid), "{refused:?}");
    drop(daemon);
    place.start().unwrap();
}

#[test]
fn a_backup_of_a_running_controller_comes_back_elsewhere() {
    let place = Place::initialised();
    let _daemon = place.start().unwrap();
    let file = place.file("policy.toml", POLICY);
    place.run(&["policy", "apply", &file]).ok();
    let n = generation(&place);
    let backup = place.root.path().join("backup.tar");
    place.run(&["backup", backup.to_str().unwrap()]).ok();
    place.run(&["policy", "apply", &file]).ok();

    let other = Place::new();
    other.run(&["restore", backup.to_str().unwrap()]).ok();
    let _other_daemon = other.start().unwrap();
    let status = other.json(&["status"]).ok().json();
    assert_eq!(status["policy_revision"], 1);
    assert_eq!(status["generation"]["incarnation"], 1);
    assert_eq!(status["generation"]["n"], n + 1);
    other.run(&["audit", "verify"]).ok();
    // And it goes on from there.
    other.run(&["policy", "apply", &file]).ok();
    other.run(&["audit", "verify"]).ok();
}
