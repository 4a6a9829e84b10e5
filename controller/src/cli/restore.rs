//! `restore`

use std::path::PathBuf;

use clap::Args;
use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use nix::unistd::{User, getuid};
use serde::Serialize;

use super::failure::Failure;
use super::output::Printer;
use crate::backup;
use crate::config::Config;
use crate::state_dir::StateDir;
use crate::state_dir::owner::become_owner;

const EXAMPLES: &str = "\
Example:
  gatereeve-controller restore /mnt/safe/gatereeve.tar

The state directory must be empty or missing. Whatever was committed after the backup is gone,
revocations among it: go through them again before you serve.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
}

/// What `restore --json` prints.
#[derive(Debug, Serialize)]
struct RestoredView {
    kind: &'static str,
    state_dir: String,
    network: String,
    fingerprint: Fingerprint,
    backup_generation: Generation,
    generation: Generation,
    warning: String,
}

pub(super) fn run(
    args: &RestoreArgs,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let dir = StateDir::new(&config.state_dir);
    let shown = args.file.display();
    let mut file = std::fs::File::open(&args.file).map_err(|error| {
        Failure::new(ExitStatus::USAGE, format!("cannot read {shown}: {error}"))
    })?;
    let is_taken = std::fs::read_dir(dir.root()).is_ok_and(|mut entries| entries.next().is_some());
    let uid = getuid();
    let user = User::from_uid(uid).ok().flatten();
    let actor = Actor::Local {
        uid: uid.as_raw(),
        user: user.map_or_else(|| uid.to_string(), |user| user.name),
    };
    become_owner(dir.root())?;
    let restored = backup::restore(&dir, &mut file, actor, Clock::unix()).map_err(|error| {
        let status = if is_taken {
            ExitStatus::CONFLICT
        } else {
            ExitStatus::FAILED
        };
        Failure::new(status, in_words(&error))
    })?;
    let since = restored
        .until
        .map_or_else(|| "the start".to_owned(), |until| until.to_string());
    let warning = format!(
        "everything committed after {since} is gone, revocations and quarantines among it: \
         repeat them before you serve"
    );
    let answer = RestoredView {
        kind: "restored",
        state_dir: dir.root().display().to_string(),
        network: restored.network,
        fingerprint: restored.fingerprint,
        backup_generation: restored.was,
        generation: restored.now,
        warning,
    };
    if !printer.is_json() {
        printer.note(&format!("warning: {}", answer.warning));
    }
    printer.answer(&answer, || {
        format!(
            "Network {} ({}) is restored in {}: generation {}, which devices take for newer than \
             anything they have seen.\n",
            answer.network, answer.fingerprint, answer.state_dir, answer.generation
        )
    })?;
    Ok(ExitStatus::DONE)
}
