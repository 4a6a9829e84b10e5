//! ChaCha20-Poly1305 with registers of 512 bits: AVX-512 with its multiplication of 52 bits, which Intel's servers have since Ice
//! Lake and AMD's processors since Zen 4.

mod chacha20;
mod field;
mod poly1305;
#[cfg(test)]
mod tests;

use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_storeu_si512};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use chacha20::{BLOCK, BLOCKS, GROUP, KeyStream, Start};

use crate::trial::Candidate;
use crate::{Forged, TAG};

/// The longest message. No datagram is longer, and the counter of blocks stays far from its end.
pub(crate) const LONGEST: usize = 65_535;

/// The longest message that a group of blocks is enough for, besides the one-time key. It gets no room for more, which
/// would be 20 cache lines to clear, which after a pause are in no cache.
const SHORT: usize = (GROUP - 1) * BLOCK;

/// This processor and this kernel have the instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Where they do.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi2");
        has.then_some(Self(()))
    }
}

/// For `data` of [`LONGEST`] bytes at most.
impl Candidate for Avx512 {
    fn seal(&self, key: &[u8; 32], nonce: &[u8; 12], data: &mut [u8]) -> [u8; TAG] {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: an `Avx512` is made only where `detect` has found all that `seal` is compiled for.
        unsafe {
            seal(key, nonce, data)
        }
    }

    fn open(
        &self,
        key: &[u8; 32],
        nonce: &[u8; 12],
        data: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), Forged> {
        #[expect(unsafe_code, reason = "instructions that not every processor has")]
        // SAFETY: as for `seal`.
        unsafe {
            open(key, nonce, data, tag)
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn seal(key: &[u8; 32], nonce: &[u8; 12], data: &mut [u8]) -> [u8; TAG] {
    let start = Start::new(key, nonce);
    if data.len() <= SHORT {
        seal_with::<GROUP>(&start, data)
    } else {
        seal_with::<BLOCKS>(&start, data)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn seal_with<const N: usize>(start: &Start, data: &mut [u8]) -> [u8; TAG] {
    let mut stream = KeyStream::<N>::new();
    let one_time = begin(start, data.len(), &mut stream);
    go_through(start, data, &mut stream);
    poly1305::tag(&one_time, data)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn open(key: &[u8; 32], nonce: &[u8; 12], data: &mut [u8], tag: &[u8; TAG]) -> Result<(), Forged> {
    let start = Start::new(key, nonce);
    if data.len() <= SHORT {
        open_with::<GROUP>(&start, data, tag)
    } else {
        open_with::<BLOCKS>(&start, data, tag)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma,avx512vbmi2")]
fn open_with<const N: usize>(
    start: &Start,
    data: &mut [u8],
    tag: &[u8; TAG],
) -> Result<(), Forged> {
    let mut stream = KeyStream::<N>::new();
    let one_time = begin(start, data.len(), &mut stream);
    let expected = poly1305::tag(&one_time, data);
    verify_slices_are_equal(&expected, tag).map_err(|_| Forged)?;
    go_through(start, data, &mut stream);
    Ok(())
}

/// Makes the first blocks of the key stream for `length` bytes; the one-time key, which is the beginning of the first block.
#[inline]
#[target_feature(enable = "avx512f")]
fn begin<const N: usize>(start: &Start, length: usize, stream: &mut KeyStream<N>) -> [u8; 32] {
    start.key_stream(0, length.div_ceil(BLOCK) + 1, stream);
    let first = &stream.blocks()[0];
    std::array::from_fn(|at| first[at])
}

/// Adds the key stream from its second block on to `data`. `stream` has the first of it: all, or `N` blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn go_through<const N: usize>(start: &Start, data: &mut [u8], stream: &mut KeyStream<N>) {
    let blocks = &stream.blocks()[1..];
    let (first, rest) = data.split_at_mut(data.len().min(blocks.len() * BLOCK));
    chacha20::apply(blocks, first);
    let mut counter = KeyStream::<N>::COUNTED;
    for part in rest.chunks_mut(N * BLOCK) {
        start.key_stream(counter, part.len().div_ceil(BLOCK), stream);
        chacha20::apply(stream.blocks(), part);
        counter = counter.wrapping_add(KeyStream::<N>::COUNTED);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[u8; BLOCK]) -> __m512i {
    #[expect(unsafe_code, reason = "a register is loaded through a pointer")]
    // SAFETY: 64 bytes are there to be read; this load asks for no alignment.
    unsafe {
        _mm512_loadu_si512(from.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(register: __m512i, to: &mut [u8; BLOCK]) {
    #[expect(unsafe_code, reason = "a register is stored through a pointer")]
    // SAFETY: 64 bytes are there to be written, and nobody else has them; this store asks for no alignment.
    unsafe {
        _mm512_storeu_si512(to.as_mut_ptr().cast(), register);
    }
}
