//! Reading one segment: its whole batches, and what stands behind them.

use std::path::{Path, PathBuf};

use gatereeve_controller_core::audit::chain::EncodedRecord;
use thiserror::Error;

use super::Head;
use super::format::{self, Parsed, SegmentHeader};

/// Why a journal cannot be used as it is.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Records that were acknowledged are damaged.
    #[error(
        "the journal is damaged in {path} at byte {offset}, behind record {after}: {reason}. \
         Records from there on were acknowledged, so nothing was cut or changed. \
         To mend it, put back an intact copy of that file, or restore a backup into an empty \
         state directory with `gatereeve-controller restore FILE`"
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The last record that is intact.
        after: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A segment was written by a newer version.
    #[error(
        "{path} is of version {found} of the journal's format, and this program knows {known}: a newer version \
         wrote it, and nothing was changed. Run that version again, or restore a backup that this version made"
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The version known here.
        known: u8,
    },
    /// The journal ends before what is known to have been acknowledged.
    #[error(
        "the journal in {dir} ends at record {head}, but record {known} was acknowledged \
         ({witness} know it): its end is missing. Put the missing segment files back, or restore \
         a backup into an empty state directory with `gatereeve-controller restore FILE`"
    )]
    Short {
        /// The journal's folder.
        dir: PathBuf,
        /// Its last record.
        head: u64,
        /// The record that should be there.
        known: u64,
        /// Who says so.
        witness: &'static str,
    },
}

impl JournalError {
    pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// Refuses a segment that says it is of a version newer than ours: what is in it is not damage.
///
/// # Errors
/// [`JournalError::Newer`].
pub fn check_version(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    match format::segment_version(bytes) {
        // With our number in its place the header would hold: then the number is what is damaged.
        Some(found)
            if found > format::SEGMENT_VERSION && !format::is_ours_but_for_version(bytes) =>
        {
            Err(JournalError::Newer {
                path: path.to_owned(),
                found,
                known: format::SEGMENT_VERSION,
            })
        }
        Some(_) | None => Ok(()),
    }
}

/// How the reading of a segment ended.
#[derive(Debug)]
pub struct End {
    /// The byte behind the last whole batch.
    pub offset: usize,
    /// What is wrong behind it; `None` at the end of the file.
    pub torn: Option<Torn>,
}

/// Bytes behind the last whole batch.
#[derive(Debug)]
pub struct Torn {
    /// What they are not.
    pub reason: String,
    /// Whether they may be the remains of an append that was never acknowledged: nothing valid
    /// follows them.
    pub may_be_cut: bool,
}

/// Reads the batches of `bytes` from `offset` on, advances `head` over them and hands each record to
/// `visit`.
pub fn scan(
    header: &SegmentHeader,
    bytes: &[u8],
    offset: usize,
    head: &mut Head,
    visit: &mut dyn FnMut(EncodedRecord),
) -> End {
    let mut offset = offset;
    loop {
        let rest = bytes.get(offset..).unwrap_or_default();
        let torn = match format::parse_batch(&header.salt, rest) {
            Parsed::End => None,
            Parsed::Torn(reason) => Some(Torn {
                reason: reason.to_owned(),
                may_be_cut: format::find_batch(&header.salt, rest.get(1..).unwrap_or_default())
                    .is_none(),
            }),
            Parsed::Wrong(reason) => Some(Torn {
                reason: reason.to_owned(),
                may_be_cut: false,
            }),
            Parsed::Batch(records, used) => match breaks_at(*head, &records) {
                Some(n) => Some(Torn {
                    reason: format!("record {n} is not chained to the one before it"),
                    may_be_cut: false,
                }),
                None => {
                    for record in records {
                        *head = Head::of(&record);
                        visit(record);
                    }
                    offset = offset.saturating_add(used);
                    continue;
                }
            },
        };
        return End { offset, torn };
    }
}

/// The number of the first record that does not follow the one before it.
fn breaks_at(head: Head, records: &[EncodedRecord]) -> Option<u64> {
    let mut head = head;
    for record in records {
        if !head.is_followed_by(record) {
            return Some(record.generation.n);
        }
        head = Head::of(record);
    }
    None
}

/// A segment file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentFile {
    /// Number of its first record.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// The name of the segment whose first record is `first`.
#[must_use]
pub fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.log"))
}

/// The segments of a journal, oldest first. Files of other names are left alone.
///
/// # Errors
/// [`JournalError::Io`] where the folder cannot be read.
pub fn segments(dir: &Path) -> Result<Vec<SegmentFile>, JournalError> {
    let entries = std::fs::read_dir(dir).map_err(|error| JournalError::io("read", dir, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| JournalError::io("read", dir, error))?
            .path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        let first = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|stem| stem.len() == 20)
            .and_then(|stem| stem.parse().ok());
        if let (true, Some(first)) = (is_log, first) {
            files.push(SegmentFile { first, path });
        }
    }
    files.sort();
    Ok(files)
}
