//! The exit statuses of both programs; part of the interface that stays put.

use std::process::{ExitCode, Termination};

/// What a command tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// Done.
    pub const DONE: Self = Self(0);
    /// Failed, for a reason that no other status names.
    pub const FAILED: Self = Self(1);
    /// Wrong usage.
    pub const USAGE: Self = Self(2);
    /// Refused by policy or permission.
    pub const REFUSED: Self = Self(3);
    /// No such thing.
    pub const NOT_FOUND: Self = Self(4);
    /// In conflict with what is there.
    pub const CONFLICT: Self = Self(5);
    /// The daemon or the controller cannot be reached.
    pub const UNREACHABLE: Self = Self(6);
    /// Committed, and not confirmed by everyone in time.
    pub const UNCONFIRMED: Self = Self(7);
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.0)
    }
}

impl Termination for ExitStatus {
    fn report(self) -> ExitCode {
        self.into()
    }
}
