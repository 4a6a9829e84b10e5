//! ChaCha20-Poly1305 (RFC 8439), the cipher of WireGuard.
//!
//! Messages without associated data, as every packet of a session is, are sealed and opened with AVX-512 where the processor has
//! it, at up to twice the speed of the libraries. Everything else, and any other processor, is AWS-LC's, which also secures the
//! connection to the controller. Before its first use the code for AVX-512 has to say what AWS-LC says (`trial`).
//!
//! boringtun gets it as [`ring`](../ring/index.html), which it asks for.
//!
//! What it holds to, and where that is tested:
//!
//! * It seals into what AWS-LC seals into, for every length, and at the edges of its arithmetic, which no random message comes
//!   near (`avx512/tests`).
//! * With AVX-512 nothing is decrypted before its tag is found right, and what is not right stays as it came.
//! * What it takes depends on the length of a message and on nothing else in it: no branch and no address comes from a key or
//!   from data, and tags are compared in constant time.
//! * Keys are wiped when they are dropped. What is left on the stack by a message, its key stream and one-time key, is not.

#![warn(missing_docs)]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod aws_lc;
mod custody;
mod select;
#[cfg(target_arch = "x86_64")]
mod trial;

use std::fmt;

pub use custody::{HeldKey, Taken, take_last_two_keys};
pub use select::{implementation, use_aws_lc};

#[cfg(target_arch = "x86_64")]
use trial::Candidate as _;
#[cfg(target_arch = "x86_64")]
use zeroize::Zeroizing;

/// Bytes of a tag.
pub const TAG: usize = 16;

/// What seals and opens the packets of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// AWS-LC.
    AwsLc,
    /// AVX-512, by this crate.
    Avx512,
}

/// The message is not what a holder of the key has sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// The message is longer than the cipher allows (256 GiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A key of 256 bits, wiped when dropped.
pub struct Key(Inner);

enum Inner {
    // In boxes: where a key is moved, nothing of it stays behind.
    AwsLc(Box<aws_lc::Key>),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512, Box<Zeroizing<[u8; 32]>>),
}

impl Key {
    /// Makes a key for the [`implementation`] that is chosen now.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx512) = select::avx512() {
            return Self(Inner::Avx512(avx512, Box::new(Zeroizing::new(*key))));
        }
        Self(Inner::AwsLc(Box::new(aws_lc::Key::new(key))))
    }

    /// Seals `data` in place, together with `additional`, which stays outside; the tag. A nonce is to be used once with a key:
    /// whoever sees two messages with the same one can read both, and forge more.
    ///
    /// # Errors
    /// Where `data` is longer than the cipher allows.
    pub fn seal(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG], TooLong> {
        match &self.0 {
            Inner::AwsLc(key) => key.seal(nonce, additional, data),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(avx512, key)
                if additional.is_empty() && data.len() <= avx512::LONGEST =>
            {
                Ok(avx512.seal(key, nonce, data))
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(_, key) => aws_lc::Key::new(key).seal(nonce, additional, data),
        }
    }

    /// Opens `sealed` in place, which ends in its tag: the message, without it.
    ///
    /// # Errors
    /// Where it is not what was sealed with this key, `nonce` and `additional`. What `sealed` has in it is undefined then, but
    /// for this: nothing that was decrypted.
    pub fn open<'a>(
        &self,
        nonce: &[u8; 12],
        additional: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        match &self.0 {
            Inner::AwsLc(key) => key.open(nonce, additional, sealed),
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(avx512, key)
                if additional.is_empty() && sealed.len() <= avx512::LONGEST =>
            {
                let (data, tag) = sealed.split_last_chunk_mut().ok_or(Forged)?;
                avx512.open(key, nonce, data, tag)?;
                Ok(data)
            }
            #[cfg(target_arch = "x86_64")]
            Inner::Avx512(_, key) => aws_lc::Key::new(key).open(nonce, additional, sealed),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwsLc => "AWS-LC",
            Self::Avx512 => "AVX-512",
        })
    }
}

impl fmt::Display for Forged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not what a holder of the key has sealed")
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("longer than the cipher allows")
    }
}

impl std::error::Error for Forged {}
impl std::error::Error for TooLong {}
