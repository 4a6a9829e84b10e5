//! The policy enforcement point of Gatereeve, without I/O.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod datapath;
pub mod drop_reason;
pub mod filter;
pub mod wg;
