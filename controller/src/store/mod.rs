//! The tables folded from the journal, in sled. The only user of sled.
//!
//! sled 0.34 is not durable when a write returns and has open reports of stores that do not reopen
//! after an unclean stop. So nothing here is the truth: what is missing is caught up from the journal
//! at start, and a store that cannot be opened or read is set aside and rebuilt.
//!
//! sled may also come back with some pages of the past and some of the present. So the hard rows carry
//! a digest of all of them, in the same batch; rows that do not add up to it are damage like any other.
//!
//! One tree; the first byte of a key tells hard rows (the fold of the journal, with the generation
//! and hash they were folded up to, in the same atomic batch) from soft ones (lost is unknown).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gatereeve_controller_core::audit::chain::chain;
use gatereeve_controller_core::output::TableWrites;
use gatereeve_controller_core::state::State;
use gatereeve_controller_core::state::soft::SoftState;
use gatereeve_shared::time::UnixMillis;
use thiserror::Error;
use tracing::warn;

pub mod keeper;

#[cfg(test)]
mod tests;

/// Memory that sled may use for its cache, in bytes.
const CACHE: u64 = 64 * 1024 * 1024;
/// How often sled tidies its file up, in milliseconds, and has the disk write what it holds, whether or not there is something.
/// An idle machine should not do that often; so what is written is flushed by the [`keeper`], which leaves it to the disk.
/// Not longer than this: a tidying takes up to half of it, and a stop waits for it.
const TIDY_EVERY: u64 = 10_000;
/// The key of the hard rows' digest.
const DIGEST: [u8; 1] = [0];
/// First byte of the keys of hard rows.
const HARD: u8 = 1;
/// First byte of the keys of soft rows.
const SOFT: u8 = 2;

/// Why the store cannot be used, where rebuilding it would not help.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refuses.
    #[error("cannot open the tables in {path}: {why}")]
    Refused {
        /// The store's folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A newer version wrote it.
    #[error(
        "the tables in {path} were written by a newer version: {why}. Nothing was changed. Run that version \
         again; or, to go back to this one, move the folder away: it is rebuilt from the journal"
    )]
    Newer {
        /// The store's folder.
        path: PathBuf,
        /// What is not known here.
        why: String,
    },
    /// A write or read of an open store failed.
    #[error("the tables cannot be used: {0}")]
    Failed(String),
}

/// The open store.
#[derive(Clone, Debug)]
pub struct Store {
    db: sled::Db,
}

/// What opening found.
#[derive(Debug)]
pub struct Loaded {
    /// The store.
    pub store: Store,
    /// The state that its rows hold: the empty one for a new store.
    pub state: State,
    /// Its soft rows.
    pub soft: SoftState,
    /// Where a store that could not be read was put, and what was wrong with it.
    pub set_aside: Option<(PathBuf, String)>,
}

impl Store {
    /// Opens the store in `path` and reads it. One that is corrupt is renamed, and an empty one
    /// takes its place.
    ///
    /// # Errors
    /// [`StoreError`] where an empty one cannot be made either.
    pub fn load(path: &Path, now: UnixMillis) -> Result<Loaded, StoreError> {
        let why = match Self::open(path).and_then(Self::read) {
            Ok(loaded) => return Ok(loaded),
            Err(OpenError::Refused(why)) => {
                return Err(StoreError::Refused {
                    path: path.to_owned(),
                    why,
                });
            }
            Err(OpenError::Newer(why)) => {
                return Err(StoreError::Newer {
                    path: path.to_owned(),
                    why,
                });
            }
            Err(OpenError::Corrupt(why)) => why,
        };
        let aside = path.with_file_name(format!("tables.damaged-{}", now.0));
        warn!(why = %why, aside = %aside.display(), "the tables are damaged and are rebuilt from the journal");
        let refused = |why: String| StoreError::Refused {
            path: path.to_owned(),
            why,
        };
        std::fs::rename(path, &aside)
            .map_err(|error| refused(format!("cannot set the damaged ones aside: {error}")))?;
        match Self::open(path).and_then(Self::read) {
            Ok(loaded) => Ok(Loaded {
                set_aside: Some((aside, why)),
                ..loaded
            }),
            Err(OpenError::Refused(why) | OpenError::Corrupt(why) | OpenError::Newer(why)) => {
                Err(refused(why))
            }
        }
    }

    fn open(path: &Path) -> Result<Self, OpenError> {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(TIDY_EVERY));
        // sled meets some kinds of damage with a panic.
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => Ok(Self { db }),
            Ok(Err(error)) => Err(OpenError::of(error)),
            Err(_) => Err(OpenError::Corrupt(
                "sled panicked on opening them".to_owned(),
            )),
        }
    }

    fn read(self) -> Result<Loaded, OpenError> {
        let (rows, digest) = catch_unwind(AssertUnwindSafe(|| {
            Ok((self.rows(HARD)?, self.stored_digest()?))
        }))
        .unwrap_or_else(|_| Err("sled panicked on reading them".to_owned()))
        .map_err(OpenError::Corrupt)?;
        let found = rows.iter().fold([0; 32], |digest, (key, value)| {
            xor(digest, digest_of(key, value))
        });
        if found != digest {
            let why = "the rows do not match their digest: some of them are missing or old";
            return Err(OpenError::Corrupt(why.to_owned()));
        }
        let state = if rows.is_empty() {
            State::empty()
        } else {
            State::from_tables(rows).map_err(|error| {
                if error.is_newer {
                    OpenError::Newer(error.to_string())
                } else {
                    OpenError::Corrupt(error.to_string())
                }
            })?
        };
        let soft = catch_unwind(AssertUnwindSafe(|| self.rows(SOFT)))
            .unwrap_or_else(|_| Err("sled panicked on reading them".to_owned()))
            .map(SoftState::from_rows)
            .map_err(OpenError::Corrupt)?;
        Ok(Loaded {
            store: self,
            state,
            soft,
            set_aside: None,
        })
    }

    fn rows(&self, kind: u8) -> Result<Vec<(Vec<u8>, Vec<u8>)>, String> {
        self.db
            .scan_prefix([kind])
            .map(|row| {
                let (key, value) = row.map_err(|error| error.to_string())?;
                Ok((key.get(1..).unwrap_or_default().to_vec(), value.to_vec()))
            })
            .collect()
    }

    /// All zero where there is none, as for no rows at all.
    fn stored_digest(&self) -> Result<[u8; 32], String> {
        match self.db.get(DIGEST).map_err(|error| error.to_string())? {
            None => Ok([0; 32]),
            Some(bytes) => <[u8; 32]>::try_from(bytes.as_ref())
                .map_err(|_| "the digest of the rows is malformed".to_owned()),
        }
    }

    /// Writes hard rows in one atomic batch. One thread at a time.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn write_hard(&self, writes: TableWrites) -> Result<(), StoreError> {
        let digest = catch_unwind(AssertUnwindSafe(|| self.digest_after(&writes)))
            .unwrap_or_else(|_| Err("sled panicked on a read".to_owned()))
            .map_err(StoreError::Failed)?;
        let mut batch = batch_of(HARD, writes);
        batch.insert(DIGEST.as_slice(), digest.as_slice());
        self.apply(batch)
    }

    /// The digest of the hard rows once these writes are done. A key that is written twice counts as
    /// the batch has it: the last write stands.
    fn digest_after(&self, writes: &TableWrites) -> Result<[u8; 32], String> {
        let last: BTreeMap<&[u8], Option<&[u8]>> = writes
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        let mut digest = self.stored_digest()?;
        for (key, value) in last {
            let old = self.db.get([[HARD].as_slice(), key].concat());
            if let Some(old) = old.map_err(|error| error.to_string())? {
                digest = xor(digest, digest_of(key, &old));
            }
            if let Some(value) = value {
                digest = xor(digest, digest_of(key, value));
            }
        }
        Ok(digest)
    }

    /// Writes soft rows.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn write_soft(&self, writes: TableWrites) -> Result<(), StoreError> {
        self.apply(batch_of(SOFT, writes))
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        catch_unwind(AssertUnwindSafe(|| self.db.apply_batch(batch)))
            .map_err(|_| StoreError::Failed("sled panicked on a write".to_owned()))?
            .map_err(|error| StoreError::Failed(error.to_string()))
    }

    /// Makes the hard rows those of `state`, in one atomic batch.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn replace(&self, state: &State) -> Result<(), StoreError> {
        let wanted: BTreeMap<_, _> = state.to_tables().into_iter().collect();
        let present: BTreeMap<_, _> = self
            .rows(HARD)
            .map_err(StoreError::Failed)?
            .into_iter()
            .collect();
        let gone = present
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .map(|key| (key.clone(), None));
        let put = wanted
            .iter()
            .filter(|(key, value)| present.get(*key) != Some(value))
            .map(|(key, value)| (key.clone(), Some(value.clone())));
        self.write_hard(gone.chain(put).collect())
    }

    /// Hands what was written to the operating system, so that it outlives the process. What a power loss leaves of it is up to
    /// file system and disk, until sled tidies up ([`TIDY_EVERY`]).
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn flush(&self) -> Result<(), StoreError> {
        match catch_unwind(AssertUnwindSafe(|| self.db.flush())) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(StoreError::Failed(error.to_string())),
            Err(_) => Err(StoreError::Failed("sled panicked on a flush".to_owned())),
        }
    }
}

fn batch_of(kind: u8, writes: TableWrites) -> sled::Batch {
    let mut batch = sled::Batch::default();
    for (key, value) in writes {
        let key = [[kind].as_slice(), &key].concat();
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    batch
}

/// What one row adds to the digest; the length keeps key and value apart.
fn digest_of(key: &[u8], value: &[u8]) -> [u8; 32] {
    let length = (key.len() as u64).to_be_bytes();
    chain(&[0; 32], &[length.as_slice(), key, value].concat())
}

fn xor(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut sum = a;
    sum.iter_mut().zip(b).for_each(|(to, from)| *to ^= from);
    sum
}

enum OpenError {
    /// Another store in this place would fare no better.
    Refused(String),
    /// Set it aside.
    Corrupt(String),
    /// Whole, and of a version that is not known here.
    Newer(String),
}

impl OpenError {
    fn of(error: sled::Error) -> Self {
        let text = error.to_string();
        match error {
            sled::Error::Io(io)
                if matches!(
                    io.kind(),
                    std::io::ErrorKind::PermissionDenied
                        | std::io::ErrorKind::StorageFull
                        | std::io::ErrorKind::ReadOnlyFilesystem
                        | std::io::ErrorKind::WouldBlock
                ) =>
            {
                Self::Refused(text)
            }
            sled::Error::Io(_)
            | sled::Error::Corruption { .. }
            | sled::Error::ReportableBug(_)
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_) => Self::Corrupt(text),
        }
    }
}
