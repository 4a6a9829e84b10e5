//! Private keys in files that only their owner can read, or handed over by the service manager.
//!
//! systemd decrypts what `systemd-creds encrypt` has sealed (to the TPM, where there is one) and puts it
//! into `$CREDENTIALS_DIRECTORY`, which only the service sees. A seed that is found there under its name
//! is used, and the file of the state directory may be gone. A key is never taken from the command line
//! or from the environment itself.

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
    /// A directory of secrets is open to others.
    #[error("{} is open to others (mode {mode:04o}); it holds secrets: run chmod 700 on it", path.display())]
    DirectoryTooOpen {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There are two keys where one belongs.
    #[error("{} and the credential {} are different keys; find out which one is right, and move the other away", path.display(), credential.display())]
    TwoKeys {
        /// The file in the state directory.
        path: PathBuf,
        /// What the service manager handed over.
        credential: PathBuf,
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

/// What the service manager has set for this process, if anything.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A key that may come from a file or from the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySource<'a> {
    /// The file in the state directory.
    pub path: &'a Path,
    /// The credential's name.
    pub credential: &'a str,
}

impl KeySource<'_> {
    /// The key, wherever it is.
    ///
    /// # Errors
    /// [`KeyFileError`]; also where both places have one and they differ.
    pub fn load(&self) -> Result<IdentityKey, KeyFileError> {
        self.load_with(credentials().as_deref())
    }

    /// The same; made and written to the file where neither place has one.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_or_create(&self) -> Result<IdentityKey, KeyFileError> {
        match self.load() {
            Err(error) if error.is_missing() => load_or_create_seed(self.path),
            loaded => loaded,
        }
    }

    /// The seed as the service manager has handed it over, if it has.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn credential(&self) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
        match credentials() {
            Some(directory) => read_credential(&directory.join(self.credential)),
            None => Ok(None),
        }
    }

    fn load_with(&self, directory: Option<&Path>) -> Result<IdentityKey, KeyFileError> {
        let Some(credential) = directory.map(|directory| directory.join(self.credential)) else {
            return load_seed(self.path);
        };
        let Some(seed) = read_credential(&credential)? else {
            return load_seed(self.path);
        };
        let key = key_of(&credential, &seed)?;
        match load_seed(self.path) {
            Ok(file) if file.public() != key.public() => Err(KeyFileError::TwoKeys {
                path: self.path.to_owned(),
                credential,
            }),
            Err(error) if !error.is_missing() => Err(error),
            Ok(_) | Err(_) => Ok(key),
        }
    }
}

impl KeyFileError {
    /// Whether there is no such file at all.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn credentials() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS)
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from)
}

/// What the service manager has put there. The directory is its own and nobody else's, and the file
/// may belong to root with an entry for our user in its list of rights, so its mode says less than
/// elsewhere: it must not be for everybody.
fn read_credential(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(path)(source)),
    };
    let meta = file.metadata().map_err(io_error(path))?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(KeyFileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let mut seed = Zeroizing::new(Vec::with_capacity(SEED_LEN.saturating_add(2)));
    file.take(SEED_LEN as u64 + 1)
        .read_to_end(&mut seed)
        .map_err(io_error(path))?;
    Ok(Some(seed))
}

fn key_of(path: &Path, seed: &[u8]) -> Result<IdentityKey, KeyFileError> {
    match <&[u8; SEED_LEN]>::try_from(seed) {
        Ok(seed) => Ok(IdentityKey::from_seed(seed)),
        Err(_) => Err(KeyFileError::Length {
            path: path.to_owned(),
            len: u64::try_from(seed.len()).unwrap_or(u64::MAX),
        }),
    }
}

/// Refuses a directory that others may enter or read: secrets are in it.
///
/// # Errors
/// [`KeyFileError::DirectoryTooOpen`], and what the file system says.
pub fn check_directory(path: &Path) -> Result<(), KeyFileError> {
    let meta = std::fs::metadata(path).map_err(io_error(path))?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(KeyFileError::DirectoryTooOpen {
        path: path.to_owned(),
        mode,
    })
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
    key_of(path, &bytes)
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
    let (mode, expected) = (meta.mode() & 0o7777, rightful_owner(&path));
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

/// Whose the file must be: this process's user. Root also works on the state of another user, whose
/// directory it is then.
fn rightful_owner(path: &Path) -> u32 {
    let own = geteuid();
    let directory = path.parent().map(std::fs::metadata);
    match directory {
        Some(Ok(directory)) if own.is_root() => directory.uid(),
        _ => own.as_raw(),
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
    fn a_credential_goes_before_the_file_and_never_against_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.key");
        let given = directory.path().join("credentials");
        fs::create_dir(&given).unwrap();
        let source = KeySource {
            path: &path,
            credential: "network-key",
        };
        assert!(source.load_with(Some(&given)).unwrap_err().is_missing());
        let credential = given.join("network-key");
        let put = |bytes: &[u8], mode| {
            drop(fs::remove_file(&credential));
            fs::write(&credential, bytes).unwrap();
            fs::set_permissions(&credential, Permissions::from_mode(mode)).unwrap();
        };
        let key = |seed: u8| IdentityKey::from_seed(&[seed; 32]).public();
        for mode in [0o400, 0o440, 0o600] {
            put(&[7; 32], mode);
            assert_eq!(source.load_with(Some(&given)).unwrap().public(), key(7));
        }
        put(&[7; 32], 0o444);
        assert!(matches!(
            source.load_with(Some(&given)),
            Err(KeyFileError::TooOpen { .. })
        ));
        for wrong in [&b""[..], &[7; 31], &[7; 33], &[7; 4096]] {
            put(wrong, 0o400);
            assert!(matches!(
                source.load_with(Some(&given)),
                Err(KeyFileError::Length { .. })
            ));
        }
        put(&[7; 32], 0o400);
        atomic_file::write(&path, &[7; 32], 0o600).unwrap();
        assert_eq!(source.load_with(Some(&given)).unwrap().public(), key(7));
        atomic_file::write(&path, &[8; 32], 0o600).unwrap();
        assert!(matches!(
            source.load_with(Some(&given)),
            Err(KeyFileError::TwoKeys { .. })
        ));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            source.load_with(Some(&given)),
            Err(KeyFileError::TooOpen { .. })
        ));
        // Without a service manager it is the file alone.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(source.load_with(None).unwrap().public(), key(8));
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o750, 0o701, 0o755, 0o770] {
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            assert!(matches!(
                check_directory(directory.path()),
                Err(KeyFileError::DirectoryTooOpen { mode: found, .. }) if found == mode
            ));
        }
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        check_directory(directory.path()).unwrap();
        assert!(check_directory(&directory.path().join("none")).is_err());
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
        // In a directory of that user it is in its place, for root.
        std::os::unix::fs::chown(directory.path(), Some(12_345), None).unwrap();
        load_seed(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        assert!(matches!(
            load_seed(&path),
            Err(KeyFileError::ForeignOwner { owner: 0, .. })
        ));
    }
}
