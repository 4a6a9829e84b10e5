//! All of it beside AWS-LC, without the trial that would hide what is wrong; and the arithmetic beside slower and plainer
//! arithmetic, at values that no message comes to by chance.

use std::arch::x86_64::_mm512_set1_epi64;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use proptest::prelude::*;

use super::chacha20::{BLOCK, BLOCKS, KeyStream, Start};
use super::field::{LOW_42, LOW_44, Number, OneTimeKey};
use super::{Avx512, LONGEST, chacha20, poly1305 as lanes};
use crate::trial::Candidate as _;
use crate::{Forged, Implementation, TAG, aws_lc, implementation};

/// 2^130 - 5, the lowest 128 bits and what is above.
const PRIME: Plain = Plain(3, u128::MAX - 4);

/// A number of up to 250 bits: the bits above 128, and those below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plain(u128, u128);

impl Plain {
    fn of(limbs: [u64; 3]) -> Self {
        let [low, next, last] = limbs.map(u128::from);
        let shifted =
            |limb: u128, by: u32| Self(limb.checked_shr(128 - by).unwrap_or(0), limb << by);
        Self(0, low).plus(shifted(next, 44)).plus(shifted(last, 88))
    }

    fn plus(self, other: Self) -> Self {
        let (low, carry) = self.1.overflowing_add(other.1);
        Self(self.0 + other.0 + u128::from(carry), low)
    }

    fn less(self, other: Self) -> Self {
        let (low, borrow) = self.1.overflowing_sub(other.1);
        Self(self.0 - other.0 - u128::from(borrow), low)
    }

    /// By subtracting 2^130 - 5 times ever smaller powers of two.
    fn reduced(self) -> Self {
        let mut rest = self;
        for power in (0..100).rev() {
            let Self(high, low) = PRIME;
            let carried = if power == 0 { 0 } else { low >> (128 - power) };
            let multiple = Self(high << power | carried, low << power);
            if rest >= multiple {
                rest = rest.less(multiple);
            }
        }
        rest
    }

    /// By doubling and adding.
    fn times(self, other: Self) -> Self {
        let mut product = Self(0, 0);
        for bit in (0..256).rev() {
            product = product.plus(product).reduced();
            let set = if bit < 128 {
                other.1 >> bit
            } else {
                other.0 >> (bit - 128)
            };
            if set & 1 == 1 {
                product = product.plus(self.reduced()).reduced();
            }
        }
        product
    }
}

#[test]
fn where_the_instructions_are_they_are_used() {
    // In this process nobody switches them off: what is compared with AWS-LC elsewhere is not AWS-LC itself.
    let expected = if avx512().is_some() {
        Implementation::Avx512
    } else {
        Implementation::AwsLc
    };
    assert_eq!(implementation(), expected);
}

#[test]
fn every_length_is_sealed_into_what_aws_lc_seals_it_into_and_opens() {
    for length in (0..7_000).chain([20_001, 60_000, 65_519, LONGEST]) {
        let byte = |at: usize| ((at * 37) >> 3).to_le_bytes()[0];
        agrees(
            &[0x42; 32],
            &[7; 12],
            &(0..length).map(byte).collect::<Vec<_>>(),
        );
    }
}

#[test]
fn bytes_that_are_all_alike_are_sealed_and_opened() {
    for byte in [0, 0xff] {
        for length in 0..2_000 {
            agrees(&[byte; 32], &[byte; 12], &vec![byte; length]);
        }
    }
}

/// Seals as AWS-LC does; opens that; and leaves it as it is where its tag is another, or one of its bits.
fn agrees(key: &[u8; 32], nonce: &[u8; 12], message: &[u8]) {
    let Some(avx512) = avx512() else { return };
    let mut expected = message.to_vec();
    let library = aws_lc::Key::new(key);
    let tag = library.seal(nonce, &[], &mut expected).unwrap();
    let mut data = message.to_vec();
    assert_eq!(avx512.seal(key, nonce, &mut data), tag, "{}", message.len());
    assert_eq!(data, expected, "{}", message.len());
    for byte in [0, TAG / 2, TAG - 1] {
        let mut forged = tag;
        forged[byte] ^= 0x80;
        assert_eq!(avx512.open(key, nonce, &mut data, &forged), Err(Forged));
        assert_eq!(data, expected, "{}", message.len());
    }
    for at in [0, message.len() / 2, message.len().saturating_sub(1)] {
        if message.is_empty() {
            break;
        }
        data[at] ^= 1;
        let mut forged = data.clone();
        assert_eq!(avx512.open(key, nonce, &mut forged, &tag), Err(Forged));
        assert_eq!(forged, data, "{}", message.len());
        data[at] ^= 1;
    }
    assert_eq!(avx512.open(key, nonce, &mut data, &tag), Ok(()));
    assert_eq!(data, message, "{}", message.len());
}

/// Limbs at the bounds that the table in `poly1305` gives.
const EDGES: [[u64; 3]; 12] = [
    [0, 0, 0],
    [1, 0, 0],
    [LOW_44 - 4, LOW_44, LOW_42],
    [LOW_44 - 5, LOW_44, LOW_42],
    [LOW_44 - 3, LOW_44, LOW_42],
    [LOW_44, LOW_44, LOW_42],
    [LOW_44, LOW_44 + 256, LOW_42],
    [LOW_44, LOW_44 + 1, LOW_42],
    [0, LOW_44 + 1, LOW_42],
    [LOW_44 + 1, LOW_44, LOW_42],
    [(1 << 45) - 1, (1 << 45) - 1, (1 << 43) - 1],
    [(1 << 45) - 1, (1 << 45) - 1, (1 << 45) - 1],
];

fn limbs() -> impl Strategy<Value = [u64; 3]> {
    let limb = || prop_oneof![0..1_u64 << 45, (1_u64 << 45) - 8..1 << 45, 0..8_u64];
    // The second one is where carries are left.
    [limb(), limb(), limb()].prop_map(|[low, next, last]| [low, next + 64, last])
}

#[test]
fn a_number_stands_for_one_number_at_every_edge() {
    let low = |limbs| Plain::of(limbs).reduced().1;
    // From a little below the prime to a little above 2^130, and at every edge.
    for above in 0..16_u64 {
        for borrowed in 0..8 {
            let limbs = [LOW_44 - 8 + above, LOW_44 + 1 - borrowed, LOW_42];
            assert_eq!(Number::carried(limbs).reduced(), low(limbs), "{limbs:x?}");
        }
    }
    for limbs in EDGES {
        assert_eq!(Number::carried(limbs).reduced(), low(limbs), "{limbs:x?}");
    }
    assert_eq!(Number::carried([LOW_44 - 4, LOW_44, LOW_42]).reduced(), 0);
}

#[test]
fn products_are_right_at_every_edge() {
    for a in EDGES {
        for b in EDGES {
            product_is_right(a, b);
        }
    }
}

proptest! {
    #[test]
    fn products_are_right(a in limbs(), b in limbs()) {
        product_is_right(a, b);
    }

    /// Few bits set, or few not: as near to the edges as messages and keys get.
    #[test]
    fn tags_are_right(key in extreme(32), message in (0..700_usize).prop_flat_map(extreme)) {
        tag_is_right(&key.try_into().unwrap(), &message);
    }
}

/// Bytes that are nearly all `00`, nearly all `ff`, or any.
fn extreme(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => Just(0xff), 8 => Just(0), 1 => any::<u8>()];
    let even = prop_oneof![Just(0xff), Just(0)];
    prop_oneof![
        prop::collection::vec(byte, length),
        prop::collection::vec(any::<u8>(), length),
        even.prop_map(move |byte| vec![byte; length]),
    ]
}

/// One at a time, and in lanes. A third limb never is larger than 43 bits there.
fn product_is_right(a: [u64; 3], b: [u64; 3]) {
    let expected = Plain::of(a).times(Plain::of(b)).1;
    let product = Number::of_limbs(a).times(Number::of_limbs(b));
    assert_eq!(product.reduced(), expected, "{a:x?} {b:x?}");

    let Some(_avx512) = avx512() else { return };
    let [low, next, last] = a;
    let a = [low, next, last & ((1 << 43) - 1)];
    let [low, next, last] = b;
    let b = Number::of_limbs([low & LOW_44, next.min(LOW_44 + 256), last & LOW_42]);
    let expected = Plain::of(a).times(Plain::of(b.limbs())).1;
    let product = in_lanes(a, b);
    for lane in product {
        let [low, next, last] = lane;
        assert!(
            low <= LOW_44 && next <= LOW_44 + 64 && last <= LOW_42,
            "{lane:x?}"
        );
        assert_eq!(Number::carried(lane).reduced(), expected, "{a:x?}");
    }
}

/// [`lanes::multiply`], its lanes one by one.
fn in_lanes(a: [u64; 3], b: Number) -> [[u64; 3]; 8] {
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn multiply(a: [u64; 3], b: Number) -> [[u64; 3]; 8] {
        let a = a.map(|limb| _mm512_set1_epi64(limb.cast_signed()));
        let product = lanes::multiply(a, &lanes::Factors::all(b));
        let mut stored = [[0; 64]; 3];
        for (limb, to) in product.into_iter().zip(&mut stored) {
            super::store(limb, to);
        }
        std::array::from_fn(|lane| {
            stored
                .each_ref()
                .map(|limb| u64::from_le_bytes(std::array::from_fn(|byte| limb[8 * lane + byte])))
        })
    }
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    // SAFETY: who calls has asked whether they are there.
    unsafe {
        multiply(a, b)
    }
}

proptest! {
    #[test]
    fn anything_is_sealed_and_opened(
        key: [u8; 32],
        nonce: [u8; 12],
        message in prop::collection::vec(any::<u8>(), 0..4_000),
    ) {
        agrees(&key, &nonce, &message);
    }
}

#[test]
fn tags_are_right_for_all_lengths() {
    for length in 0..1_600 {
        for byte in [0xff, 0, 0x80] {
            tag_is_right(&[byte; 32], &vec![byte; length]);
            tag_is_right(&[0xff; 32], &vec![byte; length]);
        }
    }
}

/// The tag that another library's Poly1305 makes of `sealed`, by blocks and in lanes.
fn tag_is_right(key: &[u8; 32], sealed: &[u8]) {
    let mut message = sealed.to_vec();
    message.resize(sealed.len().next_multiple_of(16), 0);
    message.extend([0; 8]);
    message.extend((sealed.len() as u64).to_le_bytes());
    let expected = Poly1305::new(key.into()).compute_unpadded(&message);
    assert_eq!(
        OneTimeKey::new(key).tag(sealed),
        *expected,
        "{key:x?} {sealed:x?}"
    );
    if avx512().is_none() {
        return;
    }
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    // SAFETY: they are there.
    let tag = unsafe { lanes::tag(key, sealed) };
    assert_eq!(tag, *expected, "{key:x?} {sealed:x?}");
}

/// RFC 8439, appendix A.3, test vectors 7 to 11: carries, and sums around 2^130 - 5.
#[test]
fn poly1305_of_the_rfc() {
    let padded =
        |first: u8| -> [u8; 16] { std::array::from_fn(|at| if at == 0 { first } else { 0 }) };
    let full =
        |first: u8| -> [u8; 16] { std::array::from_fn(|at| if at == 0 { first } else { 0xff }) };
    let nearly = std::array::from_fn(|at| if at == 0 { 0xfb } else { 0xfe });
    let none = [0; 16];
    let cases: [(u8, [u8; 16], &[[u8; 16]], [u8; 16]); 5] = [
        (2, none, &[[0xff; 16]], padded(3)),
        (2, [0xff; 16], &[padded(2)], padded(3)),
        (1, none, &[[0xff; 16], full(0xf0), padded(0x11)], padded(5)),
        (1, none, &[[0xff; 16], nearly, [1; 16]], none),
        (2, none, &[full(0xfd)], full(0xfa)),
    ];
    for (r, s, blocks, expected) in cases {
        let key: [u8; 32] = [padded(r), s].concat().try_into().unwrap();
        let key = OneTimeKey::new(&key);
        let sum = blocks.iter().fold(Number::of_limbs([0; 3]), |sum, block| {
            sum.plus(Number::block(*block)).times(key.r())
        });
        assert_eq!(key.finish(sum), expected, "{r} {s:x?} {blocks:x?}");
    }
}

/// RFC 8439, section 2.3.2.
#[test]
fn chacha20_of_the_rfc() {
    let key = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let nonce = [0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0];
    let Some(stream) = stream(&key, &nonce, 1, 1) else {
        return;
    };
    let expected = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e\
                    d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e";
    assert_eq!(data_encoding::HEXLOWER.encode(&stream[0]), expected);
}

#[test]
fn blocks_are_the_same_however_many_are_made_and_wherever_it_begins() {
    let (key, nonce) = ([3; 32], [5; 12]);
    for counter in [0, 1, 7, u32::MAX - 1_000] {
        let Some(all) = stream(&key, &nonce, counter, BLOCKS) else {
            return;
        };
        for wanted in 0..BLOCKS {
            let some = stream(&key, &nonce, counter, wanted).unwrap();
            assert_eq!(some[..wanted], all[..wanted], "{wanted}");
            let later = counter + u32::try_from(wanted).unwrap();
            let one = stream(&key, &nonce, later, 1).unwrap();
            assert_eq!(one[0], all[wanted], "{counter} {wanted}");
        }
        assert_eq!(all.iter().filter(|block| **block == all[0]).count(), 1);
    }
}

#[test]
fn a_stream_is_added_as_far_as_it_goes() {
    #[target_feature(enable = "avx512f")]
    fn added(blocks: &[[u8; BLOCK]], data: &mut [u8]) {
        chacha20::apply(blocks, data);
    }
    let Some(_avx512) = avx512() else { return };
    let blocks = [[1; BLOCK], [2; BLOCK], [4; BLOCK]];
    for length in 0..3 * BLOCK {
        let mut data = vec![0x10; length];
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: they are there.
        unsafe {
            added(&blocks, &mut data);
        }
        let expected = blocks.concat().into_iter().map(|byte| byte ^ 0x10);
        assert!(data.into_iter().eq(expected.take(length)), "{length}");
    }
}

fn stream(
    key: &[u8; 32],
    nonce: &[u8; 12],
    counter: u32,
    wanted: usize,
) -> Option<[[u8; BLOCK]; BLOCKS]> {
    #[target_feature(enable = "avx512f")]
    fn made(key: &[u8; 32], nonce: &[u8; 12], counter: u32, wanted: usize) -> KeyStream<BLOCKS> {
        let mut stream = KeyStream::new();
        Start::new(key, nonce).key_stream(counter, wanted, &mut stream);
        stream
    }
    avx512()?;
    #[expect(unsafe_code, reason = "instructions that not every processor has")]
    // SAFETY: they are there.
    let stream = unsafe { made(key, nonce, counter, wanted) };
    Some(*stream.blocks())
}

/// Where they are not, what needs them is left out, and said.
fn avx512() -> Option<Avx512> {
    let found = Avx512::detect();
    if found.is_none() {
        eprintln!("skipped: this processor has no AVX-512");
    }
    found
}
