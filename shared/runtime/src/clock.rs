//! The only reader of clocks: everything else takes [`Now`] as an argument.

use std::time::{Duration, SystemTime};

use gatereeve_shared::time::{Mono, Now, UnixMillis};
use nix::time::{ClockId, clock_gettime};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The moment, on CLOCK_BOOTTIME (which runs on in suspend) and on the wall clock. A wall clock
    /// before 1970 reads as 1970.
    #[must_use]
    pub fn now() -> Now {
        Now {
            mono: Self::mono(),
            unix: Self::unix(),
        }
    }

    /// CLOCK_BOOTTIME.
    #[must_use]
    pub fn mono() -> Mono {
        // Linux has had the clock since 2.6.39: the call cannot fail there.
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Into::into);
        Mono(u64::try_from(since_boot.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The wall clock.
    #[must_use]
    pub fn unix() -> UnixMillis {
        #[expect(clippy::disallowed_methods, reason = "this is the one reader")]
        let wall = SystemTime::now();
        let since_1970 = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long from now until `mono`; zero where it has passed.
    #[must_use]
    pub fn until(mono: Mono) -> Duration {
        mono.since(Self::mono())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_is_of_this_century() {
        let first = Clock::now();
        let second = Clock::now();
        assert!(second.mono >= first.mono && first.mono > Mono(0));
        assert!(first.unix > UnixMillis(1_700_000_000_000));
        assert_eq!(Clock::until(first.mono), Duration::ZERO);
        let ahead = first.mono.saturating_add(Duration::from_secs(3600));
        assert!(Clock::until(ahead) > Duration::from_secs(60));
    }
}
