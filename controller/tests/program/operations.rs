//! Upgrade, doctor, log level and bug report, as an administrator meets them.

use std::collections::BTreeMap;

use gatereeve_runtime::notify::Notifier;
use serde_json::Value;

use crate::files::files;
use crate::support::Place;

const POLICY: &str = r#"
version = 1

[tags."tag:web"]
[tags."tag:db"]

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]

[[test]]
from = "tag:web"
to = "tag:db"
ports = ["tcp:5432", "tcp:22"]
expect = ["allow", "deny"]
"#;

#[test]
fn a_rehearsal_while_it_runs_and_from_a_backup_changes_nothing() {
    let place = Place::initialised();
    let daemon = place.start().unwrap();
    let policy = place.file("policy.toml", POLICY);
    place.run(&["policy", "apply", &policy]).ok();
    let running = place.json(&["upgrade", "rehearse"]).ok().json();
    assert_eq!(running["safe"], true, "{running}");
    assert_eq!(running["tests"].as_array().unwrap().len(), 2);
    drop(daemon);

    let before = files(&place.state());
    let stopped = place.json(&["upgrade", "rehearse"]).ok().json();
    assert_eq!(stopped["safe"], true);
    assert_eq!(
        (&stopped["from_format"], &stopped["to_format"]),
        (&1.into(), &1.into())
    );
    let text = place.run(&["upgrade", "rehearse"]).ok().out;
    assert!(
        text.contains("2 of 2 hold") && text.contains("Safe:"),
        "{text}"
    );
    assert_eq!(files(&place.state()), before);

    let backup = place.root.path().join("backup.tar");
    let backup = backup.to_str().unwrap();
    place.run(&["backup", backup]).ok();
    let other = Place::new();
    other.run(&["upgrade", "rehearse", "--backup", backup]).ok();
    assert!(!other.state().exists());
    assert_eq!(other.run(&["upgrade", "rehearse"]).status, 4);
    assert_eq!(
        other
            .run(&["upgrade", "rehearse", "--backup", "/none"])
            .status,
        2
    );
    let noise = other.file("noise.tar", "noise");
    assert_eq!(
        other
            .run(&["upgrade", "rehearse", "--backup", &noise])
            .status,
        1
    );
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do_running_or_not() {
    let place = Place::initialised();
    let config = place.file("controller.toml", "listen = [\"127.0.0.1:0\"]\n");
    let doctor = |place: &Place| place.run(&["doctor", "--config", &config]);
    let checks = |ran: &Value| -> BTreeMap<String, String> {
        let checks = ran["checks"].as_array().unwrap().iter();
        checks
            .map(|check| {
                let text = |key: &str| check[key].as_str().unwrap().to_owned();
                (text("name"), text("standing"))
            })
            .collect()
    };
    let stopped = place.json(&["doctor", "--config", &config]).ok().json();
    let found = checks(&stopped);
    assert_eq!(found["controller"], "warning");
    assert_eq!(found["backup"], "warning");
    assert_eq!(found["journal"], "ok");

    let backup = place.root.path().join("b.tar");
    place.run(&["backup", backup.to_str().unwrap()]).ok();
    let daemon = place.start().unwrap();
    let running = place.json(&["doctor", "--config", &config]);
    let found = checks(&running.json());
    assert_eq!(found["controller"], "ok");
    assert_eq!(found["version"], "ok");
    assert_eq!(found["backup"], "ok");
    assert_eq!(found["devices"], "ok");
    // It listens at another port than this configuration says: nobody is there.
    assert_eq!(found["port"], "problem");
    assert_eq!(running.status, 1);
    drop(daemon);

    let key = place.state().join("network.key");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let wrong = doctor(&place);
    assert_eq!(wrong.status, 1, "{wrong:?}");
    assert!(
        wrong.out.contains("PROBLEM  modes") && wrong.out.contains("chmod"),
        "{wrong:?}"
    );
    let broken = place.file("broken.toml", "listen = 5");
    let wrong = place.run(&["doctor", "--config", &broken]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.out.contains("PROBLEM  configuration"), "{wrong:?}");
}

#[test]
fn doctor_shakes_hands_at_the_port_and_knows_its_own_key() {
    let place = Place::initialised();
    let port = {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let listen = format!("127.0.0.1:{port}");
    let _daemon = place.start_at(listen.parse().unwrap()).unwrap();
    let config = place.file("controller.toml", &format!("listen = [\"{listen}\"]\n"));
    let healthy = place.run(&["doctor", "--config", &config]).ok();
    assert!(
        healthy.out.contains("is answered by this controller"),
        "{healthy:?}"
    );
    // Another controller at that port is not this one.
    let tls = place.state().join("tls.key");
    std::fs::write(&tls, [9; 32]).unwrap();
    let other = place.run(&["doctor", "--config", &config]);
    assert_eq!(other.status, 1, "{other:?}");
    assert!(other.out.contains("PROBLEM  port"), "{other:?}");
}

#[test]
fn the_service_manager_hears_of_the_start_of_life_and_of_the_end() {
    let place = Place::initialised();
    let path = place.root.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let next = || {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).expect("a datagram in time");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let notifier = Notifier::new(Some(path.as_os_str()), Some("300000"), None);
    let daemon = place
        .start_with("127.0.0.1:0".parse().unwrap(), notifier)
        .unwrap();
    let first = next();
    assert!(
        first.starts_with("READY=1\nWATCHDOG=1\nSTATUS=serving 0 devices"),
        "{first}"
    );
    assert_eq!(next(), "WATCHDOG=1");
    drop(daemon);
    let mut last = next();
    while last == "WATCHDOG=1" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1\nSTATUS=stopping");
}

#[test]
fn the_log_level_is_switched_while_it_runs() {
    let _logging = gatereeve_runtime::telemetry::init(false);
    let place = Place::initialised();
    assert_eq!(place.run(&["log-level"]).status, 6);
    let _daemon = place.start().unwrap();
    let before = place.json(&["log-level"]).ok().json();
    assert_eq!(before["filter"], before["configured"]);
    let switched = place.json(&["log-level", "debug"]).ok().json();
    assert!(switched["filter"].as_str().unwrap().starts_with("debug,"));
    let wrong = place.run(&["log-level", "debgu"]);
    assert_eq!(wrong.status, 2, "{wrong:?}");
    assert!(wrong.err.contains("no level"), "{wrong:?}");
    let text = place.run(&["log-level"]).ok().out;
    assert!(text.starts_with("debug,"), "{text}");
    place.run(&["log-level", "configured"]).ok();
    assert_eq!(place.json(&["log-level"]).ok().json(), before);
}

/// Every way in which a secret could stand in a text.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        secret.to_vec(),
        hex.clone().into_bytes(),
        hex.to_uppercase().into_bytes(),
    ];
    // Base64 has three forms, by where the secret begins in what was encoded; ends depend on neighbours.
    for shift in 0..3 {
        let padded = [vec![0; shift], secret.to_vec()].concat();
        for text in [
            gatereeve_shared::text::base64(&padded),
            gatereeve_shared::text::base64url(&padded),
        ] {
            let inner = text.trim_end_matches('=');
            let skip = [0, 2, 3][shift];
            forms.push(inner.as_bytes()[skip..inner.len() - 1].to_vec());
        }
    }
    forms.push(gatereeve_shared::text::base32(secret).into_bytes());
    forms
}

fn holds(text: &[u8], secret: &[u8]) -> bool {
    forms(secret)
        .iter()
        .any(|form| text.windows(form.len()).any(|window| window == form))
}

#[test]
fn a_bug_report_holds_what_helps_and_no_secret() {
    let place = Place::new();
    place
        .run(&[
            "init",
            "--name",
            "acme-network",
            "--advertise",
            "secret-host.example.com:8443",
        ])
        .ok();
    let _daemon = place.start().unwrap();
    let invite = place
        .json(&["invite", "create", "--user", "alice@example.com"])
        .ok()
        .json();
    let invite = invite["invite"].as_str().unwrap();
    let policy = place.file("policy.toml", POLICY);
    place.run(&["policy", "apply", &policy]).ok();
    let file = place.root.path().join("report.txt");
    let made = place.run(&["bug-report", file.to_str().unwrap()]).ok();
    assert!(
        made.out.contains("holds: program, machine, doctor"),
        "{made:?}"
    );
    assert_eq!(place.run(&["bug-report", file.to_str().unwrap()]).status, 5);
    let report = std::fs::read(&file).unwrap();
    let text = String::from_utf8(report.clone()).unwrap();
    for there in [
        "gatereeve-controller 0.",
        "\"policy_revision\": 1",
        "journal/",
        "OK       journal",
    ] {
        assert!(text.contains(there), "{there} not in {text}");
    }

    let parsed = invite.parse::<gatereeve_shared::invite::Invite>().unwrap();
    let mut secrets: Vec<Vec<u8>> = ["network.key", "tls.key"]
        .iter()
        .map(|name| std::fs::read(place.state().join(name)).unwrap())
        .collect();
    secrets.push(parsed.secret.0.to_vec());
    secrets.push(parsed.secret.hash().to_vec());
    for secret in &secrets {
        assert!(!holds(&report, secret), "{text}");
        // The control: the search finds each form of it, planted.
        for form in forms(secret) {
            let planted = [report.as_slice(), b" x", &form, b"y"].concat();
            assert!(holds(&planted, secret));
        }
    }
    for gone in [invite, "alice", "acme-network", "secret-host"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    let streamed = place.json(&["bug-report", "-"]).ok().json();
    assert!(streamed["text"].as_str().unwrap().contains("== doctor =="));
}
