//! The Gatereeve controller: coordination server and admin command line.
//!
//! The decisions are made in `gatereeve-controller-core`, which does no I/O. This crate is the
//! program around it:
//!
//! * [`journal`]: every durable change, appended before anyone is told.
//! * [`store`]: the tables folded from it, for a fast start.
//! * [`state_dir`]: keys, settings, checkpoints, and the lock that makes us the only writer.
//! * [`server`]: the actor that owns the core's `Controller`.
//! * [`quic`]: control sessions. [`admin`]: the admin socket.
//! * [`upgrade`]: from the state of an older version to this one's, for real and on a copy.
//! * [`audit`]: verifying the journal. [`backup`]: taking the state elsewhere.
//! * [`doctor`]: whether all is well.
//! * [`cli`]: the command line, which also runs in-process for tests ([`main_with`]).

#![warn(missing_docs)]

pub mod admin;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod config;
pub mod confine;
pub mod doctor;
pub mod journal;
pub mod quic;
pub mod server;
pub mod state_dir;
pub mod store;
pub mod upgrade;

pub use cli::main_with;
