//! One record of the journal: a change with its audit entry.

use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::codec::{self, CodecError};
use serde::{Deserialize, Serialize};

use super::chain::{self, EncodedRecord};
use super::entry::{Actor, AuditEntry};
use crate::change::Change;

/// Most bytes of an encoded record: a policy file of 1 MiB, and verdicts of every device.
pub const RECORD: usize = 16 * 1024 * 1024;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The state that it makes; `n` counts records without a gap.
    pub generation: Generation,
    /// When, by the controller's clock.
    pub at: UnixMillis,
    /// By whom.
    pub actor: Actor,
    /// The change.
    pub change: Change,
    /// What the audit log says about it.
    pub audit: AuditEntry,
}

impl Record {
    /// The record's bytes, chained to the hash of the one before (all zeroes for the first).
    ///
    /// # Errors
    /// [`CodecError::Encode`] where it exceeds [`RECORD`] bytes.
    pub fn seal(&self, previous: &[u8; 32]) -> Result<EncodedRecord, CodecError> {
        let bytes = codec::encode(self)?;
        if bytes.len() > RECORD {
            return Err(CodecError::Encode(format!(
                "a journal record of {} bytes exceeds the limit of {RECORD}",
                bytes.len()
            )));
        }
        Ok(EncodedRecord {
            generation: self.generation,
            hash: chain::chain(previous, &bytes),
            bytes,
        })
    }
}
