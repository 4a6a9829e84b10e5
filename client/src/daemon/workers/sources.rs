//! What a worker waits for.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::Mono;

/// The TUN queue and the sockets of both families, at most.
pub(super) const MAX_SOURCES: usize = 3;
/// How long a source that failed is left alone, in milliseconds.
const REST_MS: u8 = 250;

/// Where packets come from.
#[derive(Debug)]
pub(super) struct Source<'a, T> {
    /// What reads it.
    pub(super) reader: T,
    /// Readable when it has something.
    pub(super) readable: BorrowedFd<'a>,
    /// Whether there may be something to read.
    pub(super) is_ready: bool,
    /// It failed: not looked at until then.
    rests_until: Option<Mono>,
}

impl<'a, T> Source<'a, T> {
    pub(super) fn new(reader: T, readable: BorrowedFd<'a>) -> Self {
        Self {
            reader,
            readable,
            is_ready: false,
            rests_until: None,
        }
    }

    /// It failed: it is left alone for a while.
    pub(super) fn rest(&mut self) {
        self.is_ready = false;
        self.rests_until =
            Some(Clock::mono().saturating_add(Duration::from_millis(REST_MS.into())));
    }

    fn rests(&self) -> bool {
        self.rests_until.is_some()
    }
}

/// Waits until one of `sources` may have something, and marks those that may. Does not wait where one is
/// marked already. `false` when the thread is to stop.
pub(super) fn wait<T>(stop: &EventFd, sources: &mut [Source<'_, T>]) -> bool {
    for source in sources.iter_mut().filter(|source| source.rests()) {
        source.rests_until = source.rests_until.filter(|until| Clock::mono() < *until);
    }
    let timeout = if sources.iter().any(|source| source.is_ready) {
        PollTimeout::ZERO
    } else if sources.iter().any(Source::rests) {
        PollTimeout::from(REST_MS)
    } else {
        PollTimeout::NONE
    };
    let stop = stop.as_fd();
    let mut fds: [PollFd<'_>; MAX_SOURCES + 1] =
        std::array::from_fn(|_| PollFd::new(stop, PollFlags::POLLIN));
    let count = sources.len().min(MAX_SOURCES);
    for (fd, source) in fds.iter_mut().skip(1).zip(sources.iter()) {
        // One that rests would wake us at once, whatever is asked for: the kernel always tells errors.
        if !source.rests() {
            *fd = PollFd::new(source.readable, PollFlags::POLLIN);
        }
    }
    let fds = fds.get_mut(..=count).unwrap_or_default();
    match poll(fds, timeout) {
        Ok(_) => {
            for (fd, source) in fds.iter().skip(1).zip(sources) {
                source.is_ready |= !source.rests() && is_set(fd);
            }
            !fds.first().is_some_and(is_set)
        }
        Err(Errno::EINTR) => true,
        Err(errno) => {
            tracing::error!(error = %io::Error::from(errno), "a data-path thread cannot wait, and ends");
            false
        }
    }
}

fn is_set(fd: &PollFd<'_>) -> bool {
    fd.any().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;

    fn event() -> EventFd {
        EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()
    }

    #[test]
    fn those_that_have_something_are_marked() {
        let (stop, one, two) = (event(), event(), event());
        let mut sources = [Source::new(1, one.as_fd()), Source::new(2, two.as_fd())];
        two.write(1).unwrap();
        assert!(wait(&stop, &mut sources));
        assert_eq!(sources.each_ref().map(|s| s.is_ready), [false, true]);
        // A mark stays until what is there was read, and does not hide the others.
        two.read().unwrap();
        one.write(1).unwrap();
        assert!(wait(&stop, &mut sources));
        assert_eq!(sources.each_ref().map(|s| s.is_ready), [true, true]);
        stop.write(1).unwrap();
        assert!(!wait(&stop, &mut sources));
    }

    #[test]
    fn one_that_failed_rests_until_the_time_is_over() {
        let (stop, failed) = (event(), event());
        let mut sources = [Source::new((), failed.as_fd())];
        failed.write(1).unwrap();
        sources[0].rest();
        assert!(wait(&stop, &mut sources), "the time passes");
        assert!(!sources[0].is_ready);
        // It may take a second look for the clock to say so.
        while sources[0].rests() {
            assert!(wait(&stop, &mut sources));
        }
        assert!(wait(&stop, &mut sources));
        assert!(sources[0].is_ready);
    }
}
