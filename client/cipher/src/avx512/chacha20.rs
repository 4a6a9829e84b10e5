//! The ChaCha20 block function (RFC 8439, section 2.3) on four blocks to a register.
//!
//! A register holds one row of the state for four blocks in a row. A *group* is the four rows of four blocks, 256 bytes of key
//! stream; up to six groups are in registers at once, so that the units of the processor have others to go on with
//! where one waits for its own results. Six are also what a packet of 1,420 bytes and its one-time key need.

use std::arch::x86_64::{
    __m512i, _mm_set_epi32, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_rol_epi32,
    _mm512_set_epi32, _mm512_shuffle_epi32, _mm512_shuffle_i32x4, _mm512_xor_si512,
};

use super::{load, store};

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;
/// Blocks of a group.
pub(super) const GROUP: usize = 4;
/// Groups at once.
const GROUPS: usize = 6;
/// Blocks of key stream at once.
pub(super) const BLOCKS: usize = GROUP * GROUPS;
/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The rows of a group.
type Rows = [__m512i; 4];

/// Key stream, `N` blocks of it.
#[repr(align(64))]
pub(super) struct KeyStream<const N: usize>([[u8; BLOCK]; N]);

impl<const N: usize> KeyStream<N> {
    /// `N`, as the counter counts blocks.
    #[expect(clippy::cast_possible_truncation, reason = "compared beforehand")]
    pub(super) const COUNTED: u32 = {
        assert!(N == GROUP || N == BLOCKS, "a group, or all at once");
        N as u32
    };

    pub(super) fn new() -> Self {
        Self([[0; BLOCK]; N])
    }

    /// The blocks that were made last, the first one first.
    pub(super) fn blocks(&self) -> &[[u8; BLOCK]; N] {
        &self.0
    }
}

/// The state of four blocks before the first round, the counter at zero in each.
pub(super) struct Start(Rows);

impl Start {
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let (key, _) = key.as_chunks::<4>();
        let (nonce, _) = nonce.as_chunks::<4>();
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        Self([
            row(CONSTANTS),
            row(std::array::from_fn(|at| word(&key[at]))),
            row(std::array::from_fn(|at| word(&key[4 + at]))),
            row([0, word(&nonce[0]), word(&nonce[1]), word(&nonce[2])]),
        ])
    }

    /// Makes blocks from `counter` on: at least `wanted`, but no more than there is room for, which is a group or [`BLOCKS`].
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn key_stream<const N: usize>(
        &self,
        counter: u32,
        wanted: usize,
        to: &mut KeyStream<N>,
    ) {
        if N == GROUP {
            return self.groups::<1>(counter, &mut to.0);
        }
        match wanted.div_ceil(GROUP) {
            0 | 1 => self.groups::<1>(counter, &mut to.0),
            2 => self.groups::<2>(counter, &mut to.0),
            3 => self.groups::<3>(counter, &mut to.0),
            4 => self.groups::<4>(counter, &mut to.0),
            _ => self.groups::<GROUPS>(counter, &mut to.0),
        }
    }

    #[target_feature(enable = "avx512f")]
    fn groups<const N: usize>(&self, counter: u32, to: &mut [[u8; BLOCK]]) {
        let Self([constants, low, high, last]) = *self;
        let mut next = counter;
        let starts: [Rows; N] = std::array::from_fn(|_| {
            let counter = next;
            next = counter.wrapping_add(4);
            [constants, low, high, counted(last, counter)]
        });
        let mut state = starts;
        for _ in 0..10 {
            quarter_rounds(&mut state);
            for [_, b, c, d] in &mut state {
                *b = _mm512_shuffle_epi32::<0b00_11_10_01>(*b);
                *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = _mm512_shuffle_epi32::<0b10_01_00_11>(*d);
            }
            quarter_rounds(&mut state);
            for [_, b, c, d] in &mut state {
                *b = _mm512_shuffle_epi32::<0b10_01_00_11>(*b);
                *c = _mm512_shuffle_epi32::<0b01_00_11_10>(*c);
                *d = _mm512_shuffle_epi32::<0b00_11_10_01>(*d);
            }
        }
        let (to, _) = to.as_chunks_mut::<GROUP>();
        for ((rows, start), to) in state.iter().zip(&starts).zip(to) {
            let rows = std::array::from_fn(|row| _mm512_add_epi32(rows[row], start[row]));
            for (block, to) in blocks(rows).into_iter().zip(to) {
                store(block, to);
            }
        }
    }
}

/// `words`, four times.
#[inline]
#[target_feature(enable = "avx512f")]
fn row(words: [u32; 4]) -> __m512i {
    let [a, b, c, d] = words.map(u32::cast_signed);
    _mm512_broadcast_i32x4(_mm_set_epi32(d, c, b, a))
}

/// The last row of four blocks, the first of which has `counter`.
#[inline]
#[target_feature(enable = "avx512f")]
fn counted(last: __m512i, counter: u32) -> __m512i {
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| counter.wrapping_add(at).cast_signed());
    let counters = _mm512_set_epi32(0, 0, 0, d, 0, 0, 0, c, 0, 0, 0, b, 0, 0, 0, a);
    _mm512_add_epi32(last, counters)
}

/// The four quarter rounds on the columns of each state (RFC 8439, section 2.1).
#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_rounds<const N: usize>(state: &mut [Rows; N]) {
    for [a, b, _, _] in &mut *state {
        *a = _mm512_add_epi32(*a, *b);
    }
    for [a, _, _, d] in &mut *state {
        *d = _mm512_rol_epi32::<16>(_mm512_xor_si512(*d, *a));
    }
    for [_, _, c, d] in &mut *state {
        *c = _mm512_add_epi32(*c, *d);
    }
    for [_, b, c, _] in &mut *state {
        *b = _mm512_rol_epi32::<12>(_mm512_xor_si512(*b, *c));
    }
    for [a, b, _, _] in &mut *state {
        *a = _mm512_add_epi32(*a, *b);
    }
    for [a, _, _, d] in &mut *state {
        *d = _mm512_rol_epi32::<8>(_mm512_xor_si512(*d, *a));
    }
    for [_, _, c, d] in &mut *state {
        *c = _mm512_add_epi32(*c, *d);
    }
    for [_, b, c, _] in &mut *state {
        *b = _mm512_rol_epi32::<7>(_mm512_xor_si512(*b, *c));
    }
}

/// Rows of four blocks as the blocks: a matrix of four by four quarters of a register, turned over.
#[inline]
#[target_feature(enable = "avx512f")]
fn blocks([a, b, c, d]: Rows) -> [__m512i; GROUP] {
    const FIRST_TWO: i32 = 0b01_00_01_00;
    const LAST_TWO: i32 = 0b11_10_11_10;
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    let ab = _mm512_shuffle_i32x4::<FIRST_TWO>(a, b);
    let cd = _mm512_shuffle_i32x4::<FIRST_TWO>(c, d);
    let more_ab = _mm512_shuffle_i32x4::<LAST_TWO>(a, b);
    let more_cd = _mm512_shuffle_i32x4::<LAST_TWO>(c, d);
    [
        _mm512_shuffle_i32x4::<EVEN>(ab, cd),
        _mm512_shuffle_i32x4::<ODD>(ab, cd),
        _mm512_shuffle_i32x4::<EVEN>(more_ab, more_cd),
        _mm512_shuffle_i32x4::<ODD>(more_ab, more_cd),
    ]
}

/// Adds key stream to `data`, as many blocks of it as there are.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn apply(blocks: &[[u8; BLOCK]], data: &mut [u8]) {
    let (whole, rest) = data.as_chunks_mut::<BLOCK>();
    for (to, block) in whole.iter_mut().zip(blocks) {
        store(_mm512_xor_si512(load(to), load(block)), to);
    }
    if let Some(block) = blocks.get(whole.len()) {
        for (to, block) in rest.iter_mut().zip(block) {
            *to ^= block;
        }
    }
}
