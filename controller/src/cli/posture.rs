//! `posture show`

use clap::Subcommand;
use gatereeve_controller_core::command::Command;
use gatereeve_runtime::exit::ExitStatus;

use super::ask;
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum PostureVerb {
    /// A device's last report, and how it does on each check
    Show {
        /// Name or device ID
        device: String,
    },
}

pub(super) fn run(
    verb: PostureVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let PostureVerb::Show { device } = verb;
    ask::show(config, Command::PostureShow { device }, printer)
}
