//! What kind of datagram it is, told by its first bytes alone.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// A datagram from the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// The first message of a handshake.
    Initiation,
    /// The answer, for the tunnel with this 24-bit index.
    Response { index: u32 },
    /// A cookie, for the tunnel with this index.
    Cookie { index: u32 },
    /// Data, for the tunnel with this index.
    Data { index: u32 },
    /// None of ours.
    Junk,
}

/// Looks at type, reserved bytes and length.
pub(crate) fn classify(datagram: &[u8]) -> Datagram {
    let index = |at: usize| {
        let field = datagram.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(field.try_into().ok()?) >> 8)
    };
    let kind = datagram.get(..4);
    let found = match (kind, datagram.len()) {
        (Some([1, 0, 0, 0]), 148) => Some(Datagram::Initiation),
        (Some([2, 0, 0, 0]), 92) => index(8).map(|index| Datagram::Response { index }),
        (Some([3, 0, 0, 0]), 64) => index(4).map(|index| Datagram::Cookie { index }),
        (Some([4, 0, 0, 0]), 32..) => index(4).map(|index| Datagram::Data { index }),
        _ => None,
    };
    found.unwrap_or(Datagram::Junk)
}

/// The index at `at` of a message; zero, which nobody has, where there is none.
pub(super) fn index_at(message: &[u8], at: usize) -> u32 {
    let field = message.get(at..).and_then(<[u8]>::first_chunk);
    field.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The number of a data message; one that is never accepted where there is none.
pub(super) fn number_of(message: &[u8]) -> u64 {
    let field = message.get(8..).and_then(<[u8]>::first_chunk);
    field.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_four_messages_are_told_apart() {
        let mut message = vec![0; 148];
        message[0] = 1;
        assert_eq!(classify(&message), Datagram::Initiation);
        assert_eq!(classify(&message[..147]), Datagram::Junk);
        message[1] = 1;
        assert_eq!(classify(&message), Datagram::Junk);
        let data = [4, 0, 0, 0, 0xff, 1, 2, 3];
        assert_eq!(classify(&data), Datagram::Junk);
        let mut data = data.to_vec();
        data.resize(32, 0);
        assert_eq!(classify(&data), Datagram::Data { index: 0x03_0201 });
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            classify(&bytes);
        }
    }
}
