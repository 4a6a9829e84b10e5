//! The only place that names bincode: bounded, exact, little-endian, fixed in its options.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Too short, over the limit, or with a value that its type refuses.
    #[error("malformed body: {0}")]
    Malformed(String),
    /// Bytes are left over.
    #[error("the body has {0} bytes too many")]
    Trailing(usize),
    /// The value cannot be encoded.
    #[error("cannot encode: {0}")]
    Encode(String),
}

/// The encoding of `value`: bincode 2, variable-length integers, little-endian.
///
/// # Errors
/// [`CodecError::Encode`] for a value that bincode cannot carry, such as a sequence of unknown length.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    #[expect(clippy::disallowed_methods, reason = "this is the one codec")]
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|error| CodecError::Encode(error.to_string()))
}

/// The value in `bytes`, all of them, with at most `LIMIT` bytes claimed on the way.
///
/// # Errors
/// [`CodecError::Malformed`] and [`CodecError::Trailing`].
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > LIMIT {
        return Err(CodecError::Malformed(format!(
            "{} bytes exceed the limit of {LIMIT}",
            bytes.len()
        )));
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one codec: limit set, length checked"
    )]
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumption_is_exact() {
        let bytes = encode(&(7u32, "x".to_owned())).unwrap();
        assert_eq!(decode::<(u32, String), 64>(&bytes), Ok((7, "x".into())));
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(
            decode::<(u32, String), 64>(&longer),
            Err(CodecError::Trailing(1))
        );
        assert!(decode::<(u32, String), 64>(&bytes[..1]).is_err());
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // A sequence that claims 2^59 elements.
        let mut bytes = vec![253];
        bytes.extend((1u64 << 59).to_le_bytes());
        assert!(decode::<Vec<u64>, 1024>(&bytes).is_err());
        assert!(decode::<String, 1024>(&bytes).is_err());
    }

    #[test]
    fn the_limit_holds_before_decoding() {
        assert!(decode::<Vec<u8>, 4>(&[10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
