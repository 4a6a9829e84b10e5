//! Opening the journal after a stop, whatever the stop was.

use std::fs::File;
use std::path::{Path, PathBuf};

use gatereeve_controller_core::audit::chain::EncodedRecord;

use super::Head;
use super::disk::{Disk, RealDisk};
use super::file::FileJournal;
use super::format::{BATCH_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::scan::{self, End, JournalError, SegmentFile};

/// What others know to have been acknowledged: the journal must reach at least this far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floor {
    /// Number of the last signed checkpoint's record.
    pub checkpoint: u64,
    /// Number of the last record that the tables hold.
    pub tables: u64,
}

impl Floor {
    fn known(self) -> u64 {
        self.checkpoint.max(self.tables)
    }

    fn witness(self) -> &'static str {
        if self.checkpoint >= self.tables {
            "the signed checkpoints"
        } else {
            "the tables"
        }
    }
}

/// What opening found.
#[derive(Debug)]
pub struct Opened {
    /// The journal.
    pub journal: FileJournal,
    /// Bytes of an unfinished append that were cut from its end.
    pub cut: u64,
}

/// Opens the journal in `dir`, checks every record and the chain, hands each record to `visit`, and
/// cuts what an append that was never acknowledged has left at the end.
///
/// # Errors
/// [`JournalError::Damaged`] where acknowledged records are damaged, [`JournalError::Short`] where
/// the end is missing. Nothing is changed then.
pub fn open(
    dir: &Path,
    floor: Floor,
    visit: &mut dyn FnMut(EncodedRecord),
) -> Result<Opened, JournalError> {
    let files = scan::segments(dir)?;
    let mut walk = Walk {
        floor,
        head: Head::default(),
        cut: None,
        last: None,
    };
    for (index, file) in files.iter().enumerate() {
        let is_last = index.saturating_add(1) == files.len();
        walk.segment(file, is_last, visit)?;
    }
    if walk.head.generation.n < floor.known() {
        return Err(JournalError::Short {
            dir: dir.to_owned(),
            head: walk.head.generation.n,
            known: floor.known(),
            witness: floor.witness(),
        });
    }
    let cut = walk.cut.map_or(Ok(0), Cut::carry_out)?;
    let journal = FileJournal::new(dir, Box::new(RealDisk), walk.head, walk.last)
        .map_err(|error| JournalError::io("open", dir, error))?;
    Ok(Opened { journal, cut })
}

/// What is to be cut, once the whole journal was found good.
enum Cut {
    Tail {
        path: PathBuf,
        offset: u64,
        length: u64,
    },
    File {
        path: PathBuf,
        length: u64,
    },
}

impl Cut {
    fn carry_out(self) -> Result<u64, JournalError> {
        let (done, path, length) = match self {
            Self::Tail {
                path,
                offset,
                length,
            } => {
                let cut = RealDisk
                    .open(&path)
                    .and_then(|mut file| file.truncate(offset));
                (cut, path, length)
            }
            Self::File { path, length } => {
                let removed = std::fs::remove_file(&path).and_then(|()| match path.parent() {
                    Some(dir) => File::open(dir)?.sync_all(),
                    None => Ok(()),
                });
                (removed, path, length)
            }
        };
        match done {
            Ok(()) => Ok(length),
            Err(error) => Err(JournalError::io(
                "cut an unfinished append from",
                &path,
                error,
            )),
        }
    }
}

struct Walk {
    floor: Floor,
    head: Head,
    cut: Option<Cut>,
    last: Option<(PathBuf, SegmentHeader, u64)>,
}

impl Walk {
    fn segment(
        &mut self,
        file: &SegmentFile,
        is_last: bool,
        visit: &mut dyn FnMut(EncodedRecord),
    ) -> Result<(), JournalError> {
        let path = &file.path;
        let bytes = std::fs::read(path).map_err(|error| JournalError::io("read", path, error))?;
        let length = |from: usize| bytes.len().saturating_sub(from) as u64;
        let is_acknowledged = self.head.generation.n < self.floor.known();
        scan::check_version(path, &bytes)?;
        let Some(header) = SegmentHeader::decode(&bytes) else {
            // The header is synced before the first batch is written, so a file that has no room
            // for a batch was never used.
            if is_last && !is_acknowledged && bytes.len() < SEGMENT_HEADER + BATCH_HEADER {
                self.cut = Some(Cut::File {
                    path: path.clone(),
                    length: length(0),
                });
                return Ok(());
            }
            return Err(self.damaged(path, 0, "the segment's header is damaged"));
        };
        if header.before != self.head || self.head.generation.n.checked_add(1) != Some(file.first) {
            return Err(self.damaged(
                path,
                0,
                "the segment does not follow the one before it: a segment is missing or misplaced",
            ));
        }
        let End { offset, torn } =
            scan::scan(&header, &bytes, SEGMENT_HEADER, &mut self.head, visit);
        if let Some(torn) = torn {
            let is_acknowledged = self.head.generation.n < self.floor.known();
            if !is_last || !torn.may_be_cut || is_acknowledged {
                return Err(self.damaged(path, offset as u64, &torn.reason));
            }
            self.cut = Some(Cut::Tail {
                path: path.clone(),
                offset: offset as u64,
                length: length(offset),
            });
        }
        self.last = Some((path.clone(), header, offset as u64));
        Ok(())
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
