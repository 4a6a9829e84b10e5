//! `status`

use gatereeve_controller_core::command::Command;
use gatereeve_runtime::exit::ExitStatus;

use super::ask;
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;

pub(super) fn run(config: &Config, printer: &mut Printer<'_>) -> Result<ExitStatus, Failure> {
    ask::show(config, Command::Status, printer)
}
