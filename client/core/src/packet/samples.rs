//! Packets for tests, with right lengths and checksums left out. Not for the product.

use std::net::IpAddr;

use super::ip::protocol;

/// An IP packet around `payload`. Both addresses are of one family.
#[must_use]
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(payload.len().saturating_add(20)).unwrap_or(u16::MAX);
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => {}
    }
    packet.extend(payload);
    packet
}

/// A TCP segment without payload.
#[must_use]
pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    ip(from.0, to.0, protocol::TCP, &segment)
}

/// A UDP datagram.
#[must_use]
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len().saturating_add(8)).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    datagram.extend(from.1.to_be_bytes());
    datagram.extend(to.1.to_be_bytes());
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ip(from.0, to.0, protocol::UDP, &datagram)
}

/// An echo request or reply.
#[must_use]
pub fn echo(source: IpAddr, destination: IpAddr, id: u16, request: bool) -> Vec<u8> {
    let (protocol, kind) = match (source.is_ipv4(), request) {
        (true, true) => (protocol::ICMP, 8),
        (true, false) => (protocol::ICMP, 0),
        (false, true) => (protocol::ICMPV6, 128),
        (false, false) => (protocol::ICMPV6, 129),
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(b"payload!");
    ip(source, destination, protocol, &message)
}

/// A port-unreachable error about `quoted`.
#[must_use]
pub fn port_unreachable(source: IpAddr, destination: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (protocol, kind, code) = if source.is_ipv4() {
        (protocol::ICMP, 3, 3)
    } else {
        (protocol::ICMPV6, 1, 4)
    };
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    ip(source, destination, protocol, &message)
}

/// A fragment: `units` of 8 bytes in, `payload` of the datagram's bytes.
#[must_use]
pub fn fragment(
    addresses: (IpAddr, IpAddr),
    protocol: u8,
    id: u16,
    units: u16,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    if addresses.0.is_ipv4() {
        let mut packet = ip(addresses.0, addresses.1, protocol, payload);
        let field = (units & 0x1fff) | if more { 0x2000 } else { 0 };
        if let Some(header) = packet.get_mut(4..8) {
            let [a, b] = id.to_be_bytes();
            let [c, d] = field.to_be_bytes();
            header.copy_from_slice(&[a, b, c, d]);
        }
        return packet;
    }
    let mut body = vec![protocol, 0];
    body.extend((units.wrapping_shl(3) | u16::from(more)).to_be_bytes());
    body.extend(u32::from(id).to_be_bytes());
    body.extend(payload);
    ip(addresses.0, addresses.1, 44, &body)
}
