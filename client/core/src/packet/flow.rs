//! What makes two packets part of one flow, whichever way they go.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use gatereeve_shared::policy::port::Protocol;

use super::ip::{IpPacket, Quoted, QuotedTransport, Transport, protocol};
use crate::datapath::Direction;

/// A flow between this device and a peer. Both directions have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// IP protocol number.
    protocol: u8,
    /// Port at this device. For echo: the identifier.
    our_port: u16,
    /// Port at the peer. For echo: 0 where this device asks, 1 where the peer does, so that replies to
    /// the one are none to the other.
    their_port: u16,
    ours: IpAddr,
    theirs: IpAddr,
}

/// In few words: what is hashed for every packet.
impl Hash for FlowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_addresses(self.ours, self.theirs, state);
        let ports = (u64::from(self.our_port) << 16) | u64::from(self.their_port);
        state.write_u64((u64::from(self.protocol) << 32) | ports);
    }
}

/// Hashes two addresses of one family.
#[inline]
pub(crate) fn hash_addresses<H: Hasher>(one: IpAddr, other: IpAddr, state: &mut H) {
    if let (IpAddr::V4(one), IpAddr::V4(other)) = (one, other) {
        state.write_u64((u64::from(u32::from(one)) << 32) | u64::from(u32::from(other)));
    } else {
        for address in [one, other] {
            let bits = match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                IpAddr::V6(v6) => v6.to_bits(),
            };
            state.write_u128(bits);
        }
    }
}

impl FlowKey {
    /// The flow of a packet that is no ICMP error, no control message and no later fragment.
    #[must_use]
    pub fn of(packet: &IpPacket, direction: Direction) -> Option<Self> {
        let (protocol, source, destination) = match packet.transport {
            Transport::Tcp {
                source,
                destination,
                ..
            } => (protocol::TCP, source, destination),
            Transport::Udp {
                source,
                destination,
            } => (protocol::UDP, source, destination),
            Transport::Echo { id, request } => {
                return Some(Self::echo(
                    id,
                    request,
                    packet.source,
                    packet.destination,
                    direction,
                ));
            }
            Transport::Other { protocol } => (protocol, 0, 0),
            Transport::Error(_) | Transport::Control => return None,
        };
        Some(Self::ports(
            protocol,
            (packet.source, source),
            (packet.destination, destination),
            direction,
        ))
    }

    /// The flow of the packet that an error going in `direction` is about; it went the other way.
    #[must_use]
    pub fn quoted(quoted: &Quoted, direction: Direction) -> Self {
        let direction = match direction {
            Direction::Outbound => Direction::Inbound,
            Direction::Inbound => Direction::Outbound,
        };
        match quoted.transport {
            QuotedTransport::Ports {
                protocol,
                source,
                destination,
            } => Self::ports(
                protocol,
                (quoted.source, source),
                (quoted.destination, destination),
                direction,
            ),
            QuotedTransport::Echo { id, request } => {
                Self::echo(id, request, quoted.source, quoted.destination, direction)
            }
            QuotedTransport::Other { protocol } => Self::ports(
                protocol,
                (quoted.source, 0),
                (quoted.destination, 0),
                direction,
            ),
        }
    }

    /// IP protocol number.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// This device's address and port. For echo: the identifier.
    #[must_use]
    pub fn own(&self) -> SocketAddr {
        SocketAddr::new(self.ours, self.our_port)
    }

    /// The peer's address and port. For echo: 0 where this device asks, 1 where the peer does.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.theirs, self.their_port)
    }

    /// What a rule says about it: the protocol, and the port that `opener`'s traffic goes to.
    #[must_use]
    pub fn asked_of_rules(&self, opener: Direction) -> (Protocol, u16) {
        let port = match opener {
            Direction::Outbound => self.their_port,
            Direction::Inbound => self.our_port,
        };
        match self.protocol {
            protocol::TCP => (Protocol::Tcp, port),
            protocol::UDP => (Protocol::Udp, port),
            protocol::ICMP | protocol::ICMPV6 => (Protocol::Icmp, 0),
            _ => (Protocol::Any, 0),
        }
    }

    fn ports(
        protocol: u8,
        source: (IpAddr, u16),
        destination: (IpAddr, u16),
        direction: Direction,
    ) -> Self {
        let ((ours, our_port), (theirs, their_port)) = match direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        Self {
            protocol,
            our_port,
            their_port,
            ours,
            theirs,
        }
    }

    fn echo(
        id: u16,
        request: bool,
        source: IpAddr,
        destination: IpAddr,
        direction: Direction,
    ) -> Self {
        let (ours, theirs) = match direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        let we_ask = (direction == Direction::Outbound) == request;
        Self {
            protocol: if ours.is_ipv4() {
                protocol::ICMP
            } else {
                protocol::ICMPV6
            },
            our_port: id,
            their_port: u16::from(!we_ask),
            ours,
            theirs,
        }
    }
}
