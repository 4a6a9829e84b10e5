//! What a worker waits for, and whose turn it is.
//!
//! Two rules, those of FQ-CoDel (RFC 8290, section 4.2) for a worker's few sources. A source that was empty and has
//! something again comes before those that have had a turn and still have more: what is sparse never waits for
//! more than one batch of bulk. And those that have more take turns, so that none starves.
//!
//! A source that was quiet for a while is asked for one packet, and not whether there is another: the kernel tells in
//! the next wait, which comes anyway. Where one follows soon, the source counts as one that had more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::Mono;

/// How long a source that failed is left alone, in milliseconds.
const REST_MS: u8 = 250;
/// Events taken from the kernel at once; what is left is told at the next call.
const EVENTS: usize = 32;
/// Stands for the stop event, where others have their position.
const STOP: u64 = u64::MAX;
/// A source that had nothing for so long is quiet: more than a packet at once is not to be expected.
const QUIET: Duration = Duration::from_micros(500);

/// Where packets come from.
#[derive(Debug)]
struct Source<T> {
    /// `None` where it was [removed](Sources::remove).
    reader: Option<T>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The kernel tells when there is something; there was nothing at that time.
    Empty(Mono),
    /// The kernel tells when there is something; nobody has looked since the turn at that time.
    Unknown(Mono),
    /// Waits for its turn. Whether it was quiet before.
    Ready { quiet: bool },
    /// It failed: not looked at until then.
    Resting(Mono),
}

/// All sources of one worker.
#[derive(Debug)]
pub(super) struct Sources<T> {
    epoll: Epoll,
    all: Vec<Source<T>>,
    /// Were empty, and have something again.
    sparse: VecDeque<usize>,
    /// Have had a turn, and may have more.
    bulk: VecDeque<usize>,
    /// How many rest.
    resting: usize,
    /// What the kernel has told last.
    events: Vec<EpollEvent>,
}

/// What waiting has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Somebody has a turn.
    Ready,
    /// Nobody has.
    Nothing,
    /// The thread is to end.
    Stop,
}

/// What a turn has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There may be more.
    More,
    /// Nobody has looked whether there is more.
    Unknown,
    /// It is empty now.
    Emptied,
    /// It failed.
    Failed,
}

impl<T: AsFd> Sources<T> {
    /// `readers`, each readable when it has something, and `stop`, readable when the thread is to end.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub(super) fn new(stop: &EventFd, readers: impl IntoIterator<Item = T>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(stop.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        let mut sources = Self {
            epoll,
            all: Vec::new(),
            sparse: VecDeque::new(),
            bulk: VecDeque::new(),
            resting: 0,
            events: vec![EpollEvent::empty(); EVENTS],
        };
        for reader in readers {
            sources.add(reader)?;
        }
        Ok(sources)
    }

    /// One more source. Where it is among them.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn add(&mut self, reader: T) -> io::Result<usize> {
        let vacant = self.all.iter().position(|source| source.reader.is_none());
        let position = vacant.unwrap_or(self.all.len());
        self.epoll.add(reader.as_fd(), interest(position))?;
        let source = Source {
            reader: Some(reader),
            state: State::Empty(Mono(0)),
        };
        match self.all.get_mut(position) {
            Some(place) => *place = source,
            None => self.all.push(source),
        }
        Ok(position)
    }

    /// The source at `position` is one no more. What has its turn already loses it.
    pub(super) fn remove(&mut self, position: usize) {
        let Some(source) = self.all.get_mut(position) else {
            return;
        };
        let Some(reader) = source.reader.take() else {
            return;
        };
        match source.state {
            // Out of the kernel's list already.
            State::Resting(_) => self.resting -= 1,
            State::Empty(_) | State::Unknown(_) | State::Ready { .. } => {
                let _ = self.epoll.delete(reader.as_fd());
            }
        }
        source.state = State::Empty(Mono(0));
        self.sparse.retain(|turn| *turn != position);
        self.bulk.retain(|turn| *turn != position);
    }

    /// Waits until a source may have something, at most for `longest` milliseconds. Does not wait where one has
    /// its turn already, but takes note of others.
    pub(super) fn wait(&mut self, longest: Option<u8>) -> Waited {
        if self.resting > 0 {
            self.wake();
        }
        let has_turns = !self.sparse.is_empty() || !self.bulk.is_empty();
        let timeout = if has_turns {
            EpollTimeout::ZERO
        } else if let Some(longest) = longest {
            EpollTimeout::from(longest)
        } else if self.resting > 0 {
            EpollTimeout::from(REST_MS)
        } else {
            EpollTimeout::NONE
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                tracing::error!(error = %io::Error::from(errno), "a data-path thread cannot wait, and ends");
                return Waited::Stop;
            }
        };
        let now = Clock::mono();
        for event in self.events.iter().take(count) {
            if event.data() == STOP {
                return Waited::Stop;
            }
            let position = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(source) = self.all.get_mut(position) else {
                continue;
            };
            let (since, is_known) = match source.state {
                State::Empty(since) => (since, true),
                State::Unknown(since) => (since, false),
                State::Ready { .. } | State::Resting(_) => continue,
            };
            let quiet = now.since(since) >= QUIET;
            if quiet || is_known {
                self.sparse.push_back(position);
            } else {
                self.bulk.push_back(position);
            }
            source.state = State::Ready { quiet };
        }
        if self.sparse.is_empty() && self.bulk.is_empty() {
            Waited::Nothing
        } else {
            Waited::Ready
        }
    }

    /// Whose turn it is now: once all that are sparse, then one of the others.
    pub(super) fn round(&mut self) -> Round {
        Round {
            sparse: self.sparse.len(),
            bulk: true,
        }
    }

    /// The next of the round, and whether it was quiet before.
    pub(super) fn next(&mut self, round: &mut Round) -> Option<(usize, bool)> {
        let position = if round.sparse > 0 {
            round.sparse -= 1;
            self.sparse.pop_front()?
        } else {
            let bulk = std::mem::take(&mut round.bulk);
            bulk.then(|| self.bulk.pop_front()).flatten()?
        };
        let state = self.all.get(position).map(|source| source.state);
        Some((position, state == Some(State::Ready { quiet: true })))
    }

    /// The source at `position` probably has something: in this round, it is asked for one packet as if the kernel had told
    /// of it.
    pub(super) fn look(&mut self, position: usize, round: &mut Round) {
        let Some(source) = self.all.get_mut(position) else {
            return;
        };
        if let State::Empty(_) | State::Unknown(_) = source.state {
            source.state = State::Ready { quiet: true };
            self.sparse.push_back(position);
            round.sparse += 1;
        }
    }

    /// What reads the source at `position`.
    pub(super) fn reader(&mut self, position: usize) -> Option<&mut T> {
        self.all.get_mut(position)?.reader.as_mut()
    }

    /// The first of which `is_it` says so.
    pub(super) fn find(&mut self, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        let mut readers = self
            .all
            .iter_mut()
            .filter_map(|source| source.reader.as_mut());
        readers.find(|reader| is_it(reader))
    }

    /// The source at `position` has had its turn.
    pub(super) fn done(&mut self, position: usize, turn: Turn) {
        let Some(source) = self.all.get_mut(position) else {
            return;
        };
        match turn {
            Turn::More => {
                source.state = State::Ready { quiet: false };
                self.bulk.push_back(position);
            }
            // Beside others that have more, the next wait is a while away, and the time until then says nothing.
            Turn::Unknown if !self.bulk.is_empty() => {
                source.state = State::Ready { quiet: false };
                self.bulk.push_back(position);
            }
            Turn::Unknown => source.state = State::Unknown(Clock::mono()),
            Turn::Emptied => source.state = State::Empty(Clock::mono()),
            Turn::Failed => {
                // As long as it is among those watched, it would wake us at once, whatever is asked for: the
                // kernel always tells errors.
                let rest = Duration::from_millis(REST_MS.into());
                source.state = State::Resting(Clock::mono().saturating_add(rest));
                self.resting += 1;
                if let Some(reader) = &source.reader {
                    let _ = self.epoll.delete(reader.as_fd());
                }
            }
        }
    }

    /// Watches those again that have rested long enough.
    fn wake(&mut self) {
        for (position, source) in self.all.iter_mut().enumerate() {
            let State::Resting(until) = source.state else {
                continue;
            };
            let now = Clock::mono();
            if now < until {
                continue;
            }
            let Some(reader) = &source.reader else {
                continue;
            };
            source.state = match self.epoll.add(reader.as_fd(), interest(position)) {
                Ok(()) | Err(Errno::EEXIST) => {
                    self.resting -= 1;
                    State::Empty(now)
                }
                Err(_) => State::Resting(now.saturating_add(Duration::from_millis(REST_MS.into()))),
            };
        }
    }
}

/// One round of turns.
#[derive(Debug)]
pub(super) struct Round {
    sparse: usize,
    bulk: bool,
}

fn interest(position: usize) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, position as u64)
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EfdFlags;

    use super::*;

    fn event() -> EventFd {
        EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap()
    }

    /// Waits, and plays one round in which each source has more or not.
    fn round(sources: &mut Sources<&EventFd>, has_more: &[bool]) -> Vec<usize> {
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut turns = Vec::new();
        let mut round = sources.round();
        while let Some((position, _)) = sources.next(&mut round) {
            turns.push(position);
            let turn = if has_more[position] {
                Turn::More
            } else {
                sources.reader(position).unwrap().read().unwrap();
                Turn::Emptied
            };
            sources.done(position, turn);
        }
        turns
    }

    #[test]
    fn what_was_empty_comes_before_what_has_more_which_takes_turns() {
        let events = [event(), event(), event()];
        let stop = event();
        let mut sources = Sources::new(&stop, &events).unwrap();
        for event in &events[..2] {
            event.write(1).unwrap();
        }
        let two_have_more = [true, true, false];
        assert_eq!(round(&mut sources, &two_have_more), [0, 1, 0]);
        assert_eq!(round(&mut sources, &two_have_more), [1]);
        events[2].write(1).unwrap();
        assert_eq!(round(&mut sources, &two_have_more), [2, 0]);
        assert_eq!(round(&mut sources, &two_have_more), [1]);
        // However often the third comes back, the others get on.
        for expected in [0, 1, 0] {
            events[2].write(1).unwrap();
            assert_eq!(round(&mut sources, &two_have_more), [2, expected]);
        }
        stop.write(1).unwrap();
        assert_eq!(sources.wait(None), Waited::Stop);
    }

    #[test]
    fn a_source_that_is_looked_at_has_its_turn_in_the_same_round() {
        let (stop, events) = (event(), [event(), event()]);
        let mut sources = Sources::new(&stop, &events).unwrap();
        events[0].write(1).unwrap();
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut round = sources.round();
        assert_eq!(sources.next(&mut round), Some((0, true)));
        events[0].read().unwrap();
        sources.done(0, Turn::Emptied);
        sources.look(1, &mut round);
        // Not twice, and none that is not there.
        sources.look(1, &mut round);
        sources.look(2, &mut round);
        assert_eq!(sources.next(&mut round), Some((1, true)));
        sources.done(1, Turn::Emptied);
        assert_eq!(sources.next(&mut round), None);
        // The kernel goes on telling of it; what it has told of already is not looked at once more.
        for event in &events {
            event.write(1).unwrap();
        }
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut round = sources.round();
        sources.look(1, &mut round);
        let turns = std::iter::from_fn(|| sources.next(&mut round));
        let mut turns: Vec<_> = turns.map(|(position, _)| position).collect();
        turns.sort_unstable();
        assert_eq!(turns, [0, 1]);
    }

    #[test]
    fn a_quiet_source_is_known_by_the_time_since_it_was_empty() {
        let (stop, event) = (event(), event());
        let mut sources = Sources::new(&stop, [&event]).unwrap();
        let mut turn = |turn: Turn| {
            assert_eq!(sources.wait(None), Waited::Ready);
            let sparse = sources.round().sparse > 0;
            let mut round = sources.round();
            let (position, quiet) = sources.next(&mut round).unwrap();
            sources.done(position, turn);
            (sparse, quiet)
        };
        event.write(1).unwrap();
        assert_eq!(turn(Turn::Unknown), (true, true));
        let start = Clock::mono();
        let at_once = turn(Turn::Emptied);
        // A slow machine cannot tell.
        let is_slow = |start| Clock::mono().since(start) >= QUIET;
        assert!(at_once == (false, false) || is_slow(start), "it had more");
        let start = Clock::mono();
        let soon = turn(Turn::Unknown);
        assert!(soon == (true, false) || is_slow(start), "empty in between");
        std::thread::sleep(2 * QUIET);
        assert_eq!(turn(Turn::Unknown), (true, true), "much later");
        event.read().unwrap();
        assert_eq!(sources.wait(Some(1)), Waited::Nothing);
    }

    #[test]
    fn beside_bulk_nobody_is_asked_for_one_packet_for_long() {
        let (stop, first, second) = (event(), event(), event());
        let events = [&first, &second];
        let mut sources = Sources::new(&stop, events).unwrap();
        first.write(1).unwrap();
        assert_eq!(round(&mut sources, &[true, true]), [0, 0]);
        second.write(1).unwrap();
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut one = sources.round();
        assert_eq!(sources.next(&mut one), Some((1, true)));
        sources.done(1, Turn::Unknown);
        assert_eq!(sources.next(&mut one), Some((0, false)));
        std::thread::sleep(2 * QUIET);
        sources.done(0, Turn::More);
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut one = sources.round();
        assert_eq!(sources.next(&mut one), Some((1, false)), "its turn");
    }

    #[test]
    fn nothing_comes_of_a_short_wait_and_what_comes_later_is_not_missed() {
        let (stop, event) = (event(), event());
        let mut sources = Sources::new(&stop, [&event]).unwrap();
        assert_eq!(sources.wait(Some(1)), Waited::Nothing);
        event.write(1).unwrap();
        assert_eq!(sources.wait(Some(1)), Waited::Ready);
        assert_eq!(round(&mut sources, &[false]), [0]);
        assert_eq!(sources.wait(Some(1)), Waited::Nothing);
    }

    #[test]
    fn a_source_that_is_removed_has_no_turn_and_its_place_is_taken_by_the_next() {
        let (stop, events) = (event(), [event(), event(), event()]);
        let mut sources = Sources::new(&stop, &events[..2]).unwrap();
        events[0].write(1).unwrap();
        events[1].write(1).unwrap();
        let has_more = [true, false, false];
        assert_eq!(round(&mut sources, &has_more), [0, 1, 0]);
        sources.remove(0);
        sources.remove(0);
        sources.remove(7);
        assert!(sources.reader(0).is_none());
        assert_eq!(sources.wait(Some(1)), Waited::Nothing);
        events[2].write(1).unwrap();
        assert_eq!(sources.add(&events[2]).unwrap(), 0);
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut turns = sources.round();
        assert_eq!(sources.next(&mut turns), Some((0, true)));
        assert!(std::ptr::eq(
            *sources.reader(0).unwrap(),
            &raw const events[2]
        ));
        // One that rests does so no more.
        sources.done(0, Turn::Failed);
        sources.remove(0);
        events[2].read().unwrap();
        assert_eq!(sources.wait(Some(1)), Waited::Nothing);
        assert_eq!(sources.add(&events[2]).unwrap(), 0);
        assert_eq!(sources.add(&events[0]).unwrap(), 2);
        assert_eq!(round(&mut sources, &has_more), [2]);
    }

    #[test]
    fn one_that_failed_rests_until_the_time_is_over() {
        let (stop, failed) = (event(), event());
        failed.write(1).unwrap();
        let mut sources = Sources::new(&stop, [failed.as_fd()]).unwrap();
        assert_eq!(sources.wait(None), Waited::Ready);
        let mut first = sources.round();
        assert_eq!(sources.next(&mut first), Some((0, true)));
        sources.done(0, Turn::Failed);
        let start = Clock::mono();
        let mut position = None;
        while position.is_none() {
            assert_ne!(sources.wait(None), Waited::Stop, "the time passes");
            let mut round = sources.round();
            position = sources.next(&mut round).map(|(position, _)| position);
        }
        assert!(Clock::mono().since(start) >= Duration::from_millis(REST_MS.into()));
    }
}
