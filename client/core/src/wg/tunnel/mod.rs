//! [`Tunnel`] with boringtun's handshakes and sessions of our own; nothing but `handshakes` and `gate` names boringtun.

mod gate;
mod handshakes;

use std::fmt;
use std::net::SocketAddr;

use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;

use gate::NoiseGate;
use handshakes::{Handshakes, check_clock};

use super::demux::{Datagram, classify, index_at};
use super::sessions::Sessions;
use super::{HandshakeGate, Opened, SessionView, Tunnel, TunnelError, TunnelFactory};
use crate::filter::Permit;

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
        _now: Mono,
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
            tracing::error!("a handshake to try it out did not work: no tunnel will");
        }
    }
}

/// A handshake and an empty message, of keys that belong to nobody.
fn rehearse(tunnels: NoiseTunnels, [out, answer]: &mut [[u8; WARM_UP_ROOM]; 2]) -> Option<()> {
    let (now, from) = (Mono::default(), SocketAddr::from(([0, 0, 0, 0], 0)));
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

/// A peer that nobody talks to takes little: the rest is made with the first handshake, and stays, for it
/// knows which initiations were seen.
struct NoiseTunnel {
    local: WgSecret,
    remote: WgPublicKey,
    index: u32,
    live: Option<Box<Live>>,
}

/// What a tunnel has from its first handshake on.
#[derive(Debug)]
struct Live {
    handshakes: Handshakes,
    sessions: Sessions,
}

/// Shows public keys only.
impl fmt::Debug for NoiseTunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseTunnel")
            .field("local", &self.local)
            .field("remote", &self.remote)
            .field("live", &self.live)
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
        Ok(Live {
            handshakes: Handshakes::new(&self.local, &self.remote, self.index)?,
            sessions: Sessions::default(),
        })
    }

    /// Answers the first initiation. A function of its own, because what it makes has 25 KB of stack, of which data messages
    /// would touch every page.
    #[cold]
    #[inline(never)]
    fn answer_first(
        &mut self,
        from: SocketAddr,
        initiation: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        // Whoever knows both public keys can have it come this far: what fails leaves nothing.
        let mut live = Box::new(self.make()?);
        let opened = live.handshake(from, Datagram::Initiation, initiation, now, out)?;
        self.live = Some(live);
        Ok(opened)
    }
}

impl Live {
    /// Takes a handshake message or a cookie.
    #[cold]
    fn handshake(
        &mut self,
        from: SocketAddr,
        kind: Datagram,
        message: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        let (handshakes, from) = (&mut self.handshakes, from.ip());
        match kind {
            Datagram::Initiation => {
                let (session, len) = handshakes.answer(from, message, now, out)?;
                self.sessions.add(session, now);
                Ok(Opened::Response { len })
            }
            Datagram::Response { .. } => {
                let (session, len) = handshakes.finish(from, message, now, out)?;
                self.sessions.add(session, now);
                Ok(Opened::Established { len })
            }
            Datagram::Cookie { .. } => {
                handshakes.keep_cookie(from, message, now, out)?;
                Ok(Opened::Cookie)
            }
            Datagram::Data { .. } | Datagram::Junk => Err(TunnelError::Junk),
        }
    }
}

impl Tunnel for NoiseTunnel {
    fn prepare(&mut self, now: Mono) {
        if self.live.is_some() {
            return;
        }
        // What cannot be made now is tried again with the handshake, which then fails and says why.
        if let Ok(live) = self.live() {
            live.handshakes.prepare(now);
        }
    }

    fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        self.live()?.handshakes.initiate(now, out)
    }

    fn encapsulate(
        &mut self,
        _permit: &Permit,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError> {
        let live = self.live.as_mut().ok_or(TunnelError::NoSession)?;
        live.sessions.seal(packet, now, out)
    }

    fn keepalive(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError> {
        let live = self.live.as_mut().ok_or(TunnelError::NoSession)?;
        live.sessions.seal(&[], now, out)
    }

    fn decapsulate(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError> {
        match (classify(datagram), &mut self.live) {
            (Datagram::Junk, _) => Err(TunnelError::Junk),
            (Datagram::Data { .. }, Some(live)) => live.sessions.open(datagram, now),
            (Datagram::Data { .. }, None) => Err(TunnelError::NoSession),
            (kind, Some(live)) => live.handshake(from, kind, datagram, now, out),
            (Datagram::Initiation, None) => self.answer_first(from, datagram, now, out),
            (Datagram::Response { .. } | Datagram::Cookie { .. }, None) => Err(TunnelError::Crypto),
        }
    }

    fn session(&self, now: Mono) -> Option<SessionView> {
        self.live.as_ref()?.sessions.sending(now)
    }

    fn expires(&self) -> Option<Mono> {
        let live = self.live.as_ref()?;
        let ends = [live.sessions.expires(), live.handshakes.expires()];
        ends.into_iter().flatten().min()
    }

    fn awaits(&self, response: &[u8]) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.handshakes.awaits(index_at(response, 8)))
    }

    fn maintain(&mut self, now: Mono) {
        if let Some(live) = &mut self.live {
            live.sessions.expire(now);
            live.handshakes.expire(now);
        }
    }

    fn erase(&mut self) {
        if let Some(live) = &mut self.live {
            live.sessions.clear();
            live.handshakes.forget();
        }
    }
}

#[cfg(test)]
mod tests;
