//! Child processes that never outlive this one.
//!
//! Each is killed by its own process ID when its [`Process`] is dropped, by the kernel when this
//! process ends in any other way (parent-death signal), and by [`kill_all`] on Ctrl-C.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sethostname, setsid};
use rustix::process::PidfdFlags;

use crate::clock::Stopwatch;
use crate::netns::Namespace;

/// Children that are alive, by process ID.
static ALIVE: Mutex<BTreeMap<u32, &'static str>> = Mutex::new(BTreeMap::new());

/// The kernel sends the parent-death signal when the *thread* that forked ends, so one thread that
/// lives as long as the process starts all children.
static STARTER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = channel::<Job>();
    std::thread::spawn(move || {
        for (mut command, answer) in jobs {
            // The asker waits for the answer; if it is gone, the child is dropped and reaped below.
            drop(answer.send(command.spawn()));
        }
    });
    Mutex::new(sender)
});

/// The processes that `parent` has started, or inherited, and that have not ended.
#[must_use]
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|process| is_child(*process, parent) == Some(true))
        .collect()
}

fn is_child(process: u32, parent: u32) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = fields.next()? == "Z";
    Some(!is_zombie && fields.next()?.parse() == Ok(parent))
}

type Job = (Command, Sender<std::io::Result<std::process::Child>>);

/// A running child process.
#[derive(Debug)]
pub struct Process {
    child: std::process::Child,
    label: &'static str,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command` in `namespace`, with output and errors in the file `log`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        label: &'static str,
        command: Command,
        namespace: Option<&Namespace>,
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let setting = Setting {
            namespace: namespace.cloned(),
            ..Setting::default()
        };
        Self::start_in(setting, label, command, log)
    }

    /// Starts `command` as [`Self::start`] does, in `setting`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_in(
        setting: Setting,
        label: &'static str,
        mut command: Command,
        log: Option<&Path>,
    ) -> anyhow::Result<Self> {
        command.stdin(Stdio::null());
        if let Some(path) = log {
            let file = File::options().create(true).append(true).open(path)?;
            command.stderr(file.try_clone()?).stdout(file);
        }
        prepare(&mut command, setting);
        let (answer, child) = channel();
        STARTER
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, answer))
            .map_err(|_| anyhow!("the starter thread is gone"))?;
        let child = child
            .recv()
            .context("the starter thread is gone")?
            .with_context(|| format!("start {label}"))?;
        alive(|children| children.insert(child.id(), label));
        Ok(Self {
            child,
            label,
            log: log.map(Path::to_owned),
        })
    }

    /// Its process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.id())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.label))
    }

    /// Kills it at once, as power loss would.
    pub fn kill(&mut self) {
        // An error says that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        alive(|children| children.remove(&self.child.id()));
    }

    /// Asks it to end, and kills it where it does not within `patience`.
    ///
    /// # Errors
    /// Where it had to be killed.
    pub fn stop(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(patience);
        if status.is_err() {
            self.kill();
        }
        status
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where it has not ended after `patience`.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let watch = Stopwatch::start();
        let pid = rustix::process::Pid::from_child(&self.child);
        loop {
            if let Some(status) = self.child.try_wait()? {
                alive(|children| children.remove(&self.child.id()));
                return Ok(status);
            }
            let left = patience.saturating_sub(watch.elapsed());
            if left.is_zero() {
                return Err(anyhow!("{} did not end within {patience:?}", self.label));
            }
            // Asleep all the while: whoever looks every few milliseconds is in the tail of the round trips that are measured
            // meanwhile.
            let end = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            let mut ends = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            match poll(
                &mut ends,
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last `lines` lines that it wrote.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let mut text = String::new();
        if let Some(Ok(mut file)) = self.log.as_ref().map(File::open) {
            // What can be read is better than nothing.
            drop(file.read_to_string(&mut text));
        }
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a child lives.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Its network namespace; `None` for ours.
    pub namespace: Option<Namespace>,
    /// What its host calls itself; `None` for what ours does.
    pub hostname: Option<String>,
    /// Whether it gets a mount namespace of its own with an empty directory mounted here.
    pub private_directory: Option<PathBuf>,
    /// Whether it gets a mount namespace of its own with this node as its `/dev/net/tun`.
    pub tun_node: Option<PathBuf>,
}

/// Whether children begin sessions.
static SESSIONS: AtomicBool = AtomicBool::new(false);

/// From now on each child begins a session of its own, as a service does. Where the kernel shares the processors between sessions
/// (`sched_autogroup_enabled`), a daemon has its own share then, not a part of that of what measures it.
pub fn begin_sessions() {
    SESSIONS.store(true, Ordering::Relaxed);
}

/// Makes `command` enter its setting, form a process group of its own (so that Ctrl-C reaches us
/// first) and die with us.
pub fn prepare(command: &mut Command, setting: Setting) {
    let begins_session = SESSIONS.load(Ordering::Relaxed);
    if !begins_session {
        command.process_group(0);
    }
    let enter = move || {
        if begins_session {
            setsid()?;
        }
        if let Some(namespace) = &setting.namespace {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(name) = &setting.hostname {
            unshare(CloneFlags::CLONE_NEWUTS)?;
            sethostname(name)?;
        }
        if let Some(directory) = &setting.private_directory {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(nothing, "/", nothing, private, nothing)?;
            mount(
                Some("tmpfs"),
                directory,
                Some("tmpfs"),
                MsFlags::empty(),
                nothing,
            )?;
        }
        if let Some(node) = &setting.tun_node {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let nothing = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(nothing, "/", nothing, private, nothing)?;
            mount(
                Some(node),
                "/dev/net/tun",
                nothing,
                MsFlags::MS_BIND,
                nothing,
            )?;
        }
        set_pdeathsig(Signal::SIGKILL)?;
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "a child can enter a namespace only between fork and exec"
    )]
    // SAFETY: the closure makes system calls alone; its paths are short enough for nix to keep them
    // on the stack, so nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(enter);
    }
}

/// Kills every child, by process ID. For Ctrl-C.
pub fn kill_all() {
    let children = alive(std::mem::take);
    for id in children.into_keys() {
        if let Ok(id) = i32::try_from(id) {
            // An error says that it has ended already.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn alive<T>(work: impl FnOnce(&mut BTreeMap<u32, &'static str>) -> T) -> T {
    work(&mut ALIVE.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use nix::unistd::getsid;

    use super::*;

    #[test]
    fn children_have_our_session_until_each_is_to_begin_its_own() {
        let session_of_a_child = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            let child = Process::start("sleep", command, None, None).expect("it starts");
            let id = Pid::from_raw(i32::try_from(child.id()).expect("a process ID"));
            (id, getsid(Some(id)).expect("it lives"))
        };
        let ours = getsid(None).expect("we live");
        let (_, before) = session_of_a_child();
        assert_eq!(before, ours);
        begin_sessions();
        let (id, after) = session_of_a_child();
        assert_eq!(after, id);
    }
}
