//! What the daemon cannot do once it is confined, done by a process that it starts before.
//!
//! The helper has no socket to any network when it starts, no key and, where the daemon is not root, no
//! capability. It takes connections over a socket pair, one for each question, and starts a process for each, which
//! answers and ends, or is ended. It reads nothing of a question itself, so that a process that crashes or hangs over one
//! takes nothing with it. It ends with the daemon.
//!
//! Three things are asked: to start a posture collector ([`crate::posture::process`]), where no other one is to be
//! had; to look up the names of controllers, whose answers come from the network and whose configuration files
//! are replaced while the daemon runs; and to tell the host's resolver of the names of devices ([`crate::dns`]).

mod client;
mod serve;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::dns::{Link, Told};
use crate::posture::CollectedFact;

pub use client::{Helper, HelperError, PreparedHelper};
pub use serve::{answer_one, serve};

/// The longest line, either way.
const MAX_LINE: u64 = 256 * 1024;

/// What the helper is asked: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// To collect posture.
    Collect {
        /// Executables whose running is asked for.
        watched: Vec<String>,
    },
    /// The addresses of `host:port`.
    Resolve(String),
    /// To tell the host's resolver.
    TellResolver(Link),
}

/// What it answers: one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Reply {
    Facts(Vec<CollectedFact>),
    Addresses(Vec<SocketAddr>),
    Told(Told),
    /// Why there is no answer.
    Failed(String),
}

#[cfg(test)]
mod tests;
