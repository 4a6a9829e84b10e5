//! The short form of the network key that invites carry and people compare.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::domain;
use super::identity_key::IdentityPublicKey;
use crate::text;

/// SHA-256 of the network's public key: what a client pins. 52 characters of base32 as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a network's key.
    #[must_use]
    pub fn of(network: &IdentityPublicKey) -> Self {
        let hash = Sha256::new()
            .chain_update(domain::FINGERPRINT)
            .chain_update(network.as_bytes())
            .finalize();
        Self(hash.into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::base32(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        text::from_base32(s)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or("a fingerprint takes 52 characters of a-z and 2-7")
    }
}

text::serde_as_text_or_bytes!(Fingerprint, [u8; 32]);
