//! Named processes: an executable at exactly this path is running.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gatereeve_shared::posture::fact::{FactValue, names};

use super::super::{CollectedFact, Host};

/// One fact `process:PATH` for each watched path.
///
/// The kernel's link to the executable decides, not the name a process gives itself. An executable
/// that was replaced or removed since the process started does not count. Nor does one that is at that
/// path only for the process itself: in a mount namespace of their own, anybody can put any file there.
/// Where not every process can be looked at, one that is not found is unknown.
pub(in super::super) fn collect(host: &dyn Host, watched: &[String]) -> Vec<CollectedFact> {
    if watched.is_empty() {
        return Vec::new();
    }
    let seen = look(host, watched);
    watched
        .iter()
        .map(|path| {
            let (value, pid) = match seen.running.get(path.as_str()) {
                Some(pid) => (FactValue::Bool(true), Some(*pid)),
                None => match &seen.hidden {
                    Some(why) => (FactValue::Unknown(why.clone()), None),
                    None => (FactValue::Bool(false), None),
                },
            };
            let id = format!("{}{path}", names::PROCESS_PREFIX);
            CollectedFact {
                pid,
                ..CollectedFact::new(id, value, "/proc/*/exe")
            }
        })
        .collect()
}

/// What a look over all processes has shown.
#[derive(Debug, Default)]
struct Seen<'w> {
    /// Those of the watched paths whose file is being executed, and by which process.
    running: BTreeMap<&'w str, u32>,
    /// Why there may be more.
    hidden: Option<String>,
}

fn look<'w>(host: &dyn Host, watched: &'w [String]) -> Seen<'w> {
    let mut seen = Seen::default();
    let entries = match std::fs::read_dir(host.path("/proc")) {
        Ok(entries) => entries,
        Err(error) => {
            seen.hidden = Some(format!("/proc: {error}"));
            return seen;
        }
    };
    // Where others' processes are not even listed, the first one is not either.
    if let Err(error) = std::fs::read_link(host.path("/proc/1/exe")) {
        seen.hidden = Some(format!(
            "other users' processes cannot be looked at: {error}"
        ));
    }
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let exe = entry.path().join("exe");
        let link = match std::fs::read_link(&exe) {
            Ok(link) => link,
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    seen.hidden.get_or_insert_with(|| {
                        format!("process {pid} cannot be looked at: {error}")
                    });
                }
                continue;
            }
        };
        let Some(path) = watched.iter().find(|path| link == Path::new(path)) else {
            continue;
        };
        match is_same_file(&exe, &host.path(path)) {
            Ok(true) => {
                seen.running.insert(path, pid);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                seen.hidden
                    .get_or_insert_with(|| format!("{path}: {error}"));
            }
            Ok(false) | Err(_) => {}
        }
    }
    seen
}

/// Whether both lead to one file; the kernel's link leads to the executed one, wherever it is mounted.
fn is_same_file(exe: &Path, path: &Path) -> io::Result<bool> {
    let (executed, there) = (std::fs::metadata(exe)?, std::fs::metadata(path)?);
    Ok((executed.dev(), executed.ino()) == (there.dev(), there.ino()))
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

    /// All of whose processes can be looked at.
    fn machine() -> Fixture {
        Fixture::new().link("/proc/1/exe", "/usr/lib/systemd/systemd")
    }

    #[test]
    fn the_kernels_link_decides() {
        let agent = present();
        let fixture = machine()
            .link("/proc/10/exe", &agent)
            .link(&agent, &agent)
            .link("/proc/11/exe", "/opt/old/agent (deleted)")
            .file("/proc/12/comm", "agent\n")
            .link("/proc/self/exe", "/opt/self/agent");
        let watched = [&agent, "/opt/old/agent", "/opt/self/agent", "agent"].map(String::from);
        let facts = collect(&fixture, &watched);
        assert_eq!(facts[0].pid, Some(10));
        let values: Vec<_> = facts.into_iter().map(|fact| fact.value).collect();
        assert_eq!(values, [true, false, false, false].map(FactValue::Bool));
    }

    #[test]
    fn another_file_mounted_at_the_path_for_one_process_does_not_count() {
        let agent = present();
        let watched = [agent.clone()];
        let spoofed = machine()
            .link("/proc/10/exe", &agent)
            .file(&agent, "the real one");
        let value = |fixture: &Fixture| collect(fixture, &watched).remove(0).value;
        assert_eq!(value(&spoofed), FactValue::Bool(false));
        let absent = machine().link("/proc/10/exe", &agent);
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

    #[test]
    fn one_that_is_seen_runs_whatever_else_is_hidden() {
        let agent = present();
        let fixture = Fixture::new()
            .link("/proc/10/exe", &agent)
            .link(&agent, &agent);
        let watched = [agent, "/opt/other".to_owned()];
        let facts = collect(&fixture, &watched);
        assert_eq!(facts[0].value, FactValue::Bool(true));
        assert!(matches!(facts[1].value, FactValue::Unknown(_)), "{facts:?}");
    }
}
