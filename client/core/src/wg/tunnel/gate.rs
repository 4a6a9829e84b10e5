//! [`HandshakeGate`] over boringtun's `RateLimiter`.

use std::fmt;
use std::net::SocketAddr;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};

use crate::wg::{HANDSHAKE_ROOM, HandshakeGate, Proof};

/// The gate of one local key.
pub(super) struct NoiseGate {
    local: WgSecret,
    public: WgPublicKey,
    /// Never asks for a proof.
    open: RateLimiter,
    /// Always asks for one. All cookies are this one's: one of another's would be no proof here.
    strict: RateLimiter,
}

impl NoiseGate {
    pub(super) fn new(local: &WgSecret) -> Self {
        let public = local.public();
        let limiter = |limit| RateLimiter::new(&public.to_dalek(), limit);
        Self {
            local: local.clone(),
            open: limiter(u64::MAX),
            strict: limiter(0),
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
    fn is_ours(&self, datagram: &[u8]) -> bool {
        let mut out = [0; HANDSHAKE_ROOM];
        self.open.verify_packet(None, datagram, &mut out).is_ok()
    }

    fn prove(&self, from: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Proof {
        match self.strict.verify_packet(Some(from.ip()), datagram, out) {
            Ok(_) => Proof::Given,
            Err(TunnResult::WriteToNetwork(cookie)) => Proof::Asked { len: cookie.len() },
            Err(_) => Proof::Refused,
        }
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
