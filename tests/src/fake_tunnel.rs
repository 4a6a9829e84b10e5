//! A tunnel without cryptography, in virtual time: it checks keys, indices, order and age as
//! WireGuard does, over messages of the same form, and is quick and the same in every run.
//!
//! It proves nothing about secrecy. It runs the suite that the real tunnel runs
//! (`gatereeve_client_core::wg::contract`), so that what the simulation finds holds for both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_client_core::filter::Permit;
use gatereeve_client_core::wg::{
    ANSWER_WITHIN, CONTENTS_AT, HANDSHAKE_ROOM, HandshakeGate, OVERHEAD, OVERLAY_MTU, Opened,
    Proof, SessionView, Tunnel, TunnelError, TunnelFactory,
};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;

const INITIATION: usize = 148;
const RESPONSE: usize = 92;
/// WireGuard's REJECT_AFTER_TIME.
const LIFETIME: Duration = Duration::from_secs(180);
/// How far behind the newest a message may be.
const WINDOW: u64 = 8_128;
/// Sessions kept: the next, the current and the one before.
const SESSIONS: usize = 3;

/// Makes fake tunnels.
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeTunnels;

impl TunnelFactory for FakeTunnels {
    fn create(
        &self,
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
        _now: Mono,
    ) -> Result<Box<dyn Tunnel>, TunnelError> {
        if local.public() == *remote || !local.contributes_with(remote) {
            return Err(TunnelError::Key);
        }
        Ok(Box::new(FakeTunnel {
            local: local.public(),
            remote: *remote,
            index: index & 0x00ff_ffff,
            made: 0,
            last_sent: 0,
            last_seen: 0,
            pending: None,
            sessions: Vec::new(),
        }))
    }

    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate> {
        Box::new(FakeGate(local.public()))
    }
}

#[derive(Debug)]
struct FakeTunnel {
    local: WgPublicKey,
    remote: WgPublicKey,
    index: u32,
    /// Sessions and handshakes made; the low byte of their indices.
    made: u32,
    /// Timestamps of the initiations sent and seen last.
    last_sent: u64,
    last_seen: u64,
    /// Our initiation in flight.
    pending: Option<Pending>,
    /// Oldest first.
    sessions: Vec<Session>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u32,
    timestamp: u64,
    sent: Mono,
}

#[derive(Debug)]
struct Session {
    local: u32,
    remote: u32,
    key: u64,
    established: Mono,
    is_initiator: bool,
    is_confirmed: bool,
    sent: u64,
    newest: u64,
    seen: BTreeSet<u64>,
}

impl Session {
    fn is_alive(&self, now: Mono) -> bool {
        now.since(self.established) < LIFETIME
    }

    /// Takes a message's number, unless it was seen or is too old.
    fn admit(&mut self, counter: u64) -> bool {
        if counter >= 1 << 60 || counter.saturating_add(WINDOW) < self.newest {
            return false;
        }
        self.newest = self.newest.max(counter);
        let oldest = self.newest.saturating_sub(WINDOW);
        self.seen = self.seen.split_off(&oldest);
        self.seen.insert(counter)
    }
}

impl FakeTunnel {
    fn next_index(&mut self) -> u32 {
        self.made = self.made.wrapping_add(1);
        self.index << 8 | self.made & 0xff
    }

    /// Keeps it, in the place of the oldest that is not in use.
    fn keep(&mut self, session: Session, now: Mono) {
        self.sessions.push(session);
        if self.sessions.len() > SESSIONS {
            let used = self.sending(now);
            let oldest = (0..SESSIONS).find(|at| Some(*at) != used);
            self.sessions.remove(oldest.unwrap_or_default());
        }
    }

    /// The newest session that may send.
    fn sending(&self, now: Mono) -> Option<usize> {
        self.sessions
            .iter()
            .rposition(|session| session.is_confirmed && session.is_alive(now))
    }

    fn seal(&mut self, packet: &[u8], now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        let at = self.sending(now).ok_or(TunnelError::NoSession)?;
        let padded = packet.len().next_multiple_of(16);
        let padded = padded.min(OVERLAY_MTU.max(packet.len()));
        let total = padded + OVERHEAD;
        if out.len() < total {
            return Err(TunnelError::Room);
        }
        let session = &mut self.sessions[at];
        let message = &mut out[..total];
        message.fill(0);
        message[0] = 4;
        message[4..8].copy_from_slice(&session.remote.to_le_bytes());
        message[8..16].copy_from_slice(&session.sent.to_le_bytes());
        message[CONTENTS_AT..CONTENTS_AT + packet.len()].copy_from_slice(packet);
        session.sent += 1;
        sign(message, session.key);
        Ok(total)
    }

    fn initiation(
        &mut self,
        datagram: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        if !is_signed(datagram, 0)
            || field(datagram, 8) != self.remote.0
            || field(datagram, 40) != self.local.0
        {
            return Err(TunnelError::Crypto);
        }
        let timestamp = number(datagram, 72);
        if timestamp <= self.last_seen {
            return Err(TunnelError::Crypto);
        }
        self.last_seen = timestamp;
        let (local, remote) = (self.next_index(), index_at(datagram, 4));
        let message = &mut out[..RESPONSE];
        message.fill(0);
        message[0] = 2;
        message[4..8].copy_from_slice(&local.to_le_bytes());
        message[8..12].copy_from_slice(&remote.to_le_bytes());
        message[12..44].copy_from_slice(&self.remote.0);
        message[44..52].copy_from_slice(&timestamp.to_le_bytes());
        sign(message, 0);
        let session = Session {
            local,
            remote,
            key: key(timestamp, local, remote),
            established: now,
            is_initiator: false,
            is_confirmed: false,
            sent: 0,
            newest: 0,
            seen: BTreeSet::new(),
        };
        self.keep(session, now);
        Ok(Opened::Response { len: RESPONSE })
    }

    fn response(
        &mut self,
        datagram: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let (remote, local) = (index_at(datagram, 4), index_at(datagram, 8));
        let timestamp = number(datagram, 44);
        if !is_signed(datagram, 0)
            || field(datagram, 12) != self.local.0
            || !self.pending.is_some_and(|pending| {
                (pending.index, pending.timestamp) == (local, timestamp)
                    && now.since(pending.sent) < ANSWER_WITHIN
            })
        {
            return Err(TunnelError::Crypto);
        }
        self.pending = None;
        let session = Session {
            local,
            remote,
            key: key(timestamp, remote, local),
            established: now,
            is_initiator: true,
            is_confirmed: true,
            sent: 0,
            newest: 0,
            seen: BTreeSet::new(),
        };
        self.keep(session, now);
        self.seal(&[], now, out)
            .map(|len| Opened::Established { len })
    }

    fn data(&mut self, datagram: &[u8], now: Mono) -> Result<Opened, TunnelError> {
        let local = index_at(datagram, 4);
        let session = self
            .sessions
            .iter_mut()
            .find(|session| session.local == local && session.is_alive(now))
            .ok_or(TunnelError::NoSession)?;
        if !is_signed(datagram, session.key) || !session.admit(number(datagram, 8)) {
            return Err(TunnelError::Crypto);
        }
        let first = !session.is_confirmed;
        session.is_confirmed = true;
        let len = datagram.len() - OVERHEAD;
        if len == 0 {
            return Ok(Opened::Keepalive { first });
        }
        // It was never closed.
        Ok(Opened::Packet { len, first })
    }
}

impl Tunnel for FakeTunnel {
    fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        if out.len() < HANDSHAKE_ROOM {
            return Err(TunnelError::Room);
        }
        let local = self.next_index();
        self.last_sent = now.0.max(self.last_sent + 1);
        self.pending = Some(Pending {
            index: local,
            timestamp: self.last_sent,
            sent: now,
        });
        let message = &mut out[..INITIATION];
        message.fill(0);
        message[0] = 1;
        message[4..8].copy_from_slice(&local.to_le_bytes());
        message[8..40].copy_from_slice(&self.local.0);
        message[40..72].copy_from_slice(&self.remote.0);
        message[72..80].copy_from_slice(&self.last_sent.to_le_bytes());
        sign(message, 0);
        Ok(INITIATION)
    }

    fn encapsulate(
        &mut self,
        _permit: &Permit,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        self.seal(packet, now, out)
    }

    fn keepalive(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.seal(&[], now, out)
    }

    fn decapsulate(
        &mut self,
        _from: SocketAddr,
        datagram: &mut [u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let is_data = datagram.first() == Some(&4);
        if !is_data && out.len() < HANDSHAKE_ROOM {
            return Err(TunnelError::Room);
        }
        match (datagram.first_chunk::<4>(), datagram.len()) {
            (Some([1, 0, 0, 0]), INITIATION) => self.initiation(datagram, now, out),
            (Some([2, 0, 0, 0]), RESPONSE) => self.response(datagram, now, out),
            (Some([4, 0, 0, 0]), OVERHEAD..) => self.data(datagram, now),
            _ => Err(TunnelError::Junk),
        }
    }

    fn session(&self, now: Mono) -> Option<SessionView> {
        let session = &self.sessions[self.sending(now)?];
        Some(SessionView {
            established: session.established,
            is_initiator: session.is_initiator,
            sent: session.sent,
        })
    }

    fn expires(&self) -> Option<Mono> {
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|session| session.established.saturating_add(LIFETIME));
        let pending = self.pending.iter();
        let pending = pending.map(|pending| pending.sent.saturating_add(ANSWER_WITHIN));
        sessions.chain(pending).min()
    }

    fn awaits(&self, response: &[u8]) -> bool {
        let index = index_at(response, 8);
        self.pending.is_some_and(|pending| pending.index == index)
    }

    fn maintain(&mut self, now: Mono) {
        self.sessions.retain(|session| session.is_alive(now));
        self.pending = self
            .pending
            .filter(|pending| now.since(pending.sent) < ANSWER_WITHIN);
    }

    fn erase(&mut self) {
        self.sessions.clear();
        self.pending = None;
    }
}

#[derive(Debug)]
struct FakeGate(WgPublicKey);

impl HandshakeGate for FakeGate {
    fn is_ours(&self, datagram: &[u8]) -> bool {
        let to = match (datagram.first(), datagram.len()) {
            (Some(1), INITIATION) => field(datagram, 40),
            (Some(2), RESPONSE) => field(datagram, 12),
            _ => return false,
        };
        to == self.0.0 && is_signed(datagram, 0)
    }

    /// Nobody lies about an address here.
    fn prove(&self, _from: SocketAddr, _datagram: &[u8], _out: &mut [u8]) -> Proof {
        Proof::Given
    }

    fn sender(&self, initiation: &[u8]) -> Option<WgPublicKey> {
        (initiation.len() == INITIATION).then(|| WgPublicKey(field(initiation, 8)))
    }
}

fn field(message: &[u8], at: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&message[at..at + 32]);
    bytes
}

fn number(message: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&message[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn index_at(message: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&message[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn key(timestamp: u64, responder: u32, initiator: u32) -> u64 {
    digest(
        &[],
        timestamp ^ u64::from(responder) << 32 ^ u64::from(initiator),
    ) | 1
}

/// FNV-1a: enough to notice every change that a simulation makes.
fn digest(bytes: &[u8], key: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ key;
    bytes
        .iter()
        .chain(&key.to_le_bytes())
        .fold(start, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// Puts a digest of all the rest into the last eight bytes.
fn sign(message: &mut [u8], key: u64) {
    let at = message.len() - 8;
    let digest = digest(&message[..at], key);
    message[at..].copy_from_slice(&digest.to_le_bytes());
}

fn is_signed(message: &[u8], key: u64) -> bool {
    let at = message.len() - 8;
    number(message, at) == digest(&message[..at], key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_every_tunnel_must() {
        gatereeve_client_core::wg::contract::run(&FakeTunnels);
    }
}
