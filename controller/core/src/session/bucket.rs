//! Token buckets: how often something may happen.

use std::time::Duration;

use gatereeve_shared::time::Mono;

/// Holds up to `size` tokens and gets `refill` of them `every` so often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: u64,
    size: u64,
    refill: u64,
    every: Duration,
    at: Mono,
}

impl Bucket {
    pub(crate) fn new(size: u64, refill: u64, every: Duration, now: Mono) -> Self {
        Self {
            tokens: size,
            size,
            refill,
            every,
            at: now,
        }
    }

    fn fill(&mut self, now: Mono) {
        let every = self.every.as_nanos().max(1);
        let gained = now
            .since(self.at)
            .as_nanos()
            .saturating_mul(u128::from(self.refill))
            / every;
        let gained = u64::try_from(gained).unwrap_or(u64::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(self.size);
            // The fraction of a token since then is kept.
            let used = every.saturating_mul(u128::from(gained)) / u128::from(self.refill.max(1));
            let used = Duration::from_nanos(u64::try_from(used).unwrap_or(u64::MAX));
            self.at = self.at.saturating_add(used).min(now);
        }
    }

    /// Whether it holds `tokens`.
    pub(crate) fn holds(&mut self, tokens: u64, now: Mono) -> bool {
        self.fill(now);
        self.tokens >= tokens
    }

    /// Takes `tokens`, if they are there.
    pub(crate) fn take(&mut self, tokens: u64, now: Mono) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(tokens) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// Whether it holds all it can: as good as new.
    pub(crate) fn is_full(&mut self, now: Mono) -> bool {
        self.holds(self.size, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(3, 2, Duration::from_secs(1), Mono(0));
        assert_eq!((0..9).filter(|_| bucket.take(1, Mono(0))).count(), 3);
        assert!(!bucket.take(1, Mono(499_999_999)));
        assert!(bucket.take(1, Mono(500_000_000)));
        assert!(!bucket.take(1, Mono(500_000_001)));
        assert!(!bucket.is_full(Mono(600_000_000)));
        assert!(bucket.is_full(Mono(60_000_000_000)));
        assert_eq!(
            (0..9)
                .filter(|_| bucket.take(1, Mono(60_000_000_000)))
                .count(),
            3
        );
    }
}
