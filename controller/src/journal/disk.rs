//! The few file operations that appending takes, behind a trait so that tests can make them fail.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// An open segment.
pub trait Medium: Debug + Send {
    /// Writes at the end.
    ///
    /// # Errors
    /// Some of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    ///
    /// # Errors
    /// What was written since the last success may or may not be durable, and asking again does
    /// not tell.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts everything behind `length`, durably.
    ///
    /// # Errors
    /// The file may still be longer.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A folder of segments.
pub trait Disk: Debug + Send {
    /// Makes a file that does not exist yet.
    ///
    /// # Errors
    /// It may exist, empty.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Medium>>;
    /// Opens a file to append to.
    ///
    /// # Errors
    /// It is not there, or may not be written.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Medium>>;
    /// Removes a file.
    ///
    /// # Errors
    /// It may still be there.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations and removals in `dir` durable.
    ///
    /// # Errors
    /// They may or may not be durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The real one.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Medium>> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(RealFile(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl Medium for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is part of what fdatasync makes durable; times of access are not.
        self.0.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)?;
        self.0.seek(SeekFrom::Start(length))?;
        self.0.sync_all()
    }
}
