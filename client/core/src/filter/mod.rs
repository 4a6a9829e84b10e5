//! The enforcement point: what may pass, in which direction, until when.
//!
//! Default deny by construction: a [`Permit`] comes into being only where a live rule matches, or where
//! a tracked flow that a live rule still allows covers the packet. There is no other way to "yes".
//!
//! * [`PeerFilter`] is immutable: the rules between this device and one peer, as of one table.
//! * [`FilterState`] is the peer's own mutable part: tracked flows and verdicts on fragments. It is
//!   never shared between peers, so no peer can use, fill or evict what belongs to another.

mod conntrack;
mod fragments;
mod judge;
mod listing;
mod lru;
mod permit;
mod rules;
mod tracked;

pub(crate) use conntrack::FlowRef;
pub use conntrack::{FLOWS_PER_PEER, FLOWS_RESERVED, FLOWS_TOTAL, FlowBudget};
pub use fragments::VERDICTS_PER_PEER;
pub use judge::{FilterState, PeerFilter};
pub use listing::{FlowList, FlowStats};
pub use permit::Permit;
pub use rules::Rules;
pub use tracked::{FlowPhase, Traffic};

#[cfg(test)]
mod tests;
