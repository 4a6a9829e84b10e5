//! The handshake messages that cross the underlay, with their times.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::sniff::{packet_socket, udp_payload};
use super::{Worker, is_stopped};
use crate::clock::wall;
use crate::netns::Namespace;

/// Messages kept.
const KEPT: usize = 64 * 1024;
/// A frame crosses two ports of a switch, and an initiation may go to several of a peer's addresses: what
/// shows the same message again this soon after is one message.
const SAME: Duration = Duration::from_secs(1);

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a handshake.
    Initiation,
    /// Answers one.
    Response,
    /// Asks the initiator to prove its address first.
    Cookie,
}

/// A handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Wall-clock time at which it was seen first.
    pub at: Duration,
    /// Its kind.
    pub kind: Kind,
    /// Underlay address of its sender.
    pub from: IpAddr,
    /// Underlay address of its receiver.
    pub to: IpAddr,
    /// Bytes that no two messages share: indices, and a part of the ephemeral key.
    mark: [u8; 16],
}

/// Watches an underlay.
#[derive(Debug)]
pub struct HandshakeWatch {
    seen: Arc<Mutex<VecDeque<Message>>>,
    _worker: Worker,
}

impl HandshakeWatch {
    /// Watches all that crosses the interfaces of `namespace`, such as a switch's.
    ///
    /// # Errors
    /// Where packet sockets are not to be had.
    pub fn start(namespace: &Namespace) -> anyhow::Result<Self> {
        let mut socket = packet_socket(namespace)?;
        let seen = Arc::new(Mutex::new(VecDeque::new()));
        let log = Arc::clone(&seen);
        let worker = Worker::start(move |stop| {
            let mut frame = vec![0; 65_536];
            while !is_stopped(stop) {
                let Ok(length) = socket.read(&mut frame) else {
                    continue;
                };
                let frame = frame.get(..length).unwrap_or_default();
                if let Some(message) = parse(frame, wall()) {
                    add(
                        &mut log.lock().unwrap_or_else(PoisonError::into_inner),
                        message,
                    );
                }
            }
        });
        Ok(Self {
            seen,
            _worker: worker,
        })
    }

    /// The messages so far, oldest first.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().copied().collect()
    }
}

fn add(seen: &mut VecDeque<Message>, message: Message) {
    let is_known = seen
        .iter()
        .rev()
        .take_while(|known| message.at.saturating_sub(known.at) < SAME)
        .any(|known| (known.kind, known.mark) == (message.kind, message.mark));
    if is_known {
        return;
    }
    if seen.len() >= KEPT {
        seen.pop_front();
    }
    seen.push_back(message);
}

fn parse(frame: &[u8], at: Duration) -> Option<Message> {
    let payload = udp_payload(frame)?;
    // Where the sender leaves it to the kernel to cut datagrams, several come in one frame. They are of
    // one size but for a shorter last, which no data message has in common with these: so a handshake
    // message comes first or last.
    let (kind, message) = [
        (Kind::Initiation, 1, 148),
        (Kind::Response, 2, 92),
        (Kind::Cookie, 3, 64),
    ]
    .into_iter()
    .find_map(|(kind, number, length)| {
        let first = payload.get(..length)?;
        let last = payload.get(payload.len().checked_sub(length)?..)?;
        let found = [first, last]
            .into_iter()
            .find(|m| m.starts_with(&[number, 0, 0, 0]));
        found.map(|message| (kind, message))
    })?;
    let (from, to) = addresses(frame)?;
    Some(Message {
        at,
        kind,
        from,
        to,
        mark: message.get(4..20)?.try_into().ok()?,
    })
}

/// Source and destination of the IP packet in a frame.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| {
        Some(IpAddr::from(
            <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?,
        ))
    };
    let v6 = |at: usize| {
        let bytes = <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(26)?, v4(30)?)),
        [0x86, 0xdd] => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame from 10.0.0.1 to 10.0.0.2, WireGuard's port at both ends.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0xca, 0x6c, 0xca, 0x6c, 0, 0, 0, 0]);
        frame.extend(payload);
        frame
    }

    fn message(kind: u8, length: usize, mark: u8) -> Vec<u8> {
        let mut message = vec![mark; length];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message
    }

    #[test]
    fn handshakes_are_seen_behind_and_before_data_too() {
        let seconds = Duration::from_secs;
        let data = message(4, 272, 9);
        let initiation = message(1, 148, 1);
        let behind = [data.clone(), data.clone(), initiation.clone()].concat();
        let before = [initiation.clone(), message(4, 32, 9)].concat();
        for payload in [&initiation, &behind, &before] {
            let seen = parse(&frame(payload), seconds(1)).unwrap();
            assert_eq!((seen.kind, seen.mark), (Kind::Initiation, [1; 16]));
            assert_eq!(seen.from, IpAddr::from([10, 0, 0, 1]));
        }
        assert_eq!(
            parse(&frame(&[data.clone(), data].concat()), seconds(1)),
            None
        );
        let response = parse(&frame(&message(2, 92, 2)), seconds(1)).unwrap();
        assert_eq!(response.kind, Kind::Response);

        let mut seen = VecDeque::new();
        add(&mut seen, response);
        add(&mut seen, response);
        add(
            &mut seen,
            Message {
                at: seconds(3),
                ..response
            },
        );
        assert_eq!(seen.len(), 2, "the same again at once is the same");
    }
}
