//! CPU time and memory of processes, and CPU time of the machine, as the kernel accounts them.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use nix::unistd::{SysconfVar, sysconf};

/// CPU seconds up to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    /// User and system time of the daemons, all their threads.
    pub(crate) daemons: f64,
    /// All but idle and stolen time of the whole machine.
    pub(crate) machine: f64,
    /// Time that the hypervisor gave to others.
    pub(crate) stolen: f64,
}

impl CpuTime {
    /// Reads it.
    pub(crate) fn now(daemons: &[u32]) -> anyhow::Result<Self> {
        let tick = f64::from(u32::try_from(
            sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?,
        )?);
        let mut ticks = 0.0;
        for id in daemons {
            ticks += process_ticks(*id)?;
        }
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        let fields: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // user nice system idle iowait irq softirq steal
        let at = |index: usize| fields.get(index).copied().unwrap_or(0.0);
        let busy = at(0) + at(1) + at(2) + at(5) + at(6);
        Ok(Self {
            daemons: ticks / tick,
            machine: busy / tick,
            stolen: at(7) / tick,
        })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            daemons: self.daemons - earlier.daemons,
            machine: self.machine - earlier.machine,
            stolen: self.stolen - earlier.stolen,
        }
    }
}

fn process_ticks(id: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("daemon {id} is gone"))?;
    // The name in parentheses may hold anything; after it come fields 3 and on.
    let (_, rest) = text.rsplit_once(')').context("a broken stat line")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| -> anyhow::Result<f64> {
        let field = fields.get(index).context("a short stat line")?;
        Ok(field.parse()?)
    };
    Ok(ticks(11)? + ticks(12)?)
}

/// Which of the kernel's figures of resident memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resident {
    /// What is resident now.
    Now,
    /// The most that was at any time.
    Most,
}

/// Resident memory of the largest of these daemons, in MiB, with what processes that it has started have for themselves now (what they
/// have in common with it, such as the program's code, is counted once).
///
/// # Errors
/// Where one of them is gone.
pub(crate) fn resident_mib(processes: &[u32], which: Resident) -> anyhow::Result<f64> {
    let label = match which {
        Resident::Now => "VmRSS:",
        Resident::Most => "VmHWM:",
    };
    processes
        .iter()
        .map(|id| {
            let path = PathBuf::from(format!("/proc/{id}/status"));
            let text = std::fs::read_to_string(path)?;
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kib: f64 = number
                .ok_or_else(|| anyhow!("process {id} has no memory left"))?
                .parse()?;
            let helpers: f64 = children(*id)?.iter().map(|child| own_kib(*child)).sum();
            Ok((kib + helpers) / 1024.0)
        })
        .try_fold(
            0.0,
            |most: f64, one: anyhow::Result<f64>| Ok(most.max(one?)),
        )
}

/// The processes that one has started, and that still run.
fn children(id: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may be gone by now.
        let Ok(text) = std::fs::read_to_string(task?.path().join("children")) else {
            continue;
        };
        all.extend(
            text.split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    Ok(all)
}

/// Memory that no other process has mapped, in KiB; none where the process is gone.
fn own_kib(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let figure = |line: &str| -> Option<f64> {
        let rest = line
            .strip_prefix("Private_Clean:")
            .or_else(|| line.strip_prefix("Private_Dirty:"))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    text.lines().filter_map(figure).sum()
}
