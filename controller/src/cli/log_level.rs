//! `log-level`

use clap::Args;
use gatereeve_runtime::diagnostics::{FILTER_PATH, FilterRequest};
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::telemetry::LogFilter;
use serde::Serialize;

use super::ask;
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  gatereeve-controller log-level                                        what is in force
  gatereeve-controller log-level debug
  gatereeve-controller log-level info,gatereeve_controller::quic=trace
  gatereeve-controller log-level configured                             back to what it was started with

It holds until the next switch or restart. Only root and the controller's own user may. A level below info
names devices and addresses.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogLevelArgs {
    /// A level (error, warn, info, debug, trace, off), directives, or `configured`
    #[arg(value_name = "LEVEL|FILTER")]
    filter: Option<String>,
}

/// What `log-level --json` prints.
#[derive(Debug, Serialize)]
struct LevelView<'a> {
    kind: &'static str,
    #[serde(flatten)]
    filter: &'a LogFilter,
}

pub(super) fn run(
    args: LogLevelArgs,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let request = FilterRequest {
        filter: args.filter,
    };
    let filter: LogFilter = ask::post(config, FILTER_PATH, &request)?;
    let view = LevelView {
        kind: "log_level",
        filter: &filter,
    };
    printer.answer(&view, || {
        format!(
            "{}\n(after a restart: {})\n",
            filter.filter, filter.configured
        )
    })?;
    Ok(ExitStatus::DONE)
}
