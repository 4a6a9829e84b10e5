//! The packets: ICMP and ICMPv6 echo in whole IP packets (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest request, and more.
pub(super) const LONGEST: usize = 128;
/// Payload of a request, after its 8 bytes of header.
const PAYLOAD: &[u8] = b"gatereeve-ping..gatereeve-ping..";
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOPS: u8 = 64;

/// An echo request; `None` where the addresses are of two families.
pub(super) fn request(
    from: IpAddr,
    to: IpAddr,
    identifier: [u8; 2],
    sequence: u16,
) -> Option<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(v4(from, to, identifier, sequence)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(v6(from, to, identifier, sequence)),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn v4(from: Ipv4Addr, to: Ipv4Addr, identifier: [u8; 2], sequence: u16) -> Vec<u8> {
    let mut echo = header(8, identifier, sequence);
    let sum = checksum(&echo).to_be_bytes();
    echo.splice(2..4, sum);
    let length = u16::try_from(20 + echo.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    // No identification, never to be cut.
    packet.extend([0, 0, 0x40, 0, HOPS, ICMP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet).to_be_bytes();
    packet.splice(10..12, sum);
    packet.extend(echo);
    packet
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, identifier: [u8; 2], sequence: u16) -> Vec<u8> {
    let mut echo = header(128, identifier, sequence);
    let length = u16::try_from(echo.len()).unwrap_or(u16::MAX).to_be_bytes();
    let pseudo = [
        &from.octets()[..],
        &to.octets(),
        &[0, 0],
        &length,
        &[0, 0, 0, ICMPV6],
        &echo,
    ]
    .concat();
    let sum = checksum(&pseudo).to_be_bytes();
    echo.splice(2..4, sum);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length);
    packet.extend([ICMPV6, HOPS]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(echo);
    packet
}

fn header(kind: u8, identifier: [u8; 2], sequence: u16) -> Vec<u8> {
    let mut echo = vec![kind, 0, 0, 0];
    echo.extend(identifier);
    echo.extend(sequence.to_be_bytes());
    echo.extend(PAYLOAD);
    echo
}

/// Who sent the echo reply in `packet`, and its identifier and sequence number; `None` for any other packet.
pub(super) fn reply(packet: &[u8]) -> Option<(IpAddr, [u8; 2], u16)> {
    let first = *packet.first()?;
    let (from, echo, kind) = match first >> 4 {
        4 if packet.get(9) == Some(&ICMP) => {
            let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let echo = packet.get(usize::from(first & 0x0f) * 4..)?;
            (IpAddr::from(from), echo, 0)
        }
        6 if packet.get(6) == Some(&ICMPV6) => {
            let from: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            (IpAddr::from(from), packet.get(40..)?, 129)
        }
        _ => return None,
    };
    let is_echo = echo.first() == Some(&kind) && echo.get(8..) == Some(PAYLOAD);
    let identifier: [u8; 2] = echo.get(4..6)?.try_into().ok()?;
    let sequence: [u8; 2] = echo.get(6..8)?.try_into().ok()?;
    is_echo.then_some((from, identifier, u16::from_be_bytes(sequence)))
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use gatereeve_client_core::packet::{IpPacket, Transport};

    use super::*;

    const OWN: [&str; 2] = ["100.64.0.1", "fd00::1"];
    const PEER: [&str; 2] = ["100.64.0.2", "fd00::2"];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What the other end makes of a request.
    fn answered(mut packet: Vec<u8>) -> Vec<u8> {
        let v6 = packet[0] >> 4 == 6;
        let (addresses, echo, kind) = if v6 { (8, 40, 129) } else { (12, 20, 0) };
        let length = if v6 { 16 } else { 4 };
        let (from, to) = packet[addresses..addresses + 2 * length].split_at_mut(length);
        from.swap_with_slice(to);
        packet[echo] = kind;
        packet
    }

    #[test]
    fn a_request_is_a_packet_that_the_data_path_understands_and_whose_sums_check_out() {
        for (own, peer) in OWN.into_iter().zip(PEER) {
            let packet = request(address(own), address(peer), [1, 2], 3).unwrap();
            assert!(packet.len() <= LONGEST);
            let parsed = IpPacket::parse(&packet).unwrap();
            assert_eq!(
                (parsed.source, parsed.destination),
                (address(own), address(peer))
            );
            let echo = Transport::Echo {
                id: 0x0102,
                request: true,
            };
            assert_eq!(parsed.transport, echo);
        }
        let v4 = request(address(OWN[0]), address(PEER[0]), [1, 2], 3).unwrap();
        assert_eq!(checksum(&v4[..20]), 0);
        assert_eq!(checksum(&v4[20..]), 0);
        let v6 = request(address(OWN[1]), address(PEER[1]), [1, 2], 3).unwrap();
        let pseudo = [&v6[8..40], &[0, 0, 0, 40, 0, 0, 0, 58], &v6[40..]].concat();
        assert_eq!(checksum(&pseudo), 0);
        assert!(request(address(OWN[0]), address(PEER[1]), [1, 2], 3).is_none());
    }

    #[test]
    fn only_an_echo_reply_is_one() {
        for (own, peer) in OWN.into_iter().zip(PEER) {
            let packet = request(address(own), address(peer), [1, 2], 3).unwrap();
            assert_eq!(reply(&packet), None);
            let good = answered(packet);
            assert_eq!(reply(&good), Some((address(peer), [1, 2], 3)));
            for length in 0..good.len() {
                assert_eq!(reply(&good[..length]), None, "{length}");
            }
        }
    }
}
