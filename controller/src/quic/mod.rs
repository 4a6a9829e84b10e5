//! The door to the network: QUIC connections come in, sessions go to the actor.
//!
//! [`admission`] decides who may begin a handshake at all, [`session`] is one connection's life.
//! Nothing here knows a device: a session is a proven key, an address and a stream of messages, and
//! what the key may do is the actor's question. Every queue is bounded. A session's outbound queue
//! is filled by the actor with `try_send`: a full one belongs to a peer that does not read, and the
//! actor drops its sender, which closes the session.

mod admission;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatereeve_controller_core::output::SessionId;
use gatereeve_runtime::framed::{CONTROLLER_FRAME_DEADLINE, FRAME_DEADLINE};
use gatereeve_runtime::shutdown::Shutdown;
use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::{ControllerMessage, Refusal};
use quinn::Endpoint;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use admission::{Admission, Verdict};
use session::Session;

/// What the actor hears of sessions. For each: `Opened`, any number of `Message`s, `Closed`.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages are moved once, and boxes would be in everyone's patterns"
)]
pub enum SessionEvent {
    /// A peer has proven a key and opened its stream.
    Opened {
        /// Its number, used once.
        session: SessionId,
        /// The key it has proven.
        key: IdentityPublicKey,
        /// Where it comes from.
        from: SocketAddr,
        /// What it is to be told. Dropping it closes the session.
        outbound: mpsc::Sender<SessionOutput>,
    },
    /// It has said something.
    Message {
        /// Who.
        session: SessionId,
        /// What.
        message: ClientMessage,
    },
    /// It is gone. Nothing of it follows.
    Closed {
        /// Who.
        session: SessionId,
    },
}

/// What a session is told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "messages are moved once, and boxes would be in everyone's patterns"
)]
pub enum SessionOutput {
    /// Send this.
    Message(ControllerMessage),
    /// Send what is queued and this refusal, then close.
    Close(Option<Refusal>),
}

/// What a peer may take of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections.
    pub total: usize,
    /// Connections of devices that have not been sent a map, from one /24 or /56.
    pub per_source: usize,
    /// Handshakes of unproven addresses at a time, above which an address must prove itself first.
    pub unvalidated: usize,
    /// The same for one source.
    pub unvalidated_per_source: usize,
    /// The same, begun within one second.
    pub unvalidated_per_second: usize,
    /// How long a handshake may take, then opening the stream, then the first message.
    pub handshake: Duration,
    /// How long a message from a peer may take, from its first byte on.
    pub frame: Duration,
    /// How long a peer may take to make room for a message to it.
    pub write: Duration,
    /// How long a closing session waits until its last words have arrived.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: 20_000,
            per_source: 64,
            unvalidated: 64,
            unvalidated_per_source: 16,
            unvalidated_per_second: 200,
            handshake: Duration::from_secs(5),
            frame: FRAME_DEADLINE,
            write: CONTROLLER_FRAME_DEADLINE,
            grace: Duration::from_secs(2),
        }
    }
}

/// Takes connections until the shutdown, with the limits that are usual.
pub async fn accept_loop(
    endpoint: Endpoint,
    events: mpsc::Sender<SessionEvent>,
    shutdown: Shutdown,
) {
    accept_loop_with(endpoint, events, shutdown, Limits::default(), 0).await;
}

/// Takes connections until the shutdown, then lets the sessions say goodbye. Sessions are numbered
/// from `first` on: several loops of one actor take ranges apart from each other.
pub async fn accept_loop_with(
    endpoint: Endpoint,
    events: mpsc::Sender<SessionEvent>,
    shutdown: Shutdown,
    limits: Limits,
    first: u64,
) {
    let admission = Arc::new(Admission::new(limits));
    let mut next = first;
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = shutdown.token.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        let proven = incoming.remote_address_validated();
        match admission.admit(incoming.remote_address(), proven, Instant::now()) {
            Verdict::Accept(place) => {
                let session = Session {
                    id: SessionId(next),
                    events: events.clone(),
                    stopping: shutdown.token.clone(),
                    limits,
                };
                next = next.wrapping_add(1);
                shutdown.spawn(session.run(incoming, place));
            }
            Verdict::Retry if incoming.may_retry() => {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
            }
            // Silence costs least, and answers no forged address.
            Verdict::Retry => incoming.ignore(),
            Verdict::Refuse => incoming.refuse(),
        }
    }
    // Refuses whoever still comes, and gives goodbyes time to leave the socket.
    endpoint.set_server_config(None);
    let goodbyes = limits.grace.saturating_add(Duration::from_secs(1));
    if timeout(goodbyes, endpoint.wait_idle()).await.is_err() {
        tracing::debug!("some connections did not end in time");
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime of a test ends its tasks"
)]
mod tests;
