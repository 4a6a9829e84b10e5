//! What boringtun asks of `ring`, under ring's names: the cipher by [`gatereeve_cipher`], the rest by AWS-LC.
//!
//! boringtun keeps the keys of its sessions to itself, so they can be had, and its cipher can be another one, only where it looks for
//! that. `[patch.crates-io]` in the workspace's `Cargo.toml` puts this crate there; without that line boringtun has the real `ring`,
//! and no tunnel works.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod aead;

/// Errors.
pub mod error {
    use std::fmt;

    /// It did not work; more is not said, so that nobody learns from it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Unspecified;

    impl fmt::Display for Unspecified {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the cipher refused")
        }
    }

    impl std::error::Error for Unspecified {}
}

/// Comparisons that take as long whatever they compare.
pub mod constant_time {
    use crate::error::Unspecified;

    /// Whether `a` and `b` are the same.
    ///
    /// # Errors
    /// Where they are not.
    pub fn verify_slices_are_equal(a: &[u8], b: &[u8]) -> Result<(), Unspecified> {
        aws_lc_rs::constant_time::verify_slices_are_equal(a, b).map_err(|_| Unspecified)
    }
}
