//! The connection to a controller: who it is, then messages both ways.
//!
//! The rule that [`greet`] keeps: the identity key is shown only to a TLS key that the network's
//! key has vouched for. A link is one attempt and one connection; trying again, and when, is the
//! engine's question. Frames, keep-alive and limits are those of `gatereeve_runtime`.

mod dial;
mod error;
mod greet;
mod link;
mod names;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_runtime::framed::{CONTROLLER_FRAME_DEADLINE, FRAME_DEADLINE};
use gatereeve_runtime::quic::SILENCE;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::wire::controller::{ControllerHello, ControllerMessage};

pub use error::LinkError;
pub use link::{ControlLink, SendError};
pub use names::Names;

/// Where to connect, as whom, and to whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` of each controller, in order of preference.
    pub controllers: Vec<String>,
    /// The network key that is pinned.
    pub network: Fingerprint,
    /// This device's key.
    pub identity: Arc<IdentityKey>,
    /// The TLS key that the network key has vouched for at an earlier time, if any: saves asking
    /// again under a throw-away key. Keep [`ControllerHello::binding`]'s for the next time.
    pub known_tls: Option<IdentityPublicKey>,
    /// Who looks up the controllers' names.
    pub names: Names,
}

/// What a link tells: `Connected` at most once, then messages, then `Disconnected` exactly once and last.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages are moved once, and boxes would be in everyone's patterns"
)]
pub enum ControlEvent {
    /// The controller has proven itself, and knows who this is.
    Connected {
        /// Its hello; the binding is verified against the pin, the TLS key and the clock.
        hello: ControllerHello,
        /// This device's address on the way to it.
        local: SocketAddr,
    },
    /// It says something.
    Message(ControllerMessage),
    /// There is no connection, or no longer.
    Disconnected {
        /// Why, for a person.
        error: String,
        /// Whether somebody answered who is no controller of this network.
        mismatch: bool,
    },
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Resolving the controllers' names.
    pub resolve: Duration,
    /// From the first packet to a proven key, over all addresses.
    pub dial: Duration,
    /// How much later than one address the next is tried as well.
    pub stagger: Duration,
    /// For the controller's first answer.
    pub hello: Duration,
    /// For one message of the controller, from its first byte on.
    pub frame: Duration,
    /// For the controller to make room for a message to it.
    pub write: Duration,
    /// Without a packet, before the controller counts as gone. At least the keep-alive and a bit.
    pub silence: Duration,
    /// For last words to arrive.
    pub grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            dial: Duration::from_secs(5),
            stagger: Duration::from_millis(250),
            hello: Duration::from_secs(5),
            frame: CONTROLLER_FRAME_DEADLINE,
            write: FRAME_DEADLINE,
            silence: SILENCE,
            grace: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime of a test ends its tasks"
)]
mod tests;
