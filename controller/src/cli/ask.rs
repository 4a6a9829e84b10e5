//! Asking the daemon, and what every changing command has in common.

use std::time::Duration;

use clap::Args;
use gatereeve_controller_core::command::{Command, Committed, Reply, Request};
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::local_socket;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::output::Printer;
use super::render;
use crate::admin::COMMAND;
use crate::config::Config;

/// How long the controller may take for an answer, besides what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest `--wait`, which is the controller's own limit.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// `--wait`, for every command that changes something.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WaitArgs {
    /// Return only when every connected device concerned enforces the change
    ///
    /// Or when the time is over: exit status 7 then, and the answer names who has not confirmed
    /// and until when their leases run.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30s",
        value_parser = wait_time,
    )]
    wait: Option<Duration>,
}

impl WaitArgs {
    /// As the request carries it.
    pub(super) fn millis(self) -> Option<u64> {
        self.wait
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }
}

fn wait_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST_WAIT {
        return Err("at most 10m".to_owned());
    }
    Ok(time)
}

/// Posts to another path of the admin socket than that of commands, and returns the answer.
pub(super) fn post<T: DeserializeOwned>(
    config: &Config,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitStatus::FAILED, error.to_string()))?;
    Ok(runtime.block_on(local_socket::call_within(
        &config.socket,
        path,
        body,
        PATIENCE,
    ))?)
}

/// Sends a command and returns the answer.
pub(super) fn ask(config: &Config, command: Command, wait: Option<u64>) -> Result<Reply, Failure> {
    let request = Request {
        command,
        wait_ms: wait,
    };
    let deadline = PATIENCE.saturating_add(Duration::from_millis(wait.unwrap_or(0)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitStatus::FAILED, error.to_string()))?;
    Ok(runtime.block_on(local_socket::call_within(
        &config.socket,
        COMMAND,
        &request,
        deadline,
    ))?)
}

/// Sends a command that changes nothing, and prints the answer.
pub(super) fn show(
    config: &Config,
    command: Command,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    print(&ask(config, command, None)?, printer)
}

/// Sends a command that changes something, and prints the answer.
pub(super) fn change(
    config: &Config,
    command: Command,
    wait: WaitArgs,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    print(&ask(config, command, wait.millis())?, printer)
}

/// Prints an answer; the exit status tells whether a change is confirmed as far as was asked.
pub(super) fn print(reply: &Reply, printer: &mut Printer<'_>) -> Result<ExitStatus, Failure> {
    printer.answer(reply, || render::reply(reply))?;
    Ok(match reply {
        Reply::Committed(committed) => confirmation(committed),
        Reply::Tests { results }
            if results.iter().any(|test| test.allowed != test.expect_allow) =>
        {
            ExitStatus::REFUSED
        }
        Reply::Status(_)
        | Reply::Invite { .. }
        | Reply::Invites { .. }
        | Reply::Devices { .. }
        | Reply::Device(_)
        | Reply::PolicyChecked { .. }
        | Reply::Plan(_)
        | Reply::Policy { .. }
        | Reply::History { .. }
        | Reply::Tests { .. }
        | Reply::Explained(_)
        | Reply::Reach(_)
        | Reply::Posture(_) => ExitStatus::DONE,
    })
}

/// Unconfirmed is a device that may still act as before: connected, or away with leases that run. One
/// that is away and has nothing to lose does not count.
fn confirmation(committed: &Committed) -> ExitStatus {
    let lags = committed
        .unconfirmed
        .iter()
        .any(|device| device.connected || device.leases_end.is_some());
    if committed.waited && lags {
        ExitStatus::UNCONFIRMED
    } else {
        ExitStatus::DONE
    }
}
