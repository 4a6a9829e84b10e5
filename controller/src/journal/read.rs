//! Reading the journal while the daemon writes it: for the audit commands and for backups.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_runtime::state_file;

use super::Head;
use super::file::SEGMENT_BYTES;
use super::format::{MAX_BODY, SEGMENT_HEADER, SegmentHeader};
use super::scan::{self, JournalError, SegmentFile};

/// More bytes than any segment has: a full one that takes one more batch.
const MOST: u64 = 2 * (SEGMENT_BYTES + MAX_BODY as u64);

/// A reader that remembers how far it got. It holds no lock and changes nothing.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    head: Head,
    current: Option<Position>,
}

#[derive(Debug)]
struct Position {
    file: SegmentFile,
    header: SegmentHeader,
    offset: usize,
}

/// What a call of [`Follower::read`] found at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// Bytes of an append that is not finished: under way now, or left by a crash.
    pub unfinished: u64,
}

impl Follower {
    /// A reader from the journal's first record on.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            head: Head::default(),
            current: None,
        }
    }

    /// The last record read.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Whole batches that were read, as the segments they are in and the bytes up to their end.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn extent(&self) -> Result<Vec<(SegmentFile, u64)>, JournalError> {
        let Some(current) = &self.current else {
            return Ok(Vec::new());
        };
        let mut extent = Vec::new();
        for file in scan::segments(&self.dir)? {
            if file.first < current.file.first {
                let length = std::fs::metadata(&file.path)
                    .map_err(|error| JournalError::io("read", &file.path, error))?
                    .len();
                extent.push((file, length));
            }
        }
        extent.push((current.file.clone(), current.offset as u64));
        Ok(extent)
    }

    /// Hands every whole record behind the last one read to `visit`.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] where something valid follows what is damaged.
    pub fn read(&mut self, visit: &mut dyn FnMut(EncodedRecord)) -> Result<Rest, JournalError> {
        loop {
            // Listed before the current segment is read: when there is a next one, the current one
            // is complete.
            let files = scan::segments(&self.dir)?;
            let done = self.current.as_ref().map_or(0, |p| p.file.first);
            let next = files.into_iter().find(|file| file.first > done);
            let rest = self.read_current(next.is_none(), visit)?;
            let Some(next) = next else {
                return Ok(rest);
            };
            if !self.enter(next)? {
                return Ok(rest);
            }
        }
    }

    /// Starts on a segment; false where its header is not written yet.
    fn enter(&mut self, file: SegmentFile) -> Result<bool, JournalError> {
        let bytes = read_from(&file.path, 0, SEGMENT_HEADER as u64)?;
        scan::check_version(&file.path, &bytes)?;
        if bytes.len() < SEGMENT_HEADER {
            return Ok(false);
        }
        let header = SegmentHeader::decode(&bytes)
            .ok_or_else(|| self.damaged(&file.path, 0, "the segment's header is damaged"))?;
        if header.before != self.head || self.head.generation.n.checked_add(1) != Some(file.first) {
            return Err(self.damaged(
                &file.path,
                0,
                "the segment does not follow the one before it: a segment is missing or misplaced",
            ));
        }
        self.current = Some(Position {
            file,
            header,
            offset: SEGMENT_HEADER,
        });
        Ok(true)
    }

    fn read_current(
        &mut self,
        is_last: bool,
        visit: &mut dyn FnMut(EncodedRecord),
    ) -> Result<Rest, JournalError> {
        let Some(mut current) = self.current.take() else {
            return Ok(Rest::default());
        };
        let bytes = read_from(&current.file.path, current.offset as u64, MOST)?;
        let end = scan::scan(&current.header, &bytes, 0, &mut self.head, visit);
        let base = current.offset;
        current.offset = base.saturating_add(end.offset);
        let path = current.file.path.clone();
        let at = current.offset as u64;
        self.current = Some(current);
        match end.torn {
            None => Ok(Rest::default()),
            Some(torn) if is_last && torn.may_be_cut => Ok(Rest {
                unfinished: bytes.len().saturating_sub(end.offset) as u64,
            }),
            Some(torn) => Err(self.damaged(&path, at, &torn.reason)),
        }
    }

    fn damaged(&self, path: &Path, offset: u64, reason: &str) -> JournalError {
        JournalError::Damaged {
            path: path.to_owned(),
            offset,
            after: self.head.generation.n,
            reason: reason.to_owned(),
        }
    }
}

fn read_from(path: &Path, offset: u64, limit: u64) -> Result<Vec<u8>, JournalError> {
    let read = || {
        let mut file = state_file::open_in_folder(path)?;
        if file.metadata()?.len() > MOST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is longer than any segment",
            ));
        }
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| JournalError::io("read", path, error))
}
