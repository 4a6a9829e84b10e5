//! Clocks for measuring: the product's cores get theirs as arguments, a test has to look.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use gatereeve_shared::time::UnixMillis;

/// Measures elapsed time; runs on in suspend.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Duration);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(read(ClockId::CLOCK_BOOTTIME))
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        read(ClockId::CLOCK_BOOTTIME).saturating_sub(self.0)
    }

    /// Whether more than `limit` has passed.
    #[must_use]
    pub fn is_past(&self, limit: Duration) -> bool {
        self.elapsed() > limit
    }
}

/// Wall-clock time since the epoch, with the precision of kernel receive timestamps.
#[must_use]
pub fn wall() -> Duration {
    read(ClockId::CLOCK_REALTIME)
}

/// Wall-clock time as the product writes it.
#[must_use]
pub fn unix_millis() -> UnixMillis {
    UnixMillis(u64::try_from(wall().as_millis()).unwrap_or(u64::MAX))
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

/// Asks `question` every 20 ms until it answers or `limit` has passed.
///
/// # Errors
/// What `question` failed with last, or that it had no answer.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut question: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let watch = Stopwatch::start();
    loop {
        let answer = question();
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if watch.is_past(limit) {
            let waited = format!("waited {limit:?} for {what}");
            return match answer {
                Err(error) => Err(error.context(waited)),
                Ok(_) => Err(anyhow::anyhow!(waited)),
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
