//! Delays between attempts to reach the controller: exponential, with full jitter.

use std::time::Duration;

use gatereeve_shared::time::Mono;

use crate::random::Random;

/// The first delay is at most this.
const BASE: Duration = Duration::from_millis(250);
/// No delay is longer than this.
const CAP: Duration = Duration::from_secs(30);
/// No delay is shorter than this, so that no run of small draws becomes a storm.
const LEAST: Duration = Duration::from_millis(25);
/// A session that lasted this long shows that the controller is well.
const STABLE: Duration = Duration::from_secs(10);

/// How many attempts failed in a row, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay before the next attempt.
    pub(crate) fn next(&mut self, random: &mut Random) -> Duration {
        let limit = BASE.saturating_mul(1 << self.failures.min(10)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        random.up_to(limit).max(LEAST)
    }

    /// Attempts since the last session that lasted.
    pub(crate) fn attempts(&self) -> u32 {
        self.failures
    }

    /// A session that began at `since` has ended: one that lasted wipes the slate.
    pub(crate) fn session_ended(&mut self, since: Mono, now: Mono) {
        if now.since(since) >= STABLE {
            self.failures = 0;
        }
    }

    /// Begins anew, as after a resume or when the user asks.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_spread() {
        let mut random = Random::new([7; 32]);
        let mut backoff = Backoff::default();
        let limits = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
        for limit in limits {
            assert!(backoff.next(&mut random) <= Duration::from_millis(limit));
        }
        let draws: Vec<_> = (0..200).map(|_| backoff.next(&mut random)).collect();
        assert!(draws.iter().all(|draw| *draw >= LEAST && *draw <= CAP));
        assert!(draws.iter().any(|draw| *draw < CAP / 4));
        assert!(draws.iter().any(|draw| *draw > CAP / 4 * 3));
    }

    #[test]
    fn only_a_session_that_lasted_resets() {
        let mut random = Random::new([7; 32]);
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.next(&mut random);
        }
        backoff.session_ended(Mono(0), Mono(1_000_000_000));
        assert_eq!(backoff.attempts(), 8);
        backoff.session_ended(Mono(0), Mono(10_000_000_000));
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next(&mut random) <= BASE);
    }
}
