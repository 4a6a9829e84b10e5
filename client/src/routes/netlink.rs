//! The thread that asks the kernel for changes of the host's network.
//!
//! Netlink is served within the system call that asks, under locks that all of the host shares: RTNL for interfaces,
//! addresses, rules and routes, another one for nftables. A program that changes thousands of interfaces or loads a
//! large firewall has them for seconds. The engine's task must not wait there, because a revocation would wait with it.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The thread. It ends with the last copy of this value, as soon as the kernel lets it.
#[derive(Clone, Debug)]
pub struct NetworkThread {
    runtime: runtime::Handle,
    _alive: Arc<oneshot::Sender<()>>,
}

impl NetworkThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no more threads or file descriptors.
    pub fn start() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .context("cannot start the thread for the host's network")?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("gatereeve-net".into())
            .spawn(move || {
                // Nothing is ever sent: that there is nobody to send any more is the word to end.
                let _ = runtime.block_on(ended);
            })
            .context("cannot start the thread for the host's network")?;
        Ok(Self {
            runtime: handle,
            _alive: Arc::new(alive),
        })
    }

    /// Has the thread do `work`, which may wait for the kernel.
    ///
    /// # Errors
    /// When `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let work = self.runtime.spawn(async move { work() });
        work.await.context("a change of the host's network failed")
    }
}

/// A netlink socket for the host's network, served by the thread.
pub struct Netlink {
    /// Asks, and waits for the answer without keeping the caller's thread.
    pub handle: Handle,
    /// What the kernel tells of by itself.
    pub changes: BoxStream<'static, NetlinkPayload<RouteNetlinkMessage>>,
    connection: JoinHandle<()>,
}

impl fmt::Debug for Netlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a socket that is told of changes of `groups`.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open(thread: &NetworkThread, groups: &[MulticastGroup]) -> Result<Self> {
        // The socket is watched by the runtime that serves it.
        let _runtime = thread.runtime.enter();
        let (mut connection, handle, changes) =
            rtnetlink::new_multicast_connection(groups).context("cannot open a netlink socket")?;
        // So that a query for routes of our protocol is answered with those alone. Linux before 4.20 answers with all.
        let strict = connection
            .socket_mut()
            .socket_mut()
            .set_netlink_get_strict_chk(true);
        if let Err(error) = strict {
            tracing::debug!(%error, "the kernel lists all routes of the host at every look");
        }
        // Nobody reads what comes to a socket of no group, so it is not kept.
        let changes = if groups.is_empty() {
            stream::empty().boxed()
        } else {
            changes.map(|(message, _)| message.payload).boxed()
        };
        Ok(Self {
            handle,
            changes,
            connection: thread.runtime.spawn(connection),
        })
    }

    /// Lets go of the connection, as the kernel might.
    #[cfg(test)]
    pub(super) fn cut(&self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_holds_the_thread_up_does_not_hold_up_who_waits_for_it() {
        let thread = NetworkThread::start().unwrap();
        let (let_go, held) = mpsc::channel::<()>();
        let mut work = std::pin::pin!(thread.run(move || held.recv().is_ok()));
        let socket = Netlink::open(&thread, &[]).unwrap();
        let mut links = std::pin::pin!(socket.handle.link().get().execute());
        let other = async { tokio::time::sleep(Duration::from_millis(20)).await };
        tokio::select! {
            biased;
            _ = &mut work => panic!("nobody has let it go"),
            _ = links.next() => panic!("the thread is held up"),
            () = other => {}
        }
        let_go.send(()).unwrap();
        assert!(work.await.unwrap());
        assert!(links.next().await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn the_thread_ends_with_the_last_who_has_it() {
        let thread = NetworkThread::start().unwrap();
        let ended = thread.run(std::thread::current).await.unwrap();
        let again = thread.clone();
        drop(thread);
        let id = again.run(std::thread::current).await.unwrap().id();
        assert_eq!(id, ended.id());
        let runtime = again.runtime.clone();
        drop(again);
        let end = runtime.spawn(std::future::pending::<()>());
        assert!(
            end.await.unwrap_err().is_cancelled(),
            "it goes with the thread"
        );
    }
}
