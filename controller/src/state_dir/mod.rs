//! The controller's state directory: where everything is that a restart needs.
//!
//! | file | what |
//! |---|---|
//! | `network.key` | the network's Ed25519 seed; clients pin its public half |
//! | `tls.key` | the seed of this controller's TLS key, which the network key vouches for |
//! | `config` | the network's name, prefixes and the addresses that invites carry |
//! | `journal/` | every durable change ([`crate::journal`]) |
//! | `checkpoints` | signed heads of the journal |
//! | `tables/` | sled: the fold of the journal, rebuilt when lost |
//! | `format` | the number of the format of all of it; missing means 0, which release 0.1.0 wrote |
//! | `backups/` | what was there before each migration ([`crate::upgrade`]) |
//! | `last-backup` | when the command `backup` was last done |
//! | `lock` | held, with its process ID, by the one process that may write |

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use gatereeve_runtime::keyfile::{KeyFileError, KeySource};
use gatereeve_shared::identity::identity_key::IdentityKey;

pub mod checkpoints;
pub mod lock;
pub mod owner;
pub mod settings;
pub mod space;

/// Where the network's key is.
pub(crate) fn network_source(path: &Path) -> KeySource<'_> {
    KeySource {
        path,
        credential: "gatereeve-controller.network-key",
    }
}

/// Where the TLS key is.
pub(crate) fn tls_source(path: &Path) -> KeySource<'_> {
    KeySource {
        path,
        credential: "gatereeve-controller.tls-key",
    }
}

/// A state directory. Nothing is checked or made by constructing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The network's private key.
    #[must_use]
    pub fn network_key(&self) -> PathBuf {
        self.0.join("network.key")
    }

    /// The private key of this controller's TLS.
    #[must_use]
    pub fn tls_key(&self) -> PathBuf {
        self.0.join("tls.key")
    }

    /// The network's private key, from its file or from the service manager.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_network_key(&self) -> Result<IdentityKey, KeyFileError> {
        let path = self.network_key();
        network_source(&path).load()
    }

    /// The key of this controller's TLS, likewise.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn load_tls_key(&self) -> Result<IdentityKey, KeyFileError> {
        let path = self.tls_key();
        tls_source(&path).load()
    }

    /// Both, made where they are missing.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn make_keys(&self) -> Result<IdentityKey, KeyFileError> {
        let (network, tls) = (self.network_key(), self.tls_key());
        let key = network_source(&network).load_or_create()?;
        tls_source(&tls).load_or_create()?;
        Ok(key)
    }

    /// The network's settings.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.0.join("config")
    }

    /// The folder of the journal's segments.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Signed heads of the journal.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// The folder of the tables.
    #[must_use]
    pub fn tables(&self) -> PathBuf {
        self.0.join("tables")
    }

    /// The folder of the backups that are made by themselves.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.0.join("backups")
    }

    /// When the last backup was made ([`crate::backup::record`]).
    #[must_use]
    pub fn last_backup(&self) -> PathBuf {
        self.0.join("last-backup")
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Whether `init` or `restore` has finished here.
    #[must_use]
    pub fn is_initialised(&self) -> bool {
        self.settings().exists()
    }

    /// Makes the directory and its journal folder, for their owner alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700))?;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.journal())
    }
}
