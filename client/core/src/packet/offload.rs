//! What host and data path leave to each other: checksums, cutting, joining. The meaning of the
//! virtio-net header (virtio 1.2, section 5.1.6); its bytes are the TUN device's business.

/// What is still to be done on a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum that holds the sum of the pseudo-header only, and is to be completed.
    pub checksum: Option<ChecksumAt>,
    /// The packet is many segments in one, and is to be cut.
    pub segments: Option<SegmentsOf>,
}

/// Where an incomplete checksum is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumAt {
    /// First byte that it covers, from the start of the packet.
    pub start: u16,
    /// Where it is written, from `start`.
    pub offset: u16,
}

/// How a packet is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentsOf {
    /// By which protocol.
    pub kind: SegmentKind,
    /// Bytes of all headers, which every segment repeats.
    pub header: u16,
    /// Bytes of payload in every segment but the last, which may have less.
    pub size: u16,
}

/// The protocol of a packet that is many in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
    /// A datagram of UDP over IPv6 that came in two fragments, and is cut into fragments again where it is sent on. Written
    /// only: nobody is asked to leave such to us.
    Fragments,
}

/// The two bits of explicit congestion notification in an IP header (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ecn(u8);

impl Ecn {
    /// The sender does not understand it.
    pub const NOT_ECT: Self = Self(0);
    /// Congestion was experienced.
    pub const CE: Self = Self(3);

    /// The low two bits of `bits`.
    #[must_use]
    pub fn new(bits: u8) -> Self {
        Self(bits & 3)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}
