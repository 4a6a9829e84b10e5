//! The state directory.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use gatereeve_shared::time::UnixMillis;

use super::Check;
use crate::audit::verify;
use crate::backup::record::LastBackup;
use crate::journal::read::Follower;
use crate::state_dir::{StateDir, checkpoints};
use crate::upgrade::FORMAT;
use gatereeve_runtime::words::in_words;

/// A clock before this is wrong: the program did not exist.
const EARLIEST: UnixMillis = UnixMillis(1_780_000_000_000);
/// How far a clock may be behind the last record: other machines may have set it right meanwhile.
const BEHIND: Duration = Duration::from_secs(5);
/// A backup that is older than this is worth a word.
const OLD_BACKUP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Records by which a backup may be behind and still be called fresh.
const RECORDS_BEHIND: u64 = 1;

pub(super) fn examine(dir: &StateDir, now: UnixMillis) -> Vec<Check> {
    let shown = dir.root().display();
    if !dir.is_initialised() {
        return vec![Check::problem(
            "state",
            format!("there is no controller state in {shown}, or this user may not read it"),
            "run this as root or as the controller's own user; name the directory with --state-dir; or make a \
             network with `gatereeve-controller init`",
        )];
    }
    let mut checks = vec![Check::ok("state", format!("in {shown}"))];
    match FORMAT.read(dir.root()) {
        Ok(format) if format == FORMAT.current => {
            checks.push(Check::ok("format", format!("{format}, which this version writes")));
        }
        Ok(format) => checks.push(Check::warning(
            "format",
            format!("{format}; this version writes {}", FORMAT.current),
            "the next start brings it up, behind a backup; `gatereeve-controller upgrade rehearse` shows before \
             what comes of it",
        )),
        Err(error) => {
            checks.push(Check::problem("format", error.to_string(), "run the version that wrote it"));
            return checks;
        }
    }
    checks.push(modes(dir));
    let head = journal(dir, now, &mut checks);
    checks.push(backup(dir, head, now));
    checks
}

/// Files that only their owner may touch, whoever looks.
fn modes(dir: &StateDir) -> Check {
    let mut wrong = Vec::new();
    let owner = std::fs::metadata(dir.root()).map(|meta| meta.uid()).ok();
    let places = [
        (dir.root().to_owned(), 0o077),
        (dir.journal(), 0o077),
        (dir.network_key(), 0o077),
        (dir.tls_key(), 0o077),
        (dir.settings(), 0o077),
        (dir.checkpoints(), 0o077),
        (dir.backups(), 0o077),
    ];
    for (path, forbidden) in places {
        match std::fs::symlink_metadata(&path) {
            Ok(meta) => {
                if meta.mode() & forbidden != 0 {
                    wrong.push(format!(
                        "{} has mode {:04o}",
                        path.display(),
                        meta.mode() & 0o7777
                    ));
                }
                if Some(meta.uid()) != owner {
                    wrong.push(format!("{} belongs to user {}", path.display(), meta.uid()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    if wrong.is_empty() {
        Check::ok("modes", "keys and journal are for their owner alone")
    } else {
        Check::problem(
            "modes",
            wrong.join("; "),
            "chmod -R go= and chown -R to the controller's user, on the state directory; where a key was open to \
             others, consider it known to them",
        )
    }
}

/// Verifies everything, and returns the number of the last record.
fn journal(dir: &StateDir, now: UnixMillis, checks: &mut Vec<Check>) -> Option<u64> {
    let signed = dir
        .load_network_key()
        .map_err(anyhow::Error::from)
        .and_then(|key| Ok(checkpoints::load(&dir.checkpoints(), &key.public())?));
    let signed = match signed {
        Ok(signed) => signed,
        Err(error) => {
            checks.push(Check::problem(
                "journal",
                in_words(&error),
                "put the file back from a backup",
            ));
            return None;
        }
    };
    match verify(&dir.journal(), &signed) {
        Ok(verified) => {
            checks.push(Check::ok(
                "journal",
                format!(
                    "{} records, all chained, {} of them behind a signed head",
                    verified.records, verified.signed_up_to
                ),
            ));
            checks.push(clock(dir, now));
            Some(verified.head.n)
        }
        Err(error) => {
            checks.push(Check::problem(
                "journal",
                error.to_string(),
                "keep the directory as it is, and restore the last backup elsewhere with `gatereeve-controller restore`",
            ));
            None
        }
    }
}

/// The wall clock against the last record: leases and expiries go by it.
fn clock(dir: &StateDir, now: UnixMillis) -> Check {
    let mut last = None;
    let read = Follower::new(&dir.journal()).read(&mut |record| last = Some(record));
    let last = read.ok().and(last).and_then(|record| record.decode().ok());
    let advice = "set the clock, and have it kept by NTP (systemd-timesyncd, chrony)";
    match last.map(|record| record.at) {
        _ if now < EARLIEST => Check::problem("clock", format!("says {now}"), advice),
        Some(at) if now.saturating_add(BEHIND) < at => Check::problem(
            "clock",
            format!("says {now}, and the last record was made at {at}"),
            advice,
        ),
        Some(_) | None => Check::ok("clock", format!("says {now}")),
    }
}

fn backup(dir: &StateDir, head: Option<u64>, now: UnixMillis) -> Check {
    let advice = "gatereeve-controller backup FILE, to another machine, from a timer";
    let Some(last) = LastBackup::load(dir) else {
        return Check::warning("backup", "none was ever made with `backup`", advice);
    };
    let age = now.since(last.at);
    let behind = head.map_or(0, |head| head.saturating_sub(last.generation.n));
    let found = format!(
        "the last one was made at {} and is {behind} records behind",
        last.at
    );
    if age > OLD_BACKUP && behind > RECORDS_BEHIND {
        Check::warning("backup", found, advice)
    } else {
        Check::ok("backup", found)
    }
}
