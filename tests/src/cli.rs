//! The two command lines as a person runs them, with `--json` and typed answers.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::de::DeserializeOwned;

use gatereeve_client_core::api::LocalReply;
use gatereeve_controller_core::command::{Committed, Reply};

use crate::clock::Stopwatch;

/// Longest that any command may take, its own waiting included.
const LIMIT: Duration = Duration::from_secs(90);

/// A command that ended with another status than 0.
#[derive(Clone, Debug)]
pub struct CliError {
    /// The command.
    pub command: String,
    /// Its exit status; `None` where it was killed.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with status {:?}: {} {}",
            self.command,
            self.status,
            self.stderr.trim(),
            self.stdout.trim()
        )
    }
}

impl std::error::Error for CliError {}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command.
    pub command: String,
    /// Its exit status; `None` where it was killed.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON, where the status is one of `statuses`.
    ///
    /// # Errors
    /// [`CliError`] for another status; or that the output is not the JSON it should be.
    pub fn json<T: DeserializeOwned>(self, statuses: &[i32]) -> anyhow::Result<T> {
        if self.status.is_some_and(|status| statuses.contains(&status)) {
            serde_json::from_str(&self.stdout)
                .with_context(|| format!("`{}` printed: {}", self.command, self.stdout))
        } else {
            Err(CliError {
                command: self.command,
                status: self.status,
                stdout: self.stdout,
                stderr: self.stderr,
            }
            .into())
        }
    }
}

/// Runs a command to its end, with `input` on its standard input.
///
/// # Errors
/// Where it cannot be started or takes too long.
pub fn run(mut command: Command) -> anyhow::Result<Finished> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let text = words.join(" ");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{text}`"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let stdout = std::thread::spawn(move || read_all(stdout));
    let stderr = std::thread::spawn(move || read_all(stderr));
    let watch = Stopwatch::start();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if watch.is_past(LIMIT) {
            child.kill()?;
            child.wait()?;
            return Err(anyhow!("`{text}` did not end within {LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ok(Finished {
        command: text,
        status: status.code(),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

fn read_all(from: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        // What came before an error is still worth showing.
        drop(from.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `gatereeve-controller`, for one controller.
#[derive(Clone, Debug)]
pub struct ControllerCli {
    pub(crate) program: PathBuf,
    state_dir: PathBuf,
    socket: PathBuf,
    config: PathBuf,
}

impl ControllerCli {
    /// For a controller that keeps everything below `directory`, which is made.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(program: PathBuf, directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let config = directory.join("controller.toml");
        std::fs::write(&config, "")?;
        Ok(Self {
            program,
            state_dir: directory.join("state"),
            socket: directory.join("admin.sock"),
            config,
        })
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A command with the flags that lead to this controller.
    #[must_use]
    pub fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--state-dir")
            .arg(&self.state_dir)
            .arg("--socket")
            .arg(&self.socket)
            .arg("--config")
            .arg(&self.config)
            .args(arguments);
        command
    }

    /// Runs `arguments --json` to its end.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        run(self.command(std::iter::once(&"--json").chain(arguments)))
    }

    /// Runs `arguments --json` and takes its answer.
    ///
    /// # Errors
    /// [`CliError`] where it fails.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<Reply> {
        self.run(arguments)?.json(&[0])
    }

    /// Runs a changing command; "committed, not confirmed everywhere" (7) counts as done.
    ///
    /// # Errors
    /// [`CliError`] where it fails.
    pub fn change(&self, arguments: &[&str]) -> anyhow::Result<Committed> {
        let reply = self.run(arguments)?.json(&[0, 7])?;
        if let Reply::Committed(committed) = reply {
            Ok(committed)
        } else {
            Err(anyhow!("{arguments:?} answered {reply:?}"))
        }
    }

    /// Writes `policy` to a file beside the state and applies it.
    ///
    /// # Errors
    /// [`CliError`] where it is refused.
    pub fn apply(&self, policy: &str, options: &[&str]) -> anyhow::Result<Committed> {
        let file = self.state_dir.with_file_name("policy.toml");
        std::fs::write(&file, policy)?;
        let file = file.to_string_lossy();
        let arguments: Vec<&str> = ["policy", "apply", &file]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        self.change(&arguments)
    }

    /// Makes an invite and returns its text.
    ///
    /// # Errors
    /// [`CliError`] where it is refused.
    pub fn invite(&self, options: &[&str]) -> anyhow::Result<String> {
        let arguments: Vec<&str> = ["invite", "create"]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        let reply = self.ask(&arguments)?;
        if let Reply::Invite { invite, .. } = reply {
            Ok(invite)
        } else {
            Err(anyhow!("invite create answered {reply:?}"))
        }
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }
}

/// `gatereeve`, for one device's daemon.
#[derive(Clone, Debug)]
pub struct DeviceCli {
    pub(crate) program: PathBuf,
    pub(crate) socket: PathBuf,
}

impl DeviceCli {
    /// Runs `arguments --json` to its end.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.iter().take(1))
            .arg("--json")
            .arg("--socket")
            .arg(&self.socket)
            .args(arguments.iter().skip(1));
        run(command)
    }

    /// Runs `arguments --json` and takes its answer.
    ///
    /// # Errors
    /// [`CliError`] where it fails.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<LocalReply> {
        self.run(arguments)?.json(&[0])
    }
}
