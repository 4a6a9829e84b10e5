//! `bug-report`

use std::path::{Path, PathBuf};

use clap::Args;
use gatereeve_controller_core::command::{Command, Reply};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::diagnostics::{FILTER_PATH, FilterRequest, WARNINGS_PATH, Warnings};
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::report::Report;
use gatereeve_runtime::telemetry::LogFilter;
use gatereeve_runtime::words::in_words;
use serde::Serialize;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::Printer;
use super::{ask, doctor};
use crate::config::{self, Config};
use crate::state_dir::StateDir;
use crate::state_dir::settings::Settings;

/// Fields of the status that say who and where.
const SECRET: [&str; 5] = ["network", "fingerprint", "prefixes", "lagging", "name"];

const EXAMPLES: &str = "\
Examples:
  gatereeve-controller bug-report                      into a new file here, whose name it prints
  gatereeve-controller bug-report report.txt
  gatereeve-controller bug-report - | less             to standard output

In it: versions, machine and limits, the status in numbers, what `doctor` finds, the last warnings, the
configuration without its comments, and names, modes and sizes of the state's files. Not in it: keys,
invites, the policy, the audit log, and names and addresses of devices, people and the controller. Read it
before you send it: a warning may quote what somebody has typed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BugReportArgs {
    /// The file to write, which must not exist yet; `-` for standard output
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
}

/// What `bug-report --json` prints.
#[derive(Debug, Serialize)]
struct ReportedView<'a> {
    kind: &'static str,
    file: Option<String>,
    sections: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

pub(super) fn run(
    args: BugReportArgs,
    config_file: Option<PathBuf>,
    config: &anyhow::Result<Config>,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let report = make(config_file, config);
    let file = args.file.unwrap_or_else(|| {
        PathBuf::from(format!(
            "gatereeve-controller-report-{}.txt",
            Clock::unix().0 / 1000
        ))
    });
    let is_stream = file == Path::new("-");
    if !is_stream {
        report.save(&file).map_err(|error| {
            let status = if error.kind() == std::io::ErrorKind::AlreadyExists {
                ExitStatus::CONFLICT
            } else {
                ExitStatus::FAILED
            };
            let message = format!(
                "cannot write {}: {error}; name another file",
                file.display()
            );
            Failure::new(status, message)
        })?;
    }
    let view = ReportedView {
        kind: "reported",
        file: (!is_stream).then(|| file.display().to_string()),
        sections: report.titles().collect(),
        text: is_stream.then(|| report.to_text()),
    };
    printer.answer(&view, || match &view.text {
        Some(text) => text.clone(),
        None => format!(
            "{} holds: {}.\nRead it before you send it.\n",
            file.display(),
            view.sections.join(", ")
        ),
    })?;
    Ok(ExitStatus::DONE)
}

/// Everything that is found; what is not says why.
fn make(config_file: Option<PathBuf>, config: &anyhow::Result<Config>) -> Report {
    let mut report = Report::new("gatereeve-controller", env!("CARGO_PKG_VERSION"));
    let path = config_file.unwrap_or_else(|| PathBuf::from(config::FILE));
    report.add("doctor", &doctor::text(&doctor::checks(config)));
    report.add_configuration("configuration", &path, &["admin_group"]);
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            report.add(
                "state",
                &format!("the configuration is not understood: {}", in_words(error)),
            );
            return report;
        }
    };
    let dir = StateDir::new(&config.state_dir);
    hide_names(&mut report, &dir, config);
    report.add_answer("status", command(config, Command::Status), &SECRET);
    let filter = ask::post::<LogFilter>(config, FILTER_PATH, &FilterRequest::default());
    report.add(
        "log filter",
        &match filter {
            Ok(filter) => filter.filter,
            Err(failure) => format!("not known: {}", failure.message),
        },
    );
    let warnings = ask::post::<Warnings>(config, WARNINGS_PATH, &json!({}));
    report.add(
        "last warnings",
        &match warnings {
            Ok(warnings) => warnings.warnings.join("\n"),
            Err(failure) => format!("not known: {}", failure.message),
        },
    );
    report.add_listing("files of the state", dir.root());
    report
}

fn command(config: &Config, command: Command) -> Result<Value, String> {
    let reply = ask::ask(config, command, None).map_err(|failure| failure.message)?;
    serde_json::to_value(reply).map_err(|error| error.to_string())
}

/// Names are known here, so they can be taken out wherever they occur.
fn hide_names(report: &mut Report, dir: &StateDir, config: &Config) {
    if let Ok(settings) = Settings::load(&dir.settings()) {
        for advertised in &settings.advertise {
            let host = advertised
                .rsplit_once(':')
                .map_or(advertised.as_str(), |(host, _)| host);
            report.hide(host, "[controller]");
        }
        report.hide(&settings.name, "[network]");
    }
    if let Some(group) = &config.admin_group {
        report.hide(group, "[group]");
    }
    if let Ok(Reply::Devices { devices }) = ask::ask(config, Command::DeviceList, None) {
        for (number, device) in (1u64..).zip(devices) {
            report.hide(device.name.as_str(), &format!("[device {number}]"));
        }
    }
}
