//! Private keys in files that only their owner can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use gatereeve_shared::identity::identity_key::IdentityKey;
use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::atomic_file;

/// Bytes of a key file: the seed of RFC 8032, as it is.
const SEED_LEN: usize = 32;

/// Why a private file is not used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// It is a directory, a device, a socket.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("{} is open to others (mode {mode:04o}); it holds a secret: run chmod 600 on it, and replace the key if anyone may have read it", path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {owner}, not to user {expected} who runs this", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Whose it must be.
        expected: u32,
    },
    /// It is no key.
    #[error("{} is damaged: a key file has {SEED_LEN} bytes, this one has {len}; restore it from a backup", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// The key in the file at `path`; made, and written with mode 0600, where there is none.
///
/// # Errors
/// [`KeyFileError`]. A file that exists and is not right is never replaced.
pub fn load_or_create_seed(path: &Path) -> Result<IdentityKey, KeyFileError> {
    match load_seed(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        loaded => return loaded,
    }
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    getrandom::fill(seed.as_mut()).map_err(KeyFileError::Random)?;
    match atomic_file::create(path, seed.as_ref(), 0o600) {
        Ok(()) => Ok(IdentityKey::from_seed(&seed)),
        // Another process was faster: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_seed(path),
        Err(source) => Err(io_error(path)(source)),
    }
}

/// The key in the file at `path`.
///
/// # Errors
/// [`KeyFileError`].
pub fn load_seed(path: &Path) -> Result<IdentityKey, KeyFileError> {
    let bytes = read_private(path, SEED_LEN)?;
    match <&[u8; SEED_LEN]>::try_from(bytes.as_slice()) {
        Ok(seed) => Ok(IdentityKey::from_seed(seed)),
        Err(_) => Err(KeyFileError::Length {
            path: path.to_owned(),
            len: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        }),
    }
}

/// The content of a file that nobody else may read or write, zeroed when dropped. Links are not followed.
///
/// # Errors
/// [`KeyFileError`]; more than `limit` bytes are a [`KeyFileError::Length`].
pub fn read_private(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let io = io_error(path);
    let mut file = OpenOptions::new()
        .read(true)
        // A pipe in its place must not stall the start.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .map_err(&io)?;
    let len = check(path, &file)?;
    let mut bytes = Zeroizing::new(Vec::new());
    match usize::try_from(len) {
        // Room for all of it at once: growing would leave copies of the secret behind.
        Ok(fits) if fits <= limit => bytes.reserve_exact(fits.saturating_add(1)),
        _ => {
            return Err(KeyFileError::Length {
                path: path.to_owned(),
                len,
            });
        }
    }
    file.by_ref()
        .take(len)
        .read_to_end(&mut bytes)
        .map_err(&io)?;
    Ok(bytes)
}

/// Looks at the open file, not at the path, so that what was checked is what is read.
fn check(path: &Path, file: &File) -> Result<u64, KeyFileError> {
    let meta = file.metadata().map_err(io_error(path))?;
    let path = path.to_owned();
    let (mode, expected) = (meta.mode() & 0o7777, geteuid().as_raw());
    if !meta.is_file() {
        Err(KeyFileError::NotAFile { path })
    } else if meta.uid() != expected {
        let owner = meta.uid();
        Err(KeyFileError::ForeignOwner {
            path,
            owner,
            expected,
        })
    } else if mode & 0o077 != 0 {
        Err(KeyFileError::TooOpen { path, mode })
    } else {
        Ok(meta.len())
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> KeyFileError + use<> {
    let path = path.to_owned();
    move |source| KeyFileError::Io {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.key");
        let made = load_or_create_seed(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(load_or_create_seed(&path).unwrap().public(), made);
        assert_eq!(load_seed(&path).unwrap().public(), made);
        let other = directory.path().join("other.key");
        assert_ne!(load_or_create_seed(&other).unwrap().public(), made);
    }

    #[test]
    fn a_file_open_to_others_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        let made = load_or_create_seed(&path).unwrap().public();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(load_or_create_seed(&path), Err(KeyFileError::TooOpen { mode: found, .. }) if found == mode)
            );
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(load_seed(&path).unwrap().public(), made);
    }

    #[test]
    fn what_is_no_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        for content in [&b""[..], &[7; 31], &[7; 33]] {
            atomic_file::write(&path, content, 0o600).unwrap();
            assert!(matches!(
                load_or_create_seed(&path),
                Err(KeyFileError::Length { .. })
            ));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        atomic_file::write(&path, &[7; 32], 0o600).unwrap();
        assert!(load_seed(&path).is_ok());
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(load_seed(&link), Err(KeyFileError::Io { .. })));
        assert!(matches!(
            load_seed(directory.path()),
            Err(KeyFileError::NotAFile { .. })
        ));
    }

    #[test]
    fn a_foreign_file_is_refused() {
        if !geteuid().is_root() {
            return; // only root can give a file away
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("k");
        load_or_create_seed(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert!(matches!(
            load_seed(&path),
            Err(KeyFileError::ForeignOwner { owner: 12_345, .. })
        ));
    }
}
