//! `audit tail | export | verify`

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use gatereeve_controller_core::audit::chain::EncodedRecord;
use gatereeve_controller_core::audit::record::Record;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::identity::checkpoint::Checkpoint;
use serde::Serialize;

use super::failure::Failure;
use super::output::Printer;
use crate::audit::{AuditLine, Verified, line_text, verify};
use crate::config::Config;
use crate::journal::read::Follower;
use crate::state_dir::StateDir;
use crate::state_dir::checkpoints;

/// How often a followed log is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

const VERIFY_EXAMPLES: &str = "\
Examples:
  gatereeve-controller audit verify
  gatereeve-controller audit verify --checkpoints /mnt/elsewhere/checkpoints

Every record is read, its hash and its link to the record before are computed again, and every
signed head must be found in the chain. Keep copies of the file `checkpoints` on another machine:
who controls this one holds the key that signs.";

#[derive(Debug, Subcommand)]
pub(super) enum AuditVerb {
    /// The last records, and new ones as they come
    Tail(TailArgs),
    /// All records as JSON, one on each line
    Export {
        /// From this record on
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        since: u64,
    },
    /// Check that no record was edited, removed, moved or cut off
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// Signed heads that were kept elsewhere, besides those in the state directory
        #[arg(long, value_name = "FILE")]
        checkpoints: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: usize,
    /// Go on until interrupted
    #[arg(short, long)]
    follow: bool,
}

pub(super) fn run(
    verb: AuditVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let dir = StateDir::new(&config.state_dir);
    if !dir.is_initialised() {
        return Err(Failure::new(
            ExitStatus::NOT_FOUND,
            format!(
                "there is no controller state in {}, or this user may not read it; \
                 --state-dir names another directory",
                dir.root().display()
            ),
        ));
    }
    match verb {
        AuditVerb::Tail(args) => tail(&args, &dir, printer),
        AuditVerb::Export { since } => export(since, &dir, printer),
        AuditVerb::Verify { checkpoints } => run_verify(checkpoints, &dir, printer),
    }
}

/// Reads on, and returns what came.
fn read(follower: &mut Follower) -> Result<Vec<EncodedRecord>, Failure> {
    let mut records = Vec::new();
    follower
        .read(&mut |record| records.push(record))
        .map_err(anyhow::Error::from)?;
    Ok(records)
}

fn decode(record: &EncodedRecord) -> Result<Record, Failure> {
    let n = record.generation.n;
    Ok(record
        .decode()
        .with_context(|| format!("record {n} cannot be read"))?)
}

/// Prints records; false when nobody reads any more.
fn print<'a>(
    records: impl IntoIterator<Item = &'a EncodedRecord>,
    printer: &mut Printer<'_>,
) -> Result<bool, Failure> {
    for encoded in records {
        let record = decode(encoded)?;
        let line = AuditLine::new(&record, &encoded.hash);
        if !printer.line(&line, || line_text(&record))? {
            return Ok(false);
        }
    }
    printer.flush();
    Ok(true)
}

fn tail(args: &TailArgs, dir: &StateDir, printer: &mut Printer<'_>) -> Result<ExitStatus, Failure> {
    let mut follower = Follower::new(&dir.journal());
    let mut last = VecDeque::new();
    follower
        .read(&mut |record| {
            last.push_back(record);
            if last.len() > args.lines {
                last.pop_front();
            }
        })
        .map_err(anyhow::Error::from)?;
    let mut is_read = print(&last, printer)?;
    while args.follow && is_read {
        std::thread::sleep(FOLLOW_EVERY);
        is_read = print(&read(&mut follower)?, printer)?;
    }
    Ok(ExitStatus::DONE)
}

fn export(since: u64, dir: &StateDir, printer: &mut Printer<'_>) -> Result<ExitStatus, Failure> {
    let mut follower = Follower::new(&dir.journal());
    let records = read(&mut follower)?;
    let wanted = records.iter().filter(|record| record.generation.n >= since);
    for encoded in wanted {
        let record = decode(encoded)?;
        let line = AuditLine::new(&record, &encoded.hash);
        let json = serde_json::to_string(&line)
            .map_err(|error| Failure::new(ExitStatus::FAILED, error.to_string()))?;
        // JSON with and without --json: that is what an export is.
        if !printer.line(&line, || json)? {
            break;
        }
    }
    printer.flush();
    Ok(ExitStatus::DONE)
}

/// What `audit verify --json` prints.
#[derive(Debug, Serialize)]
struct VerifiedView<'a> {
    kind: &'static str,
    ok: bool,
    #[serde(flatten)]
    verified: &'a Verified,
}

fn run_verify(
    elsewhere: Option<PathBuf>,
    dir: &StateDir,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let network = dir
        .load_network_key()
        .map_err(anyhow::Error::from)?
        .public();
    // Before the journal: a head is signed only after its record is in there.
    let mut signed: Vec<Checkpoint> =
        checkpoints::load(&dir.checkpoints(), &network).map_err(anyhow::Error::from)?;
    if let Some(path) = elsewhere {
        if !path.exists() {
            let message = format!("there is no file {}", path.display());
            return Err(Failure::new(ExitStatus::USAGE, message));
        }
        signed.extend(checkpoints::load_copy(&path, &network).map_err(anyhow::Error::from)?);
    }
    let verified = verify(&dir.journal(), &signed).map_err(anyhow::Error::from)?;
    let view = VerifiedView {
        kind: "verified",
        ok: true,
        verified: &verified,
    };
    printer.answer(&view, || {
        let mut text = format!(
            "The audit log is intact: {} records up to generation {}, {} signed heads, the last of record {}.\n",
            verified.records, verified.head, verified.checkpoints, verified.signed_up_to
        );
        if verified.unfinished_bytes > 0 {
            text.push_str(&format!(
                "{} bytes at the end are an append that is under way, or that a crash cut off before it was acknowledged.\n",
                verified.unfinished_bytes
            ));
        }
        text
    })?;
    Ok(ExitStatus::DONE)
}
