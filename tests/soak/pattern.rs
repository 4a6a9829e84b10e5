//! When which side of a pair sends.

use std::time::Duration;

/// How long a burst lasts.
const BURST: Duration = Duration::from_secs(6);
/// Silence between bursts, in seconds: around the times at which a session is reported to go deaf after its
/// handshake, around the timers of 10, 15, 25 and 60 seconds, and longer than a session lives.
const SILENCES: [u64; 8] = [20, 45, 16, 70, 28, 200, 33, 61];
/// Who begins the burst; the other side's first packets come a little later, or not at all.
const STARTS: [(Option<Duration>, Option<Duration>); 5] = [
    (Some(Duration::ZERO), Some(Duration::ZERO)),
    (Some(Duration::ZERO), None),
    (None, Some(Duration::ZERO)),
    (Some(Duration::ZERO), Some(Duration::from_millis(700))),
    (Some(Duration::from_millis(700)), Some(Duration::ZERO)),
];

/// What a pair does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// Both sides send all the time.
    Steady,
    /// The left side sends all the time, the right side never.
    OneWay,
    /// Bursts with silences between them, beginning with this one of the silences.
    Alternating {
        /// Where in the list of silences it begins.
        offset: usize,
    },
}

impl Pattern {
    /// Whether the left and the right side send at `elapsed` since the start.
    pub(crate) fn at(self, elapsed: Duration) -> (bool, bool) {
        match self {
            Self::Steady => (true, true),
            Self::OneWay => (true, false),
            Self::Alternating { offset } => {
                let mut left = elapsed;
                let silences = SILENCES.iter().cycle().skip(offset);
                for (silence, (one, other)) in silences.zip(STARTS.iter().cycle()) {
                    let began = |after: &Option<Duration>| after.is_some_and(|at| left >= at);
                    if left < BURST {
                        return (began(one), began(other));
                    }
                    left = left.saturating_sub(BURST);
                    let silence = Duration::from_secs(*silence);
                    if left < silence {
                        break;
                    }
                    left = left.saturating_sub(silence);
                }
                (false, false)
            }
        }
    }

    /// Its name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::OneWay => "one way",
            Self::Alternating { .. } => "alternating",
        }
    }

    /// Whether the right side sends at all.
    pub(crate) fn answers(self) -> bool {
        self != Self::OneWay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_alternate_with_silences_of_every_length() {
        let pattern = Pattern::Alternating { offset: 0 };
        let mut silences = Vec::new();
        let mut silence = 0_u64;
        for tenth in 0..12_000 {
            let (left, right) = pattern.at(Duration::from_millis(tenth * 100));
            if left || right {
                silences.extend((silence > 0).then_some(silence.div_ceil(10)));
                silence = 0;
            } else {
                silence += 1;
            }
        }
        assert!(silences.starts_with(&SILENCES), "{silences:?}");
        assert_eq!(pattern.at(Duration::ZERO), (true, true));
        // The second burst is the left side's alone.
        assert_eq!(pattern.at(BURST + Duration::from_secs(21)), (true, false));
    }
}
