//! Echo requests to a peer, from this device's own overlay address.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use gatereeve_runtime::clock::Clock;

/// How long one answer may take.
const EACH: Duration = Duration::from_secs(1);
/// Pause behind an answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Payload of a request, after its 8 bytes of header.
const PAYLOAD: &[u8] = b"gatereeve-ping..gatereeve-ping..";

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Round trips of those answered, in milliseconds.
    pub round_trips_ms: Vec<f64>,
    /// What the host's network said instead of an answer.
    pub error: Option<String>,
}

/// Sends `count` requests from `own` to `peer`, one after the other, for as long as `is_wanted`. Blocks.
///
/// # Errors
/// When there is no socket to send them with.
pub fn ping(own: IpAddr, peer: IpAddr, count: u32, is_wanted: &AtomicBool) -> Result<Pings> {
    let (socket, raw) = open(peer).context(
        "cannot open an ICMP socket; it takes CAP_NET_RAW, or a group in net.ipv4.ping_group_range",
    )?;
    socket
        .bind(&SocketAddr::new(own, 0).into())
        .with_context(|| format!("cannot send from {own}; is the device up?"))?;
    socket
        .connect(&SocketAddr::new(peer, 0).into())
        .with_context(|| format!("cannot reach {peer}"))?;
    let mut identifier = [0; 2];
    getrandom::fill(&mut identifier).context("no random numbers")?;
    let mut pings = Pings::default();
    for sequence in 1..=count {
        if !is_wanted.load(Ordering::Relaxed) {
            break;
        }
        let sequence_number = u16::try_from(sequence).unwrap_or(u16::MAX);
        let request = request(peer.is_ipv6(), identifier, sequence_number);
        let sent_at = Clock::mono();
        pings.sent += 1;
        match socket
            .send(&request)
            .and_then(|_| answer(&socket, raw, &request))
        {
            Ok(true) => {
                let trip = Clock::mono().since(sent_at);
                pings.round_trips_ms.push(trip.as_secs_f64() * 1000.0);
            }
            Ok(false) => continue,
            Err(error) => pings.error = Some(error.to_string()),
        }
        if sequence < count {
            std::thread::sleep(PAUSE);
        }
    }
    Ok(pings)
}

/// A socket for echo, and whether it is a raw one.
fn open(peer: IpAddr) -> io::Result<(Socket, bool)> {
    let (domain, protocol) = match peer {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => Ok((socket, false)),
        Err(_) => Socket::new(domain, Type::RAW, Some(protocol)).map(|socket| (socket, true)),
    }
}

/// An echo request. The kernel fills in the checksum of ICMPv6, and the identifier of a datagram socket.
fn request(v6: bool, identifier: [u8; 2], sequence: u16) -> Vec<u8> {
    let kind = if v6 { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(identifier);
    packet.extend(sequence.to_be_bytes());
    packet.extend(PAYLOAD);
    if !v6 {
        let sum = checksum(&packet).to_be_bytes();
        packet.splice(2..4, sum);
    }
    packet
}

/// Waits for the answer to `request`. `false` when none came in time.
fn answer(mut socket: &Socket, raw: bool, request: &[u8]) -> io::Result<bool> {
    let deadline = Clock::mono().saturating_add(EACH);
    let mut buffer = [0; 2048];
    loop {
        let left = Clock::until(deadline);
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer) {
            Ok(length) => {
                if buffer
                    .get(..length)
                    .is_some_and(|packet| is_answer(packet, raw, request))
                {
                    return Ok(true);
                }
            }
            Err(error) if is_timeout(&error) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether `packet` answers `request`. A raw IPv4 socket shows the IP header too; a datagram socket has
/// an identifier of its own and gets only its own answers.
fn is_answer(packet: &[u8], raw: bool, request: &[u8]) -> bool {
    let v6 = request.first() == Some(&128);
    let icmp = if raw && !v6 {
        let header = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
        packet.get(header..).unwrap_or_default()
    } else {
        packet
    };
    let kind = if v6 { 129 } else { 0 };
    icmp.first() == Some(&kind)
        && (!raw || icmp.get(4..6) == request.get(4..6))
        && icmp.get(6..) == request.get(6..)
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_a_sum_that_checks_out() {
        let packet = request(false, [1, 2], 3);
        assert_eq!(packet[4..8], [1, 2, 0, 3]);
        assert_eq!(checksum(&packet), 0);
    }

    #[test]
    fn only_the_answer_to_the_request_counts() {
        let request = request(false, [1, 2], 3);
        let mut answer = request.clone();
        answer[0] = 0;
        assert!(is_answer(&answer, false, &request));
        let with_header = [&[0x45; 20][..], &answer].concat();
        assert!(is_answer(&with_header, true, &request));
        assert!(!is_answer(&request, false, &request));
        answer[7] = 4;
        assert!(!is_answer(&answer, false, &request));
        assert!(!is_answer(&[], true, &request));
    }
}
