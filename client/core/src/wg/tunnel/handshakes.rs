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
use gatereeve_cipher::{Taken, take_last_two_keys};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;
use zeroize::Zeroize as _;

use crate::wg::demux::index_at;
use crate::wg::sessions::{NewSession, seal};
use crate::wg::{ANSWER_WITHIN, HANDSHAKE_ROOM, OVERHEAD, TunnelError};

/// How long an initiation that was made ahead may be sent: its key is not to be much older than what is sent with it.
pub(super) const READY_FOR: Duration = Duration::from_secs(75);
/// How long a cookie is good (WireGuard, section 5.4.7): its sender changes them as often.
pub(super) const COOKIE_FOR: Duration = Duration::from_secs(120);
/// Bytes of the second MAC, which ends a handshake message and proves a cookie.
const MAC: usize = 16;
/// What a handshake touches of the stack below, at most.
const STACK: usize = 32 * 1024;

/// The handshakes of one tunnel.
pub(super) struct Handshakes {
    tunn: Tunn,
    /// What was sent and may be answered: `Tunn` takes an answer to the last initiation and to the one before, where either gives
    /// way to an initiation of the peer's that is answered.
    in_flight: [Option<Sent>; 2],
    /// An initiation that was made ahead, and not sent so far.
    ready: Option<Ready>,
    /// When the last message was sent that a cookie may come for.
    asked: Option<Mono>,
    /// When the last cookie came.
    cookie: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    index: u32,
    at: Mono,
}

impl Sent {
    fn may_be_answered(&self, now: Mono) -> bool {
        now < self.ends()
    }

    fn ends(&self) -> Mono {
        self.at.saturating_add(ANSWER_WITHIN)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ready {
    since: Mono,
    initiation: [u8; HANDSHAKE_ROOM],
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
            in_flight: [None; 2],
            ready: None,
            asked: None,
            cookie: None,
        })
    }

    /// Writes an initiation: one that was made ahead, if it is young and nothing has come between.
    pub(super) fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        let out = out
            .first_chunk_mut::<HANDSHAKE_ROOM>()
            .ok_or(TunnelError::Room)?;
        let ready = self.ready.take();
        match ready.filter(|ready| now.since(ready.since) < READY_FOR) {
            Some(ready) => *out = ready.initiation,
            None => self.make(now, out)?,
        }
        let [last, _] = self.in_flight;
        let sent = Sent {
            index: index_at(out, 4),
            at: now,
        };
        self.in_flight = [Some(sent), last];
        self.asked = Some(now);
        Ok(out.len())
    }

    /// Makes an initiation ahead. Nobody can answer what was not sent.
    pub(super) fn prepare(&mut self, now: Mono) {
        let mut initiation = [0; HANDSHAKE_ROOM];
        if self.make(now, &mut initiation).is_ok() {
            self.ready = Some(Ready {
                since: now,
                initiation,
            });
        }
    }

    fn make(&mut self, now: Mono, out: &mut [u8; HANDSHAKE_ROOM]) -> Result<(), TunnelError> {
        let tunn = &mut self.tunn;
        let written = apart(move || tunn.format_handshake_initiation(out, true));
        let TunnResult::WriteToNetwork(message) = written else {
            return Err(TunnelError::Crypto);
        };
        if self.is_cookie_stale(now) {
            without_cookie(message);
        }
        Ok(())
    }

    /// Whether a response to index `local` is for the last initiation that is not answered.
    pub(super) fn awaits(&self, local: u32) -> bool {
        let last = self.in_flight.iter().flatten().next();
        last.is_some_and(|sent| sent.index == local)
    }

    /// When there is something to [forget](Self::expire).
    pub(super) fn expires(&self) -> Option<Mono> {
        self.in_flight.iter().flatten().map(Sent::ends).min()
    }

    /// Forgets initiations that were not answered in time, and their keys.
    pub(super) fn expire(&mut self, now: Mono) {
        let is_over = |sent: Sent| !sent.may_be_answered(now);
        match self.in_flight {
            [Some(last), Some(before)] if is_over(before) && !is_over(last) => {
                self.push_out();
                self.in_flight = [None, Some(last)];
            }
            [Some(last), _] | [None, Some(last)] if is_over(last) => self.forget(),
            _ => {}
        }
    }

    /// Forgets every initiation that may be answered, and its key.
    pub(super) fn forget(&mut self) {
        if self.in_flight != [None; 2] {
            self.push_out();
            self.push_out();
            self.in_flight = [None; 2];
        }
    }

    /// Has `Tunn` let go of the older of the two initiations that it keeps, for a newer one. Nobody can answer that, for nobody
    /// gets it. (A cookie for what was sent before is lost then: it would have come sooner.)
    fn push_out(&mut self) {
        let mut unsent = [0; HANDSHAKE_ROOM];
        let written = self.tunn.format_handshake_initiation(&mut unsent, true);
        debug_assert!(matches!(written, TunnResult::WriteToNetwork(_)));
    }

    /// Answers an initiation; the response's length.
    pub(super) fn answer(
        &mut self,
        from: IpAddr,
        initiation: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<(NewSession, usize), TunnelError> {
        let is_stale = self.is_cookie_stale(now);
        let (response, keys) = self.take(from, initiation, out)?;
        let [last, _] = self.in_flight;
        self.in_flight = [None, last];
        // What was made ahead is not the last of what was made any more.
        self.ready = None;
        self.asked = Some(now);
        let [receiver, sender] = keys.ok_or_else(wrong_key)?;
        if [receiver.sealed, sender.sealed] != [0, 0] {
            return Err(wrong_key());
        }
        if is_stale {
            without_cookie(response);
        }
        let session = NewSession {
            local: index_at(response, 4),
            remote: index_at(initiation, 4),
            is_initiator: false,
            receiver: receiver.key,
            sender: sender.key,
            sent: 0,
        };
        Ok((session, response.len()))
    }

    /// Takes the response to an initiation of ours; the length of the empty message that confirms the session.
    pub(super) fn finish(
        &mut self,
        from: IpAddr,
        response: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<(NewSession, usize), TunnelError> {
        let (local, remote) = (index_at(response, 8), index_at(response, 4));
        let is_it = |sent: &Option<Sent>| {
            sent.is_some_and(|sent| sent.index == local && sent.may_be_answered(now))
        };
        let at = self.in_flight.iter().position(is_it);
        let at = at.ok_or(TunnelError::Crypto)?;
        let (keepalive, keys) = self.take(from, response, out)?;
        if let Some(answered) = self.in_flight.get_mut(at) {
            *answered = None;
        }
        let [receiver, sender] = keys.ok_or_else(wrong_key)?;
        let session = NewSession {
            local,
            remote,
            is_initiator: true,
            receiver: receiver.key,
            sender: sender.key,
            // The empty message counts, whether or not it goes out.
            sent: 1,
        };
        if [receiver.sealed, sender.sealed] != [0, 1] || !is_first_of(&session, keepalive) {
            return Err(wrong_key());
        }
        Ok((session, keepalive.len()))
    }

    /// Keeps a cookie for the next messages: one for each message of ours, and soon after it. Whoever plays it again, or makes one
    /// much later, is not the peer.
    pub(super) fn keep_cookie(
        &mut self,
        from: IpAddr,
        cookie: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<(), TunnelError> {
        let is_asked = self
            .asked
            .is_some_and(|since| now.since(since) < ANSWER_WITHIN);
        if !is_asked {
            return Err(TunnelError::Crypto);
        }
        let TunnResult::Done = self.tunn.decapsulate(Some(from), cookie, out) else {
            return Err(TunnelError::Crypto);
        };
        (self.asked, self.cookie) = (None, Some(now));
        Ok(())
    }

    /// `Tunn` goes on with a cookie until there is another. One that is old proves nothing, and shows who we are to whoever has
    /// made it.
    fn is_cookie_stale(&self, now: Mono) -> bool {
        self.cookie
            .is_some_and(|since| now.since(since) >= COOKIE_FOR)
    }

    /// Has `Tunn` answer a message that makes a session, and takes the keys of that: the one to open with, the one to seal with,
    /// which it makes last, in this order.
    fn take<'a>(
        &mut self,
        from: IpAddr,
        message: &[u8],
        out: &'a mut [u8],
    ) -> Result<(&'a mut [u8], Option<[Taken; 2]>), TunnelError> {
        if out.len() < HANDSHAKE_ROOM {
            return Err(TunnelError::Room);
        }
        let tunn = &mut self.tunn;
        let answered =
            apart(move || take_last_two_keys(move || tunn.decapsulate(Some(from), message, out)));
        let (TunnResult::WriteToNetwork(answer), keys) = answered else {
            return Err(TunnelError::Crypto);
        };
        Ok((answer, keys))
    }
}

/// Whether `message` is what the new session seals first: empty, and for the peer's index.
///
/// `Tunn` has sealed it with the key that it has for the session, so the one that was taken is that. (Whoever answers a handshake has
/// what it opens with confirmed in the same way, by the peer's first message; what it seals with is the other of the two.)
fn is_first_of(session: &NewSession, message: &[u8]) -> bool {
    let mut own = [0; OVERHEAD];
    seal(session, 0, &[], &mut own).is_some() && *message == own
}

fn wrong_key() -> TunnelError {
    tracing::error!(
        "what the tunnel library has made are not the keys of a session: this program needs boringtun 0.7.1, with the cipher that comes with it"
    );
    TunnelError::Crypto
}

/// Takes the proof of a cookie off a handshake message. No other part of it covers that.
fn without_cookie(message: &mut [u8]) {
    if let Some(proof) = message.last_chunk_mut::<MAC>() {
        *proof = [0; MAC];
    }
}

/// Runs `handshake`, and wipes what it leaves on the stack: keys, and what they were made from, where nothing else would come for a
/// long time.
fn apart<T>(handshake: impl FnOnce() -> T) -> T {
    let result = below(handshake);
    wipe_stack();
    result
}

/// In a frame of its own, below the caller's, where [`wipe_stack`] comes as well.
#[inline(never)]
fn below<T>(handshake: impl FnOnce() -> T) -> T {
    handshake()
}

#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u64; STACK / 8];
    below.zeroize();
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
    pub(super) fn made_ahead(&self) -> Option<[u8; HANDSHAKE_ROOM]> {
        self.ready.map(|ready| ready.initiation)
    }

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

#[cfg(test)]
mod tests {
    use gatereeve_cipher::Key;

    use super::*;

    #[test]
    fn another_key_or_number_or_index_is_not_the_sessions() {
        let session = |remote, byte| NewSession {
            local: 1,
            remote,
            is_initiator: true,
            receiver: Key::new(&[1; 32]),
            sender: Key::new(&[byte; 32]),
            sent: 0,
        };
        let ours = session(7, 2);
        let mut first = [0; OVERHEAD];
        seal(&ours, 0, &[], &mut first).unwrap();
        assert!(is_first_of(&ours, &first));
        assert!(!is_first_of(&session(7, 1), &first));
        assert!(!is_first_of(&session(8, 2), &first));
        assert!(!is_first_of(&ours, &first[..31]));
        let mut second = [0; OVERHEAD];
        seal(&ours, 1, &[], &mut second).unwrap();
        assert!(!is_first_of(&ours, &second));
    }
}
