//! Cutting a packet that is many in one: what the host leaves to us on the way out.

use super::checksum::Sum;
use super::ip::{Fragment, IpPacket, TcpFlags, Transport, protocol};
use super::offload::{ChecksumAt, Offload, SegmentKind, SegmentsOf};
use super::{put, u8_at, u16_at, u32_at};

/// More bytes of headers than any host puts before the payload of a packet to be cut.
const MAX_HEADER: usize = 160;
/// Most segments of one packet. A peer with the least segments that Linux makes (48 bytes, `TCP_MIN_SND_MSS`, options included) is
/// sent 1,800 in one; what says more would keep a worker at it, and its memory.
const MAX_SEGMENTS: usize = 2048;

/// Completes a checksum that holds the sum of the pseudo-header only. `None` where it is not in the
/// packet.
#[must_use]
pub fn complete_checksum(packet: &mut [u8], at: ChecksumAt) -> Option<()> {
    let start = usize::from(at.start);
    let sum = Sum::default().add(packet.get(start..)?).finish();
    // In UDP zero would say that there is none; in TCP both mean the same.
    let sum = if sum == 0 { 0xffff } else { sum };
    put(
        packet,
        start.checked_add(usize::from(at.offset))?,
        &sum.to_be_bytes(),
    )
}

/// The segments of one packet, one after the other, each in the memory of the whole.
///
/// The header of a segment is written in front of its payload, over the end of the segment before: so
/// each is contiguous, and nothing is copied but headers.
#[derive(Debug)]
pub struct Segments<'a> {
    bytes: &'a mut [u8],
    header: [u8; MAX_HEADER],
    header_len: usize,
    transport_at: usize,
    is_v4: bool,
    is_tcp: bool,
    size: usize,
    /// Where the next segment's payload begins.
    at: usize,
    /// Where the packet ends.
    end: usize,
    identification: u16,
    sequence: u32,
}

impl<'a> Segments<'a> {
    /// The segments of `packet`, which was parsed from `bytes`, those of TCP with at most `most` bytes each, headers
    /// included: the borders of datagrams mean something. `None` where the packet is not what `offload` says.
    #[must_use]
    pub fn new(
        bytes: &'a mut [u8],
        packet: &IpPacket,
        offload: SegmentsOf,
        most: usize,
    ) -> Option<Self> {
        let is_tcp = match (offload.kind, packet.transport, packet.source.is_ipv4()) {
            (SegmentKind::Tcp4, Transport::Tcp { flags, .. }, true)
            | (SegmentKind::Tcp6, Transport::Tcp { flags, .. }, false) => {
                if flags.0 & (TcpFlags::SYN | TcpFlags::RST) != 0 {
                    return None;
                }
                true
            }
            (SegmentKind::Udp, Transport::Udp { .. }, _) => false,
            _ => return None,
        };
        let transport_at = packet.transport_at;
        let transport_len = if is_tcp {
            usize::from(u8_at(bytes, transport_at.checked_add(12)?)? >> 4).checked_mul(4)?
        } else {
            8
        };
        let header_len = transport_at.checked_add(transport_len)?;
        let size = usize::from(offload.size);
        let size = if is_tcp {
            size.min(most.checked_sub(header_len)?)
        } else {
            size
        };
        if packet.fragment != Fragment::Whole || size == 0 || header_len >= packet.len {
            return None;
        }
        if packet.len.checked_sub(header_len)?.div_ceil(size) > MAX_SEGMENTS {
            return None;
        }
        let mut header = [0; MAX_HEADER];
        header
            .get_mut(..header_len)?
            .copy_from_slice(bytes.get(..header_len)?);
        Some(Self {
            header,
            header_len,
            transport_at,
            is_v4: packet.source.is_ipv4(),
            is_tcp,
            size,
            at: header_len,
            end: packet.len.min(bytes.len()),
            identification: u16_at(bytes, 4)?,
            sequence: if is_tcp {
                u32_at(bytes, transport_at.checked_add(4)?)?
            } else {
                0
            },
            bytes,
        })
    }

    /// The next segment, complete with lengths and checksums. (Not an iterator: each is gone when the
    /// next one is made.)
    #[expect(
        clippy::should_implement_trait,
        reason = "items borrow from the segments"
    )]
    pub fn next(&mut self) -> Option<&mut [u8]> {
        let payload = self.size.min(self.end.checked_sub(self.at)?);
        if payload == 0 {
            return None;
        }
        let start = self.at.checked_sub(self.header_len)?;
        let end = self.at.checked_add(payload)?;
        let is_first = self.at == self.header_len;
        self.at = end;
        let segment = self.bytes.get_mut(start..end)?;
        put(segment, 0, self.header.get(..self.header_len)?)?;
        let transport_len = segment.len().checked_sub(self.transport_at)?;
        if self.is_v4 {
            put(
                segment,
                2,
                &u16::try_from(segment.len()).ok()?.to_be_bytes(),
            )?;
            put(segment, 4, &self.identification.to_be_bytes())?;
            put(segment, 10, &[0, 0])?;
            let sum = Sum::default().add(segment.get(..self.transport_at)?);
            put(segment, 10, &sum.finish().to_be_bytes())?;
        } else {
            let len = u16::try_from(segment.len().checked_sub(40)?).ok()?;
            put(segment, 4, &len.to_be_bytes())?;
        }
        let (ip, transport) = segment.split_at_mut_checked(self.transport_at)?;
        let (protocol, sum_at) = if self.is_tcp {
            put(transport, 4, &self.sequence.to_be_bytes())?;
            let mut flags = u8_at(transport, 13)?;
            if end < self.end {
                flags &= !(TcpFlags::FIN | TcpFlags::PSH);
            }
            if !is_first {
                flags &= !TcpFlags::CWR;
            }
            put(transport, 13, &[flags])?;
            (protocol::TCP, 16)
        } else {
            put(
                transport,
                4,
                &u16::try_from(transport_len).ok()?.to_be_bytes(),
            )?;
            (protocol::UDP, 6)
        };
        put(transport, sum_at, &[0, 0])?;
        let addresses = if self.is_v4 {
            ip.get(12..20)?
        } else {
            ip.get(8..40)?
        };
        let sum = Sum::default()
            .add(addresses)
            .add_u16(u16::from(protocol))
            .add_u16(u16::try_from(transport_len).ok()?)
            .add(transport)
            .finish();
        let sum = if sum == 0 { 0xffff } else { sum };
        put(transport, sum_at, &sum.to_be_bytes())?;
        self.identification = self.identification.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(u32::try_from(payload).ok()?);
        self.bytes.get_mut(start..end)
    }
}

/// Does what `offload` asks for on a packet that is not cut, and was judged as `packet`. `None` where it cannot be done, or would make
/// another packet of it: who may write packets of their own form (a container, say) also choose the place of the checksum, which may
/// be a port.
#[must_use]
pub fn finish_whole(bytes: &mut [u8], packet: &IpPacket, offload: &Offload) -> Option<()> {
    let Some(at) = offload.checksum else {
        return Some(());
    };
    complete_checksum(bytes, at)?;
    (is_own_checksum(at, packet) || is_still(bytes, packet)).then_some(())
}

/// Whether `at` is where the checksum of the packet's own transport is.
fn is_own_checksum(at: ChecksumAt, packet: &IpPacket) -> bool {
    let offset = match packet.transport {
        Transport::Tcp { .. } => 16,
        Transport::Udp { .. } => 6,
        Transport::Echo { .. }
        | Transport::Error(..)
        | Transport::Control
        | Transport::Other { .. } => return false,
    };
    packet.fragment == Fragment::Whole
        && (usize::from(at.start), at.offset) == (packet.transport_at, offset)
}

/// Whether the bytes are still what was judged. That of a tunnel's contents is elsewhere, for one, and honest.
#[cold]
fn is_still(bytes: &[u8], packet: &IpPacket) -> bool {
    IpPacket::parse(bytes).is_ok_and(|now| now == *packet)
}
