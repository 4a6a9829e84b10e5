//! Signed statements about keys: whose a WireGuard key is, and whose a TLS key is.

use serde::{Deserialize, Serialize};

use super::domain;
use super::fingerprint::Fingerprint;
use super::identity_key::{IdentityKey, IdentityPublicKey, KeyError, Signature};
use super::wg_key::WgPublicKey;
use crate::time::UnixMillis;

/// "In this network, this WireGuard key is mine": made by a device, checked by the controller and
/// by every peer (promise P4: a controller cannot put its own key in a device's place).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBinding {
    /// The identity key that signs.
    pub identity: IdentityPublicKey,
    /// The WireGuard key that it claims.
    pub wg_key: WgPublicKey,
    /// Rises with every key of the device, so that an old binding cannot come back.
    pub counter: u64,
    /// Over the network's fingerprint and the fields above.
    signature: Signature,
}

impl KeyBinding {
    /// Signs that `wg_key` belongs to the holder of `identity`.
    #[must_use]
    pub fn sign(
        identity: &IdentityKey,
        network: &Fingerprint,
        wg_key: WgPublicKey,
        counter: u64,
    ) -> Self {
        let signature = identity.sign(
            domain::KEY_BINDING,
            &Self::message(network, &wg_key, counter),
        );
        Self {
            identity: identity.public(),
            wg_key,
            counter,
            signature,
        }
    }

    /// Checks that the binding is one of this network, by the key it names.
    ///
    /// # Errors
    /// [`KeyError::Signature`] where it is not. Whether the identity is the expected one is the
    /// caller's question.
    pub fn verify(&self, network: &Fingerprint) -> Result<(), KeyError> {
        let message = Self::message(network, &self.wg_key, self.counter);
        self.identity
            .verify(domain::KEY_BINDING, &message, &self.signature)
    }

    fn message(network: &Fingerprint, wg_key: &WgPublicKey, counter: u64) -> Vec<u8> {
        [network.0.as_slice(), &wg_key.0, &counter.to_be_bytes()].concat()
    }
}

/// "This TLS key speaks for the network": made by the network key, shown by a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerBinding {
    /// The network's public key; a client knows its fingerprint.
    pub network: IdentityPublicKey,
    /// The key that the controller's TLS endpoint proves possession of.
    pub tls_key: IdentityPublicKey,
    /// Until when the statement holds.
    pub not_after: UnixMillis,
    signature: Signature,
}

impl ControllerBinding {
    /// Signs that the holder of `tls_key` is a controller of the network until `not_after`.
    #[must_use]
    pub fn sign(network: &IdentityKey, tls_key: IdentityPublicKey, not_after: UnixMillis) -> Self {
        let signature = network.sign(
            domain::CONTROLLER_BINDING,
            &Self::message(&tls_key, not_after),
        );
        Self {
            network: network.public(),
            tls_key,
            not_after,
            signature,
        }
    }

    /// Checks the statement against what a client has pinned and what TLS has proven.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] for another network or another TLS key, [`KeyError::Signature`] for a
    /// forgery, [`KeyError::Expired`] past its time.
    pub fn verify(
        &self,
        pinned: &Fingerprint,
        tls_key: &IdentityPublicKey,
        now: UnixMillis,
    ) -> Result<(), KeyError> {
        if Fingerprint::of(&self.network) != *pinned || self.tls_key != *tls_key {
            return Err(KeyError::Mismatch);
        }
        let message = Self::message(&self.tls_key, self.not_after);
        self.network
            .verify(domain::CONTROLLER_BINDING, &message, &self.signature)?;
        if now < self.not_after {
            Ok(())
        } else {
            Err(KeyError::Expired)
        }
    }

    fn message(tls_key: &IdentityPublicKey, not_after: UnixMillis) -> Vec<u8> {
        [tls_key.as_bytes().as_slice(), &not_after.0.to_be_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(seed: u8) -> (IdentityKey, Fingerprint) {
        let key = IdentityKey::from_seed(&[seed; 32]);
        let fingerprint = Fingerprint::of(&key.public());
        (key, fingerprint)
    }

    #[test]
    fn a_key_binding_holds_in_its_network_and_for_its_fields_only() {
        let (_, here) = network(1);
        let (_, elsewhere) = network(2);
        let device = IdentityKey::from_seed(&[3; 32]);
        let binding = KeyBinding::sign(&device, &here, WgPublicKey([4; 32]), 7);
        assert_eq!(binding.verify(&here), Ok(()));
        assert_eq!(binding.verify(&elsewhere), Err(KeyError::Signature));
        let replaced = KeyBinding {
            wg_key: WgPublicKey([5; 32]),
            ..binding
        };
        assert_eq!(replaced.verify(&here), Err(KeyError::Signature));
        let later = KeyBinding {
            counter: 8,
            ..binding
        };
        assert_eq!(later.verify(&here), Err(KeyError::Signature));
        let stolen = KeyBinding {
            identity: IdentityKey::from_seed(&[6; 32]).public(),
            ..binding
        };
        assert_eq!(stolen.verify(&here), Err(KeyError::Signature));
    }

    #[test]
    fn a_controller_binding_is_held_to_the_pin_the_key_and_the_time() {
        let (key, pin) = network(1);
        let (other, other_pin) = network(2);
        let tls = IdentityKey::from_seed(&[3; 32]).public();
        let end = UnixMillis(1000);
        let good = ControllerBinding::sign(&key, tls, end);
        assert_eq!(good.verify(&pin, &tls, UnixMillis(999)), Ok(()));
        assert_eq!(good.verify(&pin, &tls, end), Err(KeyError::Expired));
        assert_eq!(
            good.verify(&other_pin, &tls, UnixMillis(0)),
            Err(KeyError::Mismatch)
        );
        let impostor = IdentityKey::from_seed(&[4; 32]).public();
        assert_eq!(
            good.verify(&pin, &impostor, UnixMillis(0)),
            Err(KeyError::Mismatch)
        );
        let forged = ControllerBinding {
            network: key.public(),
            ..ControllerBinding::sign(&other, tls, end)
        };
        assert_eq!(
            forged.verify(&pin, &tls, UnixMillis(0)),
            Err(KeyError::Signature)
        );
    }
}
