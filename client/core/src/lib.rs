//! The policy enforcement point of Gatereeve, without I/O.
//!
//! The life of a packet: [`packet`] parses it, [`datapath`] finds its peer in the table in force,
//! [`filter`] permits it or says why not, [`wg`] seals or opens it. The table comes from
//! [`engine`], which takes what the controller says, checks it, and publishes it whole.
//!
//! * [`engine`], [`output`], [`stored`]: the slow path, what its shell is to do, and what it keeps.
//! * [`datapath`], [`filter`], [`packet`], [`wg`], [`drop_reason`]: the fast path.
//! * [`dns`]: names of devices, answered on the fast path.
//! * [`keyed`]: hash tables under a secret.
//! * [`api`]: the vocabulary of the local socket.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
#[doc(hidden)]
pub mod bench_support;
mod clock;
mod control;
pub mod datapath;
pub mod dns;
pub mod drop_reason;
pub mod engine;
pub mod filter;
pub mod keyed;
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
