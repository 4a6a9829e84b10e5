//! From a device's report to verdicts on the policy's posture checks.
//!
//! A check is met only if every condition is met by a fact that is there, known, well formed and
//! fresh. Anything else is a failure that says what was found.

pub(crate) mod condition;
pub mod evaluate;
pub(crate) mod version;

use std::time::Duration;

use condition::Condition;

/// How old facts may be where a check does not say.
pub(crate) const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3600);

/// One `[posture.NAME]`: conditions that must all be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Never empty.
    pub(crate) conditions: Vec<Condition>,
    /// How old a fact may be.
    pub(crate) max_age: Duration,
}

impl Check {
    /// How old a fact may be.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// Executables that must be running.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &str> {
        self.conditions
            .iter()
            .filter_map(|condition| condition.process())
    }
}
