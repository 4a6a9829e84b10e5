//! The one string that lets a device in: where the controllers are, which key to pin, and a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use crate::identity::domain;
use crate::identity::fingerprint::Fingerprint;
use crate::ids::InviteId;
use crate::text;
use crate::wire::codec;

/// What every invite begins with.
const PREFIX: &str = "gatereeve-invite-1.";
/// Longest text that is looked at; far above any real invite.
const MAX_TEXT: usize = 4096;

/// An invite as its text carries it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// The key to pin.
    pub network: Fingerprint,
    /// `host:port` of each controller, in order of preference.
    pub controllers: Vec<String>,
    /// Which invite it is.
    pub id: InviteId,
    /// Proves possession of the invite.
    pub secret: InviteSecret,
}

/// The secret part; the controller keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteSecret(pub [u8; 32]);

impl InviteSecret {
    /// What the controller keeps.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(domain::INVITE_SECRET)
            .chain_update(self.0)
            .finalize()
            .into()
    }

    /// Whether this is the secret behind `hash`, in constant time.
    #[must_use]
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(..)")
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invite({} for {})", self.id, self.network)
    }
}

/// Why a text is no invite.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InviteError {
    /// It does not begin like one.
    #[error(
        "an invite begins with \"{PREFIX}\"; take the whole string that `invite create` printed"
    )]
    Prefix,
    /// Characters are missing, added or changed.
    #[error(
        "the invite is damaged: characters are missing or changed; copy it again, in one piece"
    )]
    Damaged,
}

impl Invite {
    /// The text form. The secret is in it: show it once, to whom it is for.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = codec::encode(self).unwrap_or_default();
        let check = Sha256::digest(&bytes);
        bytes.extend(check.iter().take(4));
        format!("{PREFIX}{}", text::base64url(&bytes))
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(s: &str) -> Result<Self, InviteError> {
        let s = s.trim();
        let encoded = s.strip_prefix(PREFIX).ok_or(InviteError::Prefix)?;
        if s.len() > MAX_TEXT {
            return Err(InviteError::Damaged);
        }
        let bytes = text::from_base64url(encoded).ok_or(InviteError::Damaged)?;
        let body_len = bytes.len().checked_sub(4).ok_or(InviteError::Damaged)?;
        let (body, check) = bytes.split_at(body_len);
        if !Sha256::digest(body).iter().take(4).eq(check) {
            return Err(InviteError::Damaged);
        }
        codec::decode::<Self, MAX_TEXT>(body).map_err(|_| InviteError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            network: Fingerprint([1; 32]),
            controllers: vec!["controller.example.com:8443".into()],
            id: InviteId([2; 8]),
            secret: InviteSecret([3; 32]),
        }
    }

    #[test]
    fn an_invite_reads_back_from_its_text() {
        let text = invite().to_text();
        assert_eq!(text.parse(), Ok(invite()));
        assert_eq!(format!("  {text}\n").parse(), Ok(invite()));
    }

    #[test]
    fn every_changed_or_missing_character_shows() {
        let text = invite().to_text();
        for cut in 0..text.len() {
            let part: String = text.chars().take(cut).collect();
            assert!(part.parse::<Invite>().is_err(), "cut at {cut}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(
                String::from_utf8(bytes).unwrap().parse::<Invite>().is_err(),
                "changed at {at}"
            );
        }
    }

    #[test]
    fn only_the_secret_matches_its_hash() {
        let hash = invite().secret.hash();
        assert!(invite().secret.matches(&hash));
        assert!(!InviteSecret([4; 32]).matches(&hash));
        assert!(!format!("{:?}", invite()).contains("3, 3"));
    }
}
