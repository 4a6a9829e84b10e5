//! The sandbox that a process puts itself into, whoever started it and as whom: Landlock for files, TCP ports and
//! signals, seccomp for system calls.
//!
//! To be entered once, in `main`, while the process has one thread and has read nothing from outside: threads
//! that start later are inside, and nothing leads out again. What the kernel does not have is left out and said
//! ([`Confinement::missing`]); nothing of it is needed to run.
//!
//! * [`files`]: what may be read and written. Directories are granted, not files: configuration and state are
//!   replaced by rename.
//! * [`calls`]: which system calls may be made.

pub mod calls;
pub mod files;

use std::fmt;

pub use calls::Calls;
pub use files::{Access, Files, Grant};

/// What a process may do from now on.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Files, TCP ports and signals.
    pub files: Files,
    /// System calls.
    pub calls: Calls,
}

/// What came of entering it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The Landlock ABI in force.
    pub landlock: Option<i32>,
    /// How many system calls are allowed.
    pub calls: Option<usize>,
    /// What is not confined, and why.
    pub missing: Vec<String>,
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.landlock, self.calls) {
            (Some(abi), Some(calls)) => write!(f, "Landlock (ABI {abi}), {calls} system calls"),
            (Some(abi), None) => write!(f, "Landlock (ABI {abi})"),
            (None, Some(calls)) => write!(f, "{calls} system calls"),
            (None, None) => f.write_str("none"),
        }
    }
}

impl Sandbox {
    /// Enters it, for the rest of the process's life.
    #[must_use]
    pub fn enter(&self) -> Confinement {
        let mut confinement = Confinement::default();
        match self.files.restrict(&mut confinement.missing) {
            Ok(abi) => confinement.landlock = Some(abi),
            Err(why) => confinement.missing.push(format!("files: {why}")),
        }
        match self.calls.restrict() {
            Ok(count) => confinement.calls = Some(count),
            Err(why) => confinement.missing.push(format!("system calls: {why}")),
        }
        for missing in &confinement.missing {
            tracing::warn!(%missing, "the sandbox is not complete");
        }
        tracing::info!(sandbox = %confinement, "confined");
        confinement
    }
}

impl Confinement {
    /// None at all, because the configuration says so.
    #[must_use]
    pub fn switched_off() -> Self {
        let warning =
            "the sandbox is switched off (sandbox = false); switch it on again after debugging";
        tracing::warn!("{warning}");
        Self {
            missing: vec![warning.to_owned()],
            ..Self::default()
        }
    }
}
