//! Handshakes, by boringtun's `Tunn`.
//!
//! Only its handshake messages are used. It would go on to seal and open with the keys that it makes, by clocks of its own and in
//! eight places for sessions that anybody's initiations fill: the keys are taken from it as soon as they are made, and it is asked
//! for nothing else. So none of its timers runs, and which sessions it thinks it has does not matter.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use gatereeve_cipher::{Key, take_last_two_keys};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;

use crate::wg::demux::index_at;
use crate::wg::sessions::{NewSession, seal};
use crate::wg::{HANDSHAKE_ROOM, OVERHEAD, TunnelError};

/// How long an initiation that was made ahead may be sent.
pub(super) const READY_FOR: Duration = Duration::from_secs(75);

/// The handshakes of one tunnel.
pub(super) struct Handshakes {
    tunn: Tunn,
    /// The index of the last initiation, until it is answered.
    in_flight: Option<u32>,
    /// An initiation that was made ahead, and not sent so far.
    pub(super) ready: Option<Ready>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    since: Mono,
    pub(super) initiation: [u8; HANDSHAKE_ROOM],
}

/// `Tunn` reads the wall clock when it is made, and panics before 1970.
pub(super) fn check_clock() -> Result<(), TunnelError> {
    if SystemTime::UNIX_EPOCH.elapsed().is_ok() {
        Ok(())
    } else {
        Err(TunnelError::Clock)
    }
}

impl Handshakes {
    pub(super) fn new(
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
    ) -> Result<Self, TunnelError> {
        check_clock()?;
        // What may come is counted before; this one only repeats the check of the first MAC.
        let limiter = RateLimiter::new(&local.public().to_dalek(), u64::MAX);
        Ok(Self {
            tunn: Tunn::new(
                local.as_dalek().clone(),
                remote.to_dalek(),
                None,
                None,
                index,
                Some(Arc::new(limiter)),
            ),
            in_flight: None,
            ready: None,
        })
    }

    /// Writes an initiation: one that was made ahead, if it is young and nothing has come between.
    pub(super) fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        let out = out
            .first_chunk_mut::<HANDSHAKE_ROOM>()
            .ok_or(TunnelError::Room)?;
        if let Some(ready) = self.ready.take()
            && now.since(ready.since) < READY_FOR
        {
            *out = ready.initiation;
            return Ok(out.len());
        }
        let written = self.tunn.format_handshake_initiation(out, true);
        let TunnResult::WriteToNetwork(message) = written else {
            return Err(TunnelError::Crypto);
        };
        let len = message.len();
        self.in_flight = Some(index_at(message, 4));
        Ok(len)
    }

    /// Makes an initiation ahead.
    pub(super) fn prepare(&mut self, now: Mono) {
        let mut initiation = [0; HANDSHAKE_ROOM];
        if self.initiate(now, &mut initiation).is_ok() {
            self.ready = Some(Ready {
                since: now,
                initiation,
            });
        }
    }

    /// Whether a response to index `local` is for the last initiation, and that was not answered.
    pub(super) fn awaits(&self, local: u32) -> bool {
        self.in_flight == Some(local)
    }

    /// Answers an initiation; the response's length.
    pub(super) fn answer(
        &mut self,
        from: IpAddr,
        initiation: &[u8],
        out: &mut [u8],
    ) -> Result<(NewSession, usize), TunnelError> {
        let (response, [receiver, sender]) = self.take(from, initiation, out)?;
        // What was made ahead is not the last of what was made any more.
        self.ready = None;
        let session = NewSession {
            local: index_at(response, 4),
            remote: index_at(initiation, 4),
            is_initiator: false,
            receiver,
            sender,
            sent: 0,
        };
        Ok((session, response.len()))
    }

    /// Takes the response to an initiation of ours; the length of the empty message that confirms the session.
    pub(super) fn finish(
        &mut self,
        from: IpAddr,
        response: &[u8],
        out: &mut [u8],
    ) -> Result<(NewSession, usize), TunnelError> {
        let (keepalive, [receiver, sender]) = self.take(from, response, out)?;
        let session = NewSession {
            local: index_at(response, 8),
            remote: index_at(response, 4),
            is_initiator: true,
            receiver,
            sender,
            // The empty message counts, whether or not it goes out.
            sent: 1,
        };
        // `Tunn` has sealed it with the session's key. Whoever answers has the other one confirmed, by what it opens first.
        let mut own = [0; OVERHEAD];
        if seal(&session, 0, &[], &mut own).is_none() || *keepalive != own {
            tracing::error!("what was taken from the tunnel library is not the key of a session");
            return Err(TunnelError::Crypto);
        }
        // An answer to the one before leaves the last one in flight.
        self.in_flight = self.in_flight.filter(|index| *index != session.local);
        Ok((session, own.len()))
    }

    /// Keeps a cookie for the next initiation.
    pub(super) fn keep_cookie(
        &mut self,
        from: IpAddr,
        cookie: &[u8],
        out: &mut [u8],
    ) -> Result<(), TunnelError> {
        let TunnResult::Done = self.tunn.decapsulate(Some(from), cookie, out) else {
            return Err(TunnelError::Crypto);
        };
        Ok(())
    }

    /// Has `Tunn` answer a message that makes a session, and takes the keys of that: the one to open with, the one to seal with,
    /// which it makes last, in this order.
    fn take<'a>(
        &mut self,
        from: IpAddr,
        message: &[u8],
        out: &'a mut [u8],
    ) -> Result<(&'a [u8], [Key; 2]), TunnelError> {
        if out.len() < HANDSHAKE_ROOM {
            return Err(TunnelError::Room);
        }
        let tunn = &mut self.tunn;
        match take_last_two_keys(move || tunn.decapsulate(Some(from), message, out)) {
            (TunnResult::WriteToNetwork(answer), Some(keys)) => Ok((answer, keys)),
            (TunnResult::WriteToNetwork(_), None) => {
                tracing::error!("the tunnel library has another cipher than this program's");
                Err(TunnelError::Crypto)
            }
            _ => Err(TunnelError::Crypto),
        }
    }
}

/// Shows no keys.
impl fmt::Debug for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshakes")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Handshakes {
    /// Whether `Tunn` by itself opens a message of a session.
    pub(super) fn opens(&mut self, message: &[u8]) -> bool {
        let mut out = [0; 2048];
        let opened = self.tunn.decapsulate(None, message, &mut out);
        !matches!(opened, TunnResult::Err(_))
    }

    /// What `Tunn` by itself makes of a packet.
    pub(super) fn seals(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = [0; 2048];
        let TunnResult::WriteToNetwork(message) = self.tunn.encapsulate(packet, &mut out) else {
            panic!("it has no session");
        };
        message.to_vec()
    }
}
