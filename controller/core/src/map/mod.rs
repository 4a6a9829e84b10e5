//! Network maps by need to know: a device is told only of peers that it may reach or be reached by.
//!
//! [`build`] makes the entries, [`delta`] compares them with what a device was last sent, [`parts`]
//! cuts updates to frames. [`losses`] keeps who has not confirmed yet to have let go of what.

use std::collections::BTreeMap;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::wire::map::{PeerEntry, SelfEntry};

use losses::Losses;

pub(crate) mod build;
pub(crate) mod delta;
pub(crate) mod losses;
pub(crate) mod parts;

/// What a device was last sent.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// The generation of it.
    pub(crate) generation: Generation,
    /// The device's entry for itself.
    pub(crate) this: SelfEntry,
    /// Its peers, with the ends of leases as last renewed.
    pub(crate) peers: BTreeMap<DeviceId, PeerEntry>,
    /// The generation that its data path is known to enforce.
    pub(crate) acked: Option<Generation>,
    /// What it may still let through although it was sent otherwise.
    pub(crate) losses: Losses,
}
