//! Poly1305 (RFC 8439, section 2.5), sixteen blocks at a time, by the processor's multiplication of 52 bits (AVX512_IFMA).
//!
//! A number is three limbs, of 44, 44 and 42 bits, so that the lower half of a product of two limbs (52 bits) and the upper
//! half leave room for what is added and carried. `n` blocks are brought to a multiple of sixteen by *nothing* in front of
//! them: a lane without a block, and without the bit above it, adds nothing to zero. Each lane takes every sixteenth block and is
//! multiplied by r^16 in between; at the end, the lane of the last block by r, the one before by r^2, and so on.
//!
//! What there can be in a lane, for any message and any key, as powers of two:
//!
//! | | first limb | second | third |
//! |---|---|---|---|
//! | r, r^2, … | 44 | 44 + 2^8 | 42 |
//! | … times 20 | | 48.4 | 46.4 |
//! | a sum | 44 | 44 + 2^6 | 42 |
//! | a sum with a block | 45 | 45 + 2^6 | 42.6 |
//! | three lower halves of products | 53.6 | 53.6 | 53.6 |
//! | three upper halves | 40.3 | 38.7 | 37.5 |
//! | … moved to where the next limb begins | 48.3 | 46.7 | 47.5 |
//! | what is carried out of the third limb, five times | 49.9 | | |
//!
//! So every factor is below 2^52, of which the multiplication looks at no more, and every sum below 2^64. `tests` multiplies at
//! these bounds.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpge_epu64_mask, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_maskz_set1_epi64, _mm512_or_si512, _mm512_reduce_add_epi64,
    _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_shrdi_epi64,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::field::{LOW_42, LOW_44, Number, OneTimeKey};
use super::load;

/// Bytes of a block.
const BLOCK: usize = 16;
/// Lanes of a register.
const LANES: usize = 8;
/// Blocks of a step.
const STEP: usize = 2 * LANES;
/// Bytes of a step.
const STEP_BYTES: usize = STEP * BLOCK;
/// Up to as many blocks, one by one is as fast: nothing is spent on powers of r.
const FEW: usize = 9;

/// Eight numbers, one to a lane.
pub(super) type Lanes = [__m512i; 3];

/// Eight numbers to multiply by: their limbs, and twenty times the upper two.
pub(super) struct Factors {
    limbs: Lanes,
    wrapped: [__m512i; 2],
}

/// The tag of `sealed` without associated data (RFC 8439, section 2.8).
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
pub(super) fn tag(key: &[u8; 32], sealed: &[u8]) -> [u8; 16] {
    let key = OneTimeKey::new(key);
    let blocks = sealed.len().div_ceil(BLOCK) + 1;
    if blocks <= FEW {
        return key.tag(sealed);
    }
    let r = key.r();
    let r2 = r.times(r);
    let r3 = r2.times(r);
    let r4 = r2.times(r2);
    let r8 = r4.times(r4);
    let powers = [r8, r4.times(r3), r4.times(r2), r4.times(r), r4, r3, r2, r];
    let last = Factors::new(in_lanes(&powers));
    let last_but_eight = Factors::new(multiply(last.limbs, &Factors::all(r8)));

    let first = (blocks - 1) % STEP + 1;
    let mut sums = [[_mm512_setzero_si512(); 3]; 2];
    let mut missing = STEP - first;
    let mut rest = sealed;
    if blocks > STEP {
        let r16 = Factors::all(r8.times(r8));
        let (head, tail) = sealed.split_at(first * BLOCK);
        let mut step = [0; STEP_BYTES];
        step[missing * BLOCK..].copy_from_slice(head);
        sums = multiplied(added(sums, &step, missing), [&r16, &r16]);
        rest = tail;
        missing = 0;
        // The block of lengths is in the last step.
        while rest.len() > STEP_BYTES - BLOCK
            && let Some((step, tail)) = rest.split_first_chunk::<STEP_BYTES>()
        {
            sums = multiplied(added(sums, step, missing), [&r16, &r16]);
            rest = tail;
        }
    }
    let mut step = [0; STEP_BYTES];
    let at = missing * BLOCK;
    step[at..at + rest.len()].copy_from_slice(rest);
    step[STEP_BYTES - 8..].copy_from_slice(&(sealed.len() as u64).to_le_bytes());
    let [even, odd] = multiplied(added(sums, &step, missing), [&last_but_eight, &last]);
    let limbs = std::array::from_fn(|limb| {
        _mm512_reduce_add_epi64(_mm512_add_epi64(even[limb], odd[limb])).cast_unsigned()
    });
    key.finish(Number::carried(limbs))
}

impl Factors {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(limbs: Lanes) -> Self {
        let twenty =
            |limb| _mm512_slli_epi64::<2>(_mm512_add_epi64(limb, _mm512_slli_epi64::<2>(limb)));
        Self {
            limbs,
            wrapped: [twenty(limbs[1]), twenty(limbs[2])],
        }
    }

    /// The same number in every lane.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn all(number: Number) -> Self {
        Self::new(
            number
                .limbs()
                .map(|limb| _mm512_set1_epi64(limb.cast_signed())),
        )
    }
}

/// Numbers for blocks that follow each other, in the order in which [`added`] puts blocks into lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn in_lanes(numbers: &[Number; LANES]) -> Lanes {
    std::array::from_fn(|limb| {
        let [a, b, c, d, e, f, g, h] = numbers.map(|number| number.limbs()[limb].cast_signed());
        _mm512_set_epi64(h, d, g, c, f, b, e, a)
    })
}

/// Adds the blocks of a step, of which the first `missing` are none.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi2")]
fn added(sums: [Lanes; 2], step: &[u8; STEP_BYTES], missing: usize) -> [Lanes; 2] {
    let (quarters, _) = step.as_chunks::<64>();
    let order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
    std::array::from_fn(|half| {
        let first = load(&quarters[2 * half]);
        let second = load(&quarters[2 * half + 1]);
        let low = _mm512_unpacklo_epi64(first, second);
        let high = _mm512_unpackhi_epi64(first, second);
        let low_44 = _mm512_set1_epi64(LOW_44.cast_signed());
        let present = if missing == 0 {
            _mm512_set1_epi64(1 << 40)
        } else {
            let missing = missing.saturating_sub(half * LANES) as u64;
            let present = _mm512_cmpge_epu64_mask(order, _mm512_set1_epi64(missing.cast_signed()));
            _mm512_maskz_set1_epi64(present, 1 << 40)
        };
        let block = [
            _mm512_and_si512(low, low_44),
            _mm512_and_si512(_mm512_shrdi_epi64::<44>(low, high), low_44),
            _mm512_or_si512(_mm512_srli_epi64::<24>(high), present),
        ];
        std::array::from_fn(|limb| _mm512_add_epi64(sums[half][limb], block[limb]))
    })
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiplied(sums: [Lanes; 2], by: [&Factors; 2]) -> [Lanes; 2] {
    [multiply(sums[0], by[0]), multiply(sums[1], by[1])]
}

/// Lane by lane, modulo 2^130 - 5.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiply(lanes: Lanes, by: &Factors) -> Lanes {
    let [a, b, c] = lanes;
    let [r, s, t] = by.limbs;
    let [s20, t20] = by.wrapped;
    let (low, high) = products([(c, s20), (b, t20), (a, r)]);
    let (low_next, high_next) = products([(c, t20), (b, r), (a, s)]);
    let (low_last, high_last) = products([(c, r), (b, s), (a, t)]);
    let low_44 = _mm512_set1_epi64(LOW_44.cast_signed());
    let low_42 = _mm512_set1_epi64(LOW_42.cast_signed());

    // An upper half begins at bit 52, 8 above the next limb and 10 above what comes after the last one.
    let carry = _mm512_add_epi64(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<8>(high));
    let next = _mm512_add_epi64(low_next, carry);
    let carry = _mm512_add_epi64(
        _mm512_srli_epi64::<44>(next),
        _mm512_slli_epi64::<8>(high_next),
    );
    let last = _mm512_add_epi64(low_last, carry);
    let carry = _mm512_add_epi64(
        _mm512_srli_epi64::<42>(last),
        _mm512_slli_epi64::<10>(high_last),
    );
    let five = _mm512_add_epi64(carry, _mm512_slli_epi64::<2>(carry));
    let first = _mm512_add_epi64(_mm512_and_si512(low, low_44), five);
    let carry = _mm512_srli_epi64::<44>(first);
    [
        _mm512_and_si512(first, low_44),
        _mm512_add_epi64(_mm512_and_si512(next, low_44), carry),
        _mm512_and_si512(last, low_42),
    ]
}

/// The lower and the upper halves of three products, added up.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn products(factors: [(__m512i, __m512i); 3]) -> (__m512i, __m512i) {
    let zero = _mm512_setzero_si512();
    factors
        .into_iter()
        .fold((zero, zero), |(low, high), (a, b)| {
            (
                _mm512_madd52lo_epu64(low, a, b),
                _mm512_madd52hi_epu64(high, a, b),
            )
        })
}
