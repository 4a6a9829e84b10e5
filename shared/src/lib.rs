//! What Gatereeve's controller and client must agree on, as pure types.
//!
//! * [`identity`]: the keys of devices, the network and controllers, and what they sign.
//! * [`wire`]: every message of the control protocol, and the one codec.
//! * [`policy`]: the words of a policy that reach a device: protocols, ports, filter rules.
//! * [`posture`]: facts a device reports about itself, and the verdicts on them.
//! * [`time`], [`lease`], [`generation`]: when a grant ends and which map it belongs to.
//!
//! Nothing here opens a socket, reads a clock or draws a random number; `Cargo.toml` keeps it so.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod generation;
pub mod identity;
pub mod ids;
pub mod invite;
pub mod lease;
pub mod limits;
pub mod policy;
pub mod posture;
pub mod text;
pub mod time;
pub mod wire;
