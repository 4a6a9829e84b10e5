//! [`Tunnel`] over boringtun's `Tunn`; nothing but this and `gate` names boringtun.
//!
//! `Tunn` reads clocks of its own, so its timers are not used: when to shake hands is decided in
//! `timers`. What is used of `update_timers` is that it sets the time by which `Tunn` orders its
//! sessions (otherwise a late packet on an old session would make it send with the old keys again) and
//! drops those past 180 seconds. That is done beside handshakes only: with an initiation of ours, which they may be
//! the ones to write, and before a message of the peer's, where they have no room for one. A session has the time that
//! was set last, so that has to be near whenever one is made: from an older one on its 180 seconds would be over too
//! soon. Its queue is not used: nothing is sealed but where the ledger has a session, and a packet that it keeps
//! where the ledger is wrong is never asked for.

mod data;
mod gate;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::{Mono, Now};

use data::with_receiver_key;
use gate::NoiseGate;

use super::demux::{Datagram, classify};
use super::ledger::Ledger;
use super::{
    HANDSHAKE_ROOM, HandshakeGate, OVERHEAD, OVERLAY_MTU, Opened, SessionView, Tunnel, TunnelError,
    TunnelFactory,
};
use crate::filter::Permit;

/// `Tunn` repeats an initiation by itself from 5 seconds on.
const TUNN_RETRIES_AFTER: Duration = Duration::from_millis(4_900);
/// `Tunn` gives a handshake up, and all sessions with it, after 90 seconds.
const TUNN_GIVES_UP_AFTER: Duration = Duration::from_secs(90);
/// How long an initiation that was made ahead may be sent: an answer has as long as to any other before `Tunn` gives up.
const READY_FOR: Duration = Duration::from_secs(75);
const BLOCK: usize = 16;
/// Room for a handshake message; twice that is a page of stack.
const WARM_UP_ROOM: usize = 2048;

/// Makes real WireGuard tunnels.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoiseTunnels;

impl TunnelFactory for NoiseTunnels {
    fn create(
        &self,
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
        _now: Now,
    ) -> Result<Box<dyn Tunnel>, TunnelError> {
        if local.public() == *remote || !local.contributes_with(remote) {
            return Err(TunnelError::Key);
        }
        check_clock()?;
        Ok(Box::new(NoiseTunnel {
            local: local.clone(),
            remote: *remote,
            index: index & 0x00ff_ffff,
            live: None,
        }))
    }

    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate> {
        Box::new(NoiseGate::new(local))
    }

    /// One handshake between two tunnels of nobody. What it pays for: the libraries ask the processor what it can do,
    /// which in a virtual machine traps to the host each time (6.5 µs on one), and the stack of the thread gets its pages.
    fn warm_up(&self) {
        // In the caller's frame, so that a handshake in earnest goes no deeper.
        let mut buffers = [[0; WARM_UP_ROOM]; 2];
        if rehearse(*self, &mut buffers).is_none() {
            tracing::debug!("the handshake ahead of the first one did not work");
        }
    }
}

/// A handshake and an empty message, of keys that belong to nobody.
fn rehearse(tunnels: NoiseTunnels, [out, answer]: &mut [[u8; WARM_UP_ROOM]; 2]) -> Option<()> {
    let (now, from) = (Now::default(), SocketAddr::from(([0, 0, 0, 0], 0)));
    let (ours, theirs) = (WgSecret::from_bytes([1; 32]), WgSecret::from_bytes([2; 32]));
    let gate = tunnels.gate(&theirs);
    let mut here = tunnels.create(&ours, &theirs.public(), 1, now).ok()?;
    let mut there = tunnels.create(&theirs, &ours.public(), 2, now).ok()?;
    let len = here.initiate(now, out).ok()?;
    if !gate.is_ours(out.get(..len)?) {
        return None;
    }
    let Opened::Response { len } = there
        .decapsulate(from, out.get_mut(..len)?, now, answer)
        .ok()?
    else {
        return None;
    };
    let Opened::Established { len } = here
        .decapsulate(from, answer.get_mut(..len)?, now, out)
        .ok()?
    else {
        return None;
    };
    let opened = there
        .decapsulate(from, out.get_mut(..len)?, now, answer)
        .ok()?;
    let len = there.keepalive(now, out).ok()?;
    here.decapsulate(from, out.get_mut(..len)?, now, answer)
        .ok()?;
    (opened == Opened::Keepalive { first: true }).then_some(())
}

/// `Tunn` reads the wall clock when it is made, and panics before 1970.
fn check_clock() -> Result<(), TunnelError> {
    if SystemTime::UNIX_EPOCH.elapsed().is_ok() {
        Ok(())
    } else {
        Err(TunnelError::Clock)
    }
}

/// A peer that nobody talks to takes little: the rest is made with the first handshake, and stays, for it
/// knows which initiations were seen.
struct NoiseTunnel {
    local: WgSecret,
    remote: WgPublicKey,
    index: u32,
    live: Option<Box<Live>>,
}

/// What a tunnel has from its first handshake on.
struct Live {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    ledger: Ledger,
    /// An initiation that `Tunn` holds to be in flight, sent or not.
    attempt: Option<Attempt>,
    /// An initiation that was made ahead, and not sent so far.
    ready: Option<[u8; HANDSHAKE_ROOM]>,
    /// The index that `Tunn` has given out last, to a session or an initiation.
    index: u32,
    padded: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    since: Mono,
    last: Mono,
    /// What an answer to the last initiation is for.
    index: u32,
}

impl Attempt {
    fn new(initiation: &[u8], now: Mono) -> Self {
        Self {
            since: now,
            last: now,
            index: index_at(initiation, 4),
        }
    }

    /// The next initiation of the same attempt.
    fn repeated(self, initiation: &[u8], now: Mono) -> Self {
        Self {
            since: self.since,
            ..Self::new(initiation, now)
        }
    }

    /// Whether `Tunn` gives it up when its timers run, and with it every session.
    fn is_over(&self, now: Mono) -> bool {
        now.since(self.since) >= TUNN_GIVES_UP_AFTER - TUNN_RETRIES_AFTER
    }
}

/// Whether `Tunn`'s timers may run before it looks at a handshake message.
fn may_set_time(attempt: Option<Attempt>, has_session: bool, now: Mono) -> bool {
    // What is over would be given up, and every session with it; or what the message may answer.
    attempt.is_none_or(|attempt| {
        let is_waited_for = now.since(attempt.last) < TUNN_RETRIES_AFTER;
        !attempt.is_over(now) || (!has_session && !is_waited_for)
    })
}

/// Shows public keys only.
impl fmt::Debug for NoiseTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseTunnel")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("ledger", &self.live.as_ref().map(|live| &live.ledger))
            .finish_non_exhaustive()
    }
}

impl NoiseTunnel {
    fn live(&mut self) -> Result<&mut Live, TunnelError> {
        let live = match self.live.take() {
            Some(live) => live,
            None => Box::new(self.make()?),
        };
        Ok(self.live.insert(live))
    }

    fn make(&self) -> Result<Live, TunnelError> {
        check_clock()?;
        // What may come is counted before; this one only repeats the check of the first MAC.
        let public = self.local.public().to_dalek();
        let limiter = Arc::new(RateLimiter::new(&public, u64::MAX));
        let tunn = Tunn::new(
            self.local.as_dalek().clone(),
            self.remote.to_dalek(),
            None,
            None,
            self.index,
            Some(Arc::clone(&limiter)),
        );
        Ok(Live {
            tunn,
            limiter,
            ledger: Ledger::default(),
            attempt: None,
            ready: None,
            index: self.index << 8,
            padded: Vec::new(),
        })
    }
}

impl Live {
    /// Sets `Tunn`'s idea of the time, unless that would have it give up a handshake that counts. The message that it is set
    /// for may be anybody's: it begins no handshake, and repeats none.
    fn set_time(&mut self, now: Mono) {
        if may_set_time(self.attempt, self.ledger.has_live(now), now) {
            // An initiation has no room, and is refused before anything is changed for it.
            self.update_timers(&mut [0; HANDSHAKE_ROOM / 2]);
        }
    }

    /// Keeps what an initiation makes out of the place of the session in use: `Tunn` has eight places, by the low bits of the
    /// index, and fills the next one. The initiation may be an old one that somebody plays again, which a tunnel that was made
    /// anew cannot tell, or its answer may be lost: then nobody uses what it makes, and eight of these would be enough.
    fn spare_session_in_use(&mut self, now: Mono) {
        // As `Tunn` counts.
        let next = self.index & !0xff | (self.index.wrapping_add(1) & 0xff);
        if !self.ledger.is_in_use(next, now) {
            return;
        }
        // An initiation that goes nowhere takes that index: one in eight is preceded by it. The one before stays in flight.
        let mut unsent = [0; HANDSHAKE_ROOM];
        let written = self.tunn.format_handshake_initiation(&mut unsent, true);
        if matches!(written, TunnResult::WriteToNetwork(_)) {
            self.note_initiation(&unsent, now);
        }
    }

    /// `Tunn` has written an initiation. Where it holds that an attempt is under way, this is of the same one: when
    /// it gives that up goes by when that began.
    fn note_initiation(&mut self, initiation: &[u8], now: Mono) {
        self.attempt = Some(match self.attempt {
            Some(attempt) => attempt.repeated(initiation, now),
            None => Attempt::new(initiation, now),
        });
        self.ready = None;
        self.index = index_at(initiation, 4);
    }

    /// Runs `Tunn`'s timers. Returns whether that wrote an initiation; a keepalive is not wanted.
    fn update_timers(&mut self, out: &mut [u8]) -> bool {
        match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork([1, ..]) => true,
            TunnResult::Err(WireGuardError::ConnectionExpired) => {
                // It has given up, and dropped its sessions.
                self.attempt = None;
                self.ledger.clear();
                false
            }
            TunnResult::Err(_)
            | TunnResult::Done
            | TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => false,
        }
    }

    fn seal(&mut self, packet: &[u8], now: Now, out: &mut [u8]) -> Result<usize, TunnelError> {
        if self.ledger.sending(now.mono).is_none() {
            return Err(TunnelError::NoSession);
        }
        // Padded, the length tells less; but a packet within the MTU stays within.
        let padded = packet.len().next_multiple_of(BLOCK);
        let padded = padded.min(OVERLAY_MTU.max(packet.len()));
        if out.len() < (padded + OVERHEAD).max(HANDSHAKE_ROOM) {
            return Err(TunnelError::Room);
        }
        let result = if padded == packet.len() {
            self.tunn.encapsulate(packet, out)
        } else {
            self.padded.clear();
            self.padded.extend_from_slice(packet);
            self.padded.resize(padded, 0);
            self.tunn.encapsulate(&self.padded, out)
        };
        // Where `Tunn` has no session and the ledger has one, the ledger is wrong about that one.
        let TunnResult::WriteToNetwork(message) = result else {
            self.ledger.forget_current();
            return Err(TunnelError::NoSession);
        };
        if !matches!(message, [4, ..]) {
            // It has begun a handshake, of which nobody will hear.
            self.attempt = Some(Attempt::new(message, now.mono));
            self.index = index_at(message, 4);
            self.ledger.forget_current();
            return Err(TunnelError::NoSession);
        }
        // The message itself names the session that it was sealed with, and its number in it.
        let (remote, counter) = (index_at(message, 4), counter_of(message));
        if self.ledger.sealed(remote, counter, now.mono) {
            Ok(message.len())
        } else {
            Err(TunnelError::NoSession)
        }
    }

    fn initiate(&mut self, now: Now, out: &mut [u8]) -> Result<usize, TunnelError> {
        if out.len() < HANDSHAKE_ROOM {
            return Err(TunnelError::Room);
        }
        if let Some(ready) = self.take_ready(now) {
            let (initiation, _) = out.split_at_mut(ready.len());
            initiation.copy_from_slice(&ready);
            return Ok(ready.len());
        }
        // Where `Tunn` holds an old attempt, its timers give that up, and every session with it: not while there is one.
        let is_over = |attempt: Attempt| attempt.is_over(now.mono);
        let sets_time = !self.attempt.is_some_and(is_over) || !self.ledger.has_live(now.mono);
        // What is not answered they repeat by themselves.
        let len = if sets_time && self.update_timers(out) {
            HANDSHAKE_ROOM
        } else {
            let written = self.tunn.format_handshake_initiation(out, true);
            let TunnResult::WriteToNetwork(message) = written else {
                return Err(TunnelError::Crypto);
            };
            message.len()
        };
        self.note_initiation(out, now.mono);
        Ok(len)
    }

    /// The initiation that was made ahead, if nothing has come between.
    fn take_ready(&mut self, now: Now) -> Option<[u8; HANDSHAKE_ROOM]> {
        let ready = self.ready.take()?;
        let is_young = now.mono.since(self.attempt?.since) < READY_FOR;
        is_young.then_some(ready)
    }

    fn decapsulate(
        &mut self,
        from: SocketAddr,
        kind: Datagram,
        datagram: &mut [u8],
        now: Now,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        if out.len() < datagram.len().max(HANDSHAKE_ROOM) {
            return Err(TunnelError::Room);
        }
        let source = Some(from.ip());
        match kind {
            Datagram::Junk => Err(TunnelError::Junk),
            Datagram::Initiation => {
                self.set_time(now.mono);
                self.spare_session_in_use(now.mono);
                let (made, key) =
                    with_receiver_key(|| self.tunn.decapsulate(source, datagram, out));
                let TunnResult::WriteToNetwork(response) = made else {
                    return Err(TunnelError::Crypto);
                };
                let (local, remote) = (index_at(response, 4), index_at(datagram, 4));
                self.index = local;
                self.ledger.add([local, remote], false, key, now.mono);
                (self.attempt, self.ready) = (None, None);
                Ok(Opened::Response {
                    len: response.len(),
                })
            }
            Datagram::Response { .. } => {
                self.set_time(now.mono);
                let (made, key) =
                    with_receiver_key(|| self.tunn.decapsulate(source, datagram, out));
                let TunnResult::WriteToNetwork(keepalive) = made else {
                    return Err(TunnelError::Crypto);
                };
                let (local, remote) = (index_at(datagram, 8), index_at(datagram, 4));
                self.ledger.add([local, remote], true, key, now.mono);
                // An answer to the one before leaves the last one in flight.
                self.attempt = self.attempt.filter(|attempt| attempt.index != local);
                Ok(Opened::Established {
                    len: keepalive.len(),
                })
            }
            Datagram::Cookie { .. } => {
                let TunnResult::Done = self.tunn.decapsulate(source, datagram, out) else {
                    return Err(TunnelError::Crypto);
                };
                Ok(Opened::Cookie)
            }
            Datagram::Data { .. } => self.open(from.ip(), datagram, now, out),
        }
    }
}

impl NoiseTunnel {
    /// Answers the first initiation. A function of its own, because what it makes has 25 KB of stack, of which data messages
    /// would touch every page.
    #[cold]
    #[inline(never)]
    fn answer_first(
        &mut self,
        from: SocketAddr,
        initiation: &mut [u8],
        now: Now,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        // Whoever knows both public keys can have it come this far: what fails leaves nothing.
        let mut live = Box::new(self.make()?);
        let opened = live.decapsulate(from, Datagram::Initiation, initiation, now, out)?;
        self.live = Some(live);
        Ok(opened)
    }
}

impl Tunnel for NoiseTunnel {
    fn prepare(&mut self, now: Now) {
        if self.live.is_some() {
            return;
        }
        // What cannot be made now is tried again with the handshake, which then fails and says why.
        let mut ready = [0; HANDSHAKE_ROOM];
        if let Ok(live) = self.live()
            && live.initiate(now, &mut ready).is_ok()
        {
            live.ready = Some(ready);
        }
    }

    fn initiate(&mut self, now: Now, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.live()?.initiate(now, out)
    }

    fn encapsulate(
        &mut self,
        _permit: &Permit,
        packet: &[u8],
        now: Now,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        let live = self.live.as_mut().ok_or(TunnelError::NoSession)?;
        live.seal(packet, now, out)
    }

    fn keepalive(&mut self, now: Now, out: &mut [u8]) -> Result<usize, TunnelError> {
        let live = self.live.as_mut().ok_or(TunnelError::NoSession)?;
        live.seal(&[], now, out)
    }

    fn decapsulate(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Now,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let datagram_kind = classify(datagram);
        if let Some(live) = &mut self.live {
            return live.decapsulate(from, datagram_kind, datagram, now, out);
        }
        match datagram_kind {
            Datagram::Junk => Err(TunnelError::Junk),
            Datagram::Data { .. } => Err(TunnelError::NoSession),
            Datagram::Response { .. } | Datagram::Cookie { .. } => Err(TunnelError::Crypto),
            Datagram::Initiation => self.answer_first(from, datagram, now, out),
        }
    }

    fn session(&self, now: Now) -> Option<SessionView> {
        self.live.as_ref()?.ledger.sending(now.mono)
    }

    fn expires(&self) -> Option<Mono> {
        self.live.as_ref()?.ledger.expires()
    }

    fn awaits(&self, response: &[u8]) -> bool {
        let index = index_at(response, 8);
        let attempt = self.live.as_ref().and_then(|live| live.attempt);
        attempt.is_some_and(|attempt| attempt.index == index)
    }

    fn maintain(&mut self, now: Now) {
        if let Some(live) = &mut self.live
            && live.ledger.expire(now.mono)
        {
            self.erase();
        }
    }

    fn erase(&mut self) {
        let Some(live) = &mut self.live else {
            return;
        };
        // Putting the same key in again is `Tunn`'s one way to drop its sessions that keeps the time of
        // the last initiation seen, without which old ones could be replayed.
        live.tunn.set_static_private(
            self.local.as_dalek().clone(),
            self.local.public().to_dalek(),
            Some(Arc::clone(&live.limiter)),
        );
        live.ledger.clear();
    }
}

fn index_at(message: &[u8], at: usize) -> u32 {
    message
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// The number of a data message; one that is never accepted where there is none.
fn counter_of(message: &[u8]) -> u64 {
    message
        .get(8..16)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(u64::MAX, u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
