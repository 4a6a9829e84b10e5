//! Looks at what a policy tends to ask for, so that a change is collected and reported at once and not at the
//! next interval.
//!
//! Whatever the kernel can tell of by itself is waited for and costs nothing until it happens: nftables, the
//! administrator's files, the end of a process. Only the start of a watched process that does not run has to be
//! looked for, every few seconds, for as long as it is missing. A process that becomes another program is seen as soon
//! where others' processes can be looked at, and at the posture interval where they cannot.
//!
//! A look decides nothing: it only says that it is worth collecting again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use gatereeve_runtime::clock::Clock;
use gatereeve_shared::time::Mono;

use super::CollectRequest;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h, as a bit.
const NFTABLES_GROUP: u32 = 1 << (7 - 1);
/// Time between two searches of the whole process table for a watched process that is not running.
const SEARCH: Duration = Duration::from_secs(5);
/// The same, where only the collector may search.
const ASK: Duration = Duration::from_secs(10);
/// Time between two looks where the kernel does not tell.
const LOOK: Duration = Duration::from_secs(1);
/// Least time between two looks: who changes things all the time shall not keep this host busy.
const LEAST: Duration = Duration::from_secs(1);
/// Processes that a search looks at before others have their turn.
const BETWEEN_TURNS: usize = 64;

/// Whose processes can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Everybody's: the search is done here.
    All,
    /// Nobody's but the own, as of a user without rights or in a sandbox. The end of a process that the collector
    /// has found shows all the same; for one that does not run, the collector is asked now and then.
    Own,
}

/// A watched process that runs.
#[derive(Debug)]
struct Running {
    pid: u32,
    /// Stays its, whatever becomes of the number; readable when it has ended.
    process: Option<OwnedFd>,
}

/// What was seen at the last look.
#[derive(Debug)]
pub struct ChangeWatch {
    request: CollectRequest,
    sight: Sight,
    events: Option<Events>,
    firewall: Option<OwnedFd>,
    facts: Option<Facts>,
    /// Something was told of, or is to be searched for, and not looked at yet.
    is_pending: bool,
    is_search: bool,
    /// A look that was dropped before its end has seen a change.
    is_changed: bool,
    looked: Mono,
    running: BTreeMap<String, Running>,
    files: BTreeMap<OsString, Option<SystemTime>>,
}

/// A watch over the administrator's files.
#[derive(Debug)]
struct Facts {
    events: Inotify,
    /// That of `facts.d` itself, where it is there.
    directory: Option<WatchDescriptor>,
}

/// What the kernel tells of, in one descriptor.
#[derive(Debug)]
struct Events {
    all: Epoll,
    ready: AsyncFd<OwnedFd>,
}

impl Events {
    fn new() -> io::Result<Self> {
        let all = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let ready = all.0.try_clone()?;
        #[expect(
            unsafe_code,
            reason = "tokio cannot see that the descriptor stays open"
        )]
        // SAFETY: an owned descriptor is open and the same one until it is dropped, which the result does.
        let ready = unsafe { AsyncFd::register_with_interest(ready, Interest::READABLE) }?;
        Ok(Self { all, ready })
    }

    fn add(&self, source: BorrowedFd<'_>) -> nix::Result<()> {
        self.all
            .add(source, EpollEvent::new(EpollFlags::EPOLLIN, 0))
    }

    async fn wait(&self) {
        // An error is one of the runtime's end.
        if let Ok(mut guard) = self.ready.readable().await {
            guard.clear_ready();
            // What has gone quiet leaves the list here; what has not is read by the look that follows.
            let _ = self
                .all
                .wait(&mut [EpollEvent::empty(); 16], EpollTimeout::ZERO);
        }
    }
}

impl ChangeWatch {
    /// A watch over the watched processes, the nftables ruleset of this network namespace and the
    /// administrator's facts. Where the ruleset cannot be watched, for lack of rights, it is left to
    /// the interval.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub async fn new(request: CollectRequest, sight: Sight) -> Self {
        let firewall = firewall_events()
            .inspect_err(|error| tracing::warn!(%error, "firewall changes show at the posture interval only"))
            .ok();
        let events = Events::new()
            .inspect_err(
                |error| tracing::warn!(%error, "what posture asks for is looked at every second"),
            )
            .ok();
        let mut watch = Self {
            request,
            sight,
            events,
            firewall,
            facts: None,
            is_pending: false,
            is_search: false,
            is_changed: false,
            looked: Mono(0),
            running: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        watch.watch_files();
        if let (Some(events), Some(firewall)) = (&watch.events, &watch.firewall) {
            let _ = events.add(firewall.as_fd());
        }
        watch.look(true).await;
        watch
    }

    /// Takes another list of processes.
    pub async fn set_watched(&mut self, watched: Vec<String>) {
        if self.request.watched != watched {
            self.request.watched = watched;
            let watched = &self.request.watched;
            self.running.retain(|path, _| watched.contains(path));
            if self.sight == Sight::All {
                self.look_at_processes(true).await;
                self.is_changed = false;
            }
        }
    }

    /// Takes what the collector has found: a watched executable, and the process that runs it.
    pub fn set_found(&mut self, found: impl IntoIterator<Item = (String, u32)>) {
        if self.sight == Sight::All {
            return;
        }
        // One that has ended since, and whose number is another's by now, shows at the next interval.
        self.running.clear();
        for (path, pid) in found {
            if self.request.watched.contains(&path) {
                let running = self.follow(pid);
                if running.process.is_some() {
                    self.running.insert(path, running);
                } else if matches!(process(pid), Err(rustix::io::Errno::SRCH)) {
                    // It has ended meanwhile.
                    (self.is_pending, self.is_search) = (true, true);
                }
            }
        }
    }

    /// Waits until something has changed. Loses nothing where it is dropped before.
    pub async fn changed(&mut self) {
        loop {
            if !self.is_pending {
                let pause = self.pause();
                self.is_search = tokio::select! {
                    () = Self::told(self.events.as_ref()) => false,
                    () = pause_for(pause) => true,
                };
                self.is_pending = true;
            }
            let since = Clock::mono().since(self.looked);
            tokio::time::sleep(LEAST.saturating_sub(since)).await;
            let is_changed = self.look(self.is_search).await;
            (self.is_pending, self.is_search) = (false, false);
            self.looked = Clock::mono();
            if is_changed {
                return;
            }
        }
    }

    async fn told(events: Option<&Events>) {
        match events {
            Some(events) => events.wait().await,
            None => std::future::pending().await,
        }
    }

    /// How long to wait for what the kernel does not tell of; `None` where it tells of everything.
    fn pause(&self) -> Option<Duration> {
        let untold = self.events.is_none()
            || self
                .running
                .values()
                .any(|running| running.process.is_none());
        let search = match self.sight {
            Sight::All => SEARCH,
            Sight::Own => ASK,
        };
        if untold {
            Some(LOOK)
        } else if self.facts.is_none() || (self.sight == Sight::All && !self.running.is_empty()) {
            // The kernel does not tell that a process has become another program.
            Some(SEARCH)
        } else {
            (self.running.len() < self.request.watched.len()).then_some(search)
        }
    }

    /// Whether anything has changed since the last look; with `search`, whether a process that was missing is there.
    async fn look(&mut self, search: bool) -> bool {
        // Each is looked at: a change that is already known must not hide in the next look.
        self.is_changed |= self.firewall_changed();
        match self.sight {
            Sight::All => self.look_at_processes(search).await,
            Sight::Own => self.is_changed |= self.processes_found_changed(search),
        }
        self.is_changed |= self.files_changed();
        std::mem::take(&mut self.is_changed)
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

    fn processes_found_changed(&mut self, search: bool) -> bool {
        let before = self.running.len();
        self.running.retain(|_, running| {
            running
                .process
                .as_ref()
                .is_some_and(|process| !has_ended(process))
        });
        let is_one_missing = self.running.len() < self.request.watched.len();
        self.running.len() < before || (search && is_one_missing)
    }

    async fn look_at_processes(&mut self, search: bool) {
        let proc = self.request.root.join("proc");
        for path in self.request.watched.clone() {
            let before = self.running.get(&path).map(|running| running.pid);
            let is_it = |pid| executable(&proc, pid).as_deref() == Some(Path::new(&path));
            if before.is_some_and(is_it) {
                continue;
            }
            // One that has just gone is searched for at once: it may have been restarted.
            let now = if search || before.is_some() {
                find(&proc, &path).await.map(|pid| self.follow(pid))
            } else {
                None
            };
            self.is_changed |= before.is_some() != now.is_some();
            match now {
                Some(running) => self.running.insert(path, running),
                None => self.running.remove(&path),
            };
        }
    }

    /// Has the kernel tell when the process ends.
    fn follow(&self, pid: u32) -> Running {
        let followed = process(pid).ok().filter(|process| {
            self.events
                .as_ref()
                .is_none_or(|events| events.add(process.as_fd()).is_ok())
        });
        Running {
            pid,
            process: followed,
        }
    }

    /// Has the kernel tell of the administrator's files, and of the directory that they are in. Made anew where that
    /// directory came or went.
    fn watch_files(&mut self) {
        self.facts = None;
        let Some(events) = &self.events else { return };
        let config = &self.request.config_dir;
        let watch = || -> nix::Result<Facts> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let entries = AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF;
            inotify.add_watch(config, entries)?;
            let contents = entries | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB;
            let directory = match inotify.add_watch(&config.join("facts.d"), contents) {
                Ok(watched) => Some(watched),
                Err(nix::errno::Errno::ENOENT) => None,
                Err(errno) => return Err(errno),
            };
            events.add(inotify.as_fd())?;
            Ok(Facts {
                events: inotify,
                directory,
            })
        };
        match watch() {
            Ok(facts) => self.facts = Some(facts),
            Err(error) => {
                tracing::debug!(%error, directory = %config.display(), "files of facts are looked at every few seconds");
            }
        }
    }

    fn files_changed(&mut self) -> bool {
        let facts = OsString::from("facts.d");
        let (mut anew, mut told) = (self.facts.is_none(), false);
        if let Some(watched) = &self.facts {
            let events = std::iter::from_fn(|| watched.events.read_events().ok());
            for event in events.take(64).flatten() {
                let gone = AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_IGNORED
                    | AddWatchFlags::IN_Q_OVERFLOW;
                let is_of_contents = Some(event.wd) == watched.directory;
                told |= is_of_contents && event.name.is_some();
                anew |= event.mask.intersects(gone)
                    || (!is_of_contents && event.name.as_ref() == Some(&facts));
            }
        }
        if anew {
            self.watch_files();
        }
        // After the watch, so that what changes in between is told.
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
        // The same name and time do not make the same contents.
        changed || told
    }
}

async fn pause_for(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
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

/// A descriptor of a process.
fn process(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(rustix::io::Errno::SRCH)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // What cannot be told is collected again.
    poll(&mut fds, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}

fn executable(proc: &Path, pid: u32) -> Option<PathBuf> {
    std::fs::read_link(proc.join(pid.to_string()).join("exe")).ok()
}

async fn find(proc: &Path, path: &str) -> Option<u32> {
    let entries = std::fs::read_dir(proc).ok()?.filter_map(Result::ok);
    for (count, entry) in entries.enumerate() {
        // There may be a great many, and the daemon has one thread for all its tasks.
        if count % BETWEEN_TURNS == 0 {
            tokio::task::yield_now().await;
        }
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && executable(proc, pid).as_deref() == Some(Path::new(path))
        {
            return Some(pid);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Host as _;
    use super::super::linux::fixture::Fixture;
    use super::*;

    async fn watch(fixture: &Fixture) -> ChangeWatch {
        watch_with(fixture, Sight::All).await
    }

    async fn watch_with(fixture: &Fixture, sight: Sight) -> ChangeWatch {
        let request = CollectRequest {
            root: fixture.root().to_owned(),
            config_dir: fixture.path("/etc/gatereeve"),
            watched: vec!["/opt/agent".into()],
        };
        ChangeWatch::new(request, sight).await
    }

    #[tokio::test]
    async fn the_end_of_a_process_shows_without_the_right_to_look_at_it() {
        let fixture = Fixture::new();
        let mut watch = watch_with(&fixture, Sight::Own).await;
        let mut agent = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        watch.set_found([("/opt/agent".to_owned(), agent.id())]);
        assert!(!watch.look(true).await, "it runs");
        agent.kill().unwrap();
        agent.wait().unwrap();
        assert!(watch.look(false).await, "it has ended");
        assert!(!watch.look(false).await);
        assert!(watch.look(true).await, "is it back?");
    }

    #[tokio::test]
    async fn what_the_kernel_tells_of_is_not_looked_for() {
        let fixture = Fixture::new().file("/etc/gatereeve/facts.d/mdm.json", "{}");
        let mut watch = watch_with(&fixture, Sight::Own).await;
        assert_eq!(watch.pause(), Some(ASK), "the agent does not run");
        let mut agent = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        watch.set_found([("/opt/agent".to_owned(), agent.id())]);
        assert_eq!(watch.pause(), None);
        let deadline = Duration::from_secs(60);
        let quiet = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(quiet.is_err(), "control: nothing has happened");
        agent.kill().unwrap();
        agent.wait().unwrap();
        tokio::time::timeout(deadline, watch.changed())
            .await
            .expect("the end of the process is told");
        // Files likewise, written anew, and after the directory was made anew.
        let mut watch = ChangeWatch::new(
            CollectRequest {
                watched: Vec::new(),
                ..watch.request.clone()
            },
            Sight::Own,
        )
        .await;
        assert_eq!(watch.pause(), None);
        for round in 0..3 {
            let directory = fixture.path("/etc/gatereeve/facts.d");
            if round == 2 {
                std::fs::remove_dir_all(&directory).unwrap();
                tokio::time::timeout(deadline, watch.changed())
                    .await
                    .expect("the end of the directory is told");
                std::fs::create_dir(&directory).unwrap();
            }
            std::fs::write(directory.join(format!("{round}.json")), "{}").unwrap();
            tokio::time::timeout(deadline, watch.changed())
                .await
                .expect("a file is told of");
        }
    }

    #[tokio::test]
    async fn what_is_not_watched_is_not_followed() {
        let fixture = Fixture::new();
        let mut watch = watch_with(&fixture, Sight::Own).await;
        watch.set_found([("/opt/other".to_owned(), std::process::id())]);
        assert!(watch.running.is_empty());
        watch.set_found([("/opt/agent".to_owned(), std::process::id())]);
        assert_eq!(watch.running.len(), 1, "control");
        watch.set_watched(vec!["/opt/other".into()]).await;
        assert!(watch.running.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_stops_shows_at_the_next_look() {
        let fixture = Fixture::new().link("/proc/7/exe", "/opt/agent");
        let mut watch = watch(&fixture).await;
        assert!(!watch.look(false).await);
        std::fs::remove_file(fixture.path("/proc/7/exe")).unwrap();
        assert!(watch.look(false).await);
        assert!(!watch.look(false).await);
        let _fixture = fixture.link("/proc/8/exe", "/opt/agent");
        assert!(!watch.look(false).await);
        assert!(watch.look(true).await, "a start shows at the next search");
        assert!(!watch.look(true).await, "once");
    }

    #[tokio::test]
    async fn a_restart_between_two_looks_is_no_change() {
        let fixture = Fixture::new().link("/proc/7/exe", "/opt/agent");
        let mut watch = watch(&fixture).await;
        std::fs::remove_file(fixture.path("/proc/7/exe")).unwrap();
        let _fixture = fixture.link("/proc/9/exe", "/opt/agent");
        assert!(!watch.look(false).await);
    }

    #[tokio::test]
    async fn a_new_file_of_facts_shows() {
        let fixture = Fixture::new();
        let mut watch = watch(&fixture).await;
        assert!(!watch.look(false).await);
        let _fixture = fixture.file("/etc/gatereeve/facts.d/mdm.json", "{}");
        assert!(watch.look(false).await);
        assert!(!watch.look(false).await);
    }
}
