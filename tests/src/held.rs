//! One thread of another process, kept from running: what a thread sees that waits in the kernel for as long as somebody
//! else likes.

use std::marker::PhantomData;

use anyhow::{Context as _, ensure};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A thread that does not run until this is dropped. The others of its process go on.
#[derive(Debug)]
pub struct HeldThread {
    thread: Pid,
    /// Only the thread that holds may let go.
    _tracer: PhantomData<*const ()>,
}

impl HeldThread {
    /// Holds the only thread of `process` that is called `name`.
    ///
    /// # Errors
    /// Where there is none, or more than one, or the kernel refuses.
    pub fn hold(process: u32, name: &str) -> anyhow::Result<Self> {
        let mut found = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?;
            let called = std::fs::read_to_string(thread.path().join("comm"))?;
            if called.trim_end() == name {
                found.push(thread.file_name().to_string_lossy().parse()?);
            }
        }
        ensure!(found.len() == 1, "{} threads called {name}", found.len());
        let thread = Pid::from_raw(found[0]);
        ptrace::seize(thread, Options::empty()).context("the thread is not to be held")?;
        let held = Self {
            thread,
            _tracer: PhantomData,
        };
        ptrace::interrupt(thread)?;
        let status = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        ensure!(
            matches!(
                status,
                WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)
            ),
            "the thread is {status:?}"
        );
        Ok(held)
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // One that is gone needs nothing.
        let _ = ptrace::detach(self.thread, None);
    }
}
