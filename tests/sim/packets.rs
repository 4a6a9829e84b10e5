//! Packets of the simulation: UDP to a service, and answers back.

use std::net::IpAddr;

use gatereeve_client_core::packet::samples;
use gatereeve_shared::wire::map::OverlayAddresses;

use crate::model::PORTS;

/// Port that requests come from.
const CLIENT_PORT: u16 = 40_000;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    source_port: u16,
    destination_port: u16,
}

impl Parsed {
    /// The service's port, where this is a request.
    pub(crate) fn request(&self) -> Option<u16> {
        PORTS
            .contains(&self.destination_port)
            .then_some(self.destination_port)
    }

    /// The service's port, where this is an answer.
    pub(crate) fn answer(&self) -> Option<u16> {
        let is_answer = PORTS.contains(&self.source_port) && self.request().is_none();
        is_answer.then_some(self.source_port)
    }

    /// The packet that answers this one.
    pub(crate) fn reply(&self) -> Vec<u8> {
        samples::udp(
            (self.destination, self.destination_port),
            (self.source, self.source_port),
            b"answer",
        )
    }
}

/// A request to `port`.
pub(crate) fn request(
    from: OverlayAddresses,
    to: OverlayAddresses,
    port: u16,
    v6: bool,
) -> Vec<u8> {
    let of = |a: OverlayAddresses| {
        if v6 {
            IpAddr::V6(a.v6)
        } else {
            IpAddr::V4(a.v4)
        }
    };
    samples::udp((of(from), CLIENT_PORT), (of(to), port), b"request")
}

/// Reads a delivered packet; `None` for anything but UDP, such as an ICMP error.
pub(crate) fn parse(packet: &[u8]) -> Option<Parsed> {
    let v4 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
        ))
    };
    let v6 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
        ))
    };
    let (source, destination, protocol, transport) = match packet.first()? >> 4 {
        4 => (v4(12)?, v4(16)?, *packet.get(9)?, 20),
        6 => (v6(8)?, v6(24)?, *packet.get(6)?, 40),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    (protocol == 17).then_some(Parsed {
        source,
        destination,
        source_port: port(transport)?,
        destination_port: port(transport + 2)?,
    })
}
