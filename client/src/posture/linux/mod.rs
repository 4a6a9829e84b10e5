//! Collectors for Linux: one file for each fact, each over a [`Host`](super::Host).

pub mod disk;
pub mod facts_d;
pub mod firewall;
#[cfg(test)]
pub(crate) mod fixture;
pub mod kernel;
pub mod os;
pub mod processes;
pub mod screen_lock;
pub mod secure_boot;
pub mod updates;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::UnixMillis;

use super::{Host, RunError};

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

    fn run(&self, paths: &[&str], arguments: &[&str]) -> Result<String, RunError> {
        let program = paths
            .iter()
            .find(|path| Path::new(path).is_file())
            .ok_or(RunError::Absent)?;
        let output = Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|error| RunError::Failed(format!("{program}: {error}")))?;
        if output.status.success() {
            String::from_utf8(output.stdout).map_err(|_| {
                RunError::Failed(format!("{program} printed something that is no text"))
            })
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("no reason given").to_owned();
            Err(RunError::Failed(format!("{program}: {said}")))
        }
    }
}

/// Moves this process into a network namespace with nothing in it. Where that takes rights that the
/// process does not have, it stays: nothing here opens a network socket either way.
pub(super) fn leave_network() {
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
        tracing::debug!("the collector stays in the host's network namespace");
    }
}
