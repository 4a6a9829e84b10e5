//! The proof that a packet passed the filter.

use super::conntrack::FlowRef;

/// Made by this folder alone, for exactly one packet. What seals or delivers a packet asks for it, so
/// bytes of a host that were not filtered do not type-check. Two constructors are for what is no host's: they say so.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    flow: Option<FlowRef>,
}

impl Permit {
    pub(super) fn of(flow: FlowRef) -> Self {
        Self { flow: Some(flow) }
    }

    /// The flow that the packet passes as part of, to be counted there when it goes: every packet of a host has one.
    pub(crate) fn flow(&self) -> Option<FlowRef> {
        self.flow
    }

    /// For what this data path says to the peer's about the path between them: it is no host's packet on
    /// either side, and is delivered to none.
    pub(crate) fn for_path_message() -> Self {
        Self { flow: None }
    }

    /// For a refusal that this device itself makes up and hands to its own applications: it has crossed
    /// no tunnel, so no rule speaks of it.
    pub(crate) fn for_own_answer() -> Self {
        Self { flow: None }
    }
}
