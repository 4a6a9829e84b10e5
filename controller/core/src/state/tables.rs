//! The state as rows of a key-value store, and back.
//!
//! Keys begin with a letter for the table; numbers in them are big-endian, so that the order of
//! keys is numeric. Values begin with a version byte.

use std::net::Ipv4Addr;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::{DeviceId, InviteId};
use gatereeve_shared::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::State;
use crate::audit::record::RECORD;
use crate::output::TableWrites;

/// The form of every value so far.
const VERSION: u8 = 1;

/// A row that is not what it should be: the tables are to be rebuilt from the journal.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the row {key:02x?} of the tables cannot be read: {why}")]
pub struct TableError {
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong.
    pub why: String,
    /// Whether the row is of a version that is not known here yet.
    pub is_newer: bool,
}

/// One row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// Generation and hash of the last record applied.
    Head,
    /// A device.
    Device(DeviceId),
    /// An invite.
    Invite(InviteId),
    /// A revoked key.
    Tombstone(DeviceId),
    /// Addresses that nobody gets for now.
    Resting(Ipv4Addr),
    /// A policy revision.
    Policy(u64),
    /// A device's posture verdicts.
    Verdicts(DeviceId),
}

impl RowKey {
    /// The key's bytes.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Head => b"h".to_vec(),
            Self::Device(id) => [b"d".as_slice(), &id.0].concat(),
            Self::Invite(id) => [b"i".as_slice(), &id.0].concat(),
            Self::Tombstone(id) => [b"t".as_slice(), &id.0].concat(),
            Self::Resting(v4) => [b"a".as_slice(), &v4.octets()].concat(),
            Self::Policy(revision) => [b"p".as_slice(), &revision.to_be_bytes()].concat(),
            Self::Verdicts(id) => [b"v".as_slice(), &id.0].concat(),
        }
    }
}

impl State {
    /// All rows, in the order of their keys within each table.
    #[must_use]
    pub fn to_tables(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        std::iter::once(RowKey::Head)
            .chain(self.devices.keys().copied().map(RowKey::Device))
            .chain(self.invites.keys().copied().map(RowKey::Invite))
            .chain(self.tombstones.keys().copied().map(RowKey::Tombstone))
            .chain(self.resting.keys().copied().map(RowKey::Resting))
            .chain(self.policies.keys().copied().map(RowKey::Policy))
            .chain(self.verdicts.keys().copied().map(RowKey::Verdicts))
            .filter_map(|key| Some((key.to_bytes(), self.row(key)?)))
            .collect()
    }

    /// The writes that bring a store up to this state after a record touched `rows`.
    #[must_use]
    pub fn writes(&self, rows: impl IntoIterator<Item = RowKey>) -> TableWrites {
        rows.into_iter()
            .map(|key| (key.to_bytes(), self.row(key)))
            .collect()
    }

    /// The state behind its rows.
    ///
    /// # Errors
    /// [`TableError`] for a row of no table, a malformed one, or a missing head.
    pub fn from_tables<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, TableError> {
        let mut state = Self::empty();
        let mut has_head = false;
        for (key, value) in rows {
            let (key, value) = (key.as_ref(), value.as_ref());
            has_head |= key == b"h";
            state.read_row(key, value)?;
        }
        if !has_head {
            return Err(TableError {
                key: b"h".to_vec(),
                why: "it is missing".into(),
                is_newer: false,
            });
        }
        state.index();
        Ok(state)
    }

    fn row(&self, key: RowKey) -> Option<Vec<u8>> {
        match key {
            RowKey::Head => value(&(self.generation, self.head)),
            RowKey::Device(id) => value(self.devices.get(&id)?),
            RowKey::Invite(id) => value(self.invites.get(&id)?),
            RowKey::Tombstone(id) => value(self.tombstones.get(&id)?),
            RowKey::Resting(v4) => value(self.resting.get(&v4)?),
            RowKey::Policy(revision) => value(self.policies.get(&revision)?),
            RowKey::Verdicts(id) => value(self.verdicts.get(&id)?),
        }
    }

    fn read_row(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), TableError> {
        let broken = |why: &str| TableError {
            key: key.to_vec(),
            why: why.into(),
            is_newer: false,
        };
        let (table, id) = key.split_first().ok_or_else(|| broken("no table"))?;
        let device = || {
            <[u8; 20]>::try_from(id)
                .map(DeviceId)
                .map_err(|_| broken("no device ID"))
        };
        match table {
            b'h' => (self.generation, self.head) = read::<(Generation, [u8; 32])>(key, bytes)?,
            b'd' => drop(self.devices.insert(device()?, read(key, bytes)?)),
            b'i' => {
                let id = <[u8; 8]>::try_from(id).map_err(|_| broken("no invite ID"))?;
                self.invites.insert(InviteId(id), read(key, bytes)?);
            }
            b't' => drop(self.tombstones.insert(device()?, read(key, bytes)?)),
            b'a' => {
                let v4 = <[u8; 4]>::try_from(id).map_err(|_| broken("no address"))?;
                self.resting.insert(v4.into(), read(key, bytes)?);
            }
            b'p' => {
                let revision = <[u8; 8]>::try_from(id).map_err(|_| broken("no revision"))?;
                self.policies
                    .insert(u64::from_be_bytes(revision), read(key, bytes)?);
            }
            b'v' => drop(self.verdicts.insert(device()?, read(key, bytes)?)),
            _ => return Err(broken("no such table")),
        }
        Ok(())
    }
}

/// A value with its version. `None` cannot happen for the types above: all have an encoding.
pub(super) fn value<T: Serialize>(of: &T) -> Option<Vec<u8>> {
    let body = codec::encode(of).ok()?;
    Some([[VERSION].as_slice(), &body].concat())
}

/// The value behind its bytes.
pub(super) fn read<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, TableError> {
    let broken = |why: String| TableError {
        key: key.to_vec(),
        why,
        is_newer: false,
    };
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            codec::decode::<T, RECORD>(body).map_err(|error| broken(error.to_string()))
        }
        Some((version, _)) => Err(TableError {
            is_newer: *version > VERSION,
            ..broken(format!("version {version} is not known here"))
        }),
        None => Err(broken("it is empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_rows_are_errors_and_whole_ones_read_back() {
        let rows = State::empty().to_tables();
        assert_eq!(State::from_tables(rows.clone()), Ok(State::empty()));
        let head = rows[0].1.clone();
        let read = |rows: &[(&[u8], &[u8])]| State::from_tables(rows.iter().copied());
        assert!(read(&[]).is_err(), "no head");
        assert!(read(&[(b"h", &head[..head.len() - 1])]).is_err());
        assert!(read(&[(b"h", &[&head[..], &[0]].concat())]).is_err());
        let mut newer = head.clone();
        newer[0] = 2;
        assert!(read(&[(b"h", &newer)]).unwrap_err().is_newer);
        newer[0] = 0;
        assert!(!read(&[(b"h", &newer)]).unwrap_err().is_newer);
        for key in [&b"x"[..], b"", b"d", b"dx", b"p12"] {
            assert!(read(&[(b"h", &head), (key, &head)]).is_err(), "{key:?}");
        }
    }
}
