//! The journal: every durable change, numbered, chained by hash, in append-only segment files.
//!
//! Appending here is the commit point: a change is in force, and told to anyone, only after its
//! batch was written and synced. What the folder promises:
//!
//! * A batch is written only after the one before it is durable. So a batch whose header holds
//!   proves that everything before it was acknowledged, and damage there is never cut away.
//! * An unfinished batch at the very end is what a crash leaves. It is cut, but only above what
//!   other witnesses (the last checkpoint, the tables) know as acknowledged.
//! * A failed append leaves nothing behind: its bytes are truncated away before the next one, and a
//!   file whose sync failed is not written again.
//!
//! [`format`] is the encoding, [`scan`] reads one segment, [`open`] recovers after a stop,
//! [`file`](mod@file) appends, [`writer`] groups commits on a thread of its own, [`read`] follows the files
//! while the daemon runs.

use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_shared::generation::Generation;

pub mod disk;
pub mod file;
pub mod format;
pub mod open;
pub mod read;
pub mod scan;
pub mod writer;

#[cfg(test)]
mod tests;

/// The last record of a journal: where the next one goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its generation; the default is the empty journal.
    pub generation: Generation,
    /// Its chained hash; all zero for the empty journal.
    pub hash: [u8; 32],
}

impl Head {
    /// The head behind `record`.
    #[must_use]
    pub fn of(record: &EncodedRecord) -> Self {
        Self {
            generation: record.generation,
            hash: record.hash,
        }
    }

    /// Whether `record` is numbered and chained to come right behind this head.
    #[must_use]
    pub fn is_followed_by(&self, record: &EncodedRecord) -> bool {
        self.generation.n.checked_add(1) == Some(record.generation.n)
            && record.generation.incarnation >= self.generation.incarnation
            && gatereeve_controller_core::audit::chain::chain(&self.hash, &record.bytes)
                == record.hash
    }
}
