//! HTTP/1.1 and JSON over a Unix socket: how the command lines talk to their daemons.
//!
//! A request is a POST of a JSON object; who asks is what the kernel says of the other end of the
//! socket (`SO_PEERCRED`, taken when it connected), never what the request says. One request per
//! connection. Limits: [`CONNECTIONS`] connections and [`CONNECTIONS_PER_USER`] of any one user but
//! root, [`HEADER_DEADLINE`] for the header, [`BODY`] bytes and [`BODY_DEADLINE`] for the body.

mod call;
mod serve;

use std::time::Duration;

pub use call::{CallError, call, call_within};
pub use serve::{Caller, LocalListener, bind, serve};

/// Connections at a time.
pub const CONNECTIONS: usize = 64;
/// Connections of one user, root excepted, so that no user can lock the others out.
pub const CONNECTIONS_PER_USER: usize = 16;
/// How long the header of a request may take.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// How long the body of a request may take.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request's body.
pub const BODY: usize = 1024 * 1024;
/// Bytes of a reply that a caller takes.
pub const REPLY: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
