//! Signed heads of the journal.

use serde::{Deserialize, Serialize};

use super::domain;
use super::identity_key::{IdentityKey, IdentityPublicKey, KeyError, Signature};
use crate::generation::Generation;
use crate::time::UnixMillis;

/// "At this time the journal had this head": whoever holds one can tell that records up to it were
/// edited, reordered or cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Incarnation, and sequence number of the head.
    pub generation: Generation,
    /// Chained hash of the head.
    pub hash: [u8; 32],
    /// When it was signed.
    pub at: UnixMillis,
    signature: Signature,
}

impl Checkpoint {
    /// Signs a head with the network key.
    #[must_use]
    pub fn sign(
        network: &IdentityKey,
        generation: Generation,
        hash: [u8; 32],
        at: UnixMillis,
    ) -> Self {
        let signature = network.sign(domain::CHECKPOINT, &Self::message(generation, &hash, at));
        Self {
            generation,
            hash,
            at,
            signature,
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`KeyError::Signature`] where `network` did not make it.
    pub fn verify(&self, network: &IdentityPublicKey) -> Result<(), KeyError> {
        let message = Self::message(self.generation, &self.hash, self.at);
        network.verify(domain::CHECKPOINT, &message, &self.signature)
    }

    fn message(generation: Generation, hash: &[u8; 32], at: UnixMillis) -> Vec<u8> {
        [
            generation.incarnation.to_be_bytes().as_slice(),
            &generation.n.to_be_bytes(),
            hash,
            &at.0.to_be_bytes(),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_holds_for_its_head_only() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let at = Generation {
            incarnation: 1,
            n: 9,
        };
        let checkpoint = Checkpoint::sign(&key, at, [2; 32], UnixMillis(3));
        assert_eq!(checkpoint.verify(&key.public()), Ok(()));
        let moved = Checkpoint {
            generation: Generation { n: 8, ..at },
            ..checkpoint
        };
        assert_eq!(moved.verify(&key.public()), Err(KeyError::Signature));
    }
}
