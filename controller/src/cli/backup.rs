//! `backup`

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::generation::Generation;
use serde::Serialize;

use super::failure::Failure;
use super::output::Printer;
use crate::backup::record::LastBackup;
use crate::backup::{self, Keys};
use crate::config::Config;
use crate::state_dir::StateDir;

const EXAMPLES: &str = "\
Example:
  gatereeve-controller backup /mnt/safe/gatereeve.tar

The file holds the network's private key, so it is made with mode 0600: keep it so. It is consistent
also while the controller runs. `gatereeve-controller restore FILE` makes a state from it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist yet
    file: PathBuf,
}

/// What `backup --json` prints.
#[derive(Debug, Serialize)]
struct BackedUp {
    kind: &'static str,
    file: String,
    generation: Generation,
    bytes: u64,
}

pub(super) fn run(
    args: &BackupArgs,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let dir = StateDir::new(&config.state_dir);
    if !dir.is_initialised() {
        return Err(Failure::new(
            ExitStatus::NOT_FOUND,
            format!(
                "there is no controller state in {}, or this user may not read it",
                dir.root().display()
            ),
        ));
    }
    let shown = args.file.display();
    let mut file = match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.file)
    {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(
                ExitStatus::CONFLICT,
                format!("{shown} exists, and a backup is never overwritten; choose another name"),
            ));
        }
        Err(error) => {
            return Err(anyhow::Error::from(error)
                .context(format!("cannot write {shown}"))
                .into());
        }
    };
    let written = backup::write(&dir, Keys::Both, &mut file).and_then(|generation| {
        file.flush()?;
        file.sync_all().context("cannot make the backup durable")?;
        Ok((generation, file.metadata()?.len()))
    });
    let (generation, bytes) = match written {
        Ok(written) => written,
        Err(error) => {
            // Half a backup is worse than none.
            drop(std::fs::remove_file(&args.file));
            return Err(error.into());
        }
    };
    let last = LastBackup {
        at: Clock::unix(),
        generation,
    };
    if let Err(error) = last.save(&dir) {
        printer.note(&format!(
            "warning: {} was not written ({error}), so `doctor` will not know of this backup",
            dir.last_backup().display()
        ));
    }
    let answer = BackedUp {
        kind: "backed_up",
        file: shown.to_string(),
        generation,
        bytes,
    };
    printer.answer(&answer, || {
        format!(
            "{shown} holds the state up to generation {generation} ({bytes} bytes).\n\
             The network's private key is in it: keep it as safe as the controller itself.\n"
        )
    })?;
    Ok(ExitStatus::DONE)
}
