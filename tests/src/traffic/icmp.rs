//! Echo requests of both families, from raw sockets: what `ping` does.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Stopwatch;
use crate::netns::Namespace;

/// Sends `count` echo requests from `namespace` and returns how many replies came, waiting at most
/// `limit` for each.
///
/// # Errors
/// Where no raw socket is to be had.
pub fn ping(namespace: &Namespace, to: IpAddr, count: u16, limit: Duration) -> anyhow::Result<u16> {
    namespace.run(|| {
        let (domain, protocol, request, reply) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
        };
        let mut socket =
            Socket::new(domain, Type::RAW, Some(protocol)).context("open a raw socket")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut replies = 0;
        for sequence in 0..count {
            let packet = echo(request, sequence);
            // Refused at once is no reply; the count says so.
            if socket
                .send_to(&packet, &SocketAddr::new(to, 0).into())
                .is_err()
            {
                continue;
            }
            let watch = Stopwatch::start();
            let mut buffer = [0; 1500];
            while !watch.is_past(limit) {
                let Ok(length) = socket.read(&mut buffer) else {
                    continue;
                };
                // Raw IPv4 sockets deliver the IP header too.
                let skip = if to.is_ipv4() { 20 } else { 0 };
                let body = buffer.get(skip..length).unwrap_or_default();
                if body.first() == Some(&reply) && body.get(4..8) == packet.get(4..8) {
                    replies += 1;
                    break;
                }
            }
        }
        Ok(replies)
    })
}

/// An echo message; the kernel fills in the checksum of ICMPv6 only, so IPv4's is made here.
fn echo(kind: u8, sequence: u16) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0, 0x67, 0x72];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0x5a; 48]);
    let sum = packet
        .chunks_exact(2)
        .map(|pair| {
            pair.iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        })
        .fold(0_u32, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
    let [_, _, high, low] = (!sum).to_be_bytes();
    packet.splice(2..4, [high, low]);
    packet
}
