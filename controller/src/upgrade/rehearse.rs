//! An upgrade on a copy: migrate it, start from it, run the policy's tests, and compare every device's
//! network map before and after. The original is read and never written.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use gatereeve_controller_core::command::TestView;
use gatereeve_controller_core::rehearse::{Compiled, differences};
use gatereeve_controller_core::state::State;
use gatereeve_shared::generation::Generation;
use gatereeve_shared::ids::DeviceName;
use gatereeve_shared::time::UnixMillis;
use serde::Serialize;

use super::FORMAT;
use crate::backup::{self, Keys};
use crate::journal::read::Follower;
use crate::server::recover::{Fold, Recovered, recover};
use crate::state_dir::settings::Settings;
use crate::state_dir::{StateDir, checkpoints};

/// What is rehearsed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A state directory, also of a running controller: a backup of it is taken, as `backup` does.
    StateDir(StateDir),
    /// A file that `backup` has written.
    Backup(PathBuf),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rehearsal {
    /// The state's format before.
    pub from_format: u32,
    /// The format that this version makes of it.
    pub to_format: u32,
    /// The last record of the copy.
    pub generation: Generation,
    /// Devices whose maps were compared.
    pub devices: usize,
    /// Each port of each of the policy's tests, after the migration.
    pub tests: Vec<TestView>,
    /// What is wrong with the policy, as the migrated state has it.
    pub policy_problem: Option<String>,
    /// Devices that would be told something else.
    pub differences: Vec<Difference>,
}

/// A device that would be told something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which.
    pub device: DeviceName,
    /// What.
    pub lines: Vec<String>,
}

impl Rehearsal {
    /// Whether nothing changes for anybody.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.policy_problem.is_none()
            && self.differences.is_empty()
            && self.failed_tests().next().is_none()
    }

    /// Tests of the policy that fail.
    pub fn failed_tests(&self) -> impl Iterator<Item = &TestView> {
        self.tests
            .iter()
            .filter(|test| test.allowed != test.expect_allow)
    }
}

/// Rehearses in the empty directory `work`, which only its owner may enter: the network's key is in
/// the copy, unless it is sealed. Whoever made it removes it.
///
/// # Errors
/// The source cannot be read, or this version cannot start from it.
pub fn rehearse(source: &Source, work: &Path, now: UnixMillis) -> anyhow::Result<Rehearsal> {
    let copy = StateDir::new(work.join("state"));
    let from_format = copy_to(source, &copy, work)?;
    let settings = Settings::load(&copy.settings())?;
    let before = fold(&copy).context("the copy cannot be read before its migration")?;
    let Recovered {
        state: after,
        settings: settings_after,
        ..
    } = recover(&copy, now).context("this version cannot start from the copy")?;
    ensure!(
        FORMAT.read(copy.root())? == FORMAT.current,
        "the copy was not brought to format {}",
        FORMAT.current
    );
    let mut rehearsal = Rehearsal {
        from_format,
        to_format: FORMAT.current,
        generation: after.generation(),
        devices: 0,
        tests: Vec::new(),
        policy_problem: None,
        differences: Vec::new(),
    };
    let old = Compiled::new(&before, settings.name, settings.prefixes);
    let new = Compiled::new(&after, settings_after.name, settings_after.prefixes);
    match (&old, &new) {
        (_, Err(problem)) => rehearsal.policy_problem = Some(problem.clone()),
        (Err(_), Ok(new)) => rehearsal.tests = new.tests(now),
        (Ok(old), Ok(new)) => {
            rehearsal.tests = new.tests(now);
            compare(&mut rehearsal, (&before, old), (&after, new), now);
        }
    }
    Ok(rehearsal)
}

fn compare(
    rehearsal: &mut Rehearsal,
    (before, old): (&State, &Compiled<'_>),
    (after, new): (&State, &Compiled<'_>),
    now: UnixMillis,
) {
    let devices: std::collections::BTreeSet<_> = before
        .devices()
        .keys()
        .chain(after.devices().keys())
        .collect();
    rehearsal.devices = devices.len();
    for id in devices {
        let lines = differences(old.map(id, now).as_ref(), new.map(id, now).as_ref());
        let device = after.devices().get(id).or_else(|| before.devices().get(id));
        if let (false, Some(device)) = (lines.is_empty(), device) {
            rehearsal.differences.push(Difference {
                device: device.name.clone(),
                lines,
            });
        }
    }
}

/// Unpacks the source into `copy`, as it is, and says of which format it is.
fn copy_to(source: &Source, copy: &StateDir, work: &Path) -> anyhow::Result<u32> {
    let (mut file, shown) = match source {
        Source::Backup(path) => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            (file, path.display().to_string())
        }
        Source::StateDir(dir) => {
            // Before anything of it is read: what a newer version wrote may look like damage.
            FORMAT.read(dir.root())?;
            let path = work.join("copy.tar");
            let mut file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            let mut buffered = BufWriter::new(&mut file);
            backup::write(dir, Keys::Unsealed, &mut buffered)
                .with_context(|| format!("cannot copy {}", dir.root().display()))?;
            buffered.flush().context("cannot write the copy")?;
            drop(buffered);
            file.rewind()?;
            (file, dir.root().display().to_string())
        }
    };
    copy.create()
        .with_context(|| format!("cannot make {}", copy.root().display()))?;
    backup::unpack_as_it_is(copy, &mut BufReader::new(&mut file))
        .with_context(|| format!("cannot unpack a copy of {shown}"))
}

/// The fold of the journal, without the tables and without changing anything.
fn fold(dir: &StateDir) -> anyhow::Result<State> {
    let network = dir.load_network_key()?.public();
    let signed = checkpoints::load(&dir.checkpoints(), &network)?;
    let mut fold = Fold::new(State::empty(), &signed);
    Follower::new(&dir.journal()).read(&mut |record| fold.take(&record))?;
    Ok(fold.finish()?)
}
