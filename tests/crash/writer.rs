//! Administrators that write without pause, each on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use tokio::runtime::Runtime;

use gatereeve_controller::admin::COMMAND;
use gatereeve_controller_core::command::{Command, Reply, Request};
use gatereeve_runtime::local_socket::{CallError, call_within};

use crate::ledger::Ledger;

/// Invites that stay alive; the older ones are revoked.
const ALIVE: usize = 40;
/// Makes every policy text another.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The running writers.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Writers {
    pub(crate) fn start(socket: &Path, ledger: &Ledger) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let works: [fn(&Administrator) -> anyhow::Result<()>; 4] = [
            Administrator::make_invites,
            Administrator::make_invites,
            Administrator::revoke_invites,
            Administrator::apply_policies,
        ];
        let mut threads = Vec::new();
        for work in works {
            let administrator = Administrator {
                socket: socket.to_owned(),
                ledger: ledger.clone(),
                stop: Arc::clone(&stop),
                runtime: tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?,
            };
            threads.push(std::thread::spawn(move || work(&administrator)));
        }
        Ok(Self { stop, threads })
    }

    /// Waits until every writer has noticed.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        Ok(())
    }
}

struct Administrator {
    socket: PathBuf,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    runtime: Runtime,
}

impl Administrator {
    /// The answer; `None` where there was none, or the controller is gone.
    fn ask(&self, command: Command) -> anyhow::Result<Option<Reply>> {
        let request = Request {
            command,
            wait_ms: None,
        };
        let call = call_within(&self.socket, COMMAND, &request, Duration::from_secs(10));
        match self.runtime.block_on(call) {
            Ok(reply) => Ok(Some(reply)),
            Err(CallError::Remote { status, body }) => {
                bail!("refused with {status}: {}", String::from_utf8_lossy(&body))
            }
            // Without an answer nothing is known.
            Err(_) => Ok(None),
        }
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn make_invites(&self) -> anyhow::Result<()> {
        while self.is_running() {
            // The controller keeps a limited number of invites: do not outrun their revocation.
            if self.ledger.entries().invites.len() >= 2 * ALIVE {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let reply = self.ask(Command::InviteCreate {
                tags: Vec::new(),
                user: None,
                uses: 1,
                expires_secs: 86_400,
                ephemeral: false,
                approve: false,
            })?;
            if let Some(Reply::Invite { id, .. }) = reply {
                let mut entries = self.ledger.entries();
                entries.invites.insert(id);
                entries.count += 1;
            }
        }
        Ok(())
    }

    fn revoke_invites(&self) -> anyhow::Result<()> {
        while self.is_running() {
            let id = {
                let mut entries = self.ledger.entries();
                // From the moment of asking on it is not known to be there.
                (entries.invites.len() > ALIVE)
                    .then(|| entries.invites.pop_first())
                    .flatten()
            };
            let Some(id) = id else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            if let Some(Reply::Committed(committed)) = self.ask(Command::InviteRevoke { id })? {
                let mut entries = self.ledger.entries();
                entries.revoked.insert(id);
                entries.newest = entries.newest.max(committed.generation.n);
                entries.count += 1;
            }
        }
        Ok(())
    }

    fn apply_policies(&self) -> anyhow::Result<()> {
        while self.is_running() {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let text = format!("version = 1\n# {number}\n");
            let command = Command::PolicyApply {
                text: text.clone(),
                if_generation: None,
            };
            if let Some(Reply::Committed(committed)) = self.ask(command)? {
                let mut entries = self.ledger.entries();
                if let Some(revision) = committed.revision {
                    entries.policies.insert(revision, text);
                }
                entries.newest = entries.newest.max(committed.generation.n);
                entries.count += 1;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
