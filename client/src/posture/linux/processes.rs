//! Named processes: an executable at exactly this path is running.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

/// One fact `process:PATH` for each watched path.
///
/// The kernel's link to the executable decides, not the name a process gives itself. An executable
/// that was replaced or removed since the process started does not count.
pub(in super::super) fn collect(host: &dyn Host, watched: &[String]) -> Vec<CollectedFact> {
    if watched.is_empty() {
        return Vec::new();
    }
    let proc = host.path("/proc");
    let running = executables(&proc);
    watched
        .iter()
        .map(|path| {
            let value = match &running {
                Ok(running) => FactValue::Bool(running.contains(Path::new(path))),
                Err(why) => FactValue::Unknown(why.clone()),
            };
            CollectedFact::new(
                format!("{}{path}", names::PROCESS_PREFIX),
                value,
                "/proc/*/exe",
            )
        })
        .collect()
}

fn executables(proc: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let entries = std::fs::read_dir(proc).map_err(|error| format!("/proc: {error}"))?;
    let running: BTreeSet<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok())
        .collect();
    // Without rights not even the own process would be seen as running.
    if running.is_empty() {
        Err("no process's executable can be read".into())
    } else {
        Ok(running)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn the_kernels_link_decides() {
        let fixture = Fixture::new()
            .link("/proc/10/exe", "/opt/edr/agent")
            .link("/proc/11/exe", "/opt/old/agent (deleted)")
            .file("/proc/12/comm", "agent\n")
            .link("/proc/self/exe", "/opt/self/agent");
        let watched = [
            "/opt/edr/agent",
            "/opt/old/agent",
            "/opt/self/agent",
            "agent",
        ]
        .map(String::from);
        let values: Vec<_> = collect(&fixture, &watched)
            .into_iter()
            .map(|fact| fact.value)
            .collect();
        assert_eq!(values, [true, false, false, false].map(FactValue::Bool));
    }

    #[test]
    fn an_unreadable_proc_is_unknown() {
        let fact = collect(&Fixture::new().dir("/proc/10"), &["/opt/edr/agent".into()]).remove(0);
        assert_eq!(fact.id, "process:/opt/edr/agent");
        assert!(matches!(fact.value, FactValue::Unknown(_)));
    }
}
