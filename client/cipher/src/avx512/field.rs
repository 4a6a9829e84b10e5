//! Numbers modulo 2^130 - 5 one at a time, and Poly1305 over a few blocks.

/// The bits of a limb.
pub(super) const LOW_44: u64 = (1 << 44) - 1;
/// The bits of the last limb.
pub(super) const LOW_42: u64 = (1 << 42) - 1;

/// A number as limbs of 44, 44 and 42 bits, the lowest first. The second may be up to 2^8 too large.
#[derive(Clone, Copy)]
pub(super) struct Number([u64; 3]);

impl Number {
    /// 128 bits.
    fn new(low: u64, high: u64) -> Self {
        Self([low & LOW_44, (low >> 44 | high << 20) & LOW_44, high >> 24])
    }

    /// A block of a message, with the bit above it.
    pub(super) fn block(bytes: [u8; 16]) -> Self {
        let bytes = u128::from_le_bytes(bytes);
        let Self([low, next, last]) = Self::new(lower(bytes), lower(bytes >> 64));
        Self([low, next, last | 1 << 40])
    }

    /// From limbs of up to 50 bits.
    pub(super) fn carried([low, next, last]: [u64; 3]) -> Self {
        let next = next + (low >> 44);
        let last = last + (next >> 44);
        let low = (low & LOW_44) + 5 * (last >> 42);
        Self([low & LOW_44, (next & LOW_44) + (low >> 44), last & LOW_42])
    }

    /// As it is.
    #[cfg(test)]
    pub(super) fn of_limbs(limbs: [u64; 3]) -> Self {
        Self(limbs)
    }

    pub(super) fn limbs(self) -> [u64; 3] {
        self.0
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let ([a, b, c], [d, e, f]) = (self.0, other.0);
        Self([a + d, b + e, c + f])
    }

    /// The product. Limbs of either may be up to 2^45 + 2^8, as those of a sum of two numbers are.
    #[inline]
    pub(super) fn times(self, other: Self) -> Self {
        let ([a, b, c], [r, s, t]) = (self.0, other.0);
        let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
        // 2^132, where the limb after the last begins, is 4 · 5.
        let (s20, t20) = (20 * s, 20 * t);
        let low = product(a, r) + product(b, t20) + product(c, s20);
        let next = product(a, s) + product(b, r) + product(c, t20) + (low >> 44);
        let last = product(a, t) + product(b, s) + product(c, r) + (next >> 44);
        let low = (lower(low) & LOW_44) + 5 * lower(last >> 42);
        Self([
            low & LOW_44,
            (lower(next) & LOW_44) + (low >> 44),
            lower(last) & LOW_42,
        ])
    }

    /// The one number below 2^130 - 5 that it stands for, its lowest 128 bits. Takes as long for any.
    pub(super) fn reduced(self) -> u128 {
        let [low, next, last] = self.0;
        // Below 2^130 + 2^53: 2^130 - 5 is in it once at most.
        let last = last + (next >> 44);
        let next = next & LOW_44;
        // With 5 added, 2^130 is reached exactly where 2^130 - 5 was.
        let low_above = low + 5;
        let next_above = next + (low_above >> 44);
        let last_above = last + (next_above >> 44);
        let take = 0_u64.wrapping_sub(last_above >> 42);
        let limb = |limb: u64, above: u64, bits: u64| (limb & !take) | (above & bits & take);
        let [low, next, last] = [
            limb(low, low_above, LOW_44),
            limb(next, next_above, LOW_44),
            limb(last, last_above, LOW_42),
        ];
        u128::from(low) | u128::from(next) << 44 | u128::from(last) << 88
    }
}

/// The lower half.
#[expect(clippy::cast_possible_truncation, reason = "what it is for")]
fn lower(number: u128) -> u64 {
    number as u64
}

/// The key of one message: what its blocks are multiplied by, and what is added at the end.
pub(super) struct OneTimeKey {
    r: Number,
    s: u128,
}

impl OneTimeKey {
    /// The first 32 bytes of the key stream (RFC 8439, section 2.6), the half that blocks are multiplied by clamped.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| key[at + byte]));
        Self {
            r: Number::new(
                word(0) & 0x0fff_fffc_0fff_ffff,
                word(8) & 0x0fff_fffc_0fff_fffc,
            ),
            s: u128::from(word(16)) | u128::from(word(24)) << 64,
        }
    }

    pub(super) fn r(&self) -> Number {
        self.r
    }

    /// The tag, from what the blocks came to.
    pub(super) fn finish(&self, sum: Number) -> [u8; 16] {
        sum.reduced().wrapping_add(self.s).to_le_bytes()
    }

    /// The tag of `sealed` without associated data (RFC 8439, section 2.8), block by block.
    pub(super) fn tag(&self, sealed: &[u8]) -> [u8; 16] {
        let (blocks, rest) = sealed.as_chunks::<16>();
        let mut sum = Number::new(0, 0);
        for block in blocks {
            sum = sum.plus(Number::block(*block)).times(self.r);
        }
        if !rest.is_empty() {
            let mut block = [0; 16];
            block[..rest.len()].copy_from_slice(rest);
            sum = sum.plus(Number::block(block)).times(self.r);
        }
        let lengths = (sealed.len() as u128) << 64;
        self.finish(sum.plus(Number::block(lengths.to_le_bytes())).times(self.r))
    }
}
