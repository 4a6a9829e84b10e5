//! Super-packets: what stands before a packet on a TUN with offloads, and cutting one into segments.

use crate::checksum::{finish, pseudo, sum};

/// Bytes of the virtio-net header before each packet.
pub(crate) const VNET: usize = 10;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const NEEDS_CHECKSUM: u8 = 1;
/// The kernel need not verify: the cipher has.
pub(crate) const DATA_VALID: u8 = 2;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// TCP flags that belong to the last segment, and to the first.
const FIN_PUSH: u8 = 0x09;
const CONGESTION: u8 = 0x80;

/// The header's fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vnet {
    flags: u8,
    kind: u8,
    segment: u16,
    start: u16,
    offset: u16,
}

impl Vnet {
    /// Reads what stands before a packet that the kernel hands over.
    pub(crate) fn read(bytes: &[u8; VNET]) -> Self {
        let [flags, kind, _, _, s0, s1, a0, a1, o0, o1] = *bytes;
        Self {
            flags,
            // The highest bit speaks of ECN, which is in the packet.
            kind: kind & 0x7f,
            segment: u16::from_ne_bytes([s0, s1]),
            start: u16::from_ne_bytes([a0, a1]),
            offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// For a single packet that has been checked.
    pub(crate) fn checked() -> [u8; VNET] {
        [DATA_VALID, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// For several segments joined: headers of `head` bytes, transport at `start`.
    pub(crate) fn joined(
        ipv6: bool,
        protocol: u8,
        head: u16,
        start: u16,
        segment: u16,
    ) -> [u8; VNET] {
        let (kind, offset) = match (protocol, ipv6) {
            (UDP, _) => (GSO_UDP, 6_u16),
            (_, true) => (GSO_TCP6, 16),
            (_, false) => (GSO_TCP4, 16),
        };
        let ([h0, h1], [s0, s1]) = (head.to_ne_bytes(), segment.to_ne_bytes());
        let ([a0, a1], [o0, o1]) = (start.to_ne_bytes(), offset.to_ne_bytes());
        [NEEDS_CHECKSUM, kind, h0, h1, s0, s1, a0, a1, o0, o1]
    }

    /// Whether the packet is to be cut.
    pub(crate) fn is_super(&self) -> bool {
        self.kind != 0
    }

    /// Puts the checksum into a single packet where the kernel left it out.
    pub(crate) fn complete(&self, packet: &mut [u8]) {
        if self.flags & NEEDS_CHECKSUM == 0 {
            return;
        }
        let (start, offset) = (usize::from(self.start), usize::from(self.offset));
        let Some(covered) = packet.get_mut(start..) else {
            return;
        };
        let made = finish(sum(covered));
        if let Some(field) = covered.get_mut(offset..offset + 2) {
            field.copy_from_slice(&made);
        }
    }
}

/// A super-packet, taken apart.
pub(crate) struct SuperPacket<'a> {
    ipv6: bool,
    protocol: u8,
    /// Where the transport header begins.
    start: usize,
    headers: &'a [u8],
    payload: &'a [u8],
    size: usize,
}

impl<'a> SuperPacket<'a> {
    /// `None` for what is none, whatever its header says.
    pub(crate) fn parse(vnet: Vnet, packet: &'a [u8]) -> Option<Self> {
        let ipv6 = packet.first()? >> 4 == 6;
        let start = usize::from(vnet.start);
        let protocol = if vnet.kind == GSO_UDP { UDP } else { TCP };
        let headers = start
            + if protocol == UDP {
                8
            } else {
                usize::from(packet.get(start + 12)? >> 4) * 4
            };
        let (headers, payload) = packet.split_at_checked(headers)?;
        let least = if ipv6 { 40 } else { 20 } + if protocol == UDP { 8 } else { 20 };
        (headers.len() >= least && vnet.segment > 0).then_some(Self {
            ipv6,
            protocol,
            start,
            headers,
            payload,
            size: vnet.segment.into(),
        })
    }

    /// The segments, in order.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let count = self.payload.len().div_ceil(self.size);
        self.payload
            .chunks(self.size)
            .enumerate()
            .map(move |(number, payload)| Segment {
                of: self,
                number,
                is_last: number + 1 == count,
                payload,
            })
    }
}

/// One of them.
pub(crate) struct Segment<'a> {
    of: &'a SuperPacket<'a>,
    number: usize,
    is_last: bool,
    payload: &'a [u8],
}

impl Segment<'_> {
    /// The length of the packet that it makes.
    pub(crate) fn length(&self) -> usize {
        self.of.headers.len() + self.payload.len()
    }

    /// Writes the packet to a slice of its length.
    pub(crate) fn write(&self, to: &mut [u8]) {
        let (headers, payload) = to.split_at_mut(self.of.headers.len());
        headers.copy_from_slice(self.of.headers);
        payload.copy_from_slice(self.payload);
        let (network, transport) = to.split_at_mut(self.of.start);
        let addresses = self.network(network, transport.len());
        self.transport(transport, addresses);
    }

    /// Corrects the network header; returns the sum over the pseudo-header.
    fn network(&self, header: &mut [u8], transport: usize) -> u64 {
        let total = header.len() + transport;
        let be = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        if self.of.ipv6 {
            put(header, 4, be(total - 40));
            pseudo(
                header.get(8..40).unwrap_or_default(),
                self.of.protocol,
                transport,
            )
        } else {
            put(header, 2, be(total));
            let first = take(header, 4).map_or(0, u16::from_be_bytes);
            let number = u16::try_from(self.number).unwrap_or(0);
            put(header, 4, first.wrapping_add(number).to_be_bytes());
            put(header, 10, [0, 0]);
            put(header, 10, finish(sum(header)));
            pseudo(
                header.get(12..20).unwrap_or_default(),
                self.of.protocol,
                transport,
            )
        }
    }

    fn transport(&self, transport: &mut [u8], pseudo: u64) {
        let field = if self.of.protocol == UDP {
            let length = u16::try_from(transport.len()).unwrap_or(u16::MAX);
            put(transport, 4, length.to_be_bytes());
            6
        } else {
            let before = u32::try_from(self.number * self.of.size).unwrap_or(0);
            let first = take(transport, 4).map_or(0, u32::from_be_bytes);
            put(transport, 4, first.wrapping_add(before).to_be_bytes());
            if let Some(flags) = transport.get_mut(13) {
                if !self.is_last {
                    *flags &= !FIN_PUSH;
                }
                if self.number > 0 {
                    *flags &= !CONGESTION;
                }
            }
            16
        };
        put(transport, field, [0, 0]);
        let made = finish(pseudo + sum(transport));
        // Zero means "none" in UDP; its other form does not.
        let made = if self.of.protocol == UDP && made == [0, 0] {
            [0xff, 0xff]
        } else {
            made
        };
        put(transport, field, made);
    }
}

/// Writes a field, where there is one.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(field) = bytes.get_mut(at..at + N) {
        field.copy_from_slice(&value);
    }
}

/// Reads a field.
pub(crate) fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
