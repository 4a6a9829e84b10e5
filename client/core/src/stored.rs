//! What the device keeps on disk: its keys, the last good map, and the floor of its clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::wg_key::WgPublicKey;
use gatereeve_shared::ids::{DeviceId, InviteId};
use gatereeve_shared::invite::InviteSecret;
use gatereeve_shared::time::UnixMillis;
use gatereeve_shared::wire::codec::{self, CodecError};
use gatereeve_shared::wire::controller::Standing;
use gatereeve_shared::wire::map::{PeerEntry, SelfEntry};

use crate::keys::KeyRing;

/// What the file begins with; the last byte is the version of what follows.
const MAGIC: &[u8; 8] = b"gtrvcli\x01";
/// What the files of every version begin with.
const FAMILY: &[u8; 7] = b"gtrvcli";
/// Bytes of the digest behind [`MAGIC`].
const DIGEST: usize = 32;
/// The largest file that is looked at.
const LIMIT: usize = 256 * 1024 * 1024;

/// The engine's memory over a restart. It holds private keys: a file of mode 0600.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The network and the device that all the rest is about; another's is not used.
    pub(crate) owner: Option<(Fingerprint, DeviceId)>,
    /// WireGuard keys.
    pub(crate) keys: Option<KeyRing>,
    /// Latest controller time known.
    pub(crate) floor: UnixMillis,
    /// How the device stood at last. Only an approved one has peers.
    pub(crate) standing: Option<Standing>,
    /// An enrollment that is not through.
    pub(crate) enrollment: Option<Enrollment>,
    /// This device.
    pub(crate) this: Option<SelfEntry>,
    /// Its peers.
    pub(crate) map: Option<HeldMap>,
    /// The highest generation ever held; the device never goes below.
    pub(crate) highest: Generation,
    /// The newest key of each peer, by which an older one is refused.
    pub(crate) seen_keys: BTreeMap<DeviceId, (u64, WgPublicKey)>,
    /// Whether the controller was reached over loopback.
    pub(crate) loopback: bool,
}

/// An enrollment that is not through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enrollment {
    /// The invite, until it was used.
    pub(crate) invite: Option<(InviteId, InviteSecret)>,
    /// What the host calls itself.
    pub(crate) name: String,
}

/// A network map as held: exactly what the controller sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldMap {
    /// Its generation.
    pub(crate) generation: Generation,
    /// Its peers.
    pub(crate) peers: BTreeMap<DeviceId, Arc<PeerEntry>>,
}

/// Why a state file is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoredError {
    /// Not a state file.
    #[error("it is no state file of this version")]
    Format,
    /// A newer version wrote it. It may be whole, and it holds keys: leave it as it is.
    #[error("it was written by a newer version of the client")]
    Newer,
    /// Its digest does not match.
    #[error("it is damaged")]
    Damaged,
    /// Its content cannot be read.
    #[error("its content cannot be read: {0}")]
    Content(#[from] CodecError),
}

impl Stored {
    /// The bytes of the state file.
    ///
    /// # Errors
    /// [`CodecError::Encode`] where the state exceeds every limit.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        let body = codec::encode(self)?;
        let digest = Sha256::digest(&body);
        Ok([MAGIC.as_slice(), &digest, &body].concat())
    }

    /// Reads a state file.
    ///
    /// # Errors
    /// [`StoredError`]; begin with [`Stored::default`] then, having set the file aside.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoredError> {
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            let [.., ours] = MAGIC;
            let version = bytes.strip_prefix(FAMILY).and_then(<[u8]>::first);
            return Err(match version {
                Some(version) if version > ours => StoredError::Newer,
                Some(_) | None => StoredError::Format,
            });
        };
        let (digest, body) = rest.split_at_checked(DIGEST).ok_or(StoredError::Damaged)?;
        if Sha256::digest(body).as_slice() != digest {
            return Err(StoredError::Damaged);
        }
        Ok(codec::decode::<Self, LIMIT>(body)?)
    }

    /// Whether the device has been a device of a network, or waits to become one.
    #[must_use]
    pub fn is_enrolled(&self) -> bool {
        self.standing.is_some() || self.enrollment.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_state_reads_back_and_damage_shows() {
        let stored = Stored {
            keys: Some(KeyRing::new(&mut Random::new([1; 32]), UnixMillis(5_000))),
            floor: UnixMillis(7),
            standing: Some(Standing::Approved),
            highest: Generation {
                incarnation: 1,
                n: 2,
            },
            ..Stored::default()
        };
        let bytes = stored.to_bytes().unwrap();
        assert_eq!(Stored::from_bytes(&bytes), Ok(stored));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Stored::from_bytes(&bad).is_err(), "byte {at}");
            assert!(Stored::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
