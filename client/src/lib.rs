//! The Gatereeve client: the daemon that enforces the policy on a device, and its command line.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod dns;
pub mod helper;
pub mod posture;
pub mod routes;
pub mod tun;
pub mod udp;

pub use cli::main_with;
