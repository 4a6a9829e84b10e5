//! One table of kinds for each direction: encoding, decoding and the numbers stay together.

/// Defines a message enum from its table of `kind => Variant(Body)`.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident, limit $limit:expr, { $( $(#[$variant_doc:meta])* $kind:literal => $variant:ident($body:ty) ),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_doc])* $variant($body), )*
        }

        impl $name {
            /// Largest body in bytes.
            pub const LIMIT: usize = $limit;

            /// The number of this kind of message on the wire.
            #[must_use]
            pub fn kind(&self) -> u16 {
                match self { $( Self::$variant(_) => $kind, )* }
            }

            /// The whole frame.
            ///
            /// # Errors
            /// [`CodecError::Encode`](super::codec::CodecError) where the body exceeds [`Self::LIMIT`].
            pub fn to_frame(&self) -> Result<Vec<u8>, super::codec::CodecError> {
                let body = match self { $( Self::$variant(body) => super::codec::encode(body)?, )* };
                if body.len() > Self::LIMIT {
                    return Err(super::codec::CodecError::Encode(format!(
                        "a body of {} bytes exceeds the limit of {}", body.len(), Self::LIMIT
                    )));
                }
                super::frame::frame(self.kind(), &body)
            }

            /// The message of this `kind` in `body`.
            ///
            /// # Errors
            /// [`WireError::Kind`](super::frame::WireError) and
            /// [`WireError::Body`](super::frame::WireError); the connection is closed over either.
            pub fn from_body(kind: u16, body: &[u8]) -> Result<Self, super::frame::WireError> {
                let malformed = |source| super::frame::WireError::Body { kind, source };
                match kind {
                    $( $kind => super::codec::decode::<$body, { $limit }>(body)
                        .map(Self::$variant)
                        .map_err(malformed), )*
                    _ => Err(super::frame::WireError::Kind(kind)),
                }
            }
        }
    };
}

pub(super) use messages;
