//! A posture collector behind a socket, started for each connection as systemd does.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::rights::Rights;

/// Listens until dropped.
#[derive(Debug)]
pub struct PostureSocket {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl PostureSocket {
    /// Listens at `path` for the user `asker`, and answers with collectors that run as `collector`.
    ///
    /// # Errors
    /// Where the socket cannot be made.
    pub fn start(
        path: &Path,
        program: &Path,
        config_dir: &Path,
        asker: u32,
        collector: Rights,
    ) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        listener.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command
            .args(["collect-posture", "--connection", "--client"])
            .arg(asker.to_string())
            .arg("--config-dir")
            .arg(config_dir);
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (until, count) = (Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let Ok((connection, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                // Accepted sockets of Linux do not inherit the listener's mode, but be sure of it.
                drop(connection.set_nonblocking(false));
                let ended = collector
                    .limit(&command)
                    .stdin(Stdio::from(OwnedFd::from(connection)))
                    .stdout(Stdio::null())
                    .status();
                if ended.is_ok_and(|status| status.success()) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            stop,
            served,
            thread: Some(thread),
        })
    }

    /// Questions that were answered.
    #[must_use]
    pub fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for PostureSocket {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends with the last collector, which has a deadline.
            drop(thread.join());
        }
    }
}
