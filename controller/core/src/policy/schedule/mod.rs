//! Schedules: weekly windows in a time zone.
//!
//! Windows follow the clock on the wall. Where a clock is set forward over a window's edge, the edge
//! is the moment of the change; where a time of day comes twice, the edge is its first coming.

mod parse;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};

use gatereeve_shared::time::UnixMillis;

/// Days looked at behind and ahead of now. A window that opens weekly is seen ahead even if a change of
/// the clock swallows it once.
const DAYS_BEHIND: usize = 9;
const DAYS_AHEAD: usize = 16;

/// When a rule holds: any of its windows.
#[derive(Debug)]
pub struct Schedule {
    text: String,
    zone: TimeZone,
    windows: Vec<Window>,
    /// The last stretch computed: most questions are about one moment. It changes no answer.
    memo: Mutex<Option<Stretch>>,
}

impl Clone for Schedule {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            zone: self.zone.clone(),
            windows: self.windows.clone(),
            memo: Mutex::new(None),
        }
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.zone == other.zone && self.windows == other.windows
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Times of day, on some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// On which days it opens, from Monday.
    days: [bool; 7],
    /// Minutes after midnight.
    opens: u16,
    /// Minutes after midnight, up to 1440. At or before `opens` it is a time of the next day.
    closes: u16,
}

/// Time in which the schedule neither opens nor closes: `begin <= t < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    begin: UnixMillis,
    end: UnixMillis,
    open: bool,
}

impl Schedule {
    /// Until when it is open without a break, if it is open.
    pub(crate) fn open_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.stretch(now)
            .filter(|stretch| stretch.open)
            .map(|stretch| stretch.end)
    }

    /// When it opens or closes next, or is to be asked again; `None` beyond the calendar.
    pub(crate) fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.stretch(now).map(|stretch| stretch.end)
    }

    fn stretch(&self, now: UnixMillis) -> Option<Stretch> {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stretch) = *memo
            && stretch.begin <= now
            && now < stretch.end
        {
            return Some(stretch);
        }
        let stretch = self.compute(now);
        *memo = stretch;
        stretch
    }

    fn compute(&self, now: UnixMillis) -> Option<Stretch> {
        let moment = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
        let mut date = moment.to_zoned(self.zone.clone()).date();
        for _ in 0..DAYS_BEHIND {
            date = date.yesterday().ok()?;
        }
        let mut times = Vec::new();
        for _ in 0..(DAYS_BEHIND + DAYS_AHEAD) {
            let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
            for window in &self.windows {
                if window.days.get(weekday) == Some(&true) {
                    times.extend(self.occurrence(window, date));
                }
            }
            date = date.tomorrow().ok()?;
        }
        times.sort_unstable();
        // Behind the last day seen nothing is known: ask again there.
        let horizon = self.instant(date, 0)?;
        let mut begin = UnixMillis(0);
        let mut merged = times.into_iter().peekable();
        while let Some((opens, mut closes)) = merged.next() {
            while let Some((_, later)) = merged.next_if(|(next, _)| *next <= closes) {
                closes = closes.max(later);
            }
            if now < opens {
                return Some(Stretch {
                    begin,
                    end: opens,
                    open: false,
                });
            }
            if now < closes {
                return Some(Stretch {
                    begin: opens,
                    end: closes,
                    open: true,
                });
            }
            begin = closes;
        }
        Some(Stretch {
            begin,
            end: horizon,
            open: false,
        })
    }

    /// The window that opens on `date`; `None` where a change of the clock leaves nothing of it.
    fn occurrence(&self, window: &Window, date: Date) -> Option<(UnixMillis, UnixMillis)> {
        let end_date = if window.closes <= window.opens {
            date.tomorrow().ok()?
        } else {
            date
        };
        let opens = self.instant(date, window.opens)?;
        let closes = self.instant(end_date, window.closes)?;
        (opens < closes).then_some((opens, closes))
    }

    /// The moment at which clocks in the zone reach a time of day.
    fn instant(&self, date: Date, minutes: u16) -> Option<UnixMillis> {
        let (date, minutes) = if minutes >= 1440 {
            (date.tomorrow().ok()?, minutes - 1440)
        } else {
            (date, minutes)
        };
        let hour = i8::try_from(minutes / 60).ok()?;
        let minute = i8::try_from(minutes % 60).ok()?;
        let local = self
            .zone
            .to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
        let moment = match local.offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                local.earlier().ok()?
            }
            AmbiguousOffset::Gap { .. } => {
                let before = local.earlier().ok()?;
                self.zone.following(before).next()?.timestamp()
            }
        };
        u64::try_from(moment.as_millisecond()).ok().map(UnixMillis)
    }
}

#[cfg(test)]
mod tests;
