//! Reading and verifying the audit log, which is the journal, straight from the files: the daemon
//! need not run, and its word is not taken.

use std::collections::BTreeMap;
use std::path::Path;

use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::audit::record::Record;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::text;
use serde::Serialize;
use thiserror::Error;

use crate::journal::Head;
use crate::journal::read::{Follower, Rest};
use crate::journal::scan::JournalError;

#[cfg(test)]
mod tests;

/// A record as `audit tail` and `audit export` print it.
#[derive(Debug, Serialize)]
pub struct AuditLine<'a> {
    /// Its generation; `n` counts without gaps.
    pub generation: Generation,
    /// The chained hash, in hexadecimal.
    pub hash: String,
    /// What happened.
    #[serde(flatten)]
    pub record: RecordBody<'a>,
}

/// The record's own fields but the generation.
#[derive(Debug, Serialize)]
pub struct RecordBody<'a> {
    at: gatereeve_shared::time::UnixMillis,
    time: String,
    actor: &'a gatereeve_controller_core::audit::entry::Actor,
    audit: &'a gatereeve_controller_core::audit::entry::AuditEntry,
    change: &'a gatereeve_controller_core::change::Change,
}

impl<'a> AuditLine<'a> {
    /// The line of a record.
    #[must_use]
    pub fn new(record: &'a Record, hash: &[u8; 32]) -> Self {
        Self {
            generation: record.generation,
            hash: hex(hash),
            record: RecordBody {
                at: record.at,
                time: record.at.to_string(),
                actor: &record.actor,
                audit: &record.audit,
                change: &record.change,
            },
        }
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One line for people: nothing in it can start a new line or move a cursor.
#[must_use]
pub fn line_text(record: &Record) -> String {
    let audit = &record.audit;
    let outcome = match audit.outcome {
        gatereeve_controller_core::audit::entry::Outcome::Done => "done",
        gatereeve_controller_core::audit::entry::Outcome::Refused => "REFUSED",
    };
    let mut line = format!(
        "{} #{} {} {} {} by {}",
        record.at, record.generation.n, outcome, audit.action, audit.subject, record.actor
    );
    if let (Some(before), Some(after)) = (&audit.before, &audit.after) {
        line.push_str(&format!(" ({before} -> {after})"));
    }
    if let Some(reason) = &audit.reason {
        line.push_str(&format!(": {reason}"));
    }
    text::printable(&line)
}

/// What was found wrong.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A file is damaged or missing.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record is chained right, but is no record, or says another number inside.
    #[error("record {n} cannot be read: {why}")]
    Record {
        /// Which.
        n: u64,
        /// What is wrong.
        why: String,
    },
    /// The records are not those that were there when the head was signed.
    #[error(
        "record {n} is not the one that was signed at {at}: records up to there were edited, \
         removed or replaced, and the chain was made anew"
    )]
    NotSigned {
        /// Which.
        n: u64,
        /// When the checkpoint was signed.
        at: String,
    },
    /// The journal ends before a signed head.
    #[error(
        "the journal ends at record {head}, but record {n} was signed at {at}: its end was removed"
    )]
    CutOff {
        /// The last record.
        head: u64,
        /// The signed one.
        n: u64,
        /// When.
        at: String,
    },
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Records, all chained and readable.
    pub records: u64,
    /// The last one.
    pub head: Generation,
    /// Its chained hash, in hexadecimal.
    pub hash: String,
    /// Signed heads, all found in the chain.
    pub checkpoints: usize,
    /// The last record that a signed head covers; what follows could be removed without a trace
    /// here.
    pub signed_up_to: u64,
    /// Bytes of an append that is under way, or that a crash has left.
    pub unfinished_bytes: u64,
}

/// Verifies the journal in `dir` against `checkpoints`, whose signatures the caller has checked.
///
/// # Errors
/// The first thing that does not hold.
pub fn verify(dir: &Path, checkpoints: &[Checkpoint]) -> Result<Verified, VerifyError> {
    let mut signed: BTreeMap<u64, Vec<&Checkpoint>> = BTreeMap::new();
    for checkpoint in checkpoints {
        signed
            .entry(checkpoint.generation.n)
            .or_default()
            .push(checkpoint);
    }
    let mut previous = Head::default();
    let mut wrong = None;
    let mut records = 0u64;
    let mut follower = Follower::new(dir);
    let Rest { unfinished } = follower.read(&mut |record| {
        if wrong.is_none() {
            wrong = check(&record, previous, signed.get(&record.generation.n)).err();
        }
        previous = Head::of(&record);
        records = records.saturating_add(1);
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let head = follower.head();
    if let Some((n, missing)) = signed
        .range(head.generation.n.saturating_add(1)..)
        .next_back()
    {
        return Err(VerifyError::CutOff {
            head: head.generation.n,
            n: *n,
            at: missing
                .first()
                .map_or_else(String::new, |checkpoint| checkpoint.at.to_string()),
        });
    }
    Ok(Verified {
        records,
        head: head.generation,
        hash: hex(&head.hash),
        checkpoints: checkpoints.len(),
        signed_up_to: signed.keys().next_back().copied().unwrap_or(0),
        unfinished_bytes: unfinished,
    })
}

fn check(
    record: &EncodedRecord,
    previous: Head,
    signed: Option<&Vec<&Checkpoint>>,
) -> Result<(), VerifyError> {
    record
        .follow(previous.generation, &previous.hash)
        .map_err(|error| VerifyError::Record {
            n: record.generation.n,
            why: error.to_string(),
        })?;
    let other = signed.into_iter().flatten().find(|checkpoint| {
        checkpoint.hash != record.hash || checkpoint.generation != record.generation
    });
    match other {
        None => Ok(()),
        Some(checkpoint) => Err(VerifyError::NotSigned {
            n: record.generation.n,
            at: checkpoint.at.to_string(),
        }),
    }
}
