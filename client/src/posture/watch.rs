//! Cheap looks at what a policy tends to ask for, so that a change is collected and reported within a
//! second or two and not at the next interval.
//!
//! A look decides nothing: it only says that it is worth collecting again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::CollectRequest;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h, as a bit.
const NFTABLES_GROUP: u32 = 1 << (7 - 1);
/// Looks between two searches of the whole process table for a watched process that is not running.
const SEARCH_EVERY: u32 = 5;

/// What was seen at the last look.
#[derive(Debug)]
pub struct ChangeWatch {
    request: CollectRequest,
    firewall: Option<OwnedFd>,
    running: BTreeMap<String, Option<u32>>,
    files: BTreeMap<OsString, Option<SystemTime>>,
    looks: u32,
}

impl ChangeWatch {
    /// A watch over the watched processes, the nftables ruleset of this network namespace and the
    /// administrator's facts. Where the ruleset cannot be watched, for lack of rights, it is left to
    /// the interval.
    #[must_use]
    pub fn new(request: CollectRequest) -> Self {
        let firewall = firewall_events()
            .inspect_err(|error| tracing::warn!(%error, "firewall changes show at the posture interval only"))
            .ok();
        let mut watch = Self {
            request,
            firewall,
            running: BTreeMap::new(),
            files: BTreeMap::new(),
            looks: 0,
        };
        watch.look();
        watch
    }

    /// Takes another list of processes.
    pub fn set_watched(&mut self, watched: Vec<String>) {
        if self.request.watched != watched {
            self.request.watched = watched;
            self.running.clear();
            self.looks = 0;
        }
    }

    /// Whether anything has changed since the last look. Meant for once a second.
    pub fn look(&mut self) -> bool {
        // Each is looked at: a change that is already known must not hide in the next look.
        let firewall = self.firewall_changed();
        let processes = self.processes_changed();
        let files = self.files_changed();
        self.looks = self.looks.wrapping_add(1);
        firewall || processes || files
    }

    fn firewall_changed(&self) -> bool {
        let Some(events) = &self.firewall else {
            return false;
        };
        let mut buffer = [0; 8192];
        let mut changed = false;
        // Bounded, so that a ruleset that changes without end cannot hold the caller.
        for _ in 0..256 {
            match recv(events.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if length > 0 => changed = true,
                // The kernel had more to say than fits its queue: something changed.
                Err(nix::errno::Errno::ENOBUFS) => changed = true,
                Ok(_) | Err(_) => break,
            }
        }
        changed
    }

    fn processes_changed(&mut self) -> bool {
        let proc = self.request.root.join("proc");
        let search = self.looks.is_multiple_of(SEARCH_EVERY);
        let mut changed = false;
        for path in &self.request.watched {
            let before = self.running.get(path).copied().flatten();
            let still =
                before.filter(|pid| executable(&proc, *pid).as_deref() == Some(Path::new(path)));
            let now = match still {
                Some(pid) => Some(pid),
                // One that has just gone is searched for at once: it may have been restarted.
                None if search || before.is_some() => find(&proc, path),
                None => None,
            };
            changed |= before.is_some() != now.is_some();
            self.running.insert(path.clone(), now);
        }
        changed
    }

    fn files_changed(&mut self) -> bool {
        let files: BTreeMap<OsString, Option<SystemTime>> =
            std::fs::read_dir(self.request.config_dir.join("facts.d"))
                .map(|entries| {
                    entries
                        .filter_map(Result::ok)
                        .take(1024)
                        .map(|entry| {
                            let modified = entry.metadata().and_then(|m| m.modified()).ok();
                            (entry.file_name(), modified)
                        })
                        .collect()
                })
                .unwrap_or_default();
        let changed = files != self.files;
        self.files = files;
        changed
    }
}

fn firewall_events() -> nix::Result<OwnedFd> {
    let events = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES_GROUP))?;
    Ok(events)
}

fn executable(proc: &Path, pid: u32) -> Option<PathBuf> {
    std::fs::read_link(proc.join(pid.to_string()).join("exe")).ok()
}

fn find(proc: &Path, path: &str) -> Option<u32> {
    std::fs::read_dir(proc)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| executable(proc, *pid).as_deref() == Some(Path::new(path)))
}

#[cfg(test)]
mod tests {
    use super::super::Host as _;
    use super::super::linux::fixture::Fixture;
    use super::*;

    fn watch(fixture: &Fixture) -> ChangeWatch {
        ChangeWatch::new(CollectRequest {
            root: fixture.root().to_owned(),
            config_dir: fixture.path("/etc/gatereeve"),
            watched: vec!["/opt/agent".into()],
        })
    }

    #[test]
    fn a_process_that_stops_shows_at_the_next_look() {
        let fixture = Fixture::new().link("/proc/7/exe", "/opt/agent");
        let mut watch = watch(&fixture);
        assert!(!watch.look());
        std::fs::remove_file(fixture.path("/proc/7/exe")).unwrap();
        assert!(watch.look());
        assert!(!watch.look());
        let _fixture = fixture.link("/proc/8/exe", "/opt/agent");
        let seen = (0..SEARCH_EVERY).filter(|_| watch.look()).count();
        assert_eq!(seen, 1, "a start shows once, at the next search");
    }

    #[test]
    fn a_restart_between_two_looks_is_no_change() {
        let fixture = Fixture::new().link("/proc/7/exe", "/opt/agent");
        let mut watch = watch(&fixture);
        std::fs::remove_file(fixture.path("/proc/7/exe")).unwrap();
        let _fixture = fixture.link("/proc/9/exe", "/opt/agent");
        assert!(!watch.look());
    }

    #[test]
    fn a_new_file_of_facts_shows() {
        let fixture = Fixture::new();
        let mut watch = watch(&fixture);
        assert!(!watch.look());
        let _fixture = fixture.file("/etc/gatereeve/facts.d/mdm.json", "{}");
        assert!(watch.look());
        assert!(!watch.look());
    }
}
