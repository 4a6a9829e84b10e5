//! X25519 WireGuard keys.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::text;

/// A private WireGuard key, zeroed when dropped.
#[derive(Clone)]
pub struct WgSecret(StaticSecret);

impl WgSecret {
    /// The key with these 32 bytes, which the caller draws from the operating system.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The bytes, for the key file. Zero the copy after use.
    #[must_use]
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The key in the form that the tunnel takes.
    #[must_use]
    pub fn as_dalek(&self) -> &StaticSecret {
        &self.0
    }

    /// Whether a Diffie-Hellman with `public` contributes anything: with one of the points of small
    /// order the shared secret is all zeroes (RFC 7748, section 6.1), and such a peer is refused.
    #[must_use]
    pub fn contributes_with(&self, public: &WgPublicKey) -> bool {
        self.0
            .diffie_hellman(&PublicKey::from(public.0))
            .was_contributory()
    }
}

/// Shows the public key.
impl fmt::Debug for WgSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgSecret(of {})", self.public())
    }
}

/// A public WireGuard key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WgPublicKey(pub [u8; 32]);

impl WgPublicKey {
    /// The key in the form that the tunnel takes.
    #[must_use]
    pub fn to_dalek(self) -> PublicKey {
        PublicKey::from(self.0)
    }
}

/// Base64, as `wg` prints it.
impl fmt::Display for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base64(&self.0))
    }
}

impl fmt::Debug for WgPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgPublicKey({self})")
    }
}

impl Serialize for WgPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for WgPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            text::from_base64(&String::deserialize(deserializer)?)
                .and_then(|bytes| bytes.try_into().ok())
                .map(Self)
                .ok_or_else(|| de::Error::custom("not 32 bytes of base64"))
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_contribute_nothing() {
        let secret = WgSecret::from_bytes([9; 32]);
        assert!(!secret.contributes_with(&WgPublicKey([0; 32])));
        let mut one = [0; 32];
        one[0] = 1;
        assert!(!secret.contributes_with(&WgPublicKey(one)));
        assert!(secret.contributes_with(&WgSecret::from_bytes([8; 32]).public()));
    }
}
