//! From the files of a state directory to the state in force.

use std::collections::BTreeMap;

use anyhow::Context as _;
use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::soft::SoftState;
use gatereeve_runtime::keyfile;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::time::UnixMillis;
use thiserror::Error;
use tracing::{info, warn};

use crate::journal::file::FileJournal;
use crate::journal::open::{Floor, open};
use crate::state_dir::StateDir;
use crate::state_dir::checkpoints::{self, CheckpointFile};
use crate::state_dir::lock::StateLock;
use crate::state_dir::settings::Settings;
use crate::store::{Loaded, Store};
use crate::upgrade::{FORMAT, migrate};

/// All that a controller needs to go on.
#[derive(Debug)]
pub struct Recovered {
    /// Held as long as the state is used.
    pub lock: StateLock,
    /// The network's key.
    pub network_key: IdentityKey,
    /// The key of this controller's TLS.
    pub tls_key: IdentityKey,
    /// What `init` settled.
    pub settings: Settings,
    /// The journal, open for appending.
    pub journal: FileJournal,
    /// The tables, caught up with the journal.
    pub store: Store,
    /// The checkpoint file, open for appending.
    pub checkpoints: CheckpointFile,
    /// The fold of the journal.
    pub state: State,
    /// What may have been lost.
    pub soft: SoftState,
    /// What an administrator should know about this start.
    pub notes: Vec<String>,
}

/// Why the state cannot be used, beyond what the single files say.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The journal's records and what others remember of them differ.
    #[error(
        "record {n} of the journal is not the one that {witness} saw: the journal was changed \
         since. Put the right journal back, or restore a backup into an empty state directory \
         with `gatereeve-controller restore FILE`{hint}"
    )]
    OtherHistory {
        /// Which record.
        n: u64,
        /// Who remembers another.
        witness: &'static str,
        /// What else may be done.
        hint: &'static str,
    },
    /// A record is chained right and cannot be read: it was written by a newer version.
    #[error("record {n} of the journal cannot be read by this version: {why}")]
    Unreadable {
        /// Which record.
        n: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Takes the lock and brings everything up to the journal's head.
///
/// # Errors
/// The state is not initialised, in use, or damaged where that cannot be mended without loss.
pub fn recover(dir: &StateDir, now: UnixMillis) -> anyhow::Result<Recovered> {
    anyhow::ensure!(
        dir.is_initialised(),
        "there is no controller state in {}; make it with `gatereeve-controller init --state-dir {0}`",
        dir.root().display()
    );
    // Before the lock, which is a write: what a newer version made stays as it is.
    FORMAT.read(dir.root())?;
    keyfile::check_directory(dir.root())?;
    let lock = StateLock::take(&dir.lock())?;
    let migrated = migrate(dir, &lock)?;
    let network_key = dir.load_network_key()?;
    let tls_key = dir.load_tls_key()?;
    let settings = Settings::load(&dir.settings())?;
    let signed = checkpoints::load(&dir.checkpoints(), &network_key.public())?;
    let Loaded {
        store,
        state,
        soft,
        set_aside,
    } = Store::load(&dir.tables(), now)?;
    let floor = Floor {
        checkpoint: signed.last().map_or(0, |last| last.generation.n),
        tables: state.generation().n,
    };
    let tables_at = state.generation();
    let mut fold = Fold::new(state, &signed);
    let opened = open(&dir.journal(), floor, &mut |record| fold.take(&record))?;
    let state = fold.finish()?;
    if state.generation() != tables_at {
        store.replace(&state)?;
        // Or a start that does not last would be followed by one that catches all of it up again.
        if let Err(error) = store.flush() {
            warn!(error = %error, "tables were not flushed");
        }
        info!(
            from = tables_at.n,
            to = state.generation().n,
            "tables caught up with the journal"
        );
    }
    let mut notes = Vec::new();
    if let Some(migrated) = migrated {
        let holds = if dir.network_key().exists() {
            "which holds the network's key"
        } else {
            "without the network's key, which is sealed: restoring it takes the key's credential"
        };
        notes.push(format!(
            "the state was brought from format {} to {}; what it was before is in {}, {holds}",
            migrated.from,
            migrated.to,
            migrated.backup.display()
        ));
    }
    if let Some((aside, why)) = set_aside {
        notes.push(format!(
            "the tables were damaged ({why}) and were rebuilt from the journal; the damaged ones are in {}",
            aside.display()
        ));
    }
    if opened.cut > 0 {
        warn!(bytes = opened.cut, "cut an append that was never finished");
    }
    Ok(Recovered {
        lock,
        network_key,
        tls_key,
        settings,
        journal: opened.journal,
        store,
        checkpoints: CheckpointFile::open(&dir.checkpoints())
            .with_context(|| format!("cannot open {}", dir.checkpoints().display()))?,
        state,
        soft,
        notes,
    })
}

/// Folds the journal into a state that may already hold its beginning.
#[derive(Debug)]
pub struct Fold {
    state: State,
    signed: BTreeMap<u64, Checkpoint>,
    error: Option<RecoverError>,
}

impl Fold {
    /// Goes on from `state`, and compares with what was signed.
    #[must_use]
    pub fn new(state: State, signed: &[Checkpoint]) -> Self {
        Self {
            state,
            signed: signed
                .iter()
                .map(|checkpoint| (checkpoint.generation.n, checkpoint.clone()))
                .collect(),
            error: None,
        }
    }

    /// The next record of the journal, from the first on.
    pub fn take(&mut self, record: &EncodedRecord) {
        if self.error.is_none() {
            self.error = self.try_take(record).err();
        }
    }

    fn try_take(&mut self, record: &EncodedRecord) -> Result<(), RecoverError> {
        let n = record.generation.n;
        let differs = |witness, hint| RecoverError::OtherHistory { n, witness, hint };
        if self.signed.get(&n).is_some_and(|signed| {
            signed.hash != record.hash || signed.generation != record.generation
        }) {
            return Err(differs("a signed checkpoint", ""));
        }
        let held = self.state.generation();
        if n < held.n {
            return Ok(());
        }
        if n == held.n {
            return if self.state.head() == record.hash && held == record.generation {
                Ok(())
            } else {
                Err(differs(
                    "the tables",
                    "; if the journal is right, move the folder `tables` away and it is rebuilt",
                ))
            };
        }
        let unreadable = |why: String| RecoverError::Unreadable { n, why };
        let decoded = record
            .follow(held, &self.state.head())
            .map_err(|error| unreadable(error.to_string()))?;
        self.state.apply(&decoded, record.hash);
        Ok(())
    }

    /// The state at the journal's head.
    ///
    /// # Errors
    /// The first record that did not fit.
    pub fn finish(self) -> Result<State, RecoverError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.state),
        }
    }
}
