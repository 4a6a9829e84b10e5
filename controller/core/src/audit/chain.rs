//! The chain of hashes through the journal.

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::domain;
use gatereeve_shared::wire::codec::{self, CodecError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::record::{RECORD, Record};

/// The hash before the first record.
pub const GENESIS: [u8; 32] = [0; 32];

/// A record as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedRecord {
    /// That of the record in `bytes`.
    pub generation: Generation,
    /// `chain(hash of the record before, bytes)`.
    pub hash: [u8; 32],
    /// The record.
    pub bytes: Vec<u8>,
}

/// Why a record does not follow the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The record cannot be read.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// A record before it was edited, removed or moved, or it was itself.
    #[error(
        "record {0} is not chained to the one before it: records were edited, removed or moved"
    )]
    Hash(Generation),
    /// The numbering has a gap, or the number outside differs from the one inside.
    #[error("record {found} follows record {before}")]
    Number {
        /// The record before.
        before: Generation,
        /// This one.
        found: Generation,
    },
}

impl EncodedRecord {
    /// The record.
    ///
    /// # Errors
    /// [`CodecError`] where the bytes are no record.
    pub fn decode(&self) -> Result<Record, CodecError> {
        codec::decode::<Record, RECORD>(&self.bytes)
    }

    /// Checks that this record follows the one with `generation` and `hash`, and reads it.
    ///
    /// # Errors
    /// [`ChainError`] where it does not.
    pub fn follow(&self, generation: Generation, hash: &[u8; 32]) -> Result<Record, ChainError> {
        if chain(hash, &self.bytes) != self.hash {
            return Err(ChainError::Hash(self.generation));
        }
        let record = self.decode()?;
        let in_order = generation.n.checked_add(1) == Some(record.generation.n)
            && record.generation.incarnation >= generation.incarnation
            && record.generation == self.generation;
        if in_order {
            Ok(record)
        } else {
            Err(ChainError::Number {
                before: generation,
                found: record.generation,
            })
        }
    }
}

/// The hash of a record: over the hash of the one before and its bytes.
#[must_use]
pub fn chain(previous: &[u8; 32], bytes: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(domain::JOURNAL_RECORD)
        .chain_update(previous)
        .chain_update(bytes)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::time::UnixMillis;

    use super::*;
    use crate::audit::entry::{Actor, AuditEntry};
    use crate::change::Change;

    fn records() -> Vec<EncodedRecord> {
        let mut head = GENESIS;
        (1..=4u64)
            .map(|n| {
                let record = Record {
                    generation: Generation { incarnation: 0, n },
                    at: UnixMillis(n),
                    actor: Actor::System,
                    change: Change::Noted,
                    audit: AuditEntry::done("session.attach", format!("device {n}")),
                };
                let sealed = record.seal(&head).unwrap();
                head = sealed.hash;
                sealed
            })
            .collect()
    }

    fn verify(records: &[EncodedRecord]) -> Result<(), ChainError> {
        let (mut generation, mut hash) = (Generation::default(), GENESIS);
        for record in records {
            generation = record.follow(generation, &hash)?.generation;
            hash = record.hash;
        }
        Ok(())
    }

    #[test]
    fn an_untouched_chain_verifies() {
        assert_eq!(verify(&records()), Ok(()));
    }

    #[test]
    fn edits_removals_and_moves_show() {
        for at in 0..4 {
            for byte in 0..records()[at].bytes.len() {
                let mut edited = records();
                edited[at].bytes[byte] ^= 1;
                assert!(verify(&edited).is_err(), "record {at}, byte {byte}");
            }
        }
        let mut removed = records();
        removed.remove(1);
        assert!(verify(&removed).is_err());
        let mut moved = records();
        moved.swap(1, 2);
        assert!(verify(&moved).is_err());
        let mut renumbered = records();
        renumbered[2].generation.n = 9;
        assert!(verify(&renumbered).is_err());
    }
}
