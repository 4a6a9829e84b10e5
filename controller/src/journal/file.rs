//! Appending to the segment files.

use std::io;
use std::path::{Path, PathBuf};

use gatereeve_controller_core::audit::chain::EncodedRecord;
use thiserror::Error;

use super::Head;
use super::disk::{Disk, Medium};
use super::format::{self, SEGMENT_HEADER, SegmentHeader};
use super::scan::segment_path;

/// A segment is closed when it has grown to this many bytes.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Why records were not appended. None of them is in the journal.
#[derive(Debug, Error)]
pub enum AppendError {
    /// They do not follow the head: an append before them failed.
    #[error("it was staged behind a change that could not be written")]
    NotNext,
    /// They do not fit the format.
    #[error("{0}")]
    TooLarge(String),
    /// The disk refused.
    #[error("cannot {what} the journal: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl AppendError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// The journal, open for appending. One process at a time: the caller holds the state's lock.
#[derive(Debug)]
pub struct FileJournal {
    dir: PathBuf,
    disk: Box<dyn Disk>,
    head: Head,
    segment: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    header: SegmentHeader,
    medium: Box<dyn Medium>,
    /// Bytes up to the end of the last acknowledged batch.
    end: u64,
    state: SegmentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentState {
    /// Ends at `end`.
    Clean,
    /// May have bytes of a failed write behind `end`.
    Dirty,
    /// A sync failed: the kernel may have dropped what it could not write, and a later success
    /// would not say so. The handle is not used again.
    Dead,
}

impl FileJournal {
    /// A journal whose last record is `head`. `last` is the segment to go on in, with its header and
    /// the byte behind its last batch.
    pub(super) fn new(
        dir: &Path,
        disk: Box<dyn Disk>,
        head: Head,
        last: Option<(PathBuf, SegmentHeader, u64)>,
    ) -> io::Result<Self> {
        let segment = match last {
            Some((path, header, end)) => Some(Segment {
                medium: disk.open(&path)?,
                path,
                header,
                end,
                state: SegmentState::Clean,
            }),
            None => None,
        };
        Ok(Self {
            dir: dir.to_owned(),
            disk,
            head,
            segment,
        })
    }

    /// The last record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Appends `records`, durably and all or none.
    ///
    /// # Errors
    /// None of them is in the journal, and the next append goes on as if this one had not been.
    pub fn append(&mut self, records: &[EncodedRecord]) -> Result<(), AppendError> {
        let mut head = self.head;
        for record in records {
            if !head.is_followed_by(record) {
                return Err(AppendError::NotNext);
            }
            head = Head::of(record);
        }
        if records.is_empty() {
            return Ok(());
        }
        let segment = self.ready_segment()?;
        let bytes =
            format::encode_batch(&segment.header.salt, records).map_err(AppendError::TooLarge)?;
        if let Err(error) = segment.medium.append(&bytes) {
            segment.state = SegmentState::Dirty;
            // Give the space back at once; if that fails too, the next append tries again first.
            if segment.medium.truncate(segment.end).is_ok() {
                segment.state = SegmentState::Clean;
            }
            return Err(AppendError::io("write")(error));
        }
        if let Err(error) = segment.medium.sync() {
            segment.state = SegmentState::Dead;
            let (path, end) = (segment.path.clone(), segment.end);
            // Best effort now, so that a crash in this moment does not find the batch.
            if let Ok(mut fresh) = self.disk.open(&path) {
                drop(fresh.truncate(end));
            }
            return Err(AppendError::io("sync")(error));
        }
        segment.end = segment
            .end
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.head = head;
        Ok(())
    }

    /// A segment that ends where the next batch goes.
    fn ready_segment(&mut self) -> Result<&mut Segment, AppendError> {
        if let Some(segment) = &mut self.segment {
            match segment.state {
                SegmentState::Clean => {}
                SegmentState::Dirty => {
                    let cut = segment.medium.truncate(segment.end);
                    cut.map_err(AppendError::io("cut a failed write from"))?;
                    segment.state = SegmentState::Clean;
                }
                SegmentState::Dead => self.leave_dead_segment()?,
            }
        }
        let is_full = |segment: &Segment| segment.end >= SEGMENT_BYTES;
        if self.segment.as_ref().is_none_or(is_full) {
            self.segment = Some(self.create_segment()?);
        }
        // The branch above has just filled it.
        self.segment.as_mut().ok_or(AppendError::NotNext)
    }

    /// Cuts what a failed sync may have left, through a handle of its own, and leaves the segment for
    /// a new one.
    fn leave_dead_segment(&mut self) -> Result<(), AppendError> {
        let Some(segment) = &self.segment else {
            return Ok(());
        };
        let what = "mend";
        if segment.end <= SEGMENT_HEADER as u64 {
            // It has no batch, so the next segment takes its name.
            match self.disk.remove(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(AppendError::io(what)(error));
                }
                Ok(()) | Err(_) => {}
            }
            self.disk
                .sync_dir(&self.dir)
                .map_err(AppendError::io(what))?;
        } else {
            let mut fresh = self
                .disk
                .open(&segment.path)
                .map_err(AppendError::io(what))?;
            fresh.truncate(segment.end).map_err(AppendError::io(what))?;
        }
        self.segment = None;
        Ok(())
    }

    fn create_segment(&self) -> Result<Segment, AppendError> {
        let what = "start a segment of";
        let mut salt = [0; 32];
        getrandom::fill(&mut salt)
            .map_err(|error| AppendError::io(what)(io::Error::other(error.to_string())))?;
        let header = SegmentHeader {
            salt,
            before: self.head,
        };
        let path = segment_path(&self.dir, self.head.generation.n.saturating_add(1));
        // A creation that failed half-way left a file without a batch.
        match self.disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(AppendError::io(what)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut medium = self.disk.create(&path).map_err(AppendError::io(what))?;
        medium
            .append(&header.encode())
            .and_then(|()| medium.sync())
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(AppendError::io(what))?;
        Ok(Segment {
            path,
            header,
            medium,
            end: SEGMENT_HEADER as u64,
            state: SegmentState::Clean,
        })
    }
}
