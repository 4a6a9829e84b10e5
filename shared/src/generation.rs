//! The number that every network map, delta and filter set carries.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which state of the network a map was made from; compared as (incarnation, n).
///
/// A client never goes back: it refuses a map of a lower generation than it enforces.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Generation {
    /// Raised by every `restore` of a backup, so that old and new numbering cannot be confused.
    pub incarnation: u32,
    /// Sequence number of the last journal record in this state; 0 is the empty state.
    pub n: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.n)
    }
}
