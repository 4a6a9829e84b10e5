//! Other people's programs: where they are, and running them within bounds.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use gatereeve_tests::netns::Namespace;
use gatereeve_tests::process::Process;

/// Where to look, and a directory for what programs write.
#[derive(Debug)]
pub(crate) struct Tools {
    first: Option<PathBuf>,
    scratch: PathBuf,
    number: AtomicU64,
    iperf: PathBuf,
    ping: PathBuf,
    ethtool: Option<PathBuf>,
}

impl Tools {
    /// Looks for what every run needs.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(crate) fn find(first: Option<PathBuf>, scratch: PathBuf) -> anyhow::Result<Self> {
        let look = |name: &str| search(first.as_deref(), name);
        let (iperf, ping, ethtool) = (look("iperf3"), look("ping"), look("ethtool"));
        Ok(Self {
            iperf: iperf.context("iperf3 is not installed: apt-get install iperf3")?,
            ping: ping.context("ping is not installed: apt-get install iputils-ping")?,
            ethtool,
            first,
            scratch,
            number: AtomicU64::new(0),
        })
    }

    pub(crate) fn iperf(&self) -> &Path {
        &self.iperf
    }

    pub(crate) fn ping(&self) -> &Path {
        &self.ping
    }

    /// # Errors
    /// How to get it.
    pub(crate) fn ethtool(&self) -> anyhow::Result<&Path> {
        self.ethtool
            .as_deref()
            .context("--wire gro and off take ethtool: apt-get install ethtool")
    }

    /// The first of these names that is a program somewhere.
    pub(crate) fn look(&self, names: &[&str]) -> Option<PathBuf> {
        names
            .iter()
            .find_map(|name| search(self.first.as_deref(), name))
    }

    /// A new path for what a program writes.
    pub(crate) fn scratch(&self, label: &str) -> PathBuf {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        self.scratch.join(format!("{number}-{label}"))
    }

    /// Starts a program; what it writes goes to a file of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start<A: AsRef<OsStr>>(
        &self,
        namespace: Option<&Namespace>,
        label: &'static str,
        program: &Path,
        arguments: &[A],
    ) -> anyhow::Result<Started> {
        let mut command = Command::new(program);
        command.args(arguments).env("LC_ALL", "C");
        let log = self.scratch(label);
        let process = Process::start(label, command, namespace, Some(&log))?;
        Ok(Started {
            process,
            label,
            log,
        })
    }

    /// Runs a program to its end and returns what it wrote.
    ///
    /// # Errors
    /// Where it fails or takes longer than `limit`, with what it wrote.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        namespace: Option<&Namespace>,
        label: &'static str,
        program: &Path,
        arguments: &[A],
        limit: Duration,
    ) -> anyhow::Result<String> {
        let done = self
            .start(namespace, label, program, arguments)?
            .finish(limit)?;
        ensure!(done.ok, "{label}: {}", done.text.trim());
        Ok(done.text)
    }
}

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    label: &'static str,
    log: PathBuf,
}

/// What came of one.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whether it ended with status 0.
    pub(crate) ok: bool,
    /// All that it wrote.
    pub(crate) text: String,
}

impl Started {
    /// Waits for its end, and kills it after `limit`.
    ///
    /// # Errors
    /// Where it had to be killed.
    pub(crate) fn finish(mut self, limit: Duration) -> anyhow::Result<Done> {
        let status = self.process.wait(limit);
        let text = self.written();
        // Its file is read; a long session would pile them up.
        drop(std::fs::remove_file(&self.log));
        let status =
            status.map_err(|error| anyhow!("{}: {error}; it wrote: {text}", self.label))?;
        Ok(Done {
            ok: status.success(),
            text,
        })
    }

    /// What it has written so far.
    pub(crate) fn written(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn search(first: Option<&Path>, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    first
        .iter()
        .flat_map(|dir| [dir.join("bin"), dir.to_path_buf()])
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .chain(
            home.iter()
                .flat_map(|home| [home.join(".cargo/bin"), home.join("go/bin")]),
        )
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
