//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// Bytes summed in one step.
const STEP: usize = 32;

/// A sum over pieces, of which all but the last have even lengths.
///
/// It adds 32-bit words in the byte order of the machine, as RFC 1071, section 2, allows: eight
/// independent sums that a compiler turns into vector instructions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    /// The pseudo-header of TCP, UDP and ICMPv6.
    pub(crate) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let sum = match (from, to) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Self::default().add(&a.octets()).add(&b.octets()),
            (IpAddr::V6(a), IpAddr::V6(b)) => Self::default().add(&a.octets()).add(&b.octets()),
            _ => Self::default(),
        };
        sum.add(&[0, protocol]).add(&len.to_be_bytes())
    }

    /// With `bytes`.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let (steps, rest) = bytes.as_chunks::<STEP>();
        let mut lanes = [0u64; STEP / 4];
        for step in steps {
            for (lane, word) in lanes.iter_mut().zip(step.as_chunks::<4>().0) {
                *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
            }
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        let pairs = pairs
            .iter()
            .map(|pair| u64::from(u16::from_ne_bytes(*pair)));
        let odd = odd
            .first()
            .map(|byte| u64::from(u16::from_ne_bytes([*byte, 0])));
        // A packet has less than 2^16 bytes, so none of these come near their limits.
        let sum = lanes
            .into_iter()
            .map(|lane| (lane & 0xffff_ffff).wrapping_add(lane >> 32))
            .chain(pairs)
            .chain(odd)
            .fold(self.0, u64::wrapping_add);
        Self(sum)
    }

    /// With a field of 16 bits.
    pub(crate) fn add_u16(self, field: u16) -> Self {
        Self(
            self.0
                .wrapping_add(u64::from(u16::from_ne_bytes(field.to_be_bytes()))),
        )
    }

    /// The sum, as a header field that is not complemented: what is left to the host to complete.
    pub(crate) fn partial(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff).wrapping_add(sum >> 16);
        }
        u16::from_be_bytes(u16::try_from(sum).unwrap_or(0).to_ne_bytes())
    }

    /// The checksum, as a header field.
    pub(crate) fn finish(self) -> u16 {
        !self.partial()
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers of the test's own"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pair by pair, as the RFC says it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().add(&bytes).partial(), 0xddf2);
        assert_eq!(Sum::default().add(&bytes).finish(), !0xddf2);
    }

    proptest! {
        #[test]
        fn it_is_the_naive_sum(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in 0usize..1500,
            field: u16,
        ) {
            prop_assert_eq!(Sum::default().add(&bytes).finish(), naive(&bytes));
            let cut = (cut * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(cut);
            prop_assert_eq!(Sum::default().add(head).add(tail).finish(), naive(&bytes));
            let with_field = [&field.to_be_bytes()[..], &bytes].concat();
            prop_assert_eq!(Sum::default().add_u16(field).add(&bytes).finish(), naive(&with_field));
        }

        #[test]
        fn all_ones_do_not_overflow(len in 0usize..70_000) {
            let bytes = vec![0xff; len];
            prop_assert_eq!(Sum::default().add(&bytes).finish(), naive(&bytes));
        }
    }
}
