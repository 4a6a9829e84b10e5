//! The data path with real tunnels, wired back to back in virtual time.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod access;
mod accounting;
mod floods;
mod handshakes;
mod hostile;
mod mtu;
mod names;
mod offload;
mod rotation;
mod timing;
mod tunnel;
mod workers;
mod world;
