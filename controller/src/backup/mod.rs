//! The whole state in one tar file, taken while the controller runs, and back.
//!
//! A backup holds the keys, the settings, the signed heads and the journal up to its last whole
//! batch; the tables are folded from it again. It is as secret as the network key that is in it. One that is made by
//! itself holds no key that the service manager keeps sealed ([`Keys`]).
//!
//! Which state format it is of stands in an extended header (pax) of its first entry, which readers that
//! do not know it pass over: release 0.1.0 restores a backup of format 1. One without is of format 0.

use std::io::{self, Read, Write};
use std::path::{Component, Path};

use anyhow::{Context as _, bail, ensure};
use gatereeve_controller_core::audit::entry::{Actor, AuditEntry};
use gatereeve_controller_core::audit::record::Record;
use gatereeve_controller_core::change::Change;
use gatereeve_runtime::keyfile::KeyFileError;
use gatereeve_runtime::{atomic_file, state_file, state_format};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::time::UnixMillis;

use crate::audit::{Verified, verify};
use crate::journal::Head;
use crate::journal::open::{Floor, open};
use crate::journal::read::Follower;
use crate::state_dir::checkpoints;
use crate::state_dir::lock::StateLock;
use crate::state_dir::settings::Settings;
use crate::state_dir::{StateDir, network_source, tls_source};
use crate::upgrade::{self, FORMAT};

pub mod record;

#[cfg(test)]
mod tests;

/// Files of a backup besides the journal, in the order they are written.
const FILES: [&str; 4] = ["network.key", "tls.key", "config", "checkpoints"];
/// Most bytes of one of them.
const FILE_LIMIT: u64 = checkpoints::LIMIT;
/// The extended header's key.
const FORMAT_KEY: &str = "GATEREEVE.state-format";
/// Most segments of a journal.
const SEGMENTS: usize = 100_000;

/// Which keys a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Both, also one that the service manager has unsealed for this process: it is for the day on which that machine
    /// is gone, and an administrator says where it goes.
    Both,
    /// Those that lie in the directory. What is sealed stays sealed, and restoring takes its credential.
    Unsealed,
}

/// Writes a backup of `dir` to `to`, and returns the head that it holds.
///
/// # Errors
/// The state is of a newer format, a file cannot be read, the journal is damaged, or `to` cannot be
/// written.
pub fn write(dir: &StateDir, keys: Keys, to: &mut dyn Write) -> anyhow::Result<Generation> {
    let format = FORMAT.read(dir.root())?;
    let mut tar = tar::Builder::new(to);
    if format > 0 {
        let format = format.to_string();
        tar.append_pax_extensions([(FORMAT_KEY, format.as_bytes())])
            .context("cannot write the backup")?;
    }
    // The heads are read before the journal, so that every one of them is in it.
    for name in FILES {
        let path = dir.root().join(name);
        let bytes = match state_file::read(&path, FILE_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) if name == "checkpoints" && error.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            // A file that is there and cannot be read is no sealed key.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
            Err(error) => {
                let seed = handed_over(name, &path)?
                    .ok_or(error)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                if keys == Keys::Unsealed {
                    continue;
                }
                seed
            }
        };
        let bytes = if name == "checkpoints" {
            whole_lines(&bytes)
        } else {
            &bytes
        };
        append(&mut tar, name, bytes.len() as u64, bytes)?;
    }
    let mut follower = Follower::new(&dir.journal());
    follower.read(&mut |_| {})?;
    for (segment, length) in follower.extent()? {
        let name = segment
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .context("a segment has no name")?;
        let file = state_file::open_in_folder(&segment.path)
            .with_context(|| format!("cannot read {}", segment.path.display()))?;
        append(
            &mut tar,
            &format!("journal/{name}"),
            length,
            file.take(length),
        )?;
    }
    tar.into_inner()
        .context("cannot finish the backup")?
        .flush()?;
    Ok(follower.head().generation)
}

/// A key as the service manager has handed it over to this process.
fn handed_over(name: &str, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    let source = match name {
        "network.key" => network_source(path),
        "tls.key" => tls_source(path),
        _ => return Ok(None),
    };
    Ok(source.credential()?.map(|seed| seed.to_vec()))
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at.saturating_add(1));
    bytes.get(..end).unwrap_or_default()
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    name: &str,
    length: u64,
    content: impl Read,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, content)
        .with_context(|| format!("cannot write {name} to the backup"))
}

/// What a restore made.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The network.
    pub fingerprint: Fingerprint,
    /// Its name.
    pub network: String,
    /// The head of the backup.
    pub was: Generation,
    /// When the backup's last record was made.
    pub until: Option<UnixMillis>,
    /// The head now: the incarnation is raised.
    pub now: Generation,
}

/// Makes the state directory `dir` from a backup and raises the incarnation, so that devices take the
/// restored state although they may have seen a later one.
///
/// # Errors
/// The directory is in use for something, or the backup is damaged; what was made is removed then.
pub fn restore(
    dir: &StateDir,
    from: &mut dyn Read,
    actor: Actor,
    now: UnixMillis,
) -> anyhow::Result<Restored> {
    check_empty(dir)?;
    let existed = dir.root().exists();
    dir.create()
        .with_context(|| format!("cannot make {}", dir.root().display()))?;
    let lock = StateLock::take(&dir.lock())?;
    let restored = unpack(dir, from).and_then(|Unpacked { settings, format }| {
        upgrade::bring_up(dir, format)?;
        let restored = raise(dir, &settings, actor, now)?;
        // Written last: with it the state counts as made.
        settings.save(&dir.settings())?;
        Ok(restored)
    });
    if restored.is_err() {
        remove(dir, existed);
    }
    drop(lock);
    restored
}

/// Unpacks a backup into `dir`, which was made for it, with nothing added, and says of which state
/// format it is.
///
/// # Errors
/// The backup is damaged, or of a newer format.
pub fn unpack_as_it_is(dir: &StateDir, from: &mut dyn Read) -> anyhow::Result<u32> {
    let Unpacked { settings, format } = unpack(dir, from)?;
    atomic_file::sync_directory(&dir.journal())?;
    if format > 0 {
        FORMAT.write(dir.root(), format)?;
    }
    settings.save(&dir.settings())?;
    Ok(format)
}

/// Only a directory with nothing in it: a restore never mixes two histories.
fn check_empty(dir: &StateDir) -> anyhow::Result<()> {
    match std::fs::read_dir(dir.root()) {
        Ok(mut entries) => ensure!(
            entries.next().is_none(),
            "{} is not empty, and nothing was changed; restore into another --state-dir, or move \
             what is there away",
            dir.root().display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => bail!("cannot use {}: {error}", dir.root().display()),
    }
    Ok(())
}

/// What `unpack` could not put into files yet.
struct Unpacked {
    settings: Settings,
    format: u32,
}

fn unpack(dir: &StateDir, from: &mut dyn Read) -> anyhow::Result<Unpacked> {
    let damaged = "the file is no backup of a controller, or it is damaged";
    let mut archive = tar::Archive::new(from);
    let mut settings = None;
    let mut format = 0;
    let mut segments = 0usize;
    for entry in archive.entries().context(damaged)? {
        let mut entry = entry.context(damaged)?;
        if let Some(found) = format_of(&mut entry).context(damaged)? {
            FORMAT.check(Path::new("the backup"), found)?;
            format = found;
        }
        let path = entry.path().context(damaged)?.into_owned();
        ensure!(
            entry.header().entry_type() == tar::EntryType::Regular,
            "{damaged}: {} is no plain file",
            path.display()
        );
        let parts: Vec<&str> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => name.to_str(),
                Component::Prefix(_)
                | Component::RootDir
                | Component::CurDir
                | Component::ParentDir => None,
            })
            .collect();
        // Names are compared with what a backup holds, never followed.
        match parts.as_slice() {
            ["config"] => {
                let mut text = String::new();
                entry
                    .take(64 * 1024)
                    .read_to_string(&mut text)
                    .context(damaged)?;
                settings = Some(toml::from_str(&text).context(damaged)?);
            }
            [name] if FILES.contains(name) => {
                let mut bytes = Vec::new();
                entry
                    .take(FILE_LIMIT)
                    .read_to_end(&mut bytes)
                    .context(damaged)?;
                atomic_file::create(&dir.root().join(name), &bytes, 0o600)
                    .with_context(|| format!("cannot write {name}"))?;
            }
            ["journal", name] if is_segment(name) && segments < SEGMENTS => {
                segments = segments.saturating_add(1);
                copy_segment(&mut entry, &dir.journal().join(name))
                    .with_context(|| format!("cannot write {name}"))?;
            }
            _ => bail!("{damaged}: it holds {}", path.display()),
        }
    }
    let settings = settings.with_context(|| format!("{damaged}: it has no settings"))?;
    Ok(Unpacked { settings, format })
}

/// The state format that an entry's extended header says, if it has one that does.
fn format_of(entry: &mut tar::Entry<'_, &mut dyn Read>) -> anyhow::Result<Option<u32>> {
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(None);
    };
    for extension in extensions {
        let extension = extension?;
        if extension.key_bytes() == FORMAT_KEY.as_bytes() {
            let number = extension.value().context("the format is no number")?;
            return Ok(Some(number.parse().context("the format is no number")?));
        }
    }
    Ok(None)
}

fn is_segment(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|number| {
        number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn copy_segment(from: &mut dyn Read, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    io::copy(from, &mut file)?;
    file.sync_all()
}

/// Verifies what was unpacked, and appends the record of the restore.
fn raise(
    dir: &StateDir,
    settings: &Settings,
    actor: Actor,
    now: UnixMillis,
) -> anyhow::Result<Restored> {
    atomic_file::sync_directory(&dir.journal())?;
    let sealed = |error: KeyFileError| {
        let is_missing = error.is_missing();
        let error = anyhow::Error::from(error);
        if !is_missing {
            return error;
        }
        error.context(
            "the backup was made by itself before a migration, while the key was sealed: it does not hold it, and \
             restoring it takes the key's credential (systemd-run -p LoadCredentialEncrypted=…)",
        )
    };
    let network_key = dir.load_network_key().map_err(sealed)?;
    dir.load_tls_key().map_err(sealed)?;
    let signed = checkpoints::load(&dir.checkpoints(), &network_key.public())?;
    let Verified { head: was, .. } = verify(&dir.journal(), &signed)?;
    let mut until = None;
    let floor = Floor {
        checkpoint: was.n,
        tables: 0,
    };
    let mut last = None;
    let mut journal = open(&dir.journal(), floor, &mut |record| last = Some(record))?.journal;
    if let Some(last) = last {
        until = Some(last.decode()?.at);
    }
    let Head { generation, hash } = journal.head();
    let next = Generation {
        incarnation: generation.incarnation.saturating_add(1),
        n: generation.n.saturating_add(1),
    };
    let record = Record {
        generation: next,
        at: now,
        actor,
        change: Change::Restored,
        audit: AuditEntry::done("controller.restore", format!("generation {generation}"))
            .from_to(generation.to_string(), next.to_string())
            .because("restored from a backup; what was committed after it is gone"),
    };
    journal.append(&[record.seal(&hash)?])?;
    Ok(Restored {
        fingerprint: Fingerprint::of(&network_key.public()),
        network: settings.name.clone(),
        was,
        until,
        now: next,
    })
}

/// Removes what a failed restore has made; the directory was empty before.
fn remove(dir: &StateDir, existed: bool) {
    for path in [
        dir.network_key(),
        dir.tls_key(),
        dir.checkpoints(),
        dir.settings(),
        dir.lock(),
        dir.root().join(state_format::FILE),
    ] {
        drop(std::fs::remove_file(path));
    }
    drop(std::fs::remove_dir_all(dir.journal()));
    if !existed {
        drop(std::fs::remove_dir(dir.root()));
    }
}
