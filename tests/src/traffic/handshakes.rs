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
    let kind = match (payload.first()?, payload.len()) {
        (1, 148) => Kind::Initiation,
        (2, 92) => Kind::Response,
        (3, 64) => Kind::Cookie,
        _ => return None,
    };
    let (from, to) = addresses(frame)?;
    Some(Message {
        at,
        kind,
        from,
        to,
        mark: payload.get(4..20)?.try_into().ok()?,
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
