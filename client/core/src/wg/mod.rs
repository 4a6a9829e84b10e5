//! WireGuard: the contract of a tunnel, and what stands around it.
//!
//! A [`Tunnel`] is the cryptography between one local and one remote key: handshakes and sessions. When
//! to shake hands, to which endpoints, and what to do with packets that wait is decided outside, in
//! `timers` and `peers`, in virtual time. So the same decisions run over the real tunnel and over the
//! fake one of the simulation.
//!
//! The real tunnel has its handshakes from boringtun 0.7.1 and its sessions from `sessions`: age and message count on every message,
//! a replay window as wide as Linux's, padding, keys that are wiped. `timers` and `handshake_limit` have the rest of what boringtun
//! leaves out: retries with jitter, passive keepalives timed from the data received, a limit per source before the Diffie-Hellman that
//! nobody elsewhere can spend, no endpoint from a cookie reply. What cannot be closed from outside, with its consequence: cookies
//! bound to the address without the port (clients behind one NAT share one), the low byte of an index counts handshakes, what
//! session keys were made from is freed but not zeroed, and initiations carry the clock in nanoseconds.

#[doc(hidden)]
pub mod contract;
pub(crate) mod demux;
pub(crate) mod handshake_limit;
pub(crate) mod repeats;
mod replay;
mod sessions;
pub(crate) mod timers;
mod tunnel;

pub use tunnel::NoiseTunnels;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::identity::wg_key::{WgPublicKey, WgSecret};
use gatereeve_shared::time::Mono;
use thiserror::Error;

use crate::filter::Permit;

/// Bytes that a tunnel adds to a packet, padding aside.
pub const OVERHEAD: usize = 32;
/// Where in a data message its contents begin, behind kind, index and number (WireGuard, section 5.4.6).
pub const CONTENTS_AT: usize = 16;
/// How long an initiation may be answered: as long as one is repeated (WireGuard, section 6.1, `REKEY_ATTEMPT_TIME`).
pub const ANSWER_WITHIN: Duration = Duration::from_secs(90);
/// The least room that a call needs that may write a handshake message.
pub const HANDSHAKE_ROOM: usize = 148;
/// The largest inner packet on a 1500-byte underlay with IPv6; also the limit of padding.
pub const OVERLAY_MTU: usize = 1420;
/// The least packet that every path of IPv6 carries (RFC 8200, section 5). Packets are not made smaller than this for
/// what a router says of a path: what carries less with its headers is sent datagrams in fragments, and who forges
/// such reports can do no more harm.
pub const LEAST_MTU: usize = 1280;

/// The cryptographic state between one local and one remote key.
///
/// What an implementation promises (`wg::contract` checks it):
/// * it never holds a packet back: without a session [`Tunnel::encapsulate`] fails;
/// * a session is used for at most 180 seconds and 2^64 - 2^13 - 1 messages (WireGuard, section 6.1), checked on every
///   call against `now`, whether or not [`Tunnel::maintain`] runs; `timers` renew it before;
/// * the responder of a handshake sends nothing over the new session before the initiator has;
/// * messages that are replayed, forged or for another index fail, and neither end a session nor keep the answer to an
///   initiation out (two initiations of the peer's own may, that a tunnel which was made anew does not know: the next one is answered);
/// * an initiation is answered within [`ANSWER_WITHIN`] or never, and its keys are gone soon after;
/// * a session that is in use gives way to one that the peer has confirmed, however many initiations come that nobody
///   goes on with: old ones played again to a tunnel that was made anew, say;
/// * every index it puts on the wire is `index << 8 | n`, with the `index` it was made with.
pub trait Tunnel: Send + fmt::Debug {
    /// Makes what the first handshake needs, ahead of it: time for memory. That includes its initiation, which counts as in
    /// flight from now on, as if the network held it up until [`Self::initiate`] sends it. Does nothing the second time.
    fn prepare(&mut self, _now: Mono) {}

    /// Writes a new handshake initiation, or one that was made ahead and still is the last; it replaces one in flight.
    /// Returns its length. `out` has at least [`HANDSHAKE_ROOM`] bytes.
    ///
    /// # Errors
    /// [`TunnelError::Room`] where `out` is too small, [`TunnelError::Crypto`] where it cannot be made.
    fn initiate(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError>;

    /// Seals a packet that passed the filter and returns the datagram's length. The contents are padded
    /// to a multiple of 16 bytes, but not beyond [`OVERLAY_MTU`]. `out` has room for the packet,
    /// 15 bytes of padding and [`OVERHEAD`].
    ///
    /// # Errors
    /// [`TunnelError::NoSession`] where there is none that may send, [`TunnelError::Room`].
    fn encapsulate(
        &mut self,
        permit: &Permit,
        packet: &[u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<usize, TunnelError>;

    /// Seals an empty packet.
    ///
    /// # Errors
    /// As [`Self::encapsulate`].
    fn keepalive(&mut self, now: Mono, out: &mut [u8]) -> Result<usize, TunnelError>;

    /// Opens a datagram. What a data message has in it is opened where it lies, at [`CONTENTS_AT`]. Other messages stay as they
    /// are, and what is to be sent for them is written to `out`, which has at least [`HANDSHAKE_ROOM`] bytes for them.
    ///
    /// # Errors
    /// [`TunnelError`]; the tunnel is as before, and nothing that was decrypted is in `datagram`.
    fn decapsulate(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Mono,
        out: &mut [u8],
    ) -> Result<Opened, TunnelError>;

    /// The session that [`Self::encapsulate`] would use.
    fn session(&self, now: Mono) -> Option<SessionView>;

    /// Whether `response` is for the last initiation that was sent and not answered, nor [forgotten](Self::maintain).
    fn awaits(&self, response: &[u8]) -> bool;

    /// When [`Self::maintain`] will find something to erase next; `None` where no session is held, not even
    /// one that the other side has not confirmed, and no initiation may be answered.
    fn expires(&self) -> Option<Mono>;

    /// Erases the keys of sessions and initiations that are too old. To be called at [`Self::expires`] or soon after.
    fn maintain(&mut self, now: Mono);

    /// Erases all sessions, and what may become one by an answer.
    fn erase(&mut self);
}

/// The session a tunnel sends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// When its handshake was completed.
    pub established: Mono,
    /// Whether this side began the handshake: the one that renews it.
    pub is_initiator: bool,
    /// Messages sealed with it.
    pub sent: u64,
}

/// What was in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An initiation; the first `len` bytes written are the response, to be sent to where it came from.
    Response {
        /// Bytes of the response.
        len: usize,
    },
    /// The response to our initiation: the session is usable. The first `len` bytes written are a keepalive that
    /// confirms it, to be sent unless something else goes over the session at once: any message of the initiator's does.
    Established {
        /// Bytes of the keepalive.
        len: usize,
    },
    /// An authenticated message without contents.
    Keepalive {
        /// Whether it is the first on its session, which is usable now.
        first: bool,
    },
    /// An authenticated packet, unchecked: `len` bytes of the datagram from [`CONTENTS_AT`] on, padding included.
    Packet {
        /// Bytes of the packet.
        len: usize,
        /// Whether it is the first on its session, which is usable now.
        first: bool,
    },
    /// A cookie, kept for the next initiation. It proves nothing about where it came from.
    Cookie,
}

/// Why a tunnel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TunnelError {
    /// No session that may be used, or one that is too old.
    #[error("no usable session")]
    NoSession,
    /// Forged, replayed, or out of place.
    #[error("the message does not authenticate")]
    Crypto,
    /// Not a message.
    #[error("not a WireGuard message")]
    Junk,
    /// The buffer is too small.
    #[error("the buffer is too small")]
    Room,
    /// The system clock stands before 1970, where handshakes have no timestamps.
    #[error("the system clock is before 1970")]
    Clock,
    /// The peer's key contributes nothing to a Diffie-Hellman, or is our own.
    #[error("not a key of a peer")]
    Key,
}

/// Makes tunnels and gates.
pub trait TunnelFactory: Send + Sync + fmt::Debug {
    /// A tunnel between two keys. `index` has 24 bits, is unpredictable, and no other tunnel's.
    ///
    /// # Errors
    /// [`TunnelError::Key`] for keys that no tunnel may have, [`TunnelError::Clock`].
    fn create(
        &self,
        local: &WgSecret,
        remote: &WgPublicKey,
        index: u32,
        now: Mono,
    ) -> Result<Box<dyn Tunnel>, TunnelError>;

    /// The gate before the tunnels of one local key.
    fn gate(&self, local: &WgSecret) -> Box<dyn HandshakeGate>;

    /// Has the calling thread pay now what the first handshake of a thread or a process pays once. Changes
    /// nothing that a tunnel does.
    fn warm_up(&self) {}
}

/// What is looked at before a handshake message costs a Diffie-Hellman.
pub trait HandshakeGate: Send + Sync + fmt::Debug {
    /// Whether an initiation or a response is for this key.
    fn is_ours(&self, datagram: &[u8]) -> bool;

    /// Whether the sender of an initiation or a response that is ours has proved to be where it comes from, by what a
    /// message has said that was written here before. `out` has at least [`HANDSHAKE_ROOM`] bytes.
    fn prove(&self, from: SocketAddr, datagram: &[u8], out: &mut [u8]) -> Proof;

    /// The static key that an initiation of ours names. One Diffie-Hellman.
    fn sender(&self, initiation: &[u8]) -> Option<WgPublicKey>;
}

/// Whether a sender is where it says to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is.
    Given,
    /// To be asked: send it the first `len` bytes, a cookie, for its next message.
    Asked {
        /// Bytes of the cookie reply.
        len: usize,
    },
    /// The message is none that anybody is asked for.
    Refused,
}
