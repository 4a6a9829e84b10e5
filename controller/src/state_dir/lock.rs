//! One writer per state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;

/// Why the state directory is not ours.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{path} is in use by process {holder}: one controller at a time may write its state. \
         Stop that process, or use another --state-dir"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The holder's process ID, as it wrote it.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The state directory is ours until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: Flock<File>,
}

impl StateLock {
    /// Takes the lock, or says who has it. Never waits.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(io_error)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(io_error)?;
                Ok(Self { _file: file })
            }
            Err((file, Errno::EWOULDBLOCK)) => Err(LockError::Held {
                path: path.to_owned(),
                holder: holder(file),
            }),
            Err((_, errno)) => Err(io_error(errno.into())),
        }
    }
}

/// What the holder wrote, if it is a process ID.
fn holder(file: File) -> String {
    let mut text = String::new();
    let unknown = || "unknown".to_owned();
    if file.take(32).read_to_string(&mut text).is_err() {
        return unknown();
    }
    text.trim()
        .parse::<u32>()
        .map_or_else(|_| unknown(), |pid| pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = StateLock::take(&path).unwrap();
        let refusal = StateLock::take(&path).unwrap_err();
        assert!(matches!(&refusal, LockError::Held { holder, .. }
            if *holder == std::process::id().to_string()));
        drop(first);
        StateLock::take(&path).unwrap();
    }
}
