//! AWS-LC, which the connection to the controller uses, too.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::{Forged, TAG, TooLong};

/// A key of AWS-LC's.
#[derive(Debug)]
pub(crate) struct Key(Option<LessSafeKey>);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        // It refuses keys of another length, and where there is no memory. `None` seals and opens nothing.
        Self(
            UnboundKey::new(&CHACHA20_POLY1305, key)
                .ok()
                .map(LessSafeKey::new),
        )
    }

    pub(crate) fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG], TooLong> {
        let key = self.0.as_ref().ok_or(TooLong)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(additional), data)
            .map_err(|_| TooLong)?;
        tag.as_ref().try_into().map_err(|_| TooLong)
    }

    pub(crate) fn open<'a>(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        let key = self.0.as_ref().ok_or(Forged)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        key.open_in_place(nonce, Aad::from(additional), sealed)
            .map_err(|_| Forged)
    }
}
