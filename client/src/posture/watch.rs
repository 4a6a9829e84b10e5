//! Cheap looks at what a policy tends to ask for, so that a change is collected and reported within a
//! second or two and not at the next interval.
//!
//! A look decides nothing: it only says that it is worth collecting again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::CollectRequest;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h, as a bit.
const NFTABLES_GROUP: u32 = 1 << (7 - 1);
/// Looks between two searches of the whole process table for a watched process that is not running.
const SEARCH_EVERY: u32 = 5;
/// The same, where only the collector may search.
const ASK_EVERY: u32 = 10;

/// Whose processes can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everybody's: the search is done here.
    All,
    /// Nobody's but the own, as of a user without rights or in a sandbox. The end of a process that the collector
    /// has found shows all the same; for one that does not run, the collector is asked now and then.
    Own,
}

/// What was seen at the last look.
#[derive(Debug)]
pub struct ChangeWatch {
    request: CollectRequest,
    sight: Sight,
    firewall: Option<OwnedFd>,
    running: BTreeMap<String, Option<u32>>,
    /// Descriptors of processes that the collector has found, with [`Sight::Own`].
    found: BTreeMap<String, OwnedFd>,
    files: BTreeMap<OsString, Option<SystemTime>>,
    looks: u32,
}

impl ChangeWatch {
    /// A watch over the watched processes, the nftables ruleset of this network namespace and the
    /// administrator's facts. Where the ruleset cannot be watched, for lack of rights, it is left to
    /// the interval.
    #[must_use]
    pub fn new(request: CollectRequest, sight: Sight) -> Self {
        let firewall = firewall_events()
            .inspect_err(|error| tracing::warn!(%error, "firewall changes show at the posture interval only"))
            .ok();
        let mut watch = Self {
            request,
            sight,
            firewall,
            running: BTreeMap::new(),
            found: BTreeMap::new(),
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
            self.found
                .retain(|path, _| self.request.watched.contains(path));
            self.looks = 0;
        }
    }

    /// Takes what the collector has found: a watched executable, and the process that runs it.
    pub fn set_found(&mut self, found: impl IntoIterator<Item = (String, u32)>) {
        if self.sight == Sight::All {
            return;
        }
        // One that has ended since, and whose number is another's by now, shows at the next interval.
        self.found = found
            .into_iter()
            .filter(|(path, _)| self.request.watched.contains(path))
            .filter_map(|(path, pid)| Some((path, process(pid)?)))
            .collect();
        self.looks = 0;
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
        match self.sight {
            Sight::All => self.processes_seen_changed(),
            Sight::Own => self.processes_found_changed(),
        }
    }

    fn processes_found_changed(&mut self) -> bool {
        let before = self.found.len();
        self.found.retain(|_, process| !has_ended(process));
        let is_one_missing = self.found.len() < self.request.watched.len();
        let ask = is_one_missing && self.looks % ASK_EVERY == ASK_EVERY - 1;
        self.found.len() < before || ask
    }

    fn processes_seen_changed(&mut self) -> bool {
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

/// A descriptor of a process, which stays its, whatever becomes of the number.
fn process(pid: u32) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // What cannot be told is collected again.
    poll(&mut fds, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
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
        watch_with(fixture, Sight::All)
    }

    fn watch_with(fixture: &Fixture, sight: Sight) -> ChangeWatch {
        let request = CollectRequest {
            root: fixture.root().to_owned(),
            config_dir: fixture.path("/etc/gatereeve"),
            watched: vec!["/opt/agent".into()],
        };
        ChangeWatch::new(request, sight)
    }

    #[test]
    fn the_end_of_a_process_shows_without_the_right_to_look_at_it() {
        let fixture = Fixture::new();
        let mut watch = watch_with(&fixture, Sight::Own);
        let mut agent = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        watch.set_found([("/opt/agent".to_owned(), agent.id())]);
        let looks = usize::try_from(2 * ASK_EVERY).unwrap();
        assert_eq!((0..looks).filter(|_| watch.look()).count(), 0, "it runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(watch.look(), "it has ended");
        assert_eq!(
            (0..looks).filter(|_| watch.look()).count(),
            2,
            "is it back?"
        );
    }

    #[test]
    fn what_is_not_watched_is_not_followed() {
        let fixture = Fixture::new();
        let mut watch = watch_with(&fixture, Sight::Own);
        watch.set_found([("/opt/other".to_owned(), std::process::id())]);
        assert!(watch.found.is_empty());
        watch.set_found([("/opt/agent".to_owned(), std::process::id())]);
        watch.set_watched(vec!["/opt/other".into()]);
        assert!(watch.found.is_empty());
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
