//! Cutting a packet into fragments, as a router does where the next link is too narrow (RFC 791, section 3.2).

use super::checksum::Sum;
use super::{put, u8_at, u16_at};

/// An IPv4 header without options. With options a packet is not cut: which of them go into every fragment
/// would have to be looked up, and hosts send none.
const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Whether `packet` may be cut on its way: only in IPv4, and where its sender does not forbid it.
pub(crate) fn may_be_cut(packet: &[u8]) -> bool {
    let flags = u16_at(packet, 6);
    u8_at(packet, 0) == Some(0x45) && flags.is_some_and(|flags| flags & DONT_FRAGMENT == 0)
}

/// The fragments of one packet, one after the other, each in the memory of the whole: the header of a fragment is
/// written over the end of the fragment before.
#[derive(Debug)]
pub(crate) struct Fragments<'a> {
    packet: &'a mut [u8],
    header: [u8; HEADER],
    /// Bytes of payload in all but the last one.
    size: usize,
    /// Where the next one's payload begins.
    at: usize,
    flags: u16,
}

impl<'a> Fragments<'a> {
    /// The fragments of `packet`, which [`may_be_cut`] and has complete checksums, with at most `most` bytes each,
    /// header included. `None` where so few bytes carry nothing.
    pub(crate) fn new(packet: &'a mut [u8], most: usize) -> Option<Self> {
        if !may_be_cut(packet) {
            return None;
        }
        // Offsets count eight bytes.
        let size = most.checked_sub(HEADER)? & !7;
        let (header, flags) = (*packet.first_chunk()?, u16_at(packet, 6)?);
        (size > 0).then_some(Self {
            packet,
            header,
            size,
            at: HEADER,
            flags,
        })
    }

    /// The next one, complete. (Not an iterator: each is gone when the next one is made.)
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let left = self.packet.len().checked_sub(self.at)?;
        let payload = self.size.min(left);
        if payload == 0 {
            return None;
        }
        let start = self.at.checked_sub(HEADER)?;
        // What is cut may be a fragment itself.
        let before = u16::try_from(start / 8).ok()?;
        let offset = (self.flags & OFFSET).checked_add(before)?;
        let more = if payload < left { MORE_FRAGMENTS } else { 0 };
        let flags = (self.flags & !OFFSET) | more | (offset <= OFFSET).then_some(offset)?;
        self.at = self.at.checked_add(payload)?;
        let fragment = self.packet.get_mut(start..self.at)?;
        put(fragment, 0, &self.header)?;
        let len = u16::try_from(fragment.len()).ok()?;
        put(fragment, 2, &len.to_be_bytes())?;
        put(fragment, 6, &flags.to_be_bytes())?;
        put(fragment, 10, &[0, 0])?;
        let sum = Sum::default().add(fragment.get(..HEADER)?).finish();
        put(fragment, 10, &sum.to_be_bytes())?;
        Some(fragment)
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "the bytes are the test's own"
)]
mod tests {
    use super::*;

    /// A packet of `payload` bytes that says to be `offset` times eight bytes into its datagram.
    fn packet(payload: usize, offset: u16, more: bool) -> Vec<u8> {
        let mut packet: Vec<u8> = (0..=255).cycle().take(HEADER + payload).collect();
        packet[0] = 0x45;
        let flags = offset | if more { MORE_FRAGMENTS } else { 0 };
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet
    }

    /// Offset, whether more follow, and payload of each.
    fn cut(mut packet: Vec<u8>, most: usize) -> Vec<(u16, bool, Vec<u8>)> {
        let mut fragments = Fragments::new(&mut packet, most).unwrap();
        let mut all = Vec::new();
        while let Some(fragment) = fragments.next() {
            assert!(fragment.len() <= most);
            assert_eq!(u16_at(fragment, 2), u16::try_from(fragment.len()).ok());
            assert_eq!(Sum::default().add(&fragment[..HEADER]).finish(), 0);
            let flags = u16_at(fragment, 6).unwrap();
            let payload = fragment[HEADER..].to_vec();
            all.push((flags & OFFSET, flags & MORE_FRAGMENTS != 0, payload));
        }
        all
    }

    #[test]
    fn payload_and_offsets_go_on_from_one_to_the_next() {
        for more in [false, true] {
            let whole = packet(1000, 100, more);
            let pieces = cut(whole.clone(), 420);
            let offsets: Vec<_> = pieces.iter().map(|(at, more, _)| (*at, *more)).collect();
            assert_eq!(offsets, [(100, true), (150, true), (200, more)]);
            let payload: Vec<u8> = pieces.into_iter().flat_map(|(.., bytes)| bytes).collect();
            assert_eq!(payload, whole[HEADER..]);
        }
    }

    #[test]
    fn nothing_is_put_beyond_where_a_datagram_can_reach() {
        // The last eight bytes that have a place, and then eight more.
        let offsets = |packet| cut(packet, 28).into_iter().map(|(at, ..)| at);
        assert!(offsets(packet(16, OFFSET - 1, false)).eq([OFFSET - 1, OFFSET]));
        assert!(offsets(packet(24, OFFSET - 1, false)).eq([OFFSET - 1, OFFSET]));
        assert!(offsets(packet(8, OFFSET, true)).eq([OFFSET]));
    }

    #[test]
    fn what_must_not_be_cut_or_does_not_fit_is_not() {
        let mut kept = packet(100, 0, false);
        kept[6] |= 0x40;
        assert!(Fragments::new(&mut kept, 60).is_none());
        let mut narrow = packet(100, 0, false);
        assert!(Fragments::new(&mut narrow, HEADER + 7).is_none());
        assert!(Fragments::new(&mut narrow, HEADER + 8).is_some());
        let mut options = packet(100, 0, false);
        options[0] = 0x46;
        assert!(Fragments::new(&mut options, 60).is_none());
    }
}
