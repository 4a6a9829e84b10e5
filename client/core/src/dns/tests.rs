//! Whole questions, as packets, against a small directory; and anything at all, which stops nobody.

use std::net::IpAddr;

use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};
use proptest::prelude::*;

use super::{Directory, Domain, ROOM, answer, resolver};
use crate::packet::{IpPacket, samples};

struct Acme {
    domain: Domain,
    prefixes: OverlayPrefixes,
}

impl Acme {
    fn new() -> Self {
        Self {
            domain: Domain::of_network("Acme"),
            prefixes: OverlayPrefixes {
                v4: "100.64.0.0/10".parse().unwrap(),
                v6: "fd12:3456:789a::/48".parse().unwrap(),
            },
        }
    }
}

fn web() -> OverlayAddresses {
    OverlayAddresses {
        v4: "100.70.1.2".parse().unwrap(),
        v6: "fd12:3456:789a::2".parse().unwrap(),
    }
}

impl Directory for Acme {
    fn domain(&self) -> &Domain {
        &self.domain
    }
    fn prefixes(&self) -> &OverlayPrefixes {
        &self.prefixes
    }
    fn addresses(&self, name: &str) -> Option<OverlayAddresses> {
        (name == "web-1").then(web)
    }
    fn name(&self, address: IpAddr) -> Option<&str> {
        let is_web = address == web().v4 || address == web().v6;
        is_web.then_some("web-1")
    }
}

const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const AAAA: u16 = 28;
const ANY: u16 = 255;

/// A question as a resolver writes it, with EDNS of this version.
fn question(name: &str, kind: u16, edns: Option<u8>) -> Vec<u8> {
    let mut query = vec![
        0xab,
        0xcd,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(edns.is_some()),
    ];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    if let Some(version) = edns {
        query.extend([0, 0, 41, 4, 208, 0, version, 0, 0, 0, 0]);
    }
    query
}

/// What is answered, without its headers.
fn ask(query: &[u8]) -> Option<Vec<u8>> {
    ask_at(query, 53, true)
}

fn ask_at(query: &[u8], port: u16, v4: bool) -> Option<Vec<u8>> {
    let acme = Acme::new();
    let at = resolver(&acme.prefixes);
    let (own, at): (IpAddr, IpAddr) = if v4 {
        ("100.70.9.9".parse().unwrap(), at.v4.into())
    } else {
        ("fd12:3456:789a::9".parse().unwrap(), at.v6.into())
    };
    let asked = samples::udp((own, 4000), (at, port), query);
    let packet = IpPacket::parse(&asked).unwrap();
    let mut out = [0; ROOM];
    let len = answer(&asked, &packet, &acme, &mut out)?;
    let answered = out.get(..len).unwrap();
    let reply = IpPacket::parse(answered).unwrap();
    assert_eq!((reply.source, reply.destination), (at, own));
    assert_eq!(reply.len, len);
    Some(answered.get(reply.transport_at + 8..).unwrap().to_vec())
}

/// The code of an answer, how many records it has, and what follows the question; nothing of that is the zone's record.
fn told(name: &str, kind: u16) -> (u8, u8, Vec<u8>) {
    let query = question(name, kind, None);
    let answer = ask(&query).unwrap();
    assert_eq!(answer[..2], query[..2], "{name}");
    assert_eq!(answer[2] & 0x80, 0x80);
    let rest = answer.get(query.len()..).unwrap_or_default().to_vec();
    let (code, count) = (answer[3] & 15, answer[7]);
    let is_negative = count == 0 && (code == 0 || code == 3);
    assert_eq!(
        answer[9],
        u8::from(is_negative),
        "the zone goes with what it has not"
    );
    assert_eq!(
        answer[2] & 4 > 0,
        code != 5,
        "what is answered is answered with authority"
    );
    if is_negative {
        check_soa(&answer, &rest);
        return (code, count, Vec::new());
    }
    (code, count, rest)
}

/// The zone's own record, and nothing else.
fn check_soa(answer: &[u8], record: &[u8]) {
    let [
        high,
        low,
        0,
        6,
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        23,
        server @ ..,
        0,
        0,
        0,
        1,
    ] = record
    else {
        panic!("no record of a zone: {record:?}");
    };
    assert_eq!(server[..2], [*high, *low]);
    let at = usize::from(u16::from_be_bytes([*high & 0x3f, *low]));
    let zones: [&[u8]; 3] = [
        b"\x04acme",
        b"\x0264\x03100\x07in-addr",
        b"\x0270\x03100\x07in-addr",
    ];
    let zone = answer[at..].to_ascii_lowercase();
    assert!(
        zones.iter().any(|name| zone.starts_with(name))
            || zone.windows(5).any(|part| part == b"\x03ip6\x04"),
        "{zone:?}"
    );
}

#[test]
fn a_device_has_its_addresses_and_nothing_else() {
    let (code, count, record) = told("web-1.acme.internal", A);
    assert_eq!((code, count), (0, 1));
    assert_eq!(
        record,
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4, 100, 70, 1, 2]
    );
    let (code, count, record) = told("WEB-1.Acme.INTERNAL.", AAAA);
    assert_eq!((code, count), (0, 1));
    assert!(record.ends_with(&web().v6.octets()));
    assert_eq!(told("web-1.acme.internal", ANY).1, 1);
    // A name that is there has no other records: not the same as no name.
    for kind in [MX, PTR, 6, 16, 33, 65] {
        assert_eq!(told("web-1.acme.internal", kind), (0, 0, vec![]), "{kind}");
    }
    assert_eq!(told("acme.internal", A), (0, 0, vec![]));
    let (code, count, record) = told("acme.internal", 6);
    assert_eq!((code, count), (0, 1));
    assert_eq!(record[..4], [0xc0, 12, 0, 6]);
}

#[test]
fn what_is_not_to_be_reached_has_no_name() {
    for name in [
        "db.acme.internal",
        "x.web-1.acme.internal",
        "web-1\0.acme.internal",
    ] {
        assert_eq!(told(name, A), (3, 0, vec![]), "{name}");
    }
}

#[test]
fn other_domains_are_refused_and_not_asked_for_elsewhere() {
    for name in [
        "",
        "com",
        "web-1",
        "internal",
        "web-1.internal",
        "web-1.other.internal",
        "acme.internal.com",
    ] {
        assert_eq!(told(name, A), (5, 0, vec![]), "{name}");
    }
}

#[test]
fn addresses_have_their_names() {
    let (code, count, record) = told("2.1.70.100.in-addr.arpa", PTR);
    assert_eq!((code, count), (0, 1));
    assert!(record.ends_with(b"\x05web-1\x04acme\x08internal\0"));
    let mut v6 = String::new();
    for octet in web().v6.octets().iter().rev() {
        v6 += &format!("{:x}.{:x}.", octet & 15, octet >> 4);
    }
    let (code, count, record) = told(&format!("{}IP6.arpa", v6.to_uppercase()), PTR);
    assert_eq!((code, count), (0, 1));
    assert!(record.ends_with(b"\x05web-1\x04acme\x08internal\0"));
    assert_eq!(told("2.1.70.100.in-addr.arpa", A), (0, 0, vec![]));
    assert_eq!(told("3.1.70.100.in-addr.arpa", PTR).0, 3);
    assert_eq!(told("70.100.in-addr.arpa", PTR), (0, 0, vec![]));
    for other in [
        "1.1.1.1.in-addr.arpa",
        "100.in-addr.arpa",
        "02.1.70.100.in-addr.arpa",
        "9.2.1.70.100.in-addr.arpa",
        "x.ip6.arpa",
        "ip6.arpa",
    ] {
        assert_eq!(told(other, PTR), (5, 0, vec![]), "{other}");
    }
}

#[test]
fn both_families_answer_and_other_ports_do_not() {
    let query = question("web-1.acme.internal", A, None);
    assert_eq!(ask_at(&query, 53, true), ask_at(&query, 53, false));
    assert!(ask_at(&query, 53, true).is_some());
    assert_eq!(ask_at(&query, 5353, true), None);
}

#[test]
fn edns_is_answered_with_edns() {
    let query = question("web-1.acme.internal", A, Some(0));
    let answer = ask(&query).unwrap();
    assert_eq!((answer[3] & 15, answer[7], answer[11]), (0, 1, 1));
    assert!(answer.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]));
    // A version to come: its number is 16, of which the upper bits are in the record.
    let answer = ask(&question("web-1.acme.internal", A, Some(1))).unwrap();
    assert_eq!((answer[3] & 15, answer[7], answer[11]), (0, 0, 1));
    assert!(answer.ends_with(&[0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]));
}

#[test]
fn what_is_no_good_question_is_told_so() {
    let good = question("web-1.acme.internal", A, None);
    let changed = |at: usize, byte: u8| {
        let mut query = good.clone();
        query[at] = byte;
        query
    };
    let code = |query: &[u8]| ask(query).map(|answer| answer[3] & 15);
    assert_eq!(code(&good), Some(0));
    // No question, two of them, a name that points, one that does not end.
    assert_eq!(code(&changed(5, 0)), Some(1));
    assert_eq!(code(&changed(5, 2)), Some(1));
    assert_eq!(code(&changed(12, 0xc0)), Some(1));
    assert_eq!(code(&good[..good.len() - 5]), Some(1));
    let long = "a.".repeat(130) + "acme.internal";
    assert_eq!(code(&question(&long, A, None)), Some(1));
    let longest = "a.".repeat(120) + "acme.internal";
    assert_eq!(code(&question(&longest, A, None)), Some(3));
    // A notification, another class, an answer, half a header.
    assert_eq!(code(&changed(2, 0x20)), Some(4));
    assert_eq!(code(&changed(good.len() - 1, 3)), Some(5));
    assert_eq!(code(&changed(2, 0x80)), None);
    assert_eq!(code(&good[..11]), None);
}

proptest! {
    #[test]
    fn nothing_stops_it(query in proptest::collection::vec(any::<u8>(), 0..600)) {
        let answer = ask(&query);
        // No answer is longer than its question by more than a record of each sort.
        prop_assert!(answer.is_none_or(|answer| answer.len() <= query.len() + 91 + 11));
    }

    #[test]
    fn a_broken_question_stops_nobody(
        at in 0usize..60,
        byte in any::<u8>(),
        cut in 0usize..60,
        kind in prop_oneof![Just(A), Just(PTR), Just(AAAA), any::<u16>()],
    ) {
        let mut query = question("2.1.70.100.in-addr.arpa", kind, Some(0));
        query.truncate(query.len().saturating_sub(cut));
        if let Some(target) = query.get_mut(at) {
            *target = byte;
        }
        ask(&query);
    }
}
