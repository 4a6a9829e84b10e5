//! Which network the device is in, on its way to the disk.

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::outcome;
use crate::daemon::state_dir::{NetworkFile, save_network};

/// The task that writes it.
#[derive(Debug)]
pub struct NetworkSaver {
    /// The newest, with its number.
    wanted: watch::Sender<(u64, Option<NetworkFile>)>,
    /// The number of what was tried last, and why it was not written, if it was not.
    tried: watch::Receiver<(u64, Option<String>)>,
    task: JoinHandle<()>,
}

impl NetworkSaver {
    /// Starts the task; it writes to `path`.
    #[must_use]
    pub fn start(path: PathBuf) -> Self {
        let (wanted, inbox) = watch::channel((0, None));
        let (told, tried) = watch::channel((0, None));
        #[expect(clippy::disallowed_methods, reason = "`finish` waits for it")]
        let task = tokio::spawn(run(path, inbox, told));
        Self {
            wanted,
            tried,
            task,
        }
    }

    /// Has `network` written, if nothing newer comes before that. The answer is whether it was, or why not; it need not be
    /// waited for.
    pub fn save(&self, network: NetworkFile) -> impl Future<Output = Result<(), String>> + use<> {
        let mut number = 0;
        self.wanted.send_modify(|(newest, wanted)| {
            *newest = newest.saturating_add(1);
            number = *newest;
            *wanted = Some(network);
        });
        let mut tried = self.tried.clone();
        async move {
            let ended = || "the task that writes it has ended".to_owned();
            let tried = tried.wait_for(|(tried, _)| *tried >= number).await;
            let (_, failed) = tried.map_err(|_| ended())?.clone();
            failed.map_or(Ok(()), Err)
        }
    }

    /// Why the last write failed, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.tried.borrow().1.clone()
    }

    /// Writes the newest, and ends.
    pub async fn finish(self) {
        drop(self.wanted);
        if self.task.await.is_err() {
            tracing::error!("the task that writes the network file has panicked");
        }
    }
}

async fn run(
    path: PathBuf,
    mut inbox: watch::Receiver<(u64, Option<NetworkFile>)>,
    told: watch::Sender<(u64, Option<String>)>,
) {
    while inbox.changed().await.is_ok() {
        let (number, network) = inbox.borrow_and_update().clone();
        let Some(network) = network else { continue };
        let path = path.clone();
        let write = tokio::task::spawn_blocking(move || save_network(&path, &network));
        let failed = outcome(write.await);
        if let Some(error) = &failed {
            tracing::warn!(%error, "the network file was not written");
        }
        told.send_replace((number, failed));
    }
}

#[cfg(test)]
mod tests {
    use gatereeve_shared::identity::fingerprint::Fingerprint;

    use super::*;

    fn network(up: bool) -> NetworkFile {
        NetworkFile {
            controllers: vec!["controller.example.com:8443".into()],
            fingerprint: Fingerprint([7; 32]),
            tls_key: None,
            up,
        }
    }

    fn is_up(path: &std::path::Path) -> bool {
        let bytes = std::fs::read(path).unwrap();
        serde_json::from_slice::<NetworkFile>(&bytes).unwrap().up
    }

    #[tokio::test]
    async fn the_newest_is_written_and_who_asked_hears_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let path = missing.join("network");
        let saver = NetworkSaver::start(path.clone());
        let refused = saver.save(network(true)).await.unwrap_err();
        assert!(refused.contains("missing"), "{refused}");
        assert_eq!(saver.problem(), Some(refused));
        std::fs::create_dir(&missing).unwrap();
        let (first, second) = (saver.save(network(true)), saver.save(network(false)));
        assert_eq!(second.await, Ok(()));
        assert_eq!(first.await, Ok(()), "a newer one stands for it");
        assert_eq!(saver.problem(), None);
        assert!(!is_up(&path));
        // Nobody waits for this one, and it is written all the same.
        drop(saver.save(network(true)));
        saver.finish().await;
        assert!(is_up(&path));
    }
}
