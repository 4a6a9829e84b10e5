//! The virtio-net header (virtio 1.2, section 5.1.6) that stands before every packet of a TUN device with
//! `IFF_VNET_HDR`, in the byte order of the host.

use gatereeve_client_core::packet::offload::{ChecksumAt, Offload, SegmentKind, SegmentsOf};

/// Bytes of the header: without the count of merged buffers, which a TUN device does not have.
pub const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
/// A datagram of UDP that was, and is to be, in fragments. The device does not offer to take such from the host.
const GSO_UDP_FRAGMENTS: u8 = 3;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
/// A flag beside the kind: the first segment alone has CWR. Cutting sees that in the TCP header itself.
const GSO_ECN: u8 = 0x80;

/// What the host left to do on the packet behind `header`. `None` for what is not known: such a packet
/// is no IP packet as it stands, so it must not be treated as one.
#[must_use]
pub fn decode(header: &[u8; HEADER]) -> Option<Offload> {
    let [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1] = *header;
    let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(ChecksumAt {
        start: u16::from_ne_bytes([s0, s1]),
        offset: u16::from_ne_bytes([o0, o1]),
    });
    let kind = match gso & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCP_V4 => Some(SegmentKind::Tcp4),
        GSO_TCP_V6 => Some(SegmentKind::Tcp6),
        GSO_UDP => Some(SegmentKind::Udp),
        _ => return None,
    };
    let size = u16::from_ne_bytes([g0, g1]);
    let segments = match kind {
        None => None,
        Some(_) if size == 0 => return None,
        Some(kind) => Some(SegmentsOf {
            kind,
            header: u16::from_ne_bytes([h0, h1]),
            size,
        }),
    };
    Some(Offload { checksum, segments })
}

/// The header for a packet on which `offload` is left to the host.
#[must_use]
pub fn encode(offload: &Offload) -> [u8; HEADER] {
    let (flags, start, offset) = match offload.checksum {
        Some(at) => (NEEDS_CHECKSUM, at.start, at.offset),
        None => (0, 0, 0),
    };
    let (gso, header, size) = match offload.segments {
        Some(segments) => {
            let gso = match segments.kind {
                SegmentKind::Tcp4 => GSO_TCP_V4,
                SegmentKind::Tcp6 => GSO_TCP_V6,
                SegmentKind::Udp => GSO_UDP,
                SegmentKind::Fragments => GSO_UDP_FRAGMENTS,
            };
            (gso, segments.header, segments.size)
        }
        None => (GSO_NONE, 0, 0),
    };
    let [h0, h1] = header.to_ne_bytes();
    let [g0, g1] = size.to_ne_bytes();
    let [s0, s1] = start.to_ne_bytes();
    let [o0, o1] = offset.to_ne_bytes();
    [flags, gso, h0, h1, g0, g1, s0, s1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Offload> {
        let checksum = Some(ChecksumAt {
            start: 0x0114,
            offset: 0x0210,
        });
        let kinds = [SegmentKind::Tcp4, SegmentKind::Tcp6, SegmentKind::Udp];
        let cut = kinds.map(|kind| Offload {
            checksum,
            segments: Some(SegmentsOf {
                kind,
                header: 0x0134,
                size: 0x0558,
            }),
        });
        let plain = Offload::default();
        let whole = Offload {
            checksum,
            segments: None,
        };
        [plain, whole].into_iter().chain(cut).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for offload in samples() {
            assert_eq!(decode(&encode(&offload)), Some(offload));
        }
    }

    /// A packet that lies behind zeros is written with them.
    #[test]
    fn what_is_left_to_nobody_is_zero() {
        assert_eq!(encode(&Offload::default()), [0; HEADER]);
    }

    #[test]
    fn the_bytes_are_those_of_the_kernel() {
        let tcp = Offload {
            checksum: Some(ChecksumAt {
                start: 20,
                offset: 16,
            }),
            segments: Some(SegmentsOf {
                kind: SegmentKind::Tcp4,
                header: 52,
                size: 1368,
            }),
        };
        let [a, b] = 52_u16.to_ne_bytes();
        let [c, d] = 1368_u16.to_ne_bytes();
        let [e, f] = 20_u16.to_ne_bytes();
        let [g, h] = 16_u16.to_ne_bytes();
        assert_eq!(encode(&tcp), [1, 1, a, b, c, d, e, f, g, h]);
        assert_eq!(encode(&Offload::default()), [0; HEADER]);
    }

    #[test]
    fn other_flags_do_not_matter() {
        let mut header = encode(&samples()[2]);
        // The checksum was verified; details of coalescing; CWR in the first segment.
        header[0] |= 2 | 4;
        header[1] |= GSO_ECN;
        assert_eq!(decode(&header), Some(samples()[2]));
    }

    #[test]
    fn what_is_to_be_cut_into_fragments_is_written_and_never_read() {
        let offload = Offload {
            checksum: None,
            segments: Some(SegmentsOf {
                kind: SegmentKind::Fragments,
                header: 0x0030,
                size: 0x0558,
            }),
        };
        let [flags, gso, ..] = encode(&offload);
        // VIRTIO_NET_HDR_GSO_UDP of `linux/virtio_net.h`.
        assert_eq!((flags, gso), (0, 3));
        assert_eq!(decode(&encode(&offload)), None);
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let known = [GSO_NONE, GSO_TCP_V4, GSO_TCP_V6, GSO_UDP];
        let cut = encode(&samples()[2]);
        for gso in 0..=u8::MAX {
            let mut header = cut;
            header[1] = gso;
            let is_known = known.contains(&(gso & !GSO_ECN));
            assert_eq!(decode(&header).is_some(), is_known, "{gso}");
        }
        let mut without_size = cut;
        without_size[4..6].fill(0);
        assert_eq!(decode(&without_size), None);
    }
}
