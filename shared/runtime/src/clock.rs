//! The only reader of clocks: everything else takes [`Now`], or [`Mono`] where that is enough, as an argument.

use std::time::Duration;

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
        let (seconds, nanos) = read(ClockId::CLOCK_BOOTTIME);
        Mono(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// The wall clock.
    #[must_use]
    pub fn unix() -> UnixMillis {
        let (seconds, nanos) = read(ClockId::CLOCK_REALTIME);
        let millis = seconds.saturating_mul(1_000);
        UnixMillis(millis.saturating_add(nanos / 1_000_000))
    }

    /// How long from now until `mono`; zero where it has passed.
    #[must_use]
    pub fn until(mono: Mono) -> Duration {
        mono.since(Self::mono())
    }
}

/// Seconds and nanoseconds; zero before the clock's zero.
fn read(clock: ClockId) -> (u64, u64) {
    // Linux has had both since 2.6.39: the call cannot fail there.
    let Ok(time) = clock_gettime(clock) else {
        return (0, 0);
    };
    match (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec())) {
        (Ok(seconds), Ok(nanos)) => (seconds, nanos),
        _ => (0, 0),
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
