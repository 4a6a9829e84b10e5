//! One message of every kind, with every field set, made the same way for ever.
//!
//! A sample is never changed: a new form of a message is a new kind, and gets a new sample.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::binding::{ControllerBinding, KeyBinding};
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::{CheckName, DeviceName, InviteId, RuleId, TagName, UserName};
use gatereeve_shared::invite::InviteSecret;
use gatereeve_shared::lease::Lease;
use gatereeve_shared::policy::filter::FilterRule;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::posture::fact::{Fact, FactValue, PostureReport};
use gatereeve_shared::posture::verdict::{CheckOutcome, Failure, Verdict};
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::client::{
    Attach, ClientHello, ClientMessage, EndpointUpdate, Enroll, KeyUpdate, Leave, WhyRequest,
};
use gatereeve_shared::wire::controller::{
    ControllerHello, ControllerMessage, EnrollReply, PeerEndpoints, Pong, Refusal, RefusalCode,
    Standing, WhyReply,
};
use gatereeve_shared::wire::map::{
    LeaseRenewal, MapUpdate, OverlayAddresses, OverlayPrefixes, PeerEntry, PeerRenewal, SelfEntry,
};

const AT: UnixMillis = UnixMillis(1_800_000_000_123);

/// Name and message; the name is the one in `golden.txt`.
pub(crate) fn client() -> Vec<(&'static str, ClientMessage)> {
    use ClientMessage as M;
    vec![
        (
            "hello",
            M::Hello(ClientHello {
                min_minor: 1,
                max_minor: 300,
            }),
        ),
        (
            "enroll_invited",
            M::Enroll(enroll(Some((InviteId([7; 8]), InviteSecret([8; 32]))))),
        ),
        ("enroll_uninvited", M::Enroll(enroll(None))),
        ("attach", M::Attach(attach())),
        ("report", M::Report(report())),
        ("endpoints", M::Endpoints(endpoint_update())),
        ("ack", M::Ack(generation(70_000))),
        (
            "keys",
            M::Keys(KeyUpdate {
                current: binding(1),
                next: None,
            }),
        ),
        (
            "why",
            M::Why(WhyRequest {
                request: u64::MAX,
                peer: "web".into(),
                protocol: Protocol::Udp,
                port: 53,
            }),
        ),
        ("ping", M::Ping(250)),
        ("leave", M::Leave(Leave {})),
        ("resync", M::Resync(generation(0))),
    ]
}

/// Name and message; the name is the one in `golden.txt`.
pub(crate) fn controller() -> Vec<(&'static str, ControllerMessage)> {
    use ControllerMessage as M;
    vec![
        ("hello", M::Hello(hello())),
        (
            "enrolled_done",
            M::Enrolled(EnrollReply::Done(Standing::Pending)),
        ),
        (
            "enrolled_refused",
            M::Enrolled(EnrollReply::Refused(refusal(RefusalCode::Invite))),
        ),
        ("map_whole", M::Map(whole_map())),
        ("map_delta", M::Map(delta())),
        ("renew", M::Renew(renewal())),
        (
            "endpoints",
            M::Endpoints(vec![PeerEndpoints {
                device: key(3).public().device_id(),
                endpoints: endpoints(),
            }]),
        ),
        ("posture", M::Posture(outcomes())),
        ("why_allowed", M::Why(why(true))),
        ("why_denied", M::Why(why(false))),
        (
            "pong",
            M::Pong(Pong {
                nonce: 250,
                now: AT,
            }),
        ),
        ("refused", M::Refused(refusal(RefusalCode::Replaced))),
        ("standing", M::Standing(Standing::Revoked)),
    ]
}

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn generation(n: u64) -> Generation {
    Generation { incarnation: 2, n }
}

fn binding(counter: u64) -> KeyBinding {
    let network = Fingerprint::of(&key(1).public());
    KeyBinding::sign(&key(3), &network, WgPublicKey([9; 32]), counter)
}

fn enroll(invite: Option<(InviteId, InviteSecret)>) -> Enroll {
    Enroll {
        invite,
        name: "Alice's MacBook".into(),
        binding: binding(1),
    }
}

fn endpoints() -> Vec<SocketAddr> {
    vec![
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 51820)),
        SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7), 250)),
    ]
}

fn endpoint_update() -> EndpointUpdate {
    EndpointUpdate {
        listen_port: 51820,
        endpoints: endpoints(),
    }
}

fn report() -> PostureReport {
    let facts = [
        ("disk_encrypted", FactValue::Bool(true)),
        ("pending_security_updates", FactValue::Int(-3)),
        ("os", FactValue::Text("debian".into())),
        ("secure_boot", FactValue::Unknown("no efivars".into())),
    ];
    let facts = facts.map(|(id, value)| Fact::new(id, &value, "/somewhere", 1500));
    PostureReport {
        counter: 5,
        facts: facts.into(),
    }
}

fn attach() -> Attach {
    Attach {
        keys: KeyUpdate {
            current: binding(1),
            next: Some(binding(2)),
        },
        endpoints: endpoint_update(),
        have: Some(generation(41)),
        report: report(),
        software: "gatereeve 0.1.0".into(),
    }
}

fn hello() -> ControllerHello {
    ControllerHello {
        minor: 1,
        binding: ControllerBinding::sign(&key(1), key(2).public(), UnixMillis(2_000_000_000_000)),
        now: AT,
        standing: Standing::Approved,
        observed: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 1), 40_000)),
    }
}

fn refusal(code: RefusalCode) -> Refusal {
    Refusal {
        code,
        message: "the invite cannot be used: ask for a new one".into(),
    }
}

fn addresses(host: u8) -> OverlayAddresses {
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, 0, host),
        v6: Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, host.into()),
    }
}

fn rule(name: &str, ports: &[&str]) -> FilterRule {
    FilterRule {
        rule: RuleId::new(name).unwrap(),
        ports: ports
            .iter()
            .map(|port| port.parse::<PortSpec>().unwrap())
            .collect(),
        lease: Lease::new(UnixMillis(AT.0 + 1000), UnixMillis::MAX),
    }
}

fn whole_map() -> MapUpdate {
    let this = SelfEntry {
        network: "example".into(),
        prefixes: OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00:1:2::/48".parse().unwrap(),
        },
        device: key(4).public().device_id(),
        name: DeviceName::new("alice").unwrap(),
        addresses: addresses(1),
        tags: vec![TagName::new("laptop").unwrap()],
        user: Some(UserName::new("alice@example.com").unwrap()),
        key_expires: Some(UnixMillis(1_900_000_000_000)),
        report_every_secs: 300,
        watched_processes: vec!["/opt/edr/agent".into()],
        rotate_key_secs: 86_400,
    };
    MapUpdate {
        from: None,
        to: generation(300),
        this: Some(this),
        removed: vec![],
        upserted: vec![PeerEntry {
            device: key(3).public().device_id(),
            name: DeviceName::new("web").unwrap(),
            addresses: addresses(2),
            user: None,
            tags: vec![],
            key: binding(1),
            next_key: Some(binding(2)),
            endpoints: endpoints(),
            ingress: vec![rule("monitoring", &["icmp"])],
            egress: vec![rule("engineers", &["tcp:22", "udp:8000-8100", "*"])],
        }],
        checkpoint: Some(Checkpoint::sign(&key(1), generation(300), [6; 32], AT)),
        more: true,
    }
}

fn delta() -> MapUpdate {
    MapUpdate {
        from: Some(generation(300)),
        to: generation(301),
        this: None,
        removed: vec![key(3).public().device_id()],
        upserted: vec![],
        checkpoint: None,
        more: false,
    }
}

fn renewal() -> LeaseRenewal {
    let end = |name: &str| (RuleId::new(name).unwrap(), AT);
    LeaseRenewal {
        generation: generation(301),
        peers: vec![PeerRenewal {
            device: key(3).public().device_id(),
            ingress: vec![end("monitoring")],
            egress: vec![end("engineers"), end("everyone")],
        }],
    }
}

fn outcomes() -> Vec<CheckOutcome> {
    let failure = Failure {
        wanted: "firewall = true".into(),
        found: "false (from nft)".into(),
    };
    vec![
        CheckOutcome {
            check: CheckName::new("workstation").unwrap(),
            verdict: Verdict::Compliant { until: AT },
        },
        CheckOutcome {
            check: CheckName::new("server").unwrap(),
            verdict: Verdict::NonCompliant {
                failures: vec![failure],
            },
        },
    ]
}

fn why(allowed: bool) -> WhyReply {
    WhyReply {
        request: 9,
        allowed,
        rule: Some(RuleId::new("engineers").unwrap()),
        until: allowed.then_some(AT),
        missing: if allowed {
            vec![]
        } else {
            vec!["posture \"workstation\"".into()]
        },
    }
}
