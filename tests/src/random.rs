//! Randomness that a printed seed brings back.

use anyhow::anyhow;

/// SplitMix64: small, and good enough to choose what to try next.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From the environment variable `name`, or else from the operating system. Print
    /// [`Self::seed`].
    ///
    /// # Errors
    /// Where the variable is no number, or the system has no randomness.
    pub fn from_environment(name: &str) -> anyhow::Result<Self> {
        if let Ok(text) = std::env::var(name) {
            return Ok(Self(text.parse()?));
        }
        getrandom::u64()
            .map(Self)
            .map_err(|error| anyhow!("no randomness: {error}"))
    }

    /// What brings all that follows back.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next_u64().checked_rem(end).unwrap_or(0)).unwrap_or(0)
    }

    /// Whether one of `n` chances comes true.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// 32 bytes.
    pub fn seed32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes
    }
}
