//! The frame around every message.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use thiserror::Error;

use super::codec::CodecError;

/// The frame layout's version. It changes only if the header does.
pub const FRAME_VERSION: u8 = 1;
/// Bytes of a header.
pub const HEADER_LEN: usize = 7;

/// A frame or its body that cannot be taken; the connection is closed over it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The first byte is not [`FRAME_VERSION`].
    #[error("frame version {0} is not known here")]
    Version(u8),
    /// More than the receiver takes.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Bytes announced.
        length: u32,
        /// Bytes taken.
        limit: usize,
    },
    /// A kind that this version does not have.
    #[error("message kind {0} is not known here")]
    Kind(u16),
    /// The body is not what its kind says.
    #[error("message kind {kind}: {source}")]
    Body {
        /// The kind.
        kind: u16,
        /// What is wrong with it.
        source: CodecError,
    },
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which message the body is.
    pub kind: u16,
    /// Bytes of the body.
    pub length: usize,
}

impl FrameHeader {
    /// Checks a header against the receiver's `limit`, before a byte of the body is read.
    ///
    /// # Errors
    /// [`WireError::Version`] and [`WireError::TooLong`].
    pub fn parse(header: [u8; HEADER_LEN], limit: usize) -> Result<Self, WireError> {
        let [version, k0, k1, l0, l1, l2, l3] = header;
        if version != FRAME_VERSION {
            return Err(WireError::Version(version));
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        match usize::try_from(length) {
            Ok(len) if len <= limit => Ok(Self {
                kind: u16::from_be_bytes([k0, k1]),
                length: len,
            }),
            _ => Err(WireError::TooLong { length, limit }),
        }
    }
}

/// A whole frame around `body`; the caller has checked its length.
pub(super) fn frame(kind: u16, body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let length =
        u32::try_from(body.len()).map_err(|_| CodecError::Encode("body over 4 GiB".into()))?;
    let mut bytes = Vec::with_capacity(HEADER_LEN.saturating_add(body.len()));
    bytes.push(FRAME_VERSION);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_checked_before_its_body() {
        let header = |version: u8, length: u32| {
            let mut bytes = [version, 0, 9, 0, 0, 0, 0];
            bytes[3..].copy_from_slice(&length.to_be_bytes());
            FrameHeader::parse(bytes, 100)
        };
        assert_eq!(
            header(1, 100),
            Ok(FrameHeader {
                kind: 9,
                length: 100
            })
        );
        assert_eq!(header(0, 1), Err(WireError::Version(0)));
        for length in [101, 1 << 31, u32::MAX] {
            assert_eq!(
                header(1, length),
                Err(WireError::TooLong { length, limit: 100 })
            );
        }
    }
}
