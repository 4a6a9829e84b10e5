//! Named processes: an executable at exactly this path is running.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

/// One fact `process:PATH` for each watched path.
///
/// The kernel's link to the executable decides, not the name a process gives itself. An executable
/// that was replaced or removed since the process started does not count. Nor does one that is at that
/// path only for the process itself: in a mount namespace of their own, anybody can put any file there.
pub(in super::super) fn collect(host: &dyn Host, watched: &[String]) -> Vec<CollectedFact> {
    if watched.is_empty() {
        return Vec::new();
    }
    let running = running(host, watched);
    watched
        .iter()
        .map(|path| {
            let value = match &running {
                Ok(running) => FactValue::Bool(running.contains(path.as_str())),
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

/// Those of the watched paths whose file is being executed.
fn running<'w>(host: &dyn Host, watched: &'w [String]) -> Result<BTreeSet<&'w str>, String> {
    let entries =
        std::fs::read_dir(host.path("/proc")).map_err(|error| format!("/proc: {error}"))?;
    let mut is_readable = false;
    let mut running = BTreeSet::new();
    for entry in entries.filter_map(Result::ok) {
        let is_process = entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|b| b.is_ascii_digit());
        let exe = entry.path().join("exe");
        let Some(link) = is_process.then(|| std::fs::read_link(&exe).ok()).flatten() else {
            continue;
        };
        is_readable = true;
        let mut named = watched.iter().filter(|path| link == Path::new(path));
        if let Some(path) = named.next()
            && is_same_file(&exe, &host.path(path))
        {
            running.insert(path.as_str());
        }
    }
    // Without rights not even the own process would be seen as running.
    if is_readable {
        Ok(running)
    } else {
        Err("no process's executable can be read".into())
    }
}

/// Whether both lead to one file; the kernel's link leads to the executed one, wherever it is mounted.
fn is_same_file(exe: &Path, path: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(exe).is_some_and(|executed| identity(path) == Some(executed))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    /// An executable that there is: in the fixture, its path leads to it.
    fn present() -> String {
        let path = std::fs::canonicalize(std::env::current_exe().unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_kernels_link_decides() {
        let agent = present();
        let fixture = Fixture::new()
            .link("/proc/10/exe", &agent)
            .link(&agent, &agent)
            .link("/proc/11/exe", "/opt/old/agent (deleted)")
            .file("/proc/12/comm", "agent\n")
            .link("/proc/self/exe", "/opt/self/agent");
        let watched = [&agent, "/opt/old/agent", "/opt/self/agent", "agent"].map(String::from);
        let values: Vec<_> = collect(&fixture, &watched)
            .into_iter()
            .map(|fact| fact.value)
            .collect();
        assert_eq!(values, [true, false, false, false].map(FactValue::Bool));
    }

    #[test]
    fn another_file_mounted_at_the_path_for_one_process_does_not_count() {
        let agent = present();
        let watched = [agent.clone()];
        let spoofed = Fixture::new()
            .link("/proc/10/exe", &agent)
            .file(&agent, "the real one");
        let value = |fixture: &Fixture| collect(fixture, &watched).remove(0).value;
        assert_eq!(value(&spoofed), FactValue::Bool(false));
        let absent = Fixture::new().link("/proc/10/exe", &agent);
        assert_eq!(value(&absent), FactValue::Bool(false));
        let real = absent.link(&agent, &agent);
        assert_eq!(value(&real), FactValue::Bool(true), "the control");
    }

    #[test]
    fn an_unreadable_proc_is_unknown() {
        let fact = collect(&Fixture::new().dir("/proc/10"), &["/opt/edr/agent".into()]).remove(0);
        assert_eq!(fact.id, "process:/opt/edr/agent");
        assert!(matches!(fact.value, FactValue::Unknown(_)));
    }
}
