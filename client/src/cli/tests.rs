use std::collections::BTreeMap;

use clap::CommandFactory as _;

use gatereeve_client_core::api::{
    BlackholeView, Connection, NamesState, NamesView, OffloadView, PathView, PeerView, RuleStatus,
    StatusView, TunOffloads, UdpOffloads, WhyView,
};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::posture::verdict::{CheckOutcome, Failure as CheckFailure, Verdict};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::map::OverlayAddresses;

use super::output::table;
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("gatereeve").chain(line.split_whitespace()))
}

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_interface_parses() {
    for line in [
        "daemon --state-dir /s --socket /k --tun t0 --listen 7 --config-dir /c",
        "join gatereeve-invite-1.x",
        "join - --no-wait",
        "join host:8443 --key abc",
        "leave",
        "up --json",
        "down",
        "--json status",
        "peers --socket /k",
        "flows",
        "flows web -n 1000 --json",
        "ping web -c 3",
        "why web:udp:53",
        "posture",
        "whois 100.64.0.7:5",
        "repair",
        "repair --apply --state-dir /s",
        "repair --remove --all --force --tun gatereeve1 --json",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for line in [
        "",
        "nonsense",
        "ping",
        "flows web -n 1001",
        "flows web db",
        "ping web -c 0",
        "ping web -c 1001",
        "why web:",
        "whois web",
        "join",
        "status extra",
        "repair --apply --remove",
        "repair --all",
        "repair --force",
    ] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
}

fn status() -> StatusView {
    StatusView {
        version: "0.1.0".into(),
        joined: true,
        up: true,
        connection: Connection::Synced,
        last_error: None,
        standing: None,
        network: Some("acme".into()),
        fingerprint: None,
        controllers: vec![],
        device: None,
        name: "web".parse().ok(),
        addresses: None,
        wg_key: None,
        listen_port: 51_840,
        interface: "gatereeve0".into(),
        mtu: Some(1420),
        offloads: Some(OffloadView {
            tun: TunOffloads {
                tso: true,
                queues: 2,
                ..TunOffloads::default()
            },
            udp: UdpOffloads::default(),
            workers: 1,
            missing: vec!["tun uso: too old".into()],
        }),
        cipher: Some("AVX-512".into()),
        blackhole: Some(BlackholeView {
            table: 5247,
            prefixes: vec!["100.64.0.0/10".into()],
        }),
        names: Some(NamesView {
            domain: "acme.internal".into(),
            resolver: OverlayAddresses {
                v4: "100.64.0.0".parse().unwrap(),
                v6: "fd00::".parse().unwrap(),
            },
            state: NamesState::InUse,
            problem: None,
        }),
        generation: Some(Generation {
            incarnation: 0,
            n: 7,
        }),
        enforced: Some(Generation {
            incarnation: 0,
            n: 6,
        }),
        leases_end: None,
        peers: 2,
        failing_checks: vec![CheckOutcome {
            check: "workstation".parse().unwrap(),
            verdict: Verdict::NonCompliant {
                failures: vec![CheckFailure {
                    wanted: "firewall = true".into(),
                    found: "false".into(),
                }],
            },
        }],
        drops: BTreeMap::from([("no_rule".into(), 3)]),
        warnings: vec!["bad\u{1b}[31m\nline".into()],
        sandbox: None,
    }
}

#[test]
fn status_shows_what_needs_attention_and_keeps_its_lines() {
    let text = table(&LocalReply::Status(Box::new(status())));
    assert!(text.contains("0.7; enforced: 0.6"), "{text}");
    assert!(text.contains("AVX-512"), "{text}");
    assert!(
        text.contains("tun tso, 2 queues; udp none; 1 worker"),
        "{text}"
    );
    assert!(text.contains("not offloaded: tun uso: too old"), "{text}");
    assert!(text.contains("check workstation: not met"), "{text}");
    assert!(
        text.contains("wanted firewall = true, found false"),
        "{text}"
    );
    assert!(text.contains("no_rule 3"), "{text}");
    assert!(
        !text.contains('\u{1b}') && text.contains("bad\u{fffd}[31m\u{fffd}line"),
        "{text}"
    );
}

#[test]
fn answers_read_back_from_json() {
    let reply = LocalReply::Status(Box::new(status()));
    let json = serde_json::to_string(&reply).unwrap();
    assert_eq!(serde_json::from_str::<LocalReply>(&json).unwrap(), reply);
}

#[test]
fn peers_show_both_directions() {
    let peer = PeerView {
        device: DeviceId([1; 20]),
        name: "db".parse().unwrap(),
        addresses: OverlayAddresses {
            v4: "100.64.0.2".parse().unwrap(),
            v6: "fd00::2".parse().unwrap(),
        },
        user: None,
        path: Some(PathView::Direct {
            endpoint: "192.0.2.1:7".parse().unwrap(),
            mtu: Some(1280),
        }),
        last_handshake_secs: None,
        rx_bytes: 1023,
        tx_bytes: 3 * 1024 * 1024 * 1024,
        egress: vec![RuleStatus {
            rule: "web-to-db".parse().unwrap(),
            ports: vec!["tcp:5432".parse().unwrap()],
            until: UnixMillis(0),
        }],
        ingress: vec![],
        generation: Generation::default(),
        leases_end: None,
    };
    let text = table(&LocalReply::Peers { peers: vec![peer] });
    for part in [
        "db",
        "100.64.0.2",
        "192.0.2.1:7",
        "1280 bytes",
        "never",
        "1023 B",
        "3.0 GiB",
        "tcp:5432 (web-to-db)",
        "nothing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(table(&LocalReply::Peers { peers: vec![] }).contains("no peers"));
}

#[test]
fn why_says_the_same_of_no_rule_and_no_such_name() {
    let why = |allowed: bool, missing: Vec<String>| {
        table(&LocalReply::Why(WhyView {
            peer: "web".into(),
            port: "tcp:22".parse::<PortSpec>().unwrap(),
            allowed,
            rule: allowed.then(|| "ssh".parse().unwrap()),
            until: None,
            through: vec![],
            missing,
            answered_by: "controller".into(),
        }))
    };
    assert!(why(true, vec![]).contains("allowed\nby rule: ssh"));
    assert!(
        why(false, vec!["posture workstation".into()]).contains("missing: posture workstation")
    );
    assert!(why(false, vec![]).contains("no rule lets this device"));
}

#[test]
fn why_without_a_port_names_every_rule_with_its_ports() {
    let rule = |name: &str, ports: &str| RuleStatus {
        rule: name.parse().unwrap(),
        ports: vec![ports.parse().unwrap()],
        until: UnixMillis(0),
    };
    let text = table(&LocalReply::Why(WhyView {
        peer: "web".into(),
        port: PortSpec::ANY,
        allowed: true,
        rule: Some("ssh".parse().unwrap()),
        until: Some(UnixMillis(0)),
        through: vec![rule("ssh", "tcp:22"), rule("dns", "udp:53")],
        missing: vec![],
        answered_by: "controller".into(),
    }));
    assert!(
        text.starts_with("web: allowed\ntcp:22 by rule ssh until 1970-01-01"),
        "{text}"
    );
    assert!(text.contains("\nudp:53 by rule dns until "), "{text}");
}

#[test]
fn a_ping_without_answers_is_a_failure() {
    let pinged = |round_trips_ms: Vec<f64>| LocalReply::Pinged {
        peer: "web".parse().unwrap(),
        address: "100.64.0.2".parse().unwrap(),
        sent: 2,
        round_trips_ms,
        note: None,
    };
    assert_eq!(status_of(&pinged(vec![1.5])), 0);
    assert_eq!(status_of(&pinged(vec![])), 1);
    assert!(
        table(&pinged(vec![1.5]))
            .contains("answer from web (100.64.0.2): 1.50 ms\n2 sent, 1 answered")
    );
}
