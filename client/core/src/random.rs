//! Randomness for the slow path: a ratchet over SHA-256, grown from the one seed that the shell draws.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// A deterministic stream of unpredictable bytes. Every draw replaces the state, so that a later
/// look at the memory does not give earlier draws (among them private keys) away.
pub(crate) struct Random([u8; 32]);

impl Random {
    /// The stream of this seed.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// 32 bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let part = |label: &[u8], state: &[u8; 32]| -> [u8; 32] {
            Sha256::new()
                .chain_update(b"gatereeve engine randomness v1\0")
                .chain_update(label)
                .chain_update(state)
                .finalize()
                .into()
        };
        let drawn = part(b"draw", &self.0);
        self.0 = part(b"next", &self.0);
        drawn
    }

    /// A duration between zero and `limit`, both included.
    pub(crate) fn up_to(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let number = self
            .bytes()
            .iter()
            .take(8)
            .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
        // The bias of the remainder is below 2^-20 for every duration used here.
        Duration::from_nanos(number.checked_rem(limit.saturating_add(1)).unwrap_or(0))
    }

    /// `duration`, a tenth shorter or longer at most.
    pub(crate) fn around(&mut self, duration: Duration) -> Duration {
        let tenth = duration / 10;
        duration
            .saturating_sub(tenth)
            .saturating_add(self.up_to(tenth.saturating_mul(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_repeatable_and_in_bounds() {
        let (mut one, mut two) = (Random::new([1; 32]), Random::new([1; 32]));
        let mut other = Random::new([2; 32]);
        assert_ne!(one.bytes(), other.bytes());
        two.bytes();
        for _ in 0..1000 {
            let limit = Duration::from_secs(10);
            assert_eq!(one.up_to(limit), two.up_to(limit));
            assert!(one.up_to(limit) <= limit);
            let around = one.around(limit);
            assert!(around >= Duration::from_secs(9) && around <= Duration::from_secs(11));
            two.up_to(limit);
            two.around(limit);
        }
        assert_eq!(one.up_to(Duration::ZERO), Duration::ZERO);
    }
}
