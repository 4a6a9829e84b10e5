//! Why there is no link, in words for a person.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_runtime::framed::FrameError;
use gatereeve_runtime::quic::ConnectError;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::KeyError;
use gatereeve_shared::text::printable;
use gatereeve_shared::wire::controller::Refusal;
use quinn::{Connection, ConnectionError};
use thiserror::Error;

/// Why there is no link, or no longer.
#[derive(Debug, Error)]
pub enum LinkError {
    /// No address to try.
    #[error("the controller's address cannot be found: {0}; check the name and this machine's DNS")]
    Resolve(String),
    /// This machine does not let us.
    #[error("cannot open a socket: {0}")]
    Socket(std::io::Error),
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// None of the addresses answers as it should.
    #[error("the controller cannot be reached at {0}")]
    Unreachable(String),
    /// Somebody else answers.
    #[error(
        "controller key mismatch: {address} is not a controller of network {network}; somebody else answers there, or the network was set up anew"
    )]
    Mismatch {
        /// Who answered.
        address: SocketAddr,
        /// The pin.
        network: Fingerprint,
    },
    /// The statement about the controller's key does not hold now.
    #[error(
        "the controller at {address} shows a statement of the network key that has expired; check this machine's clock"
    )]
    Expired {
        /// Who answered.
        address: SocketAddr,
    },
    /// It says no.
    #[error("the controller refuses: {0}")]
    Refused(String),
    /// No version is spoken by both.
    #[error(
        "the controller speaks minor version {0}, which this client does not; update the older of the two"
    )]
    Version(u16),
    /// It answers something else than it should.
    #[error("the controller does not keep to the protocol: {0}")]
    Protocol(String),
    /// It takes too long.
    #[error("the controller did not {what} within {limit:?}")]
    Slow {
        /// What it should have done.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It was there and is no longer.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// This side has closed it.
    #[error("closed by this device")]
    Closed,
}

impl LinkError {
    /// Whether somebody answered who is no controller of this network.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Mismatch { .. })
    }

    /// A refusal; its words come from outside and go to a terminal.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        Self::Refused(printable(&refusal.message).chars().take(255).collect())
    }

    /// A binding that does not hold.
    pub(super) fn binding(error: KeyError, address: SocketAddr, network: Fingerprint) -> Self {
        match error {
            KeyError::Expired => Self::Expired { address },
            KeyError::Mismatch | KeyError::Signature | KeyError::PublicKey => {
                Self::Mismatch { address, network }
            }
        }
    }

    /// A stream that failed. What ended the connection says more than what the stream saw of it.
    pub(super) fn stream(error: FrameError, connection: &Connection) -> Self {
        match (error, connection.close_reason()) {
            (FrameError::Wire(error), _) => Self::Protocol(error.to_string()),
            (FrameError::Codec(error), _) => Self::Protocol(error.to_string()),
            (FrameError::Deadline(limit), _) => Self::Slow {
                what: "take or finish a message",
                limit,
            },
            (FrameError::Truncated | FrameError::Io(_), Some(reason)) => Self::Lost(words(&reason)),
            (error @ (FrameError::Truncated | FrameError::Io(_)), None) => {
                Self::Lost(error.to_string())
            }
        }
    }
}

/// A failed attempt, in words.
pub(super) fn attempt(error: &ConnectError) -> String {
    match error {
        ConnectError::Connection(error) => words(error),
        ConnectError::KeyMismatch { .. } | ConnectError::Tls(_) | ConnectError::Attempt(_) => {
            error.to_string()
        }
    }
}

/// The end of a connection, in words. Reasons that the other side gave are outside text.
pub(super) fn words(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no answer".to_owned(),
        ConnectionError::ApplicationClosed(close) => match close.error_code.into_inner() {
            0 | 1 => "the controller has closed it".to_owned(),
            2 => "the controller did not understand this device".to_owned(),
            3 => "this device was too slow for the controller".to_owned(),
            4 => "the controller has too many connections".to_owned(),
            5 => "the controller is shutting down".to_owned(),
            code => format!("the controller has closed it with code {code}"),
        },
        ConnectionError::ConnectionClosed(_) => {
            printable(&error.to_string()).chars().take(255).collect()
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}
