//! `doctor`

use clap::Args;
use gatereeve_controller_core::command::{Command, Reply};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::words::in_words;
use serde::Serialize;

use super::ask;
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;
use crate::doctor::{Answer, Check, Standing, examine};

const EXAMPLES: &str = "\
Examples:
  gatereeve-controller doctor
  gatereeve-controller doctor --json | jq '.checks[] | select(.standing != \"ok\")'

Looks at configuration, state directory, journal, disk, clock, ports, advertised names, backups, versions
and, where it runs, the controller itself. It changes nothing, and works without a controller that runs.
Run it as root or as the controller's own user.

Exit status: 0 no problem (there may be warnings), 1 a problem.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DoctorArgs {}

/// What `doctor --json` prints.
#[derive(Debug, Serialize)]
struct ExaminedView<'a> {
    kind: &'static str,
    ok: bool,
    version: &'static str,
    checks: &'a [Check],
}

pub(super) fn run(
    config: &anyhow::Result<Config>,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let checks = checks(config);
    let worst = checks.iter().map(|check| check.standing).max();
    let view = ExaminedView {
        kind: "examined",
        ok: worst != Some(Standing::Problem),
        version: env!("CARGO_PKG_VERSION"),
        checks: &checks,
    };
    printer.answer(&view, || text(&checks))?;
    Ok(if view.ok {
        ExitStatus::DONE
    } else {
        ExitStatus::FAILED
    })
}

/// Everything that can be looked at; the configuration first, as it says where the rest is.
pub(super) fn checks(config: &anyhow::Result<Config>) -> Vec<Check> {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let advice = "mend it; nothing else was looked at, as it says where everything is";
            return vec![Check::problem("configuration", in_words(error), advice)];
        }
    };
    let mut checks = vec![Check::ok("configuration", "understood")];
    checks.extend(examine(config, &answer(config), Clock::unix()));
    checks
}

/// What the controller says, or why it says nothing.
fn answer(config: &Config) -> Result<Answer, String> {
    let ask = |command| ask::ask(config, command, None).map_err(|failure| failure.message);
    match (ask(Command::Status)?, ask(Command::DeviceList)?) {
        (Reply::Status(status), Reply::Devices { devices }) => Ok(Answer { status, devices }),
        _ => Err("it answers something else than it was asked".to_owned()),
    }
}

/// One line for each, and under it what to do.
pub(super) fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let word = match check.standing {
            Standing::Ok => "OK",
            Standing::Warning => "WARNING",
            Standing::Problem => "PROBLEM",
        };
        text.push_str(&format!("{word:<8} {:<14} {}\n", check.name, check.found));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("{:<24}{advice}\n", ""));
        }
    }
    let count = |standing| {
        let of = checks.iter().filter(|check| check.standing == standing);
        of.count()
    };
    text.push_str(&format!(
        "{} problems, {} warnings\n",
        count(Standing::Problem),
        count(Standing::Warning)
    ));
    text
}
