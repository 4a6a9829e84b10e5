//! Answers to the local application: a refusal it sees at once, instead of a hang.

use std::net::IpAddr;

use super::checksum::Sum;
use super::ip::{Fragment, IpPacket, TcpFlags, Transport, protocol};
use super::{UDP_HEADER, put, u8_at, u16_at, u32_at};

/// Room that an answer needs at most, in bytes: ICMPv6 may quote up to the least IPv6 MTU.
pub const ROOM: usize = 1280;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Policy forbids it.
    Prohibited,
    /// The peer does not answer.
    Unreachable,
    /// The path carries packets of this many bytes at most.
    TooBig(u16),
}

/// Writes an answer to the packet in `bytes` and returns its length. `None` for what is never answered:
/// errors, resets, later fragments, anything from or to more than one host.
///
/// The answer comes from the address that was asked: one of our own would be refused as martian.
#[must_use]
pub fn refuse(bytes: &[u8], packet: &IpPacket, refusal: Refusal, out: &mut [u8]) -> Option<usize> {
    if is_plural(packet.source)
        || is_plural(packet.destination)
        || matches!(packet.fragment, Fragment::Later { .. })
    {
        return None;
    }
    if let Refusal::TooBig(_) = refusal {
        return match packet.transport {
            Transport::Error(_) | Transport::Control => None,
            Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Echo { .. }
            | Transport::Other { .. } => error(bytes, packet, refusal, out),
        };
    }
    match packet.transport {
        Transport::Error(_) | Transport::Control => None,
        Transport::Tcp { flags, .. } if flags.has(TcpFlags::RST) => None,
        Transport::Tcp { flags, .. } => reset(bytes, packet, flags, out),
        Transport::Udp { .. } | Transport::Echo { .. } | Transport::Other { .. } => {
            error(bytes, packet, refusal, out)
        }
    }
}

fn is_plural(address: IpAddr) -> bool {
    address.is_multicast()
        || address.is_unspecified()
        || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

/// Where the transport header begins; the packet was parsed, so this only finds the place again.
fn transport_at(bytes: &[u8], packet: &IpPacket) -> Option<usize> {
    if packet.source.is_ipv4() {
        return usize::from(u8_at(bytes, 0)? & 0x0f).checked_mul(4);
    }
    // With extension headers in between the answer is left out: nobody's TCP sends them.
    (u8_at(bytes, 6)? == protocol::TCP).then_some(40)
}

fn reset(bytes: &[u8], packet: &IpPacket, flags: TcpFlags, out: &mut [u8]) -> Option<usize> {
    let at = transport_at(bytes, packet)?;
    let segment = bytes.get(at..packet.len)?;
    let (sequence, acknowledged) = (u32_at(segment, 4)?, u32_at(segment, 8)?);
    let header = usize::from(u8_at(segment, 12)? >> 4).checked_mul(4)?;
    let payload = segment.len().checked_sub(header)?;
    let occupied = u32::try_from(payload)
        .ok()?
        .checked_add(u32::from(flags.has(TcpFlags::SYN)))?
        .checked_add(u32::from(flags.has(TcpFlags::FIN)))?;

    let start = ip_header(packet, protocol::TCP, 20, out)?;
    let tcp = out.get_mut(start..start.checked_add(20)?)?;
    tcp.fill(0);
    put(tcp, 0, &u16_at(segment, 2)?.to_be_bytes())?;
    put(tcp, 2, &u16_at(segment, 0)?.to_be_bytes())?;
    if flags.has(TcpFlags::ACK) {
        put(tcp, 4, &acknowledged.to_be_bytes())?;
        put(tcp, 12, &[5 << 4, TcpFlags::RST])?;
    } else {
        put(tcp, 8, &sequence.wrapping_add(occupied).to_be_bytes())?;
        put(tcp, 12, &[5 << 4, TcpFlags::RST | TcpFlags::ACK])?;
    }
    let sum = Sum::pseudo_header(packet.source, packet.destination, protocol::TCP, 20)
        .add(tcp)
        .finish();
    put(tcp, 16, &sum.to_be_bytes())?;
    start.checked_add(20)
}

fn error(bytes: &[u8], packet: &IpPacket, refusal: Refusal, out: &mut [u8]) -> Option<usize> {
    let (protocol, kind, code, most) = match (packet.source, refusal) {
        // RFC 1812: as much as fits in 576 bytes.
        (IpAddr::V4(_), Refusal::Prohibited) => (protocol::ICMP, 3, 13, 576 - 28),
        (IpAddr::V4(_), Refusal::Unreachable) => (protocol::ICMP, 3, 1, 576 - 28),
        (IpAddr::V6(_), Refusal::Prohibited) => (protocol::ICMPV6, 1, 1, ROOM - 48),
        (IpAddr::V6(_), Refusal::Unreachable) => (protocol::ICMPV6, 1, 3, ROOM - 48),
        (IpAddr::V4(_), Refusal::TooBig(_)) => (protocol::ICMP, 3, 4, 576 - 28),
        (IpAddr::V6(_), Refusal::TooBig(_)) => (protocol::ICMPV6, 2, 0, ROOM - 48),
    };
    let quoted = bytes.get(..packet.len.min(most))?;
    let len = quoted.len().checked_add(8)?;
    let start = ip_header(packet, protocol, len, out)?;
    let icmp = out.get_mut(start..start.checked_add(len)?)?;
    icmp.fill(0);
    put(icmp, 0, &[kind, code])?;
    if let Refusal::TooBig(mtu) = refusal {
        // Both families have it at the end of the second word.
        put(icmp, 6, &mtu.to_be_bytes())?;
    }
    put(icmp, 8, quoted)?;
    let sum = match packet.source {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo_header(packet.source, packet.destination, protocol, len),
    };
    let sum = sum.add(icmp).finish();
    put(icmp, 2, &sum.to_be_bytes())?;
    start.checked_add(len)
}

/// What the datagram in `bytes`, which is whole, carries.
pub(crate) fn udp_payload<'a>(bytes: &'a [u8], packet: &IpPacket) -> Option<&'a [u8]> {
    let datagram = bytes.get(packet.transport_at..packet.len)?;
    let len = usize::from(u16_at(datagram, 4)?);
    datagram.get(UDP_HEADER..len)
}

/// Where an answer to `packet` has what it carries.
pub(crate) fn udp_room<'a>(packet: &IpPacket, out: &'a mut [u8]) -> Option<&'a mut [u8]> {
    out.get_mut(ip_header_len(packet).checked_add(UDP_HEADER)?..)
}

/// Writes the headers of a datagram that answers `packet`, from and to these ports, in front of the `len` bytes that it
/// carries, and returns the length of all.
pub(crate) fn udp(
    packet: &IpPacket,
    (from, to): (u16, u16),
    len: usize,
    out: &mut [u8],
) -> Option<usize> {
    let len = len.checked_add(UDP_HEADER)?;
    let start = ip_header(packet, protocol::UDP, len, out)?;
    let datagram = out.get_mut(start..start.checked_add(len)?)?;
    put(datagram, 0, &from.to_be_bytes())?;
    put(datagram, 2, &to.to_be_bytes())?;
    put(datagram, 4, &u16::try_from(len).ok()?.to_be_bytes())?;
    put(datagram, 6, &[0, 0])?;
    let sum = Sum::pseudo_header(packet.destination, packet.source, protocol::UDP, len)
        .add(datagram)
        .finish();
    // Zero says that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    put(datagram, 6, &sum.to_be_bytes())?;
    start.checked_add(len)
}

fn ip_header_len(packet: &IpPacket) -> usize {
    if packet.source.is_ipv4() { 20 } else { 40 }
}

/// Writes the header of an answer to `packet` and returns its length.
fn ip_header(packet: &IpPacket, protocol: u8, payload: usize, out: &mut [u8]) -> Option<usize> {
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(payload.checked_add(20)?).ok()?;
            let header = out.get_mut(..20)?;
            header.fill(0);
            put(header, 0, &[0x45])?;
            put(header, 2, &total.to_be_bytes())?;
            put(header, 8, &[64, protocol])?;
            put(header, 12, &destination.octets())?;
            put(header, 16, &source.octets())?;
            let sum = Sum::default().add(header).finish();
            put(header, 10, &sum.to_be_bytes())?;
            Some(20)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = out.get_mut(..40)?;
            header.fill(0);
            put(header, 0, &[0x60])?;
            put(header, 4, &u16::try_from(payload).ok()?.to_be_bytes())?;
            put(header, 6, &[protocol, 64])?;
            put(header, 8, &destination.octets())?;
            put(header, 24, &source.octets())?;
            Some(40)
        }
        _ => None,
    }
}
