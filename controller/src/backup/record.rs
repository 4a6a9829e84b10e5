//! When the last backup was made: for whoever asks whether there is one.

use gatereeve_runtime::{atomic_file, state_file};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::state_dir::StateDir;

/// Longest file that is looked at, in bytes.
const LIMIT: u64 = 4096;

/// The last backup that the command `backup` has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastBackup {
    /// When.
    pub at: UnixMillis,
    /// The last record in it.
    pub generation: Generation,
}

impl LastBackup {
    /// What the state directory says; `None` where it says nothing that can be read.
    #[must_use]
    pub fn load(dir: &StateDir) -> Option<Self> {
        let bytes = state_file::read(&dir.last_backup(), LIMIT).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes it. Root may make backups of another user's state, so the file is for that user to read;
    /// the directory keeps everybody else out.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, dir: &StateDir) -> std::io::Result<()> {
        let text = serde_json::to_vec(self)?;
        atomic_file::write(&dir.last_backup(), &text, 0o644)
    }
}
