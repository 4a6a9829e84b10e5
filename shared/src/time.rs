//! The only forms that time takes: [`Now`], passed in by the shells.
//!
//! Nothing in a core reads a clock. [`Mono`] is CLOCK_BOOTTIME, which runs on in suspend;
//! [`UnixMillis`] is wall-clock time, on a client corrected to the controller's.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and running while the machine sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// How often a device looks at what nothing tells it of, at the instants of [`Mono::next_of`].
pub const PERIOD: Duration = Duration::from_secs(4);

impl Mono {
    /// This instant plus `duration`, or the last representable instant.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// Time since `earlier`; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The first instant after this one that is a whole number of `periods` from the clock's start. Whoever
    /// looks at something every so often does so then: all that look wake the machine together.
    ///
    /// A period of zero is taken for a nanosecond.
    #[must_use]
    pub fn next_of(self, period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self(self.0.saturating_add(period - self.0 % period))
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The end of time, for what has no end of its own.
    pub const MAX: Self = Self(u64::MAX);

    /// This instant plus `duration`, or [`Self::MAX`].
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This instant minus `duration`, or 1970.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// Time since `earlier`; zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC with milliseconds, `never` for [`UnixMillis::MAX`].
///
/// The date is computed by the days-to-civil algorithm of Howard Hinnant's "chrono-Compatible
/// Low-Level Date Algorithms".
impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond the year 9999 RFC 3339 has no form.
        if self.0 >= 253_402_300_800_000 {
            return f.write_str("never");
        }
        let seconds = self.0 / 1000;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let z = days + 719_468;
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60,
            self.0 % 1000
        )
    }
}

/// One moment, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub mono: Mono,
    /// Wall-clock time.
    pub unix: UnixMillis,
}

impl Now {
    /// The moment `duration` later on both clocks.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self {
            mono: self.mono.saturating_add(duration),
            unix: self.unix.saturating_add(duration),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_the_same_instants_for_everybody() {
        let second = Duration::from_secs(1);
        assert_eq!(Mono(0).next_of(second), Mono(1_000_000_000));
        assert_eq!(Mono(999_999_999).next_of(second), Mono(1_000_000_000));
        assert_eq!(Mono(1_000_000_000).next_of(second), Mono(2_000_000_000));
        assert_eq!(Mono(7).next_of(Duration::ZERO), Mono(8));
        assert_eq!(Mono(u64::MAX).next_of(second), Mono(u64::MAX));
        assert_eq!(Mono(u64::MAX - 1).next_of(Duration::MAX), Mono(u64::MAX));
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(UnixMillis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            UnixMillis(951_782_400_000).to_string(),
            "2000-02-29T00:00:00.000Z"
        );
        assert_eq!(
            UnixMillis(1_795_313_383_042).to_string(),
            "2026-11-22T02:09:43.042Z"
        );
        assert_eq!(
            UnixMillis(253_402_300_799_999).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(UnixMillis::MAX.to_string(), "never");
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(UnixMillis::MAX.saturating_add(second), UnixMillis::MAX);
        assert_eq!(UnixMillis(1).saturating_sub(second), UnixMillis(0));
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
    }
}
