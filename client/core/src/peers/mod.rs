//! The peers: who owns which address, and each one's mutable state.

mod allowed_ips;
mod link;
mod path_mtu;
mod path_probe;
mod queue;
mod state;

pub(crate) use allowed_ips::AllowedIps;
pub(crate) use link::Link;
pub(crate) use path_probe::PathMessage;
pub(crate) use queue::QueueBudget;
pub(crate) use state::{Context, PeerState};
