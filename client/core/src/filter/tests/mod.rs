use std::net::IpAddr;
use std::time::Duration;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::RuleId;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::time::Mono;
use proptest::prelude::*;

use super::*;
use crate::datapath::{Direction, RuleSpec};
use crate::drop_reason::DropReason;
use crate::keyed::HashKey;
use crate::packet::ip::{TcpFlags, protocol};
use crate::packet::{IpPacket, samples};

mod flows;

fn ours(v6: bool) -> IpAddr {
    let text = if v6 { "fd00::1" } else { "100.64.0.1" };
    text.parse().unwrap()
}

fn theirs(v6: bool) -> IpAddr {
    let text = if v6 { "fd00::2" } else { "100.64.0.2" };
    text.parse().unwrap()
}

fn rule(ports: &str, end: Mono) -> RuleSpec {
    RuleSpec {
        rule: RuleId::new("r").unwrap(),
        ports: vec![ports.parse().unwrap()],
        end,
    }
}

fn filter(ingress: &[RuleSpec], egress: &[RuleSpec], serial: u64) -> PeerFilter {
    PeerFilter::new(ingress, egress, serial, Generation::default())
}

fn secs(secs: u64) -> Mono {
    Mono(secs * 1_000_000_000)
}

fn judge(
    filter: &PeerFilter,
    state: &mut FilterState,
    bytes: &[u8],
    direction: Direction,
    now: Mono,
) -> Result<(), DropReason> {
    let packet = IpPacket::parse(bytes)?;
    filter.judge(state, &packet, direction, now).map(|_| ())
}

/// What a packet is, in the words of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp { opens: bool },
    Udp,
    Echo { request: bool },
    Gre,
}

#[derive(Clone, Debug)]
enum Step {
    Packet {
        kind: Kind,
        outbound: bool,
        v6: bool,
        our_port: u16,
        their_port: u16,
    },
    Pass(u64),
    Table {
        ingress: Vec<(PortSpec, u64)>,
        egress: Vec<(PortSpec, u64)>,
    },
}

fn a_rule() -> impl Strategy<Value = (PortSpec, u64)> {
    let protocols = prop_oneof![
        Just(Protocol::Tcp),
        Just(Protocol::Udp),
        Just(Protocol::Icmp),
        Just(Protocol::Any)
    ];
    (protocols, 1u16..4, 0u16..2, 0u64..4_000).prop_map(|(protocol, first, more, end)| {
        (PortSpec::new(protocol, first, first + more).unwrap(), end)
    })
}

fn a_step() -> impl Strategy<Value = Step> {
    let kinds = prop_oneof![
        any::<bool>().prop_map(|opens| Kind::Tcp { opens }),
        Just(Kind::Udp),
        any::<bool>().prop_map(|request| Kind::Echo { request }),
        Just(Kind::Gre)
    ];
    let packet = (kinds, any::<bool>(), any::<bool>(), 1u16..5, 1u16..5).prop_map(
        |(kind, outbound, v6, our_port, their_port)| Step::Packet {
            kind,
            outbound,
            v6,
            our_port,
            their_port,
        },
    );
    let rules = || proptest::collection::vec(a_rule(), 0..4);
    prop_oneof![
        12 => packet,
        1 => (0u64..400).prop_map(Step::Pass),
        1 => (rules(), rules()).prop_map(|(ingress, egress)| Step::Table { ingress, egress }),
    ]
}

/// The filter in twenty lines: a list of flows, rules walked one by one. The times are too short for any
/// flow to idle out.
#[derive(Default)]
struct Model {
    ingress: Vec<(PortSpec, u64)>,
    egress: Vec<(PortSpec, u64)>,
    flows: Vec<(Flow, bool)>,
}

/// Kind, v6, our port, their port.
type Flow = (&'static str, bool, u16, u16);

impl Model {
    fn rules_allow(&self, outbound: bool, flow: &Flow, now: u64) -> bool {
        let port = if outbound { flow.3 } else { flow.2 };
        let rules = if outbound {
            &self.egress
        } else {
            &self.ingress
        };
        rules.iter().any(|(ports, end)| {
            let inside = match (ports.protocol(), flow.0) {
                (Protocol::Any, _) => true,
                (Protocol::Tcp, "tcp") | (Protocol::Udp, "udp") => {
                    ports.first() <= port && port <= ports.last()
                }
                (Protocol::Icmp, "we ask" | "they ask") => true,
                _ => false,
            };
            inside && now < *end
        })
    }

    fn passes(&mut self, flow: Flow, kind: Kind, outbound: bool, now: u64) -> bool {
        if let Some(at) = self.flows.iter().position(|(known, _)| *known == flow) {
            let opener = self.flows[at].1;
            if !self.rules_allow(opener, &flow, now) {
                self.flows.remove(at);
            } else if opener == outbound || kind != (Kind::Tcp { opens: true }) {
                return true;
            }
        }
        if kind == (Kind::Echo { request: false }) || !self.rules_allow(outbound, &flow, now) {
            return false;
        }
        self.flows.retain(|(known, _)| *known != flow);
        self.flows.push((flow, outbound));
        true
    }
}

fn build(kind: Kind, outbound: bool, v6: bool, our_port: u16, their_port: u16) -> (Vec<u8>, Flow) {
    let (us, them) = ((ours(v6), our_port), (theirs(v6), their_port));
    let (from, to) = if outbound { (us, them) } else { (them, us) };
    match kind {
        Kind::Tcp { opens } => {
            let flags = if opens { TcpFlags::SYN } else { TcpFlags::ACK };
            (
                samples::tcp(from, to, flags),
                ("tcp", v6, our_port, their_port),
            )
        }
        Kind::Udp => (
            samples::udp(from, to, b"data"),
            ("udp", v6, our_port, their_port),
        ),
        Kind::Echo { request } => {
            let asks = if outbound == request {
                "we ask"
            } else {
                "they ask"
            };
            (
                samples::echo(from.0, to.0, our_port, request),
                (asks, v6, our_port, 0),
            )
        }
        Kind::Gre => (samples::ip(from.0, to.0, 47, &[0; 8]), ("gre", v6, 0, 0)),
    }
}

fn specs(rules: &[(PortSpec, u64)]) -> Vec<RuleSpec> {
    rules
        .iter()
        .map(|(ports, end)| RuleSpec {
            rule: RuleId::new("r").unwrap(),
            ports: vec![*ports],
            end: Mono(*end * 1_000_000),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_filter_equals_a_naive_model(
        first in (proptest::collection::vec(a_rule(), 0..4), proptest::collection::vec(a_rule(), 0..4)),
        steps in proptest::collection::vec(a_step(), 0..120),
    ) {
        let mut model = Model { ingress: first.0, egress: first.1, flows: Vec::new() };
        let mut serial = 1;
        let mut real = filter(&specs(&model.ingress), &specs(&model.egress), serial);
        let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
        let mut now = 0;
        for step in steps {
            match step {
                Step::Pass(millis) => now += millis,
                Step::Table { ingress, egress } => {
                    serial += 1;
                    real = filter(&specs(&ingress), &specs(&egress), serial);
                    (model.ingress, model.egress) = (ingress, egress);
                }
                Step::Packet { kind, outbound, v6, our_port, their_port } => {
                    let (bytes, flow) = build(kind, outbound, v6, our_port, their_port);
                    let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
                    let passed = judge(&real, &mut state, &bytes, direction, Mono(now * 1_000_000));
                    prop_assert_eq!(
                        passed.is_ok(),
                        model.passes(flow, kind, outbound, now),
                        "{:?} outbound={} at {}: {:?}", kind, outbound, now, passed
                    );
                }
            }
        }
    }

    #[test]
    fn an_empty_filter_lets_nothing_through(bytes in proptest::collection::vec(any::<u8>(), 0..120), outbound: bool, version in 0u8..3) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = match version { 0 => 0x45, 1 => 0x60, _ => *first };
        }
        if let (1, Some(len)) = (version, bytes.len().checked_sub(40)) {
            bytes[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
        let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        prop_assert!(judge(&filter(&[], &[], 1), &mut state, &bytes, direction, secs(1)).is_err());
        prop_assert_eq!(state.flows(), 0);
    }
}

#[test]
fn a_renewed_lease_keeps_a_flow_and_a_shortened_one_ends_it() {
    let (a, b) = ((ours(false), 1000), (theirs(false), 53));
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    let query = samples::udp(a, b, b"x");
    let answer = samples::udp(b, a, b"x");
    let table = |end, serial| filter(&[], &[rule("udp:53", secs(end))], serial);
    let out = judge(
        &table(50, 1),
        &mut state,
        &query,
        Direction::Outbound,
        secs(1),
    );
    assert_eq!(out, Ok(()));
    for (end, serial, now, passes) in [
        (50, 1, 49, true),
        (100, 2, 50, true),
        (60, 3, 61, false),
        (100, 4, 62, false),
    ] {
        let judged = judge(
            &table(end, serial),
            &mut state,
            &answer,
            Direction::Inbound,
            secs(now),
        );
        assert_eq!(judged.is_ok(), passes, "until {end} at {now}");
    }
}

#[test]
fn fragment_verdicts_are_bounded_and_forgotten() {
    let filter = filter(&[rule("udp:1", secs(1000))], &[], 1);
    let mut state = FilterState::new(FlowBudget::default(), HashKey::new([5; 16]));
    let addresses = (theirs(false), ours(false));
    let datagram = samples::udp((addresses.0, 9), (addresses.1, 1), &[1; 24]);
    let first = |id| samples::fragment(addresses, protocol::UDP, id, 0, true, &datagram[20..52]);
    let later = |id| samples::fragment(addresses, protocol::UDP, id, 4, false, &[1; 8]);
    let mut at = |bytes: Vec<u8>, now| judge(&filter, &mut state, &bytes, Direction::Inbound, now);
    for id in 0..2_000 {
        assert_eq!(at(first(id), secs(1)), Ok(()));
    }
    assert_eq!(
        at(later(0), secs(1)),
        Err(DropReason::FragmentWithoutVerdict)
    );
    assert_eq!(at(later(1_999), secs(1)), Ok(()));
    let forgotten = secs(1).saturating_add(Duration::from_secs(15));
    assert_eq!(
        at(later(1_999), forgotten),
        Err(DropReason::FragmentWithoutVerdict)
    );
}
