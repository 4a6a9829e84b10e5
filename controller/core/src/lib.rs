//! The policy decision point of Gatereeve, without I/O.
//!
//! The life of a decision: a command, a message or a timer comes to [`controller::Controller`],
//! which checks it against what is staged and asks for a journal record
//! ([`output::Output::Append`]). When the record is durable, [`state::State::apply`] makes it so;
//! [`pdp::engine`] says again what is granted between the devices it touches; and those that are
//! connected are sent the difference, losers of access first.
//!
//! * [`command`], [`output`]: what comes from administrators, and what the shell is to do.
//! * [`change`], [`audit`], [`state`]: records, their chain, and the tables that they fold to.
//! * [`policy`], [`posture`], [`pdp`]: the policy file, facts against checks, and the one "yes".
//! * [`rehearse`]: what a state comes to, without a running controller.
//! * [`controller`], [`ipam`] and the private modules: sessions, enrollment, maps and leases.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod audit;
pub mod change;
pub mod command;
pub mod controller;
mod enroll;
pub mod ipam;
mod map;
pub mod output;
pub mod pdp;
pub mod policy;
pub mod posture;
pub mod rehearse;
mod session;
pub mod state;
