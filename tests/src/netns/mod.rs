//! Network namespaces without leftovers.
//!
//! A [`Namespace`] is a file descriptor that a thread took after `unshare(CLONE_NEWNET)`. Nothing is
//! mounted and nothing has a name, so the kernel removes it, links and all, when the last
//! descriptor, socket and process in it are gone, however this process ends.

pub mod links;
pub mod privilege;

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<File>,
}

impl Namespace {
    /// A new one, with its loopback interface up and IPv6 addresses usable at once.
    ///
    /// # Errors
    /// Where the kernel or our rights do not allow it.
    pub fn new() -> anyhow::Result<Self> {
        let handle = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("unshare a network namespace")?;
            // No duplicate address detection: nobody else is here, and it takes a second.
            for scope in ["default", "all"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                std::fs::write(&path, "0").with_context(|| path)?;
            }
            File::open("/proc/thread-self/ns/net").context("open the network namespace")
        })?;
        let namespace = Self {
            handle: Arc::new(handle),
        };
        namespace.netlink(async |netlink| links::up(&netlink, "lo").await)?;
        Ok(namespace)
    }

    /// Runs `work` on a thread of its own inside the namespace. A socket opened there stays there.
    ///
    /// # Errors
    /// Those of `work`, or that the namespace cannot be entered.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        in_thread(|| {
            enter(self.as_fd())?;
            work()
        })
    }

    /// Runs `work` with a netlink handle of this namespace.
    ///
    /// # Errors
    /// Those of `work`, or that netlink cannot be had.
    pub fn netlink<T: Send, F: Future<Output = anyhow::Result<T>>>(
        &self,
        work: impl FnOnce(rtnetlink::Handle) -> F + Send,
    ) -> anyhow::Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().context("netlink")?;
                #[expect(clippy::disallowed_methods, reason = "aborted below")]
                let driver = tokio::task::spawn(connection);
                let result = work(handle).await;
                driver.abort();
                result
            })
        })
    }

    /// The descriptor, for a child that enters before it starts.
    #[must_use]
    pub fn raw_fd(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// Where the kernel refuses.
pub fn enter(namespace: BorrowedFd<'_>) -> anyhow::Result<()> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter a network namespace")
}

fn in_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(anyhow!("a thread in a network namespace panicked")))
    })
}
