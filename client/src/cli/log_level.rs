//! `log-level`: what the daemon logs, seen and switched.

use std::path::Path;

use serde::Serialize;

use gatereeve_runtime::diagnostics::{FILTER_PATH, FilterRequest};
use gatereeve_runtime::telemetry::LogFilter;

use super::Failure;
use super::client;
use super::output::Printer;

/// What `log-level --json` prints.
#[derive(Debug, Serialize)]
struct LevelView {
    kind: &'static str,
    #[serde(flatten)]
    filter: LogFilter,
}

/// Asks for the filter, or switches it.
///
/// # Errors
/// [`Failure`] with the daemon's own words.
pub(super) fn run(
    socket: &Path,
    filter: Option<String>,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let filter: LogFilter = client::post(socket, FILTER_PATH, &FilterRequest { filter })?;
    let text = format!(
        "{}\n(after a restart: {})",
        filter.filter, filter.configured
    );
    let view = LevelView {
        kind: "log_level",
        filter,
    };
    printer.show(&view, || text).map(|()| 0)
}
