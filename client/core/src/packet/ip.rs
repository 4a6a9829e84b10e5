//! IPv4 and IPv6 headers down to the ports, as far as the filter needs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::offload::Ecn;
use super::{array_at, put, u8_at, u16_at, u32_at};
use crate::drop_reason::DropReason;

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// For experiments (RFC 3692).
    pub const EXPERIMENT: u8 = 253;
}

/// Extension headers that are walked before a packet is dropped.
const MAX_EXTENSIONS: usize = 8;

/// What the filter knows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Bytes of the packet; what the buffer holds beyond is padding.
    pub len: usize,
    /// Where the transport header begins.
    pub transport_at: usize,
    /// Its place in a fragmented datagram.
    pub fragment: Fragment,
    /// What it carries.
    pub transport: Transport,
}

/// A packet's place in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented, or an atomic fragment.
    Whole,
    /// The first fragment; its transport header is complete.
    First {
        /// Identification.
        id: u32,
        /// Bytes of the fragmentable part that it covers.
        covers: u16,
    },
    /// Another one. Its [`IpPacket::transport`] says nothing.
    Later {
        /// Identification.
        id: u32,
        /// Where it begins, in bytes.
        offset: u16,
    },
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Flags.
        flags: TcpFlags,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6 echo.
    Echo {
        /// Identifier.
        id: u16,
        /// Request, or reply.
        request: bool,
    },
    /// An ICMP or ICMPv6 error, with the packet that it is about.
    Error(Quoted),
    /// ICMP and ICMPv6 that never crosses the overlay.
    Control,
    /// Any other protocol.
    Other {
        /// Its number.
        protocol: u8,
    },
}

/// Flags of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// PSH.
    pub const PSH: u8 = 8;
    /// ACK.
    pub const ACK: u8 = 16;
    /// CWR.
    pub const CWR: u8 = 128;

    /// Whether all of `flags` are set.
    #[must_use]
    pub fn has(self, flags: u8) -> bool {
        self.0 & flags == flags
    }

    /// The first segment of a connection.
    #[must_use]
    pub fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK)
    }

    /// Combinations that no TCP sends: a filter that guesses at them is fooled.
    fn is_illegal(self) -> bool {
        let plain = self.0 & 0x3f;
        plain == 0 || self.has(Self::SYN | Self::FIN) || self.has(Self::SYN | Self::RST)
    }
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: QuotedTransport,
}

/// What a quoted packet carries; less of it is there than of a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedTransport {
    /// TCP or UDP.
    Ports {
        /// Protocol number.
        protocol: u8,
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// Echo.
    Echo {
        /// Identifier.
        id: u16,
        /// Request, or reply.
        request: bool,
    },
    /// Any other protocol.
    Other {
        /// Its number.
        protocol: u8,
    },
}

impl IpPacket {
    /// Reads the packet at the start of `bytes`.
    ///
    /// # Errors
    /// The reason to drop it.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let walk = Walk::new(bytes, Extent::Whole)?;
        let body = bytes.get(walk.at..walk.len).ok_or(DropReason::Malformed)?;
        let transport = match walk.fragment {
            Fragment::Later { .. } => Transport::Other {
                protocol: walk.protocol,
            },
            Fragment::Whole => transport(&walk, body).ok_or(DropReason::Malformed)?,
            Fragment::First { .. } => match transport(&walk, body) {
                // An error in pieces quotes nothing that could be checked.
                None | Some(Transport::Error(_)) => return Err(DropReason::BadFragment),
                Some(transport) => transport,
            },
        };
        if let Transport::Tcp { flags, .. } = transport
            && flags.is_illegal()
        {
            return Err(DropReason::Malformed);
        }
        Ok(Self {
            source: walk.source,
            destination: walk.destination,
            len: walk.len,
            transport_at: walk.at,
            fragment: walk.fragment,
            transport,
        })
    }
}

/// The congestion bits of an IP header; what is none has none.
#[must_use]
pub fn ecn(bytes: &[u8]) -> Ecn {
    match (bytes.first().map(|first| first >> 4), bytes.get(1)) {
        (Some(4), Some(tos)) => Ecn::new(*tos),
        (Some(6), Some(class)) => Ecn::new(class >> 4),
        _ => Ecn::NOT_ECT,
    }
}

/// What of its datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Whole,
    FirstFragment,
    LaterFragment,
}

/// What `bytes`, which was parsed before, is of its datagram. In IPv6 only where the fragment header comes first;
/// the others keep their order, which is no harm.
pub(crate) fn piece(bytes: &[u8]) -> Piece {
    let (offset, more) = match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let field = u16_at(bytes, 6).unwrap_or(0);
            (field & 0x1fff, field & 0x2000)
        }
        Some(6) if u8_at(bytes, 6) == Some(44) => {
            let field = u16_at(bytes, 42).unwrap_or(0);
            (field >> 3, field & 1)
        }
        _ => (0, 0),
    };
    match (offset, more) {
        (0, 0) => Piece::Whole,
        (0, _) => Piece::FirstFragment,
        _ => Piece::LaterFragment,
    }
}

/// Tells the receiver of a congestion that the outer header has met (RFC 6040, section 4.2). `false` where
/// the sender of the packet does not understand that.
#[must_use]
pub fn mark_congestion(bytes: &mut [u8]) -> bool {
    match ecn(bytes) {
        Ecn::NOT_ECT => return false,
        Ecn::CE => return true,
        _ => {}
    }
    match bytes {
        [first, tos, ..] if *first >> 4 == 4 => {
            *tos |= 3;
            let header = usize::from(*first & 0x0f).saturating_mul(4);
            let sum = put(bytes, 10, &[0, 0])
                .and_then(|()| bytes.get(..header))
                .map(|header| Sum::default().add(header).finish());
            sum.and_then(|sum| put(bytes, 10, &sum.to_be_bytes()))
                .is_some()
        }
        [_, class, ..] => {
            *class |= 0x30;
            true
        }
        _ => false,
    }
}

/// Whether the packet must be there to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Quoted,
}

/// A packet's headers up to the transport header.
struct Walk {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Where the transport header begins.
    at: usize,
    len: usize,
    fragment: Fragment,
}

impl Walk {
    fn new(bytes: &[u8], extent: Extent) -> Result<Self, DropReason> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::v4(bytes, extent),
            Some(6) => Self::v6(bytes, extent),
            _ => Err(DropReason::Malformed),
        }
    }

    fn v4(bytes: &[u8], extent: Extent) -> Result<Self, DropReason> {
        let (words, _) = bytes.as_chunks::<4>();
        let [
            [first, _, l0, l1],
            [i0, i1, f0, f1],
            [_, protocol, _, _],
            source,
            destination,
            ..,
        ] = *words
        else {
            return Err(DropReason::Malformed);
        };
        let header = usize::from(first & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        let id = u16::from_be_bytes([i0, i1]);
        let flags = u16::from_be_bytes([f0, f1]);
        let len = Self::length(bytes, total, extent)?;
        if header < 20 || header > len {
            return Err(DropReason::Malformed);
        }
        if routes_by_source(bytes.get(20..header).unwrap_or_default()) {
            return Err(DropReason::ExtensionHeader);
        }
        let payload = len.checked_sub(header).ok_or(DropReason::Malformed)?;
        Ok(Self {
            source: Ipv4Addr::from(source).into(),
            destination: Ipv4Addr::from(destination).into(),
            protocol,
            at: header,
            len,
            fragment: fragment(flags & 0x1fff, flags & 0x2000 != 0, id.into(), payload)?,
        })
    }

    fn v6(bytes: &[u8], extent: Extent) -> Result<Self, DropReason> {
        let fields = || {
            Some((
                usize::from(u16_at(bytes, 4)?).checked_add(40)?,
                u8_at(bytes, 6)?,
                Ipv6Addr::from(array_at::<16>(bytes, 8)?),
                Ipv6Addr::from(array_at::<16>(bytes, 24)?),
            ))
        };
        let (total, next, source, destination) = fields().ok_or(DropReason::Malformed)?;
        let len = Self::length(bytes, total, extent)?;
        let mut walk = Self {
            source: source.into(),
            destination: destination.into(),
            protocol: next,
            at: 40,
            len,
            fragment: Fragment::Whole,
        };
        walk.extensions(bytes)?;
        Ok(walk)
    }

    fn length(bytes: &[u8], total: usize, extent: Extent) -> Result<usize, DropReason> {
        match extent {
            Extent::Whole if total > bytes.len() => Err(DropReason::Malformed),
            Extent::Whole => Ok(total),
            Extent::Quoted => Ok(total.min(bytes.len())),
        }
    }

    /// Walks IPv6 extension headers up to the first that is none.
    fn extensions(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let bytes = bytes.get(..self.len).ok_or(DropReason::Malformed)?;
        let cut = |walk: &Self| match walk.fragment {
            Fragment::First { .. } => DropReason::BadFragment,
            Fragment::Whole | Fragment::Later { .. } => DropReason::Malformed,
        };
        for position in 0..=MAX_EXTENSIONS {
            let bad = cut(self);
            let header_len = match self.protocol {
                // Hop-by-hop options come first or not at all.
                0 if position > 0 => return Err(DropReason::ExtensionHeader),
                0 | 60 => options_len(bytes, self.at).ok_or(bad)?,
                43 => {
                    let kind = u8_at(bytes, self.at.saturating_add(2)).ok_or(bad)?;
                    let left = u8_at(bytes, self.at.saturating_add(3)).ok_or(bad)?;
                    // Type 0 is a known amplifier; and with segments left the packet goes on to a
                    // destination that no rule has seen.
                    if kind == 0 || left != 0 {
                        return Err(DropReason::ExtensionHeader);
                    }
                    options_len(bytes, self.at).ok_or(bad)?
                }
                51 => {
                    let words = usize::from(u8_at(bytes, self.at.saturating_add(1)).ok_or(bad)?);
                    words.saturating_add(2).saturating_mul(4)
                }
                44 => {
                    if self.fragment != Fragment::Whole {
                        return Err(DropReason::ExtensionHeader);
                    }
                    self.fragment_header(bytes)?;
                    if matches!(self.fragment, Fragment::Later { .. }) {
                        return Ok(());
                    }
                    continue;
                }
                _ => return Ok(()),
            };
            let next = u8_at(bytes, self.at).ok_or(bad)?;
            let at = self.at.saturating_add(header_len);
            if at > self.len {
                return Err(bad);
            }
            (self.protocol, self.at) = (next, at);
        }
        Err(DropReason::ExtensionHeader)
    }

    fn fragment_header(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let fields = || {
            Some((
                u8_at(bytes, self.at)?,
                u16_at(bytes, self.at.checked_add(2)?)?,
                u32_at(bytes, self.at.checked_add(4)?)?,
                self.at.checked_add(8)?,
            ))
        };
        let (next, offset, id, at) = fields().ok_or(DropReason::Malformed)?;
        let payload = self.len.checked_sub(at).ok_or(DropReason::Malformed)?;
        self.fragment = fragment(offset >> 3, offset & 1 != 0, id, payload)?;
        (self.protocol, self.at) = (next, at);
        Ok(())
    }
}

/// The length of an extension header that counts in units of 8 bytes beyond the first.
fn options_len(bytes: &[u8], at: usize) -> Option<usize> {
    usize::from(u8_at(bytes, at.checked_add(1)?)?)
        .checked_add(1)?
        .checked_mul(8)
}

/// `units` of 8 bytes, with more to follow or not.
fn fragment(units: u16, more: bool, id: u32, payload: usize) -> Result<Fragment, DropReason> {
    if units == 0 && !more {
        return Ok(Fragment::Whole);
    }
    let offset = units.saturating_mul(8);
    let end = usize::from(offset).saturating_add(payload);
    // All but the last cover whole units, none is empty, and the datagram fits in its length field.
    if payload == 0 || (more && !payload.is_multiple_of(8)) || end > usize::from(u16::MAX) {
        return Err(DropReason::BadFragment);
    }
    if units == 0 {
        let covers = u16::try_from(payload).map_err(|_| DropReason::BadFragment)?;
        return Ok(Fragment::First { id, covers });
    }
    Ok(Fragment::Later { id, offset })
}

/// Whether IPv4 options route the packet by themselves, or cannot be read.
fn routes_by_source(mut options: &[u8]) -> bool {
    while let Some((kind, rest)) = options.split_first() {
        match kind {
            0 => return false,
            1 => options = rest,
            // Loose and strict source routing.
            131 | 137 => return true,
            _ => {
                let len = rest.first().copied().map_or(0, usize::from);
                match options.get(len..) {
                    Some(next) if len >= 2 => options = next,
                    _ => return true,
                }
            }
        }
    }
    false
}

/// The transport header of a whole packet or a first fragment; `None` where it is cut short.
fn transport(walk: &Walk, body: &[u8]) -> Option<Transport> {
    Some(match (walk.protocol, walk.source) {
        (protocol::TCP, _) => {
            // The smallest TCP header; the offset field must agree.
            let words = u8_at(body, 12)? >> 4;
            let header = usize::from(words).checked_mul(4)?;
            if header < 20 || header > body.len() {
                return None;
            }
            Transport::Tcp {
                source: u16_at(body, 0)?,
                destination: u16_at(body, 2)?,
                flags: TcpFlags(u8_at(body, 13)?),
            }
        }
        (protocol::UDP, _) => {
            u16_at(body, 6)?;
            Transport::Udp {
                source: u16_at(body, 0)?,
                destination: u16_at(body, 2)?,
            }
        }
        (protocol::ICMP, IpAddr::V4(_)) => {
            let kind = u8_at(body, 0)?;
            u32_at(body, 4)?;
            match kind {
                0 | 8 => Transport::Echo {
                    id: u16_at(body, 4)?,
                    request: kind == 8,
                },
                3 | 11 | 12 => error(walk, body),
                _ => Transport::Control,
            }
        }
        (protocol::ICMPV6, IpAddr::V6(_)) => {
            let kind = u8_at(body, 0)?;
            u32_at(body, 4)?;
            match kind {
                128 | 129 => Transport::Echo {
                    id: u16_at(body, 4)?,
                    request: kind == 128,
                },
                1..=4 => error(walk, body),
                _ => Transport::Control,
            }
        }
        // One family's ICMP in the other's packets means nothing to any host.
        (protocol::ICMP | protocol::ICMPV6, _) => Transport::Control,
        (protocol, _) => Transport::Other { protocol },
    })
}

/// An ICMP error whose quote can be read; anything else is as good as a forgery.
fn error(walk: &Walk, body: &[u8]) -> Transport {
    let quoted = body.get(8..).and_then(|bytes| {
        let inner = Walk::new(bytes, Extent::Quoted).ok()?;
        if inner.fragment != Fragment::Whole || inner.source.is_ipv4() != walk.source.is_ipv4() {
            return None;
        }
        let body = bytes.get(inner.at..inner.len)?;
        let transport = match inner.protocol {
            protocol @ (protocol::TCP | protocol::UDP) => QuotedTransport::Ports {
                protocol,
                source: u16_at(body, 0)?,
                destination: u16_at(body, 2)?,
            },
            protocol::ICMP | protocol::ICMPV6 => {
                let (kind, id) = (u8_at(body, 0)?, u16_at(body, 4)?);
                let request = match kind {
                    8 | 128 => true,
                    0 | 129 => false,
                    // No errors about errors.
                    _ => return None,
                };
                QuotedTransport::Echo { id, request }
            }
            protocol => QuotedTransport::Other { protocol },
        };
        Some(Quoted {
            source: inner.source,
            destination: inner.destination,
            transport,
        })
    });
    quoted.map_or(Transport::Control, Transport::Error)
}
