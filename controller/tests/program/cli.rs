//! The command line as its users meet it: output, exit statuses, and nothing changed by a refusal.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::Place;

#[test]
fn init_makes_a_network_once_and_tells_what_is_next() {
    let place = Place::new();
    let made = place.run(&[
        "init",
        "--name",
        "example",
        "--advertise",
        "vpn.example.com:8443",
    ]);
    let made = made.ok();
    assert!(
        made.out.contains("Fingerprint") && made.out.contains("invite create"),
        "{made:?}"
    );
    let key = std::fs::read(place.state().join("network.key")).unwrap();
    for name in ["network.key", "tls.key", "config", "lock"] {
        let mode = std::fs::metadata(place.state().join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    let again = place.run(&["init"]);
    assert_eq!(again.status, 5, "{again:?}");
    assert_eq!(
        std::fs::read(place.state().join("network.key")).unwrap(),
        key
    );
}

#[test]
fn two_networks_share_neither_key_nor_prefix() {
    let one = Place::new()
        .json(&["init", "--advertise", "a:1"])
        .ok()
        .json();
    let two = Place::new()
        .json(&["init", "--advertise", "a:1"])
        .ok()
        .json();
    assert_ne!(one["fingerprint"], two["fingerprint"]);
    assert_ne!(one["prefixes"]["v6"], two["prefixes"]["v6"]);
    assert!(one["prefixes"]["v6"].as_str().unwrap().starts_with("fd"));
    assert_eq!(one["prefixes"]["v4"], "100.64.0.0/10");
}

#[test]
fn init_refuses_what_makes_no_sense_and_makes_nothing() {
    for args in [
        ["--advertise", "nonsense"],
        ["--prefix-v4", "fd00::/48"],
        ["--prefix-v4", "127.0.0.0/8"],
        ["--prefix-v4", "10.0.0.0/30"],
        ["--prefix-v6", "10.0.0.0/8"],
        ["--prefix-v6", "fe80::/64"],
        ["--name", "a\nb"],
        ["--name", ""],
    ] {
        let place = Place::new();
        let refused = place.run(&[["init"].as_slice(), &args].concat());
        assert_eq!(refused.status, 2, "{args:?}: {refused:?}");
        assert!(!refused.err.is_empty());
        assert!(!place.state().exists(), "{args:?}");
    }
    // The control.
    let place = Place::new();
    place
        .run(&[
            "init",
            "--prefix-v4",
            "10.9.0.0/16",
            "--prefix-v6",
            "fd00:9::/48",
        ])
        .ok();
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.state()).unwrap();
    std::fs::write(place.state().join("thesis.tex"), "x").unwrap();
    let refused = place.run(&["init", "--advertise", "a:1"]);
    assert_eq!(refused.status, 5, "{refused:?}");
    assert_eq!(std::fs::read_dir(place.state()).unwrap().count(), 1);
}

#[test]
fn without_a_daemon_the_status_is_6_and_says_so() {
    let place = Place::initialised();
    for args in [
        ["status"].as_slice(),
        &["device", "list"],
        &["invite", "create"],
        &["policy", "show"],
    ] {
        let unreachable = place.run(args);
        assert_eq!(unreachable.status, 6, "{unreachable:?}");
        assert!(
            unreachable.err.contains("cannot reach the controller"),
            "{unreachable:?}"
        );
        let json = place.json(args);
        let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
        assert_eq!(error["error"]["exit_status"], 6);
    }
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let place = Place::new();
    for args in [
        ["no-such-verb"].as_slice(),
        &["policy", "explain", "a", "b", "tcp:99999"],
        &["device", "rename", "a", "Not A Name"],
        &["device", "tag", "a"],
        &["invite", "create", "--uses", "0"],
        &["policy", "apply", "/no/such/file"],
        &["serve", "--listen", "nonsense"],
    ] {
        let wrong = place.run(args);
        assert_eq!(wrong.status, 2, "{args:?}: {wrong:?}");
        assert!(wrong.out.is_empty() && !wrong.err.is_empty());
    }
    let help = place.run(&["policy", "apply", "--help"]).ok();
    assert!(help.out.contains("Examples:") && help.err.is_empty());
    assert!(
        place
            .run(&["--version"])
            .ok()
            .out
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn audit_needs_a_state() {
    let place = Place::new();
    assert_eq!(place.run(&["audit", "verify"]).status, 4);
    let place = Place::initialised();
    place.run(&["audit", "verify"]).ok();
}

#[test]
fn a_backup_never_overwrites_and_comes_back() {
    let place = Place::initialised();
    let file = place.root.path().join("backup.tar");
    let file = file.to_str().unwrap();
    place.run(&["backup", file]).ok();
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.run(&["backup", file]).status, 5);
    assert_eq!(
        place.run(&["restore", file]).status,
        5,
        "over a state that is there"
    );
    let other = Place::new();
    let restored = other.run(&["restore", file]).ok();
    assert!(restored.err.contains("repeat them"), "{restored:?}");
    let log = other.json(&["audit", "tail"]).ok().json();
    assert_eq!(log["audit"]["action"], "controller.restore");
    assert_eq!(log["generation"]["incarnation"], 1);
    let noise = other.file("noise.tar", "noise");
    assert_eq!(Place::new().run(&["restore", &noise]).status, 1);
}
