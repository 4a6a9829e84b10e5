//! Bringing a state directory that an older version wrote up to the format of this one.
//!
//! What is promised:
//!
//! * Nothing is written before a whole backup lies in `backups/`, durably and under its final name.
//! * The number in the file `format` is raised as the last thing of each [`Step`]. A step that was
//!   interrupted is carried out again from its start, so it must not mind having been begun before; a
//!   kill at any moment leaves a directory that the old version still reads, or one that the next
//!   start finishes.
//! * A directory of a newer format is left as it is.
//!
//! [`rehearse`] does all of it on a copy and compares what comes of it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::Context as _;
use gatereeve_runtime::atomic_file;
use gatereeve_runtime::state_format::StateFormat;
use gatereeve_shared::generation::Generation;
use tracing::info;

use crate::backup::{self, Keys};
use crate::state_dir::StateDir;
use crate::state_dir::lock::StateLock;

pub mod rehearse;

#[cfg(test)]
mod tests;

/// The format that this version writes.
pub const FORMAT: StateFormat = StateFormat {
    program: "gatereeve-controller",
    current: 1,
};

/// One step from a format to the next. The last one's number is [`FORMAT`]'s.
struct Step {
    to: u32,
    what: &'static str,
    /// All that it writes, in any state that an interrupted run of itself may have left.
    run: fn(&StateDir) -> anyhow::Result<()>,
}

/// All steps there ever were, in order: a directory of any release can be brought up.
const STEPS: [Step; 1] = [Step {
    to: 1,
    what: "say in a file what the format is",
    // Format 1 is format 0 with the file that says so, which follows every step.
    run: |_| Ok(()),
}];

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The format that was found.
    pub from: u32,
    /// The format now.
    pub to: u32,
    /// Where the backup of what was found lies. It holds no key that is sealed.
    pub backup: PathBuf,
}

/// A moment in a migration, for tests that end the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The unfinished backup is about to be begun.
    BackupBegins,
    /// Some more of it was written.
    BackupGrows,
    /// It is durable, under its temporary name.
    BackupWritten,
    /// It has its final name.
    BackupNamed,
    /// The step to this format was carried out, and the number not raised.
    StepDone(u32),
    /// The number was raised.
    Raised(u32),
}

/// Brings the state in `dir` up to [`FORMAT`]; `None` where it was of that format already.
///
/// # Errors
/// The format is newer, or a file cannot be read or written. The state is then as it was, or as far
/// as whole steps have brought it.
pub fn migrate(dir: &StateDir, _lock: &StateLock) -> anyhow::Result<Option<Migrated>> {
    migrate_with(dir, &mut |_| {})
}

pub(crate) fn migrate_with(
    dir: &StateDir,
    reached: &mut dyn FnMut(Moment),
) -> anyhow::Result<Option<Migrated>> {
    let from = FORMAT.read(dir.root())?;
    if from == FORMAT.current {
        return Ok(None);
    }
    let backup = back_up(dir, from, reached).with_context(|| {
        format!(
            "the state in {} is of format {from} and has to be brought to {}, which begins with a backup of \
             it; nothing was changed",
            dir.root().display(),
            FORMAT.current
        )
    })?;
    steps(dir, from, reached)
        .with_context(|| format!("what the state was before is in {}", backup.display()))?;
    info!(from, to = FORMAT.current, backup = %backup.display(), "the state was brought to the format of this version");
    Ok(Some(Migrated {
        from,
        to: FORMAT.current,
        backup,
    }))
}

/// Brings a state that was just unpacked from a backup of `format` up to [`FORMAT`]: the backup itself
/// is what there is to go back to.
///
/// # Errors
/// A file cannot be read or written.
pub fn bring_up(dir: &StateDir, format: u32) -> anyhow::Result<()> {
    steps(dir, format, &mut |_| {})?;
    FORMAT.write(dir.root(), FORMAT.current)?;
    Ok(())
}

fn steps(dir: &StateDir, from: u32, reached: &mut dyn FnMut(Moment)) -> anyhow::Result<()> {
    for step in STEPS.iter().filter(|step| step.to > from) {
        let failed = || {
            format!(
                "cannot bring the state in {} to format {} ({})",
                dir.root().display(),
                step.to,
                step.what
            )
        };
        (step.run)(dir).with_context(failed)?;
        reached(Moment::StepDone(step.to));
        FORMAT.write(dir.root(), step.to).with_context(failed)?;
        reached(Moment::Raised(step.to));
    }
    Ok(())
}

/// Where the backup before a migration from `format` at `generation` lies.
fn backup_path(dir: &StateDir, format: u32, generation: Generation) -> PathBuf {
    dir.backups().join(format!(
        "format-{format}-generation-{}.{}.tar",
        generation.incarnation, generation.n
    ))
}

/// Writes a backup of the state as it is. One of an earlier attempt is replaced, whole by whole.
fn back_up(
    dir: &StateDir,
    format: u32,
    reached: &mut dyn FnMut(Moment),
) -> anyhow::Result<PathBuf> {
    reached(Moment::BackupBegins);
    let folder = dir.backups();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let unfinished = folder.join("unfinished.tar");
    let generation = write_backup(dir, &unfinished, reached)
        .with_context(|| format!("cannot write a backup to {}", unfinished.display()))
        .inspect_err(|_| drop(std::fs::remove_file(&unfinished)))?;
    reached(Moment::BackupWritten);
    let path = backup_path(dir, format, generation);
    std::fs::rename(&unfinished, &path)
        .and_then(|()| atomic_file::sync_directory(&folder))
        .and_then(|()| atomic_file::sync_directory(dir.root()))
        .with_context(|| format!("cannot make {} durable", path.display()))?;
    reached(Moment::BackupNamed);
    Ok(path)
}

fn write_backup(
    dir: &StateDir,
    path: &std::path::Path,
    reached: &mut dyn FnMut(Moment),
) -> anyhow::Result<Generation> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut file = Watched { file, reached };
    let generation = backup::write(dir, Keys::Unsealed, &mut file)?;
    file.file.sync_all()?;
    Ok(generation)
}

/// A file that tells of every write.
struct Watched<'a> {
    file: File,
    reached: &'a mut dyn FnMut(Moment),
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        (self.reached)(Moment::BackupGrows);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
