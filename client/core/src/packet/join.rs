//! Joining consecutive packets of one flow into one packet that is many: what we leave to the host on
//! the way in. The counterpart of [`super::segment`].
//!
//! Only packets that differ in nothing but what follows from their place in the stretch are joined:
//! lengths, checksums, identification, TCP sequence number and the final PSH. So what was decided for
//! the first holds for all.

use super::checksum::Sum;
use super::ip::{Fragment, IpPacket, TcpFlags, Transport, protocol};
use super::offload::{ChecksumAt, Offload, SegmentKind, SegmentsOf};
use super::{put, u8_at, u16_at, u32_at};

/// Packets joined behind the first one.
pub(crate) const MAX_TAILS: usize = 63;
/// The most that an IP length field can say.
const MAX_LEN: usize = 65_535;
const DONT_FRAGMENT: u16 = 0x4000;

/// A packet, and what was joined to it so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    is_v4: bool,
    is_tcp: bool,
    transport_at: usize,
    header_len: usize,
    /// Payload of the first packet, and of all but the last.
    size: usize,
    payload: usize,
    tails: usize,
    /// TCP sequence number of what comes next.
    sequence: u32,
    flags: u8,
    is_closed: bool,
}

impl Stretch {
    /// Begins with `packet`, which was parsed from `bytes`; `None` for what is never joined.
    pub(crate) fn new(packet: &IpPacket, bytes: &[u8]) -> Option<Self> {
        let is_v4 = packet.source.is_ipv4();
        // Without options or extension headers.
        let plain = if is_v4 { 20 } else { 40 };
        if packet.fragment != Fragment::Whole || packet.transport_at != plain {
            return None;
        }
        if is_v4 && u16_at(bytes, 6)? != DONT_FRAGMENT {
            return None;
        }
        let at = packet.transport_at;
        let (is_tcp, header, flags, sequence) = match packet.transport {
            Transport::Tcp { flags, .. } => {
                if flags.0 & !TcpFlags::PSH != TcpFlags::ACK {
                    return None;
                }
                let header = usize::from(u8_at(bytes, at.checked_add(12)?)? >> 4).checked_mul(4)?;
                (true, header, flags.0, u32_at(bytes, at.checked_add(4)?)?)
            }
            Transport::Udp { .. } => {
                let len = usize::from(u16_at(bytes, at.checked_add(4)?)?);
                let has_sum = u16_at(bytes, at.checked_add(6)?)? != 0;
                if !has_sum || Some(len) != packet.len.checked_sub(at) {
                    return None;
                }
                (false, 8, 0, 0)
            }
            Transport::Echo { .. }
            | Transport::Error(_)
            | Transport::Control
            | Transport::Other { .. } => return None,
        };
        let header_len = at.checked_add(header)?;
        let size = packet.len.checked_sub(header_len)?;
        (size > 0).then_some(Self {
            is_v4,
            is_tcp,
            transport_at: at,
            header_len,
            size,
            payload: size,
            tails: 0,
            sequence: sequence.wrapping_add(u32::try_from(size).ok()?),
            flags,
            is_closed: flags & TcpFlags::PSH != 0,
        })
    }

    /// Bytes of the headers.
    pub(crate) fn header_len(&self) -> usize {
        self.header_len
    }

    /// Nothing joins any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Joins `next`, which may have padding behind it, if it goes on where the packet with the headers `first` and what was
    /// joined to it end. Returns its length without the padding.
    pub(crate) fn join(&mut self, first: &[u8], next: &[u8]) -> Option<usize> {
        if self.is_closed || self.tails >= MAX_TAILS {
            return None;
        }
        let len = self.same_ip(first, next)?;
        let payload = len.checked_sub(self.header_len)?;
        let total = self.payload.checked_add(payload)?;
        if payload == 0
            || payload > self.size
            || len > next.len()
            || total.checked_add(self.header_len)? > MAX_LEN
        {
            return None;
        }
        let (first, next) = (
            first.get(self.transport_at..)?,
            next.get(self.transport_at..)?,
        );
        // Ports.
        if first.get(..4)? != next.get(..4)? {
            return None;
        }
        let mut last = payload < self.size;
        if self.is_tcp {
            last |= self.same_tcp(first, next)?;
            self.sequence = self.sequence.wrapping_add(u32::try_from(payload).ok()?);
        } else {
            let len = payload.checked_add(8)?;
            if usize::from(u16_at(next, 4)?) != len || u16_at(next, 6)? == 0 {
                return None;
            }
        }
        self.payload = total;
        self.tails = self.tails.saturating_add(1);
        self.is_closed = last;
        Some(len)
    }

    /// Compares IP headers but for lengths, identification and checksum; returns the packet's length.
    fn same_ip(&self, first: &[u8], next: &[u8]) -> Option<usize> {
        let same = |from: usize, to: usize| Some(first.get(from..to)? == next.get(from..to)?);
        if self.is_v4 {
            let is_same = same(0, 2)? && same(6, 10)? && same(12, 20)?;
            is_same.then_some(usize::from(u16_at(next, 2)?))
        } else {
            let is_same = same(0, 4)? && same(6, 40)?;
            let len = usize::from(u16_at(next, 4)?).checked_add(40)?;
            is_same.then_some(len)
        }
    }

    /// Compares TCP headers; returns whether the segment is the last of the stretch.
    fn same_tcp(&mut self, first: &[u8], next: &[u8]) -> Option<bool> {
        let same = |from: usize, to: usize| Some(first.get(from..to)? == next.get(from..to)?);
        let flags = u8_at(next, 13)?;
        let options = self.header_len.checked_sub(self.transport_at)?;
        let is_same = u32_at(next, 4)? == self.sequence
            // Acknowledgement, header length, window, urgent pointer, options.
            && same(8, 13)?
            && same(14, 16)?
            && same(18, options)?
            && flags & !TcpFlags::PSH == self.flags & !TcpFlags::PSH;
        if !is_same {
            return None;
        }
        self.flags |= flags;
        Some(flags & TcpFlags::PSH != 0)
    }

    /// Makes the headers of the whole from `header`, those of the first packet, and says what is left to the host: the
    /// checksum, and cutting it again where there is more than one packet in it.
    pub(crate) fn finish(&self, header: &mut [u8]) -> Option<Offload> {
        let len = self.header_len.checked_add(self.payload)?;
        if self.is_v4 {
            put(header, 2, &u16::try_from(len).ok()?.to_be_bytes())?;
            put(header, 10, &[0, 0])?;
            let sum = Sum::default().add(header.get(..self.transport_at)?);
            put(header, 10, &sum.finish().to_be_bytes())?;
        } else {
            let len = u16::try_from(len.checked_sub(40)?).ok()?;
            put(header, 4, &len.to_be_bytes())?;
        }
        let (ip, transport) = header.split_at_mut_checked(self.transport_at)?;
        let transport_len = u16::try_from(len.checked_sub(self.transport_at)?).ok()?;
        let (protocol, sum_at) = if self.is_tcp {
            put(transport, 13, &[self.flags])?;
            (protocol::TCP, 16)
        } else {
            put(transport, 4, &transport_len.to_be_bytes())?;
            (protocol::UDP, 6)
        };
        let addresses = if self.is_v4 {
            ip.get(12..20)?
        } else {
            ip.get(8..40)?
        };
        let sum = Sum::default()
            .add(addresses)
            .add_u16(u16::from(protocol))
            .add_u16(transport_len);
        put(transport, sum_at, &sum.partial().to_be_bytes())?;
        let kind = match (self.is_tcp, self.is_v4) {
            (true, true) => SegmentKind::Tcp4,
            (true, false) => SegmentKind::Tcp6,
            (false, _) => SegmentKind::Udp,
        };
        let segments = SegmentsOf {
            kind,
            header: u16::try_from(self.header_len).ok()?,
            size: u16::try_from(self.size).ok()?,
        };
        Some(Offload {
            checksum: Some(ChecksumAt {
                start: u16::try_from(self.transport_at).ok()?,
                offset: sum_at_u16(self.is_tcp),
            }),
            segments: (self.tails > 0).then_some(segments),
        })
    }
}

fn sum_at_u16(is_tcp: bool) -> u16 {
    if is_tcp { 16 } else { 6 }
}
