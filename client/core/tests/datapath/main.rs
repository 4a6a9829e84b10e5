//! The data path with real tunnels, wired back to back in virtual time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod access;
mod handshakes;
mod hostile;
mod rotation;
mod timing;
mod tunnel;
mod world;
