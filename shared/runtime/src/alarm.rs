//! A timer on CLOCK_BOOTTIME: what was due while the machine slept is due at once when it wakes, so that
//! nobody has to look every second whether it did. One wake-up per alarm, exactly when it is due.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gatereeve_shared::time::Mono;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;

/// One timer, for one waiter.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    /// The same, as the runtime waits for it.
    readable: AsyncFd<OwnedFd>,
    set: Option<Mono>,
}

impl Alarm {
    /// A timer that is not set. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system gives no timer.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        let readable = timer.as_fd().try_clone_to_owned()?;
        #[expect(
            unsafe_code,
            reason = "tokio cannot see that the descriptor stays open"
        )]
        // SAFETY: an owned descriptor is open and the same one until it is dropped, which the result does.
        let readable = unsafe { AsyncFd::register_with_interest(readable, Interest::READABLE) }?;
        Ok(Self {
            timer,
            readable,
            set: None,
        })
    }

    /// Waits until `due`. Given up and called again, it goes on.
    pub async fn wait(&mut self, due: Mono) {
        if let Err(error) = self.try_wait(due).await {
            // Without its timer the daemon still has to go on.
            tracing::warn!(%error, "the timer has failed");
            tokio::time::sleep(Clock::until(due).min(Duration::from_secs(1))).await;
        }
    }

    async fn try_wait(&mut self, due: Mono) -> io::Result<()> {
        poll_fn(|cx| self.poll(due, cx)).await
    }

    /// Whether `due` has passed; if not, the task is woken when it has.
    ///
    /// # Errors
    /// When the system's timer cannot be set or read.
    pub fn poll(&mut self, due: Mono, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.set != Some(due) {
            // Zero would switch it off.
            let at = TimeSpec::from_duration(Duration::from_nanos(due.0.max(1)));
            self.timer.set(
                Expiration::OneShot(at),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?;
            self.set = Some(due);
        }
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(cx))?;
            let mut count = [0; 8];
            match nix::unistd::read(&self.timer, &mut count) {
                Ok(_) => {
                    self.set = None;
                    return Poll::Ready(Ok(()));
                }
                // Readiness of a time that was set before.
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(millis: u64) -> Mono {
        Clock::mono().saturating_add(Duration::from_millis(millis))
    }

    #[tokio::test]
    async fn it_goes_off_when_due_and_not_before() {
        let mut alarm = Alarm::new().unwrap();
        let due = ahead(30);
        alarm.wait(due).await;
        assert!(Clock::mono() >= due);
        // What is past is due at once.
        alarm.wait(Mono(0)).await;
        alarm.wait(due).await;
    }

    #[tokio::test]
    async fn another_time_replaces_the_one_before() {
        let mut alarm = Alarm::new().unwrap();
        let soon = ahead(10);
        let given_up = tokio::time::timeout(Duration::ZERO, alarm.wait(soon)).await;
        assert!(given_up.is_err());
        // The first time passes meanwhile, and is not taken for the second.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let due = ahead(50);
        alarm.wait(due).await;
        assert!(Clock::mono() >= due);
        let far = ahead(100_000);
        let patience = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(patience, alarm.wait(far))
                .await
                .is_err()
        );
        alarm.wait(ahead(1)).await;
    }
}
