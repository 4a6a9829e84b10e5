//! Ed25519 keys: of a device, of the network, of a controller's TLS.

use std::fmt;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::domain;
use crate::ids::DeviceId;
use crate::text;

/// A key or signature that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The bytes are no point of the curve, not canonical, or of small order.
    #[error("the public key is not a canonical Ed25519 point of full order")]
    PublicKey,
    /// The signature was not made by this key over these bytes.
    #[error("the signature does not match the key")]
    Signature,
    /// The statement was signed, but its time is over.
    #[error("the signed statement has expired")]
    Expired,
    /// The statement speaks of another network, device or key than the one at hand.
    #[error("the signed statement is about something else")]
    Mismatch,
}

/// A private Ed25519 key. It never leaves the process that holds it but into its own key file.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// The key with this 32-byte seed (RFC 8032, section 5.1.5). The caller draws the seed from
    /// the operating system.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> IdentityPublicKey {
        IdentityPublicKey(self.0.verifying_key().to_bytes())
    }

    /// The seed, for the key file and for TLS. Zero the copy after use.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// Signs `label` followed by `message`. Takes the private key alone: a public key from outside
    /// never takes part (RUSTSEC-2022-0093).
    #[must_use]
    pub fn sign(&self, label: &[u8], message: &[u8]) -> Signature {
        Signature(self.0.sign(&[label, message].concat()).to_bytes())
    }
}

/// Shows the device ID, never the key.
impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.public().device_id())
    }
}

/// A public Ed25519 key in its one canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityPublicKey([u8; 32]);

impl IdentityPublicKey {
    /// Takes a key from outside.
    ///
    /// # Errors
    /// [`KeyError::PublicKey`] where the bytes are no point, not its canonical encoding, or a point
    /// of small order (any message would verify under it).
    pub fn new(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::PublicKey)?;
        if key.is_weak() || key.to_edwards().compress().to_bytes() != bytes {
            return Err(KeyError::PublicKey);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The device that this key identifies.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        let hash = Sha256::new()
            .chain_update(domain::DEVICE_ID)
            .chain_update(self.0)
            .finalize();
        let mut id = [0; 20];
        id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        DeviceId(id)
    }

    /// Checks a signature strictly: canonical, and no components of small order.
    ///
    /// # Errors
    /// [`KeyError::Signature`] where it does not hold.
    pub fn verify(
        &self,
        label: &[u8],
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), KeyError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::PublicKey)?;
        key.verify_strict(
            &[label, message].concat(),
            &ed25519_dalek::Signature::from_bytes(&signature.0),
        )
        .map_err(|_| KeyError::Signature)
    }
}

impl fmt::Display for IdentityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base64(&self.0))
    }
}

impl fmt::Debug for IdentityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityPublicKey({self})")
    }
}

impl Serialize for IdentityPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for IdentityPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = if deserializer.is_human_readable() {
            text::from_base64(&String::deserialize(deserializer)?)
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| de::Error::custom("not 32 bytes of base64"))?
        } else {
            <[u8; 32]>::deserialize(deserializer)?
        };
        Self::new(bytes).map_err(de::Error::custom)
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// A signature from its 64 bytes; whether it holds shows at [`IdentityPublicKey::verify`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", text::base64(&self.0))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&text::base64(&self.0))
        } else {
            // serde has no impl for arrays of 64: two halves take the same bytes.
            let (left, right) = self.0.split_at(32);
            let half = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap_or_default();
            (half(left), half(right)).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            text::from_base64(&String::deserialize(deserializer)?)
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self)
                .ok_or_else(|| de::Error::custom("not 64 bytes of base64"))
        } else {
            let halves = <([u8; 32], [u8; 32])>::deserialize(deserializer)?;
            let mut bytes = [0; 64];
            bytes
                .iter_mut()
                .zip(halves.0.into_iter().chain(halves.1))
                .for_each(|(to, from)| *to = from);
            Ok(Self(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_label_and_message_only() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let signature = key.sign(b"label", b"message");
        assert_eq!(
            key.public().verify(b"label", b"message", &signature),
            Ok(())
        );
        assert_eq!(
            key.public().verify(b"other", b"message", &signature),
            Err(KeyError::Signature)
        );
        assert_eq!(
            key.public().verify(b"label", b"massage", &signature),
            Err(KeyError::Signature)
        );
        let other = IdentityKey::from_seed(&[2; 32]).public();
        assert_eq!(
            other.verify(b"label", b"message", &signature),
            Err(KeyError::Signature)
        );
    }

    #[test]
    fn a_malleated_signature_is_refused() {
        // s + L encodes the same scalar: RFC 8032 asks for s < L.
        const L: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = IdentityKey::from_seed(&[1; 32]);
        let mut bytes = *key.sign(b"l", b"m").as_bytes();
        let mut carry = 0u16;
        for (to, add) in bytes[32..].iter_mut().zip(L) {
            carry += u16::from(*to) + u16::from(add);
            *to = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert_eq!(
            key.public()
                .verify(b"l", b"m", &Signature::from_bytes(bytes)),
            Err(KeyError::Signature)
        );
    }

    #[test]
    fn keys_of_small_order_and_other_encodings_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(IdentityPublicKey::new(identity), Err(KeyError::PublicKey));
        assert_eq!(IdentityPublicKey::new([0; 32]), Err(KeyError::PublicKey));
        // y = 1 + p: a second encoding of the identity.
        let mut second = [0xff; 32];
        second[0] = 0xee;
        second[31] = 0x7f;
        assert_eq!(IdentityPublicKey::new(second), Err(KeyError::PublicKey));
        let good = IdentityKey::from_seed(&[3; 32]).public();
        assert_eq!(IdentityPublicKey::new(*good.as_bytes()), Ok(good));
    }

    #[test]
    fn debug_shows_no_secret() {
        let seed = [0x5a; 32];
        let shown = format!("{:?}", IdentityKey::from_seed(&seed));
        assert!(!shown.contains(&text::base64(&seed)) && !shown.contains("90, 90"));
    }
}
