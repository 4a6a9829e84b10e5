//! Unpredictable numbers from the one seed: SHA-256 over seed and counter.

use std::fmt;

use sha2::{Digest, Sha256};

/// A deterministic generator. Without the seed its output cannot be told from chance.
pub(crate) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random(..)")
    }
}

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        let digest = Sha256::new()
            .chain_update(b"gatereeve datapath random")
            .chain_update(self.seed)
            .chain_update(self.counter.to_le_bytes())
            .finalize();
        digest
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A 24-bit receiver index that is not in use.
    pub(crate) fn index(&mut self, is_used: impl Fn(u32) -> bool) -> u32 {
        loop {
            let index = u32::try_from(self.next() >> 40).unwrap_or(0);
            if !is_used(index) {
                return index;
            }
        }
    }
}
