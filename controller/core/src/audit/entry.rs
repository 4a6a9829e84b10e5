//! Who did what to whom, how it ended, and why.

use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::text;
use serde::{Deserialize, Serialize};

/// Most characters of one text in an entry.
const TEXT: usize = 512;
/// Most lines of details in an entry.
pub const DETAILS: usize = 200;
/// Most lines of details in an entry that a device can cause again and again.
pub const BRIEF_DETAILS: usize = 20;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Somebody on the controller's machine, by the socket's peer credentials.
    Local {
        /// User ID.
        uid: u32,
        /// User name, or the number as text.
        user: String,
    },
    /// A device, by its proven key.
    Device(DeviceId),
    /// The controller itself: a timer, an expiry.
    System,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local { user, .. } => f.write_str(user),
            Self::Device(device) => write!(f, "device {device}"),
            Self::System => f.write_str("controller"),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

/// One line of the audit log. Every text is printable and bounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// What, as `noun.verb`: `device.revoke`, `policy.apply`, `session.attach`.
    pub action: String,
    /// On what: a device's name and ID, an invite's ID, a policy revision.
    pub subject: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub reason: Option<String>,
    /// What was.
    pub before: Option<String>,
    /// What is.
    pub after: Option<String>,
    /// More, line by line, such as the flows that a policy opened and closed. Bounded.
    pub details: Vec<String>,
}

impl AuditEntry {
    /// An entry of something that was done.
    #[must_use]
    pub fn done(action: &str, subject: impl AsRef<str>) -> Self {
        Self {
            action: action.to_owned(),
            subject: bounded(subject.as_ref()),
            outcome: Outcome::Done,
            reason: None,
            before: None,
            after: None,
            details: Vec::new(),
        }
    }

    /// An entry of something that was refused.
    #[must_use]
    pub fn refused(action: &str, subject: impl AsRef<str>, reason: impl AsRef<str>) -> Self {
        Self {
            outcome: Outcome::Refused,
            ..Self::done(action, subject).because(reason)
        }
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, reason: impl AsRef<str>) -> Self {
        self.reason = Some(bounded(reason.as_ref()));
        self
    }

    /// With what was and what is.
    #[must_use]
    pub fn from_to(mut self, before: impl AsRef<str>, after: impl AsRef<str>) -> Self {
        self.before = Some(bounded(before.as_ref()));
        self.after = Some(bounded(after.as_ref()));
        self
    }

    /// With details; beyond [`DETAILS`] lines it says how many are left out.
    #[must_use]
    pub fn detailed(self, lines: impl IntoIterator<Item = String>) -> Self {
        self.with_lines(DETAILS, lines)
    }

    /// With details; beyond [`BRIEF_DETAILS`] lines it says how many are left out.
    #[must_use]
    pub fn detailed_briefly(self, lines: impl IntoIterator<Item = String>) -> Self {
        self.with_lines(BRIEF_DETAILS, lines)
    }

    fn with_lines(mut self, most: usize, lines: impl IntoIterator<Item = String>) -> Self {
        let mut left_out = 0usize;
        for line in lines {
            if self.details.len() < most {
                self.details.push(bounded(&line));
            } else {
                left_out = left_out.saturating_add(1);
            }
        }
        if left_out > 0 {
            self.details.push(format!("and {left_out} more"));
        }
        self
    }
}

/// `text` on one line and of bounded length.
fn bounded(text: &str) -> String {
    text::printable(text).chars().take(TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_printable_and_bounded() {
        let entry = AuditEntry::refused("device.enroll", "a\nb", "x".repeat(10_000))
            .detailed((0..1000).map(|n| n.to_string()));
        assert_eq!(entry.subject, "a\u{fffd}b");
        assert_eq!(entry.reason.map(|r| r.len()), Some(TEXT));
        assert_eq!(entry.details.len(), DETAILS + 1);
        assert_eq!(entry.details.last().unwrap(), "and 800 more");
    }
}
