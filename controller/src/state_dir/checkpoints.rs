//! The file of signed heads: one JSON object on each line, oldest first.
//!
//! Whoever holds a copy of a line can tell whether records up to it were changed since.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use gatereeve_runtime::state_file;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::identity_key::IdentityPublicKey;
use thiserror::Error;

/// Most bytes of the file.
pub(crate) const LIMIT: u64 = 256 * 1024 * 1024;

/// Why the checkpoints cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line is no checkpoint, or not one of this network.
    #[error("line {line} of {path} is not a checkpoint of this network: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// The checkpoints in the file at `path`; none where there is no file. An unfinished last line is
/// what a crash leaves, and is skipped.
///
/// # Errors
/// [`CheckpointError`], also for a signature that `network` did not make.
pub fn load(path: &Path, network: &IdentityPublicKey) -> Result<Vec<Checkpoint>, CheckpointError> {
    verified(path, state_file::read_to_string(path, LIMIT), network)
}

/// The same of a copy that somebody names: whoever does may name a link or a pipe.
///
/// # Errors
/// As [`load`].
pub fn load_copy(
    path: &Path,
    network: &IdentityPublicKey,
) -> Result<Vec<Checkpoint>, CheckpointError> {
    verified(path, std::fs::read_to_string(path), network)
}

fn verified(
    path: &Path,
    text: io::Result<String>,
    network: &IdentityPublicKey,
) -> Result<Vec<Checkpoint>, CheckpointError> {
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(CheckpointError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let bad = |line: usize, why: String| CheckpointError::Line {
        path: path.to_owned(),
        line: line.saturating_add(1),
        why,
    };
    let mut checkpoints: Vec<Checkpoint> = Vec::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        let checkpoint: Checkpoint =
            serde_json::from_str(line).map_err(|error| bad(number, error.to_string()))?;
        checkpoint
            .verify(network)
            .map_err(|error| bad(number, error.to_string()))?;
        if checkpoints
            .last()
            .is_some_and(|last| last.generation > checkpoint.generation)
        {
            return Err(bad(number, "it is older than the one before it".to_owned()));
        }
        checkpoints.push(checkpoint);
    }
    Ok(checkpoints)
}

/// The file, open for appending.
#[derive(Debug)]
pub struct CheckpointFile {
    file: File,
}

impl CheckpointFile {
    /// Opens the file, makes it where there is none, and cuts an unfinished last line.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let whole = match std::fs::read(path) {
            Ok(bytes) => bytes
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at.saturating_add(1)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file })
    }

    /// Appends a checkpoint, durably.
    ///
    /// # Errors
    /// What the file system says; the file is as before then, as far as it lets us.
    pub fn append(&mut self, checkpoint: &Checkpoint) -> io::Result<()> {
        let mut line = serde_json::to_vec(checkpoint)?;
        line.push(b'\n');
        let before = self.file.stream_position()?;
        let written = self
            .file
            .write_all(&line)
            .and_then(|()| self.file.sync_data());
        if written.is_err() {
            self.file.set_len(before)?;
            self.file.seek(SeekFrom::Start(before))?;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::generation::Generation;
    use gatereeve_shared::identity::identity_key::IdentityKey;
    use gatereeve_shared::time::UnixMillis;

    use super::*;

    fn checkpoint(key: &IdentityKey, n: u64) -> Checkpoint {
        let generation = Generation { incarnation: 0, n };
        Checkpoint::sign(key, generation, [7; 32], UnixMillis(n))
    }

    #[test]
    fn checkpoints_read_back_and_an_unfinished_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let key = IdentityKey::from_seed(&[1; 32]);
        let all = [checkpoint(&key, 3), checkpoint(&key, 9)];
        assert_eq!(load(&path, &key.public()).unwrap(), vec![]);
        for one in &all {
            CheckpointFile::open(&path).unwrap().append(one).unwrap();
        }
        assert_eq!(load(&path, &key.public()).unwrap(), all);
        let whole = std::fs::read(&path).unwrap();
        let torn = [whole.as_slice(), b"{\"gener"].concat();
        std::fs::write(&path, torn).unwrap();
        assert_eq!(load(&path, &key.public()).unwrap(), all);
        drop(CheckpointFile::open(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            load(&link, &key.public()),
            Err(CheckpointError::Io { .. })
        ));
        assert_eq!(load_copy(&link, &key.public()).unwrap(), all);
    }

    #[test]
    fn forged_and_edited_lines_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let key = IdentityKey::from_seed(&[1; 32]);
        let other = IdentityKey::from_seed(&[2; 32]);
        let mut file = CheckpointFile::open(&path).unwrap();
        file.append(&checkpoint(&key, 3)).unwrap();
        assert!(load(&path, &key.public()).is_ok());
        file.append(&checkpoint(&other, 4)).unwrap();
        assert!(matches!(
            load(&path, &key.public()),
            Err(CheckpointError::Line { line: 2, .. })
        ));
        let edited = std::fs::read_to_string(&path)
            .unwrap()
            .replacen("\"n\":3", "\"n\":2", 1);
        std::fs::write(&path, edited).unwrap();
        assert!(matches!(
            load(&path, &key.public()),
            Err(CheckpointError::Line { line: 1, .. })
        ));
    }
}
