//! seccomp: which system calls may be made.
//!
//! Two filters, on every thread. The first refuses by name what no part of Gatereeve ever does and an intruder
//! would begin with: it answers EPERM, and the kernel logs it. The second is a list of what is needed, measured
//! over the test suites and completed with what other C libraries use for the same; the rest is answered with
//! ENOSYS, as by a kernel that does not have it, so that libraries fall back to what is allowed.
//!
//! Nothing is killed: a call that is refused has done nothing, and a library that tries something new after an
//! update must not take the host off its network.

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64"
))]
mod filter;
mod list;

/// What a process may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// What both daemons need; UDP and Unix sockets.
    Controller,
    /// The same, and netlink for routes and the firewall.
    Client,
    /// The same, without sockets.
    Collector,
}

impl Calls {
    /// Puts it in force, on all threads. How many calls are allowed, or why none is refused.
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))]
    pub(super) fn restrict(self) -> Result<usize, String> {
        filter::restrict(self)
    }

    /// Nothing is known of this architecture's calls.
    #[cfg(not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )))]
    pub(super) fn restrict(self) -> Result<usize, String> {
        Err("not filtered on this architecture".into())
    }
}
