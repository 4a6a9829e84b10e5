//! Cutting a packet into fragments, as a router does where the next link is too narrow, and putting two together again, as the
//! host that they are for would do (RFC 791, section 3.2).

use super::checksum::Sum;
use super::{put, u8_at, u16_at};

/// An IPv4 header without options. With options a packet is not cut: which of them go into every fragment
/// would have to be looked up, and hosts send none.
const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The header of a datagram that is put together, with the eight bytes behind it that tell its flow: a first fragment has no less.
pub(crate) const WHOLE_HEADER: usize = HEADER + 8;
/// Bytes of a fragment's header.
pub(crate) const FRAGMENT_HEADER: usize = HEADER;

/// What begins the datagram of which `first` and `last` are the two fragments; `None` where they are anything else. Both end where
/// they say.
pub(crate) fn reunited(first: &[u8], last: &[u8]) -> Option<[u8; WHOLE_HEADER]> {
    let same = |from: usize, to: usize| Some(first.get(from..to)? == last.get(from..to)?);
    // Version, header length, class; identification; time to live, protocol; addresses.
    let are_alike = same(0, 2)? && same(4, 6)? && same(8, 10)? && same(12, 20)?;
    let payload = first.len().checked_sub(HEADER)?;
    let goes_on_at = usize::from(u16_at(last, 6)?).checked_mul(8)?;
    let is_first = u8_at(first, 0)? == 0x45 && u16_at(first, 6)? == MORE_FRAGMENTS;
    if !are_alike || !is_first || goes_on_at != payload {
        return None;
    }
    let len = first.len().checked_add(last.len().checked_sub(HEADER)?)?;
    let mut header = *first.first_chunk::<WHOLE_HEADER>()?;
    put(&mut header, 2, &u16::try_from(len).ok()?.to_be_bytes())?;
    put(&mut header, 6, &[0, 0])?;
    put(&mut header, 10, &[0, 0])?;
    let sum = Sum::default().add(header.get(..HEADER)?).finish();
    put(&mut header, 10, &sum.to_be_bytes())?;
    Some(header)
}

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
    fn two_fragments_are_one_datagram_and_others_are_not() {
        let whole = {
            let mut whole = packet(1000, 0, false);
            put(&mut whole, 2, &1020_u16.to_be_bytes()).unwrap();
            put(&mut whole, 10, &[0, 0]).unwrap();
            let sum = Sum::default().add(&whole[..HEADER]).finish();
            put(&mut whole, 10, &sum.to_be_bytes()).unwrap();
            whole
        };
        let parts = |most: usize| {
            let mut whole = whole.clone();
            let mut fragments = Fragments::new(&mut whole, most).unwrap();
            let mut all = Vec::new();
            while let Some(fragment) = fragments.next() {
                all.push(fragment.to_vec());
            }
            all
        };
        let [first, last] = &parts(820)[..] else {
            panic!("two fragments");
        };
        assert_eq!(reunited(first, last).unwrap()[..], whole[..WHOLE_HEADER]);
        // One byte of either header that differs.
        for at in (0..2).chain(4..10).chain(12..20) {
            let [mut other, mut others] = [first.clone(), last.clone()];
            other[at] ^= 0x10;
            others[at] ^= 0x10;
            assert_eq!(reunited(&other, last), None, "{at}");
            assert_eq!(reunited(first, &others), None, "{at}");
            if (6..8).contains(&at) {
                assert_eq!(reunited(&other, &others), None, "{at}");
            }
        }
        assert_eq!(reunited(last, first), None);
        assert_eq!(reunited(first, first), None);
        assert_eq!(reunited(&first[..first.len() - 8], last), None, "a gap");
        assert_eq!(reunited(&first[..HEADER], last), None);
        assert_eq!(reunited(first, &last[..HEADER - 1]), None);
        let [first, second, third] = &parts(420)[..] else {
            panic!("three fragments");
        };
        for (one, other) in [(first, second), (second, third), (first, third)] {
            assert_eq!(reunited(one, other), None);
        }
    }

    #[test]
    fn what_would_be_too_long_stays_in_two() {
        let first = |payload: usize| packet(payload, 0, true);
        let last = |payload: usize, before: u16| packet(payload, before / 8, false);
        let parts = |all: usize| (first(60_000), last(all - HEADER - 60_000, 60_000));
        let (one, other) = parts(65_535);
        assert!(reunited(&one, &other).is_some());
        let (one, other) = parts(65_536);
        assert_eq!(reunited(&one, &other), None);
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
