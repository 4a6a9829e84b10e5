//! `upgrade rehearse`

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::exit::ExitStatus;
use serde::Serialize;

use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;
use crate::state_dir::StateDir;
use crate::upgrade::rehearse::{Rehearsal, Source, rehearse};

const EXAMPLES: &str = "\
Examples:
  gatereeve-controller upgrade rehearse                           the state directory, also while it is served
  gatereeve-controller upgrade rehearse --backup gatereeve.tar    a backup, on any machine
  TMPDIR=/var/tmp gatereeve-controller upgrade rehearse           with the copy elsewhere

Run it with the new program before the new program serves. It works on a copy, which it removes: the
copy is migrated and started from, the policy's tests run on it, and every device's network map is
compared before and after. The original is read and never written.

Exit status: 0 nothing changes for anybody, 3 something does or a test fails (do not upgrade before you
know why), 1 the copy cannot be migrated or started from, 4 there is no state.";

#[derive(Debug, Subcommand)]
pub(super) enum UpgradeVerb {
    /// Migrate a copy of the state and say what would change
    Rehearse(RehearseArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RehearseArgs {
    /// A file that `backup` has written, in place of the state directory
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
}

/// What `upgrade rehearse --json` prints.
#[derive(Debug, Serialize)]
struct RehearsedView<'a> {
    kind: &'static str,
    safe: bool,
    source: String,
    version: &'static str,
    #[serde(flatten)]
    rehearsal: &'a Rehearsal,
}

pub(super) fn run(
    verb: UpgradeVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let UpgradeVerb::Rehearse(args) = verb;
    let (source, shown) = match args.backup {
        Some(path) if !path.is_file() => {
            let message = format!("there is no file {}", path.display());
            return Err(Failure::new(ExitStatus::USAGE, message));
        }
        Some(path) => {
            let shown = path.display().to_string();
            (Source::Backup(path), shown)
        }
        None => {
            let dir = StateDir::new(&config.state_dir);
            let shown = dir.root().display().to_string();
            if !dir.is_initialised() {
                let message = format!(
                    "there is no controller state in {shown}, or this user may not read it; --state-dir names \
                     another directory, --backup a file"
                );
                return Err(Failure::new(ExitStatus::NOT_FOUND, message));
            }
            (Source::StateDir(dir), shown)
        }
    };
    // The network's key is in the copy. Gone at the end, whatever the end is.
    let work = tempfile::Builder::new()
        .prefix("gatereeve-rehearsal-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("cannot make a temporary directory for the copy; TMPDIR names another place")?;
    let rehearsal = rehearse(&source, work.path(), Clock::unix())?;
    let view = RehearsedView {
        kind: "rehearsed",
        safe: rehearsal.is_safe(),
        source: shown,
        version: env!("CARGO_PKG_VERSION"),
        rehearsal: &rehearsal,
    };
    printer.answer(&view, || text(&view))?;
    Ok(if view.safe {
        ExitStatus::DONE
    } else {
        ExitStatus::REFUSED
    })
}

fn text(view: &RehearsedView<'_>) -> String {
    let Rehearsal {
        from_format,
        to_format,
        generation,
        devices,
        tests,
        policy_problem,
        differences,
    } = view.rehearsal;
    let migration = if from_format == to_format {
        format!("format {to_format} already, nothing to migrate")
    } else {
        format!("from format {from_format} to {to_format}, on a copy")
    };
    let failed = view.rehearsal.failed_tests().count();
    let mut text = format!(
        "State        {}, up to generation {generation}\n\
         Migration    {migration}\n\
         Policy       {}\n\
         Tests        {} of {} hold\n\
         Maps         {devices} devices compared, {} would be told something else\n",
        view.source,
        policy_problem.as_deref().unwrap_or("understood"),
        tests.len().saturating_sub(failed),
        tests.len(),
        differences.len(),
    );
    for test in view.rehearsal.failed_tests() {
        let word = |allow| if allow { "allow" } else { "deny" };
        text.push_str(&format!(
            "  test fails: {} to {} {}: expected {}, found {}\n",
            test.from,
            test.to,
            test.port,
            word(test.expect_allow),
            word(test.allowed)
        ));
    }
    for difference in differences {
        text.push_str(&format!("  {}\n", difference.device));
        for line in &difference.lines {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text.push_str(if view.safe {
        "Safe: with this version nothing changes for any device.\n"
    } else {
        "NOT safe: find out why before this version serves.\n"
    });
    text
}
