//! [`HandshakeGate`] over boringtun's `RateLimiter`.

use std::fmt;
use std::net::SocketAddr;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};

use crate::wg::{Admission, HandshakeGate};

/// Handshakes per second from which on senders must prove their address.
const LOAD: u64 = 1_000;

/// The gate of one local key.
pub(super) struct NoiseGate {
    local: WgSecret,
    public: WgPublicKey,
    limiter: RateLimiter,
}

impl NoiseGate {
    pub(super) fn new(local: &WgSecret) -> Self {
        let public = local.public();
        Self {
            local: local.clone(),
            limiter: RateLimiter::new(&public.to_dalek(), LOAD),
            public,
        }
    }
}

/// Shows the public key only.
impl fmt::Debug for NoiseGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoiseGate")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl HandshakeGate for NoiseGate {
    fn admit(&self, from: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Admission {
        // It does that at most once a second.
        self.limiter.reset_count();
        ask(&self.limiter, from, datagram, out)
    }

    fn sender(&self, initiation: &[u8]) -> Option<WgPublicKey> {
        let Ok(Packet::HandshakeInit(message)) = Tunn::parse_incoming_packet(initiation) else {
            return None;
        };
        parse_handshake_anon(self.local.as_dalek(), &self.public.to_dalek(), &message)
            .ok()
            .map(|half| WgPublicKey(half.peer_static_public))
    }
}

fn ask(limiter: &RateLimiter, from: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Admission {
    match limiter.verify_packet(Some(from.ip()), datagram, out) {
        Ok(_) => Admission::Admitted,
        Err(TunnResult::WriteToNetwork(cookie)) => Admission::Cookie { len: cookie.len() },
        Err(_) => Admission::NotOurs,
    }
}
