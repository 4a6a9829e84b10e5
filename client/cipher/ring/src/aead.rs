//! ChaCha20-Poly1305.

#![expect(clippy::needless_pass_by_value, reason = "ring's signatures")]

use gatereeve_cipher::{HeldKey, Key, TAG};

use crate::error::Unspecified;

/// The only algorithm there is.
#[derive(Debug, PartialEq, Eq)]
pub struct Algorithm(());

/// ChaCha20-Poly1305 (RFC 8439).
pub static CHACHA20_POLY1305: Algorithm = Algorithm(());

/// A key that has no use yet.
#[derive(Debug)]
pub struct UnboundKey(Key);

impl UnboundKey {
    /// Takes a key of 32 bytes.
    ///
    /// # Errors
    /// Where it has another length.
    pub fn new(_algorithm: &'static Algorithm, key: &[u8]) -> Result<Self, Unspecified> {
        let key = key.try_into().map_err(|_| Unspecified)?;
        Ok(Self(Key::new(key)))
    }
}

/// A key whose user sees to it that no nonce comes twice.
#[derive(Debug)]
pub struct LessSafeKey(HeldKey);

impl LessSafeKey {
    /// Takes `key` into use, until it is taken away ([`gatereeve_cipher::take_last_two_keys`]).
    #[must_use]
    pub fn new(key: UnboundKey) -> Self {
        Self(HeldKey::new(key.0))
    }

    /// Seals `data` in place; the tag.
    ///
    /// # Errors
    /// Where `data` is longer than the cipher allows.
    pub fn seal_in_place_separate_tag<A: AsRef<[u8]>>(
        &self,
        nonce: Nonce,
        additional: Aad<A>,
        data: &mut [u8],
    ) -> Result<Tag, Unspecified> {
        let sealed = self.0.seal(&nonce.0, additional.0.as_ref(), data);
        sealed.map(Tag).map_err(|_| Unspecified)
    }

    /// Opens `sealed` in place, which ends in its tag: the message without it.
    ///
    /// # Errors
    /// Where it was not sealed so.
    pub fn open_in_place<'a, A: AsRef<[u8]>>(
        &self,
        nonce: Nonce,
        additional: Aad<A>,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unspecified> {
        let opened = self.0.open(&nonce.0, additional.0.as_ref(), sealed);
        opened.map_err(|_| Unspecified)
    }
}

/// A number that a key is used with once.
#[derive(Debug)]
pub struct Nonce([u8; 12]);

impl Nonce {
    /// Takes the caller's word that it is used once.
    #[must_use]
    pub fn assume_unique_for_key(nonce: [u8; 12]) -> Self {
        Self(nonce)
    }
}

/// What a message is sealed together with.
#[derive(Debug)]
pub struct Aad<A>(A);

impl<A: AsRef<[u8]>> Aad<A> {
    /// Wraps it.
    pub fn from(additional: A) -> Self {
        Self(additional)
    }
}

impl Aad<[u8; 0]> {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self([])
    }
}

/// What proves that a message was sealed with the key.
#[derive(Clone, Copy, Debug)]
pub struct Tag([u8; TAG]);

impl AsRef<[u8]> for Tag {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
