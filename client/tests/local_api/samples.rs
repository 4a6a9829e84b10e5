//! One of everything: each variant, with all that is optional there, and with none of it.

use std::collections::BTreeMap;

use gatereeve_client_core::api::{
    BlackholeView, Connection, FlowEnd, FlowOpener, FlowPhase, FlowView, Join, LocalError,
    LocalFact, LocalReply, LocalRequest, NamesState, NamesView, OffloadView, PathView, PeerView,
    PlaceView, RepairView, RuleStatus, StatusView, Traffic, TunOffloads, UdpOffloads, WhyView,
};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::posture::verdict::{CheckOutcome, Failure, Verdict};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::controller::Standing;
use gatereeve_shared::wire::map::OverlayAddresses;

const FINGERPRINT: Fingerprint = Fingerprint([7; 32]);
const DEVICE: DeviceId = DeviceId([3; 20]);
const LATER: UnixMillis = UnixMillis(1_800_000_000_000);

/// The name of a request's operation; a new one needs a line here, and so a sample.
fn operation(request: &LocalRequest) -> &'static str {
    match request {
        LocalRequest::Status => "status",
        LocalRequest::Peers => "peers",
        LocalRequest::Flows { .. } => "flows",
        LocalRequest::Ping { .. } => "ping",
        LocalRequest::Why { .. } => "why",
        LocalRequest::Posture => "posture",
        LocalRequest::Whois { .. } => "whois",
        LocalRequest::Join(Join::Invite(_) | Join::Controller { .. }) => "join",
        LocalRequest::Leave => "leave",
        LocalRequest::Up => "up",
        LocalRequest::Down => "down",
        LocalRequest::Repair => "repair",
    }
}

pub(crate) fn requests() -> Vec<LocalRequest> {
    let mut all = vec![
        LocalRequest::Status,
        LocalRequest::Peers,
        LocalRequest::Flows {
            peer: Some("web".into()),
            limit: 1_000,
        },
        LocalRequest::Flows {
            peer: None,
            limit: 0,
        },
        LocalRequest::Ping {
            peer: "web".into(),
            count: 3,
        },
        LocalRequest::Posture,
        LocalRequest::Whois {
            address: "fd00::1".parse().unwrap(),
        },
        LocalRequest::Join(Join::Invite("gatereeve-invite-1.x".into())),
        LocalRequest::Join(Join::Controller {
            address: "controller.example.com:8443".into(),
            fingerprint: FINGERPRINT,
        }),
        LocalRequest::Leave,
        LocalRequest::Up,
        LocalRequest::Down,
        LocalRequest::Repair,
    ];
    for protocol in [Protocol::Any, Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
        all.push(LocalRequest::Why {
            peer: "web".into(),
            protocol,
            port: 22,
        });
    }
    assert!(all.iter().all(|request| !operation(request).is_empty()));
    all
}

/// Which operation answers so; a new reply needs a line here, and so a sample.
fn of_operation(reply: &LocalReply) -> &'static str {
    match reply {
        LocalReply::Status(_) => "status",
        LocalReply::Peers { .. } => "peers",
        LocalReply::Flows { .. } => "flows",
        LocalReply::Pinged { .. } => "ping",
        LocalReply::Why(_) => "why",
        LocalReply::Posture { .. } => "posture",
        LocalReply::Whois { .. } => "whois",
        LocalReply::Repair(_) => "repair",
        LocalReply::Done { .. } => "up",
    }
}

pub(crate) fn replies() -> Vec<(&'static str, LocalReply)> {
    let mut unknown = peer(true);
    unknown.path = Some(direct(None));
    let peers = vec![peer(true), peer(false), unknown];
    let mut all = vec![
        LocalReply::Peers { peers },
        LocalReply::Flows {
            flows: flows(),
            tracked: 9,
        },
        LocalReply::Posture {
            facts: facts(),
            checks: checks(),
        },
        LocalReply::Repair(RepairView {
            daemon: true,
            places: vec![place(Some("gatereeve0".into())), place(None)],
            changes: vec!["added rule".into()],
            notes: vec!["unreachable on purpose".into()],
        }),
    ];
    all.extend(with_names());
    for full in [true, false] {
        let when = |standing| full.then_some(standing);
        all.push(LocalReply::Status(Box::new(status(full))));
        all.push(LocalReply::Pinged {
            peer: "web".parse().unwrap(),
            address: "100.64.0.1".parse().unwrap(),
            sent: 3,
            round_trips_ms: vec![0.25],
            note: full.then(|| "no rule".into()),
        });
        all.push(LocalReply::Why(WhyView {
            peer: "web".into(),
            port: PortSpec::ICMP,
            allowed: full,
            rule: full.then(|| "a-rule".parse().unwrap()),
            until: full.then_some(LATER),
            through: vec![rule()],
            missing: vec!["a rule".into()],
            answered_by: if full { "controller" } else { "map" }.into(),
        }));
        all.push(LocalReply::Whois {
            device: DEVICE,
            name: "web".parse().unwrap(),
            user: full.then(|| "alice@example.com".parse().unwrap()),
            tags: vec!["web".parse().unwrap()],
            is_self: full,
        });
        for standing in [
            Standing::Unknown,
            Standing::Pending,
            Standing::Approved,
            Standing::Quarantined,
            Standing::Expired,
            Standing::Revoked,
        ] {
            all.push(LocalReply::Done {
                message: "done".into(),
                standing: when(standing),
            });
        }
    }
    for connection in [
        Connection::Off,
        Connection::Connecting,
        Connection::Waiting,
        Connection::Synced,
    ] {
        all.push(LocalReply::Status(Box::new(StatusView {
            connection,
            ..status(true)
        })));
    }
    all.into_iter()
        .map(|reply| (of_operation(&reply), reply))
        .collect()
}

/// One status for each way in which names may stand; `status` has the one that is left.
fn with_names() -> impl Iterator<Item = LocalReply> {
    [
        NamesState::Pending,
        NamesState::InUse,
        NamesState::Contested,
        NamesState::Bypassed,
        NamesState::Absent,
        NamesState::Failed,
        NamesState::Off,
    ]
    .into_iter()
    .map(|state| {
        let mut with = status(true);
        if let Some(names) = &mut with.names {
            (names.state, names.problem) = (state, None);
        }
        LocalReply::Status(Box::new(with))
    })
}

pub(crate) fn error() -> LocalError {
    LocalError {
        exit_status: 3,
        message: "not you".into(),
    }
}

fn addresses() -> OverlayAddresses {
    OverlayAddresses {
        v4: "100.64.0.1".parse().unwrap(),
        v6: "fd00::1".parse().unwrap(),
    }
}

fn generation() -> Generation {
    Generation {
        incarnation: 1,
        n: 7,
    }
}

fn rule() -> RuleStatus {
    RuleStatus {
        rule: "a-rule".parse().unwrap(),
        ports: vec![PortSpec::ANY, PortSpec::new(Protocol::Tcp, 22, 22).unwrap()],
        until: LATER,
    }
}

fn facts() -> Vec<LocalFact> {
    let values = [
        FactValue::Bool(true),
        FactValue::Int(-3),
        FactValue::Text("debian".into()),
        FactValue::Unknown("no rights".into()),
    ];
    let fact = |value| LocalFact {
        id: "os".into(),
        value,
        source: "/etc/os-release".into(),
        age_secs: 5,
    };
    values.map(fact).into()
}

fn checks() -> Vec<CheckOutcome> {
    let failures = vec![Failure {
        wanted: "firewall = true".into(),
        found: "false".into(),
    }];
    [
        Verdict::Compliant { until: LATER },
        Verdict::NonCompliant { failures },
    ]
    .map(|verdict| CheckOutcome {
        check: "workstation".parse().unwrap(),
        verdict,
    })
    .into()
}

fn place(interface: Option<String>) -> PlaceView {
    PlaceView {
        table: 5247,
        priority: 5247,
        interface,
        blackhole: vec!["100.64.0.0/10".into()],
        rules: vec!["5249: from 100.64.0.1 unreachable".into()],
        routes: vec!["unreachable 100.64.0.0/10".into()],
    }
}

fn direct(mtu: Option<u16>) -> PathView {
    PathView::Direct {
        endpoint: "192.0.2.1:51840".parse().unwrap(),
        mtu,
    }
}

fn peer(full: bool) -> PeerView {
    PeerView {
        device: DEVICE,
        name: "web".parse().unwrap(),
        addresses: addresses(),
        user: full.then(|| "alice@example.com".parse().unwrap()),
        path: full.then(|| direct(Some(1280))),
        last_handshake_secs: full.then_some(5),
        rx_bytes: 1,
        tx_bytes: 2,
        egress: vec![rule()],
        ingress: vec![rule()],
        generation: generation(),
        leases_end: full.then_some(LATER),
    }
}

/// One for each phase.
fn flows() -> Vec<FlowView> {
    let traffic = |packets| Traffic {
        packets,
        bytes: packets * 1420,
    };
    let end = |address: &str, port| FlowEnd {
        address: address.parse().unwrap(),
        port,
    };
    let phases = [
        (FlowPhase::Opening, true),
        (FlowPhase::Established, false),
        (FlowPhase::Closing, true),
        (FlowPhase::Closed, false),
        (FlowPhase::Reset, true),
        (FlowPhase::Datagrams, false),
    ];
    let flow = |(phase, full): (_, bool)| FlowView {
        device: DEVICE,
        name: "web".parse().unwrap(),
        user: full.then(|| "alice@example.com".parse().unwrap()),
        protocol: "tcp".into(),
        opened_by: if full {
            FlowOpener::ThisDevice
        } else {
            FlowOpener::Peer
        },
        own: end("100.64.0.1", 51_234),
        theirs: end("fd00::2", 22),
        rule: "a-rule".parse().unwrap(),
        generation: generation(),
        allowed: full,
        phase,
        age_secs: 60,
        idle_secs: 1,
        sent: traffic(3),
        received: traffic(7),
    };
    phases.map(flow).into()
}

fn offloads() -> OffloadView {
    OffloadView {
        tun: TunOffloads {
            tso: true,
            uso: true,
            tcp_joining: true,
            udp_joining: true,
            queues: 2,
        },
        udp: UdpOffloads {
            gso: true,
            gro: true,
        },
        workers: 2,
        missing: vec!["tun uso: too old".into()],
    }
}

fn status(full: bool) -> StatusView {
    StatusView {
        version: "0.1.0".into(),
        joined: full,
        up: full,
        connection: Connection::Synced,
        last_error: full.then(|| "refused".into()),
        standing: full.then_some(Standing::Approved),
        network: full.then(|| "acme".into()),
        fingerprint: full.then_some(FINGERPRINT),
        controllers: vec!["controller.example.com:8443".into()],
        device: full.then_some(DEVICE),
        name: full.then(|| "web".parse().unwrap()),
        addresses: full.then(addresses),
        wg_key: full.then(|| "AAAA".into()),
        listen_port: 51_840,
        interface: "gatereeve0".into(),
        mtu: full.then_some(1420),
        offloads: full.then(offloads),
        cipher: full.then(|| "AVX-512".into()),
        blackhole: full.then(|| BlackholeView {
            table: 5247,
            prefixes: vec!["100.64.0.0/10".into()],
        }),
        generation: full.then(generation),
        enforced: full.then(generation),
        leases_end: full.then_some(LATER),
        peers: 2,
        failing_checks: checks(),
        drops: BTreeMap::from([("no_rule".into(), 7)]),
        warnings: vec!["a warning".into()],
        sandbox: full.then(|| "landlock abi 7, seccomp".into()),
        names: full.then(|| NamesView {
            domain: "acme.internal".into(),
            resolver: addresses(),
            state: NamesState::Forbidden,
            problem: Some("not allowed".into()),
        }),
    }
}
