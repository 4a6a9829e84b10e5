use std::net::IpAddr;

use proptest::prelude::*;

use super::answer::{ROOM, Refusal, refuse};
use super::checksum::Sum;
use super::ip::{Fragment, IpPacket, TcpFlags, Transport, protocol};
use super::samples;
use crate::drop_reason::DropReason;

fn v4() -> (IpAddr, IpAddr) {
    ("100.64.0.1".parse().unwrap(), "100.64.0.2".parse().unwrap())
}

fn v6() -> (IpAddr, IpAddr) {
    ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
}

#[test]
fn ports_are_found_in_both_families() {
    for (a, b) in [v4(), v6()] {
        let packet = IpPacket::parse(&samples::tcp((a, 1), (b, 2), TcpFlags::SYN)).unwrap();
        assert_eq!((packet.source, packet.destination), (a, b));
        assert_eq!(
            packet.transport,
            Transport::Tcp {
                source: 1,
                destination: 2,
                flags: TcpFlags(TcpFlags::SYN)
            }
        );
        assert!(matches!(
            IpPacket::parse(&samples::echo(a, b, 7, true))
                .unwrap()
                .transport,
            Transport::Echo {
                id: 7,
                request: true
            }
        ));
    }
}

#[test]
fn padding_is_cut_and_short_packets_are_refused() {
    for (a, b) in [v4(), v6()] {
        let whole = samples::udp((a, 1), (b, 2), b"data");
        let mut padded = whole.clone();
        padded.extend([0; 12]);
        assert_eq!(IpPacket::parse(&padded).unwrap().len, whole.len());
        for len in 0..whole.len() {
            assert!(IpPacket::parse(&whole[..len]).is_err(), "{len}");
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let (a, b) = v4();
    let good = samples::udp((a, 1), (b, 2), b"data");
    assert!(IpPacket::parse(&good).is_ok());
    for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x55), (3, 19), (3, 200)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(IpPacket::parse(&bad).is_err(), "byte {at} = {value:#x}");
    }
    let mut options = good;
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 0]);
    let total = u8::try_from(options.len()).unwrap();
    options[3] = total;
    assert!(matches!(
        IpPacket::parse(&options).unwrap().transport,
        Transport::Udp { destination: 2, .. }
    ));
    options[20] = 131;
    assert_eq!(
        IpPacket::parse(&options),
        Err(DropReason::ExtensionHeader),
        "source routing"
    );
}

#[test]
fn illegal_tcp_flags_are_refused() {
    let (a, b) = v4();
    for flags in [
        0,
        TcpFlags::SYN | TcpFlags::FIN,
        TcpFlags::SYN | TcpFlags::RST,
    ] {
        let packet = samples::tcp((a, 1), (b, 2), flags);
        assert_eq!(IpPacket::parse(&packet), Err(DropReason::Malformed));
    }
}

#[test]
fn extension_headers_are_walked_and_bounded() {
    let (a, b) = v6();
    let udp = samples::udp((a, 1), (b, 2), b"data");
    let with = |chain: &[(u8, [u8; 8])]| {
        let mut body = Vec::new();
        for (position, (_, header)) in chain.iter().enumerate() {
            let next = chain.get(position + 1).map_or(protocol::UDP, |(n, _)| *n);
            let mut header = *header;
            header[0] = next;
            body.extend(header);
        }
        body.extend(&udp[40..]);
        samples::ip(
            a,
            b,
            chain.first().map_or(protocol::UDP, |(n, _)| *n),
            &body,
        )
    };
    let plain = [0, 0, 1, 4, 0, 0, 0, 0];
    let options = IpPacket::parse(&with(&[(0, plain), (60, plain)])).unwrap();
    assert!(matches!(
        options.transport,
        Transport::Udp { destination: 2, .. }
    ));
    // AH counts in words of 4 bytes.
    assert!(matches!(
        IpPacket::parse(&with(&[(51, plain)])).unwrap().transport,
        Transport::Udp { .. }
    ));
    for bad in [
        with(&[(60, plain), (0, plain)]),
        with(&[(43, [0, 0, 0, 0, 0, 0, 0, 0])]),
        with(&[(43, [0, 0, 4, 1, 0, 0, 0, 0])]),
        with(&[(60, plain); 20]),
    ] {
        assert_eq!(IpPacket::parse(&bad), Err(DropReason::ExtensionHeader));
    }
    // What follows ESP cannot be read: a protocol like any other.
    assert!(matches!(
        IpPacket::parse(&samples::ip(a, b, 50, &[9; 40]))
            .unwrap()
            .transport,
        Transport::Other { protocol: 50 }
    ));
}

#[test]
fn fragments_are_told_apart() {
    for addresses in [v4(), v6()] {
        let udp = samples::udp((addresses.0, 1), (addresses.1, 2), &[5; 24]);
        let body = &udp[udp.len() - 32..];
        let part = |units, more, bytes: &[u8]| {
            IpPacket::parse(&samples::fragment(
                addresses,
                protocol::UDP,
                77,
                units,
                more,
                bytes,
            ))
        };
        let first = part(0, true, body).unwrap();
        assert_eq!(first.fragment, Fragment::First { id: 77, covers: 32 });
        assert!(matches!(
            first.transport,
            Transport::Udp { destination: 2, .. }
        ));
        assert_eq!(
            part(4, false, &[1; 3]).unwrap().fragment,
            Fragment::Later { id: 77, offset: 32 }
        );
        assert_eq!(part(0, false, body).unwrap().fragment, Fragment::Whole);
        for bad in [
            part(1, true, &[1; 3]),
            part(8191, false, &[1; 16]),
            part(4, false, &[]),
        ] {
            assert_eq!(bad, Err(DropReason::BadFragment));
        }
        let tiny = samples::fragment(addresses, protocol::TCP, 77, 0, true, &[0; 8]);
        assert_eq!(IpPacket::parse(&tiny), Err(DropReason::BadFragment));
    }
}

#[test]
fn refusals_are_valid_packets_back_to_the_sender() {
    for (a, b) in [v4(), v6()] {
        let mut out = [0; ROOM];
        let syn = samples::tcp((a, 1000), (b, 22), TcpFlags::SYN);
        let parsed = IpPacket::parse(&syn).unwrap();
        let len = refuse(&syn, &parsed, Refusal::Prohibited, &mut out).unwrap();
        let answer = IpPacket::parse(&out[..len]).unwrap();
        assert_eq!((answer.source, answer.destination), (b, a));
        assert_eq!(
            answer.transport,
            Transport::Tcp {
                source: 22,
                destination: 1000,
                flags: TcpFlags(TcpFlags::RST | TcpFlags::ACK)
            }
        );
        let tcp = &out[len - 20..len];
        assert_eq!(&tcp[8..12], &[0, 0, 0, 8], "acknowledges the SYN");
        let reset = out[..len].to_vec();
        assert_eq!(
            refuse(&reset, &answer, Refusal::Prohibited, &mut out),
            None,
            "no reset for a reset"
        );

        let udp = samples::udp((a, 1000), (b, 53), b"query");
        let parsed = IpPacket::parse(&udp).unwrap();
        let len = refuse(&udp, &parsed, Refusal::Prohibited, &mut out).unwrap();
        let answer = IpPacket::parse(&out[..len]).unwrap();
        assert_eq!((answer.source, answer.destination), (b, a));
        let Transport::Error(quoted) = answer.transport else {
            panic!("{answer:?}");
        };
        assert_eq!((quoted.source, quoted.destination), (a, b));
        if a.is_ipv4() {
            assert_eq!(&out[20..22], &[3, 13]);
            assert_eq!(Sum::default().add(&out[..20]).finish(), 0);
            assert_eq!(Sum::default().add(&out[20..len]).finish(), 0);
        } else {
            assert_eq!(&out[40..42], &[1, 1]);
        }
        let error = out[..len].to_vec();
        assert_eq!(
            refuse(&error, &answer, Refusal::Prohibited, &mut out),
            None,
            "no error for an error"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..3) {
        if let Some(first) = bytes.first_mut() {
            *first = match version { 0 => 0x45, 1 => 0x60, _ => *first };
        }
        let mut out = [0; ROOM];
        if let Ok(packet) = IpPacket::parse(&bytes) {
            prop_assert!(packet.len <= bytes.len());
            if let Some(len) = refuse(&bytes, &packet, Refusal::Unreachable, &mut out) {
                prop_assert!(IpPacket::parse(&out[..len]).is_ok());
            }
        }
    }

    #[test]
    fn no_change_of_a_good_packet_makes_the_parser_panic(at in 0usize..200, value: u8, cut in 0usize..200, kind in 0usize..6) {
        let (a, b) = if kind % 2 == 0 { v4() } else { v6() };
        let udp = samples::udp((a, 1), (b, 2), &[7; 64]);
        let mut packet = match kind / 2 {
            0 => udp,
            1 => samples::port_unreachable(a, b, &udp),
            _ => samples::fragment((a, b), protocol::TCP, 5, 0, true, &[0x50; 64]),
        };
        packet.truncate(cut);
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        if let Ok(parsed) = IpPacket::parse(&packet) {
            prop_assert!(parsed.len <= packet.len());
        }
    }
}
