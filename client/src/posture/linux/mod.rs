//! Collectors for Linux: one file for each fact, each over a [`Host`](super::Host).

pub mod disk;
pub mod facts_d;
#[cfg(test)]
pub(crate) mod fixture;
pub mod kernel;
pub mod os;
pub mod processes;
pub mod screen_lock;
pub mod secure_boot;
pub mod updates;

use std::path::{Path, PathBuf};

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::UnixMillis;

use super::Host;

/// This machine.
#[derive(Debug)]
pub struct ThisHost {
    root: PathBuf,
    now: UnixMillis,
}

impl ThisHost {
    /// This machine, read below `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            now: Clock::now().unix,
        }
    }
}

impl Host for ThisHost {
    fn root(&self) -> &Path {
        &self.root
    }

    fn now(&self) -> UnixMillis {
        self.now
    }
}

/// Moves this process into a network namespace with nothing in it. Where that takes rights that the
/// process does not have, it stays: nothing here opens a network socket either way.
pub fn leave_network() {
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
        tracing::debug!("the collector stays in the host's network namespace");
    }
}
