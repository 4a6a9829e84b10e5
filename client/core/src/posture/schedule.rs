//! The rhythm of reports: every interval with jitter, and at once when something changed.

use std::time::Duration;

use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::time::{Mono, Now};

use super::report;
use crate::output::ObservedFact;
use crate::random::Random;

/// Never more often than this, whatever happens on the device.
const LEAST_GAP: Duration = Duration::from_secs(1);
/// The interval until the controller has named one.
const DEFAULT_EVERY: Duration = Duration::from_secs(60);
/// A collector has this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest interval that is believed.
const MOST_EVERY: Duration = Duration::from_secs(3600);

/// What to do after facts have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportWhen {
    /// Nothing to tell.
    Not,
    /// Now.
    Now,
    /// At this time.
    At(Mono),
}

/// Facts as collected, and what was reported of them when.
#[derive(Debug)]
pub(crate) struct Posture {
    facts: Option<Vec<ObservedFact>>,
    every: Duration,
    reported: Option<Vec<(String, FactValue)>>,
    reported_at: Option<Mono>,
    collected_at: Option<Mono>,
    asked_at: Option<Mono>,
    /// A collection was asked for because a report is due.
    is_due: bool,
}

impl Posture {
    pub(crate) fn new() -> Self {
        Self {
            facts: None,
            every: DEFAULT_EVERY,
            reported: None,
            reported_at: None,
            collected_at: None,
            asked_at: None,
            is_due: false,
        }
    }

    /// The last facts; `None` until the first were collected.
    pub(crate) fn facts(&self) -> Option<&[ObservedFact]> {
        self.facts.as_deref()
    }

    /// Sets the interval that the controller asks for. Returns whether it differs from before.
    pub(crate) fn set_interval(&mut self, seconds: u32) -> bool {
        let every = Duration::from_secs(u64::from(seconds)).clamp(LEAST_GAP, MOST_EVERY);
        std::mem::replace(&mut self.every, every) != every
    }

    /// The time until the next collection.
    pub(crate) fn interval(&self, random: &mut Random) -> Duration {
        random.around(self.every)
    }

    /// A collection was asked for: its facts are to be reported even if they are the same.
    pub(crate) fn due(&mut self, now: Now) {
        self.is_due = true;
        self.asked_at = Some(now.mono);
    }

    /// Whether a collection was asked for that may still bring something.
    pub(crate) fn is_awaited(&self, now: Now) -> bool {
        self.asked_at
            .is_some_and(|asked| now.mono.since(asked) < PATIENCE)
    }

    /// Whether the facts held are young enough to begin a session with.
    pub(crate) fn is_fresh(&self, now: Now) -> bool {
        self.collected_at
            .is_some_and(|at| now.mono.since(at) <= self.every)
    }

    /// A new session: the controller knows nothing of this device until it reports.
    pub(crate) fn session_began(&mut self) {
        self.reported = None;
        self.reported_at = None;
    }

    /// Takes what a collector found: everything, not only what changed.
    pub(crate) fn collected(&mut self, facts: Vec<ObservedFact>, now: Now) -> ReportWhen {
        let facts = report::bounded(facts);
        let changed = self
            .reported
            .as_ref()
            .is_none_or(|reported| *reported != values(&facts));
        self.facts = Some(facts);
        self.collected_at = Some(now.mono);
        self.asked_at = None;
        if !changed && !self.is_due {
            return ReportWhen::Not;
        }
        match self.reported_at.map(|at| at.saturating_add(LEAST_GAP)) {
            Some(earliest) if earliest > now.mono => ReportWhen::At(earliest),
            _ => ReportWhen::Now,
        }
    }

    /// Notes that the facts held were reported.
    pub(crate) fn reported(&mut self, now: Now) {
        self.is_due = false;
        self.reported = Some(values(self.facts.as_deref().unwrap_or_default()));
        self.reported_at = Some(now.mono);
    }
}

fn values(facts: &[ObservedFact]) -> Vec<(String, FactValue)> {
    let mut values: Vec<_> = facts
        .iter()
        .map(|fact| (fact.id.clone(), fact.value.clone()))
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(firewall: bool) -> Vec<ObservedFact> {
        vec![ObservedFact {
            id: "firewall".into(),
            value: FactValue::Bool(firewall),
            source: "test".into(),
            observed: Mono(0),
        }]
    }

    fn at(millis: u64) -> Now {
        Now::default().after(Duration::from_millis(millis))
    }

    #[test]
    fn changes_go_at_once_but_once_a_second() {
        let mut posture = Posture::new();
        posture.session_began();
        assert_eq!(posture.collected(facts(true), at(0)), ReportWhen::Now);
        posture.reported(at(0));
        assert_eq!(posture.collected(facts(true), at(10)), ReportWhen::Not);
        assert_eq!(
            posture.collected(facts(false), at(20)),
            ReportWhen::At(Mono(1_000_000_000))
        );
        assert_eq!(posture.collected(facts(false), at(1000)), ReportWhen::Now);
        posture.reported(at(1000));
        // What is due goes even if nothing changed.
        posture.due(at(1000));
        assert_eq!(posture.collected(facts(false), at(9000)), ReportWhen::Now);
    }

    #[test]
    fn the_interval_is_held_to_its_bounds_and_spread() {
        let mut posture = Posture::new();
        let mut random = Random::new([3; 32]);
        for (asked, seconds) in [(0, 1), (30, 30), (u32::MAX, 3600)] {
            posture.set_interval(asked);
            let exact = Duration::from_secs(seconds);
            let draws: Vec<_> = (0..500).map(|_| posture.interval(&mut random)).collect();
            assert!(
                draws
                    .iter()
                    .all(|d| *d >= exact * 9 / 10 && *d <= exact * 11 / 10)
            );
            assert!(draws.iter().any(|d| *d < exact) && draws.iter().any(|d| *d > exact));
        }
    }
}
