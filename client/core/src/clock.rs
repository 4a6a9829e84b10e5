//! Controller time on the device: an offset taken from the controller, advanced by CLOCK_BOOTTIME.
//!
//! Every end in a network map is in controller time. The device's own wall clock counts only when
//! it starts without a controller, and then only if it has not fallen behind the last controller
//! time on disk (the floor): a device whose clock went back must not find old leases alive again.

use std::time::Duration;

use gatereeve_shared::time::{Mono, Now, UnixMillis};

/// Corrections below this are left alone, so that a table is not rebuilt for the network's jitter.
const TOLERANCE: Duration = Duration::from_millis(50);

/// What the time is at the controller.
#[derive(Clone, Debug)]
pub(crate) struct ControlClock {
    anchor: Option<Anchor>,
    floor: UnixMillis,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    mono: Mono,
    unix: UnixMillis,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The controller said so since this process started.
    Controller,
    /// The wall clock, which was not behind the floor.
    Wall,
}

impl ControlClock {
    /// A clock after a start; `floor` is the last controller time known before it.
    pub(crate) fn new(floor: UnixMillis, now: Now) -> Self {
        let mut clock = Self {
            anchor: None,
            floor,
        };
        clock.look_at_wall(now);
        clock
    }

    /// Controller time, or `None` where it cannot be told: then every lease counts as expired.
    pub(crate) fn now(&self, now: Now) -> Option<UnixMillis> {
        self.anchor
            .map(|anchor| anchor.unix.saturating_add(now.mono.since(anchor.mono)))
    }

    /// Whether the controller itself has told the time since the start.
    pub(crate) fn is_from_controller(&self) -> bool {
        self.anchor
            .is_some_and(|anchor| anchor.source == Source::Controller)
    }

    /// Takes the controller's word. Returns whether ends have to be computed anew.
    pub(crate) fn set(&mut self, controller: UnixMillis, now: Now) -> bool {
        let moved = match self.now(now) {
            Some(estimate) if self.is_from_controller() => {
                estimate.since(controller) > TOLERANCE || controller.since(estimate) > TOLERANCE
            }
            _ => true,
        };
        if moved {
            self.anchor = Some(Anchor {
                mono: now.mono,
                unix: controller,
                source: Source::Controller,
            });
            self.floor = controller;
        }
        moved
    }

    /// Uses the wall clock for as long as the controller has said nothing: never below the floor,
    /// and never backwards. Returns whether ends have to be computed anew.
    pub(crate) fn look_at_wall(&mut self, now: Now) -> bool {
        if self.is_from_controller() || now.unix < self.floor {
            return false;
        }
        let moved = self
            .now(now)
            .is_none_or(|estimate| now.unix.since(estimate) > TOLERANCE);
        if moved {
            self.anchor = Some(Anchor {
                mono: now.mono,
                unix: now.unix,
                source: Source::Wall,
            });
        }
        moved
    }

    /// The floor to keep on disk: the latest controller time known.
    pub(crate) fn floor(&self, now: Now) -> UnixMillis {
        self.now(now)
            .map_or(self.floor, |estimate| estimate.max(self.floor))
    }

    /// When `end` comes, on the monotonic clock; `None` where it has come already, or where the
    /// time cannot be told.
    pub(crate) fn deadline(&self, end: UnixMillis, now: Now) -> Option<Mono> {
        let anchor = self.anchor?;
        let deadline = if end == UnixMillis::MAX {
            Mono(u64::MAX)
        } else {
            anchor.mono.saturating_add(end.since(anchor.unix))
        };
        (deadline > now.mono).then_some(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, unix: u64) -> Now {
        Now {
            mono: Mono(seconds * 1_000_000_000),
            unix: UnixMillis(unix),
        }
    }

    #[test]
    fn the_controller_rules_and_boottime_carries() {
        for wall in [0, 1, 5_000_000, u64::MAX] {
            let mut clock = ControlClock::new(UnixMillis(1_000_000), at(1, wall));
            clock.set(UnixMillis(2_000_000), at(1, wall));
            // Whatever the wall clock does afterwards.
            for later in [0, 7, u64::MAX] {
                clock.look_at_wall(at(11, later));
                assert_eq!(clock.now(at(11, later)), Some(UnixMillis(2_010_000)));
                assert_eq!(
                    clock.deadline(UnixMillis(2_011_000), at(11, later)),
                    Some(Mono(12_000_000_000))
                );
                assert_eq!(clock.deadline(UnixMillis(2_010_000), at(11, later)), None);
            }
        }
    }

    #[test]
    fn a_wall_clock_below_the_floor_tells_nothing_until_it_is_set() {
        let mut clock = ControlClock::new(UnixMillis(1_000_000), at(5, 999_999));
        assert_eq!(clock.now(at(6, 999_999)), None);
        assert_eq!(clock.deadline(UnixMillis::MAX, at(6, 0)), None);
        assert_eq!(clock.floor(at(6, 0)), UnixMillis(1_000_000));
        // The time service sets it a moment later: control.
        assert!(clock.look_at_wall(at(7, 1_500_000)));
        assert_eq!(clock.now(at(8, 0)), Some(UnixMillis(1_501_000)));
    }

    #[test]
    fn without_a_controller_time_never_goes_back() {
        let mut clock = ControlClock::new(UnixMillis(1_000_000), at(0, 2_000_000));
        assert!(!clock.look_at_wall(at(10, 1_200_000)));
        assert_eq!(clock.now(at(10, 1_200_000)), Some(UnixMillis(2_010_000)));
        assert!(clock.look_at_wall(at(10, 3_000_000)));
        assert_eq!(clock.now(at(10, 1_200_000)), Some(UnixMillis(3_000_000)));
    }

    #[test]
    fn small_corrections_are_left_alone() {
        let mut clock = ControlClock::new(UnixMillis(0), at(0, 0));
        assert!(clock.set(UnixMillis(1_000), at(0, 0)));
        assert!(!clock.set(UnixMillis(2_020), at(1, 0)));
        assert!(clock.set(UnixMillis(2_200), at(1, 0)));
        assert!(clock.set(UnixMillis(100), at(1, 0)));
        assert_eq!(clock.floor(at(1, 0)), UnixMillis(100));
    }
}
