//! All of the controller's randomness, from one seed.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 over a seed and a counter: nobody without the seed can tell it from chance.
pub(crate) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    /// 32 bytes that were not given before.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        self.counter = self.counter.wrapping_add(1);
        Sha256::new()
            .chain_update(b"gatereeve controller random v1\0")
            .chain_update(self.seed)
            .chain_update(self.counter.to_be_bytes())
            .finalize()
            .into()
    }

    /// Eight of them.
    pub(crate) fn short(&mut self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// A number below `end`, or 0 where `end` is.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        u64::from_be_bytes(self.short())
            .checked_rem(end)
            .unwrap_or(0)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Random(after {} draws)", self.counter)
    }
}
