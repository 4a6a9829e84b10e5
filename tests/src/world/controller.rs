//! The controller's host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use gatereeve_controller_core::command::{DeviceView, ExplainView, Reply, StatusReply};

use super::PATIENCE;
use crate::cli::ControllerCli;
use crate::clock::wait_for;
use crate::netns::Namespace;
use crate::netns::links::UnderlayAddresses;
use crate::process::Process;
use crate::rights::Rights;

/// The port that the controller serves on.
const PORT: u16 = 8443;

/// A controller with its state, in its namespace.
#[derive(Debug)]
pub struct ControllerHost {
    /// Its command line.
    pub cli: ControllerCli,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its addresses on the underlay.
    pub underlay: UnderlayAddresses,
    process: Option<Process>,
    log: PathBuf,
    rights: Option<Rights>,
}

impl ControllerHost {
    /// Initialised, not started.
    ///
    /// # Errors
    /// Where its state cannot be made.
    pub fn new(
        program: PathBuf,
        directory: &Path,
        namespace: Namespace,
        underlay: UnderlayAddresses,
    ) -> anyhow::Result<Self> {
        let cli = ControllerCli::new(program, directory)?;
        let advertise = format!("{}:{PORT}", underlay.v4);
        let done = cli.run(&["init", "--name", "test-network", "--advertise", &advertise])?;
        if done.status != Some(0) {
            bail!("init: status {:?}: {}", done.status, done.stderr);
        }
        Ok(Self {
            cli,
            namespace,
            underlay,
            process: None,
            log: directory.join("log"),
            rights: None,
        })
    }

    /// Runs the controller with these rights from its next start on.
    ///
    /// # Errors
    /// Where its directory cannot be given away.
    pub fn run_as(&mut self, rights: Rights) -> anyhow::Result<()> {
        let directory = self.log.parent().context("the log is in a directory")?;
        rights.own_all(directory)?;
        rights.own(directory)?;
        self.cli.program = Rights::reach(&self.cli.program, directory)?;
        self.rights = Some(rights);
        Ok(())
    }

    /// Starts `serve` and waits until it answers.
    ///
    /// # Errors
    /// Where it does not; with the end of its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let listen = format!("[::]:{PORT}");
        let command = self.cli.command(["serve", "--listen", &listen]);
        let command = match &self.rights {
            Some(rights) => rights.limit(&command),
            None => command,
        };
        let process = Process::start(
            "gatereeve-controller serve",
            command,
            Some(&self.namespace),
            Some(&self.log),
        )?;
        let process = self.process.insert(process);
        let cli = &self.cli;
        wait_for("the controller to answer", PATIENCE, || {
            if !process.is_running() {
                bail!("it has ended");
            }
            cli.ask(&["status"]).map(Some)
        })
        .map(drop)
        .map_err(|error| error.context(self.log_tail()))
    }

    /// Kills it as power loss would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// Where it does not within the time given, or ends with an error.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the controller does not run")?;
        let status = process.stop(Duration::from_secs(15))?;
        if status.success() {
            Ok(())
        } else {
            Err(anyhow!("the controller ended with {status}").context(self.log_tail()))
        }
    }

    /// The process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// `status`.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn status(&self) -> anyhow::Result<StatusReply> {
        let reply = self.cli.ask(&["status"])?;
        if let Reply::Status(status) = reply {
            Ok(status)
        } else {
            Err(anyhow!("status answered {reply:?}"))
        }
    }

    /// `device show`.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn device(&self, name: &str) -> anyhow::Result<DeviceView> {
        let reply = self.cli.ask(&["device", "show", name])?;
        if let Reply::Device(device) = reply {
            Ok(*device)
        } else {
            Err(anyhow!("device show answered {reply:?}"))
        }
    }

    /// `policy explain`.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn explain(&self, from: &str, to: &str, port: &str) -> anyhow::Result<ExplainView> {
        let reply = self.cli.ask(&["policy", "explain", from, to, port])?;
        if let Reply::Explained(view) = reply {
            Ok(view)
        } else {
            Err(anyhow!("policy explain answered {reply:?}"))
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default();
        format!("controller log:\n{}", tail.join("\n"))
    }
}
