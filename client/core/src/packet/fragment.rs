//! Cutting a packet into fragments, as a router does where the next link is too narrow, and putting two together again, as the
//! host that they are for would do (RFC 791, section 3.2; RFC 8200, section 4.5).

use super::checksum::Sum;
use super::ip::protocol::UDP;
use super::offload::{SegmentKind, SegmentsOf};
use super::{put, u8_at, u16_at};

/// An IPv4 header without options. With options a packet is not cut: which of them go into every fragment
/// would have to be looked up, and hosts send none.
const HEADER: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Bytes behind the IP header that tell a datagram's flow: a first fragment has no less.
const FLOW: usize = 8;
/// An IPv6 header, and the fragment header that follows it at once in what is put together.
const HEADER_V6: usize = 40;
const FRAGMENT_V6: usize = HEADER_V6 + 8;
const FRAGMENT: u8 = 44;
/// In IPv6 the bit stands below the offset, so that this field is the offset in bytes in a last fragment.
const MORE_FRAGMENTS_V6: u16 = 1;

/// What the two fragments of a datagram are written as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reunited {
    header: [u8; HEADER_V6 + FLOW],
    header_len: usize,
    /// Where in the first fragment that goes on which the header ends with.
    pub(crate) first_from: usize,
    /// Where in the last one its share of the datagram begins.
    pub(crate) last_from: usize,
    /// Where it is to be cut as before, wherever the host sends it on.
    pub(crate) segments: Option<SegmentsOf>,
}

impl Reunited {
    /// The header of the whole, with what tells its flow.
    pub(crate) fn header(&self) -> &[u8] {
        self.header.get(..self.header_len).unwrap_or_default()
    }
}

/// The datagram of which `first` and `last` are the two fragments; `None` where they are anything else. Both end where they say.
pub(crate) fn reunited(first: &[u8], last: &[u8]) -> Option<Reunited> {
    match u8_at(first, 0)? >> 4 {
        4 => reunited_v4(first, last),
        _ => reunited_v6(first, last),
    }
}

/// Whether two headers have the same bytes at a place; `None` where one does not reach so far.
fn alike(one: &[u8], other: &[u8]) -> impl Fn(usize, usize) -> Option<bool> {
    |from, to| Some(one.get(from..to)? == other.get(from..to)?)
}

fn reunited_v4(first: &[u8], last: &[u8]) -> Option<Reunited> {
    let same = alike(first, last);
    // Version, header length, class; identification; time to live, protocol; addresses.
    let are_alike = same(0, 2)? && same(4, 6)? && same(8, 10)? && same(12, 20)?;
    let payload = first.len().checked_sub(HEADER)?;
    let goes_on_at = usize::from(u16_at(last, 6)?).checked_mul(8)?;
    let is_first = u8_at(first, 0)? == 0x45 && u16_at(first, 6)? == MORE_FRAGMENTS;
    if !are_alike || !is_first || goes_on_at != payload {
        return None;
    }
    let len = first.len().checked_add(last.len().checked_sub(HEADER)?)?;
    let mut header = [0; HEADER_V6 + FLOW];
    put(&mut header, 0, first.first_chunk::<{ HEADER + FLOW }>()?)?;
    put(&mut header, 2, &u16::try_from(len).ok()?.to_be_bytes())?;
    put(&mut header, 6, &[0, 0])?;
    put(&mut header, 10, &[0, 0])?;
    let sum = Sum::default().add(header.get(..HEADER)?).finish();
    put(&mut header, 10, &sum.to_be_bytes())?;
    Some(Reunited {
        header,
        header_len: HEADER + FLOW,
        first_from: HEADER + FLOW,
        last_from: HEADER,
        // Whoever sends it on may cut it.
        segments: None,
    })
}

/// Of UDP only: in IPv6 nobody cuts a packet on its way, so the whole goes with an order to cut it where the host is not its end
/// but sends it on (to a container, say, whose link may be narrower). Linux has such an order for UDP.
fn reunited_v6(first: &[u8], last: &[u8]) -> Option<Reunited> {
    let same = alike(first, last);
    // Version, class and flow label; next header, hop limit, addresses, next header behind the fragment header; identification.
    let are_alike = same(0, 4)? && same(6, 41)? && same(44, 48)?;
    let payload = first.len().checked_sub(FRAGMENT_V6)?;
    let is_first = u8_at(first, 6)? == FRAGMENT && u16_at(first, 42)? == MORE_FRAGMENTS_V6;
    let is_whole = payload.is_multiple_of(8) && usize::from(u16_at(last, 42)?) == payload;
    if !are_alike || !is_first || !is_whole || u8_at(first, 40)? != UDP {
        return None;
    }
    let len = payload.checked_add(last.len().checked_sub(FRAGMENT_V6)?)?;
    let mut header = [0; HEADER_V6 + FLOW];
    put(&mut header, 0, first.get(..HEADER_V6)?)?;
    put(&mut header, 4, &u16::try_from(len).ok()?.to_be_bytes())?;
    put(&mut header, 6, &[UDP])?;
    let flow = first.get(FRAGMENT_V6..)?.first_chunk::<FLOW>()?;
    put(&mut header, HEADER_V6, flow)?;
    Some(Reunited {
        header,
        header_len: HEADER_V6 + FLOW,
        first_from: FRAGMENT_V6 + FLOW,
        last_from: FRAGMENT_V6,
        segments: Some(SegmentsOf {
            kind: SegmentKind::Fragments,
            header: u16::try_from(HEADER_V6 + FLOW).ok()?,
            size: u16::try_from(payload).ok()?,
        }),
    })
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
    use crate::packet::samples;

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
        assert_eq!(
            reunited(first, last).unwrap().header(),
            &whole[..HEADER + FLOW]
        );
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

    /// The two fragments of a datagram of UDP over IPv6 with `len` bytes behind its header, `before` of them in the first.
    fn two_v6(len: usize, before: usize) -> [Vec<u8>; 2] {
        let addresses = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
        let (units, pair) = (
            u16::try_from(before / 8).unwrap(),
            (addresses[0], addresses[1]),
        );
        let cut = |units, more, bytes: &[u8]| samples::fragment(pair, UDP, 9, units, more, bytes);
        let (first, last) = bytes.split_at(before);
        [cut(0, true, first), cut(units, false, last)]
    }

    #[test]
    fn two_fragments_of_ipv6_are_one_datagram_to_be_cut_as_before() {
        let [first, last] = two_v6(1408, 1368);
        let whole = reunited(&first, &last).unwrap();
        let head = whole.header();
        let rest = [&first[whole.first_from..], &last[whole.last_from..]].concat();
        let addresses = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        let bytes: Vec<u8> = (0..=255).cycle().take(1408).collect();
        let expected = samples::ip(addresses[0], addresses[1], UDP, &bytes);
        assert_eq!([head, &rest].concat(), expected);
        let expected = SegmentsOf {
            kind: SegmentKind::Fragments,
            header: 48,
            size: 1368,
        };
        assert_eq!(whole.segments, Some(expected));
        // One bit of either that differs; of lengths that is said elsewhere, and one byte says nothing.
        for at in (0..4).chain(6..41).chain(42..48) {
            let [mut other, mut others] = [first.clone(), last.clone()];
            other[at] ^= 0x10;
            others[at] ^= 0x10;
            assert_eq!(reunited(&other, &last), None, "{at}");
            assert_eq!(reunited(&first, &others), None, "{at}");
            if [6, 40, 42, 43].contains(&at) {
                assert_eq!(reunited(&other, &others), None, "{at}");
            }
        }
        for bit in 0..3 {
            let mut others = last.clone();
            others[43] ^= 1 << bit;
            assert_eq!(reunited(&first, &others), None, "of three, or unknown");
        }
        assert_eq!(reunited(&last, &first), None);
        assert_eq!(reunited(&first, &first), None);
        assert_eq!(reunited(&first[..first.len() - 8], &last), None, "a gap");
        assert_eq!(reunited(&first[..first.len() - 7], &last), None);
        assert_eq!(reunited(&first, &last[..FRAGMENT_V6 - 1]), None);
        let [v4, _] = [packet(1368, 0, true), vec![]];
        assert_eq!(reunited(&v4, &last), None);
        assert_eq!(reunited(&first, &v4), None);
    }

    #[test]
    fn of_ipv6_no_more_than_a_header_can_tell_is_put_together() {
        for (len, before, fits) in [
            (65_535, 60_000, true),
            (65_536, 60_000, false),
            (8, 8, true),
            // Not all of UDP's header.
            (16, 0, false),
        ] {
            let [first, last] = two_v6(len, before);
            assert_eq!(reunited(&first, &last).is_some(), fits, "{len} {before}");
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
