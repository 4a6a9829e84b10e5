//! The policy enforcement point of Gatereeve, without I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
mod clock;
mod control;
pub mod datapath;
pub mod drop_reason;
pub mod engine;
pub mod filter;
mod keys;
mod lease;
mod map;
pub mod output;
pub mod packet;
mod path;
mod peers;
mod posture;
mod random;
pub mod stored;
pub mod wg;
