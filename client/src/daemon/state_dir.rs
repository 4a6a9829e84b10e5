//! The state directory: identity, keys, the last map, and which network the device is in.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use gatereeve_client_core::stored::{Stored, StoredError};
use gatereeve_runtime::atomic_file;
use gatereeve_runtime::keyfile::{self, KeySource};
use gatereeve_runtime::state_file;
use gatereeve_runtime::state_format::StateFormat;
use gatereeve_runtime::words::in_words;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::identity::identity_key::{IdentityKey, IdentityPublicKey};
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::time::UnixMillis;

/// Files hold keys and the map of a network.
const FILE_MODE: u32 = 0o600;
/// Most bytes of the file that says which network the device is in.
const NETWORK_LIMIT: u64 = 64 * 1024;

/// Most bytes of the list of those who had a session.
const RECENT_LIMIT: u64 = 64 * 1024;
/// How old that list may be: after that all of these sessions have ended (WireGuard, section 6.1).
pub(super) const RECENT: Duration = Duration::from_secs(180);

/// The format that this version writes.
const FORMAT: StateFormat = StateFormat {
    program: "gatereeve",
    current: 1,
};

// Each format up to this one only adds a file to the one before, so that there is nothing to back up, and an older
// version goes on from what is there. Before a step that changes a file counts here, it has to keep a copy of it.
const _: () = assert!(FORMAT.current == 1, "does the new format only add?");

/// Which network the device is in, and whether it is to take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// `host:port` of each controller.
    pub controllers: Vec<String>,
    /// The pinned network key.
    pub fingerprint: Fingerprint,
    /// The controller's TLS key that the network key has vouched for, in base64.
    pub tls_key: Option<String>,
    /// Whether the device is to take part.
    pub up: bool,
}

/// Who had a session when the daemon stopped.
#[derive(Debug, Serialize, Deserialize)]
struct RecentFile {
    at: UnixMillis,
    devices: Vec<DeviceId>,
}

impl NetworkFile {
    /// The controller's TLS key, where one is known.
    #[must_use]
    pub fn known_tls_key(&self) -> Option<IdentityPublicKey> {
        let bytes = gatereeve_shared::text::from_base64(self.tls_key.as_ref()?)?;
        IdentityPublicKey::new(bytes.try_into().ok()?).ok()
    }

    /// Keeps `key` as the controller's. Whether it was another before.
    pub fn set_tls_key(&mut self, key: &IdentityPublicKey) -> bool {
        let text = Some(gatereeve_shared::text::base64(key.as_bytes()));
        let changed = self.tls_key != text;
        self.tls_key = text;
        changed
    }
}

/// The directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateDir {
    /// Opens `path`, making it where it is missing, and locks it.
    ///
    /// # Errors
    /// When it cannot be made or written, or another daemon holds it; that one is named.
    pub fn open(path: &Path) -> Result<Self> {
        // Before anything is written: what a newer version made stays as it is.
        let format = FORMAT.read(path)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the state directory {}", path.display()))?;
        keyfile::check_directory(path)?;
        let lock_path = path.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; the lock is what counts.
                let read = file.take(32).read_to_string(&mut holder);
                let holder = holder.trim();
                if read.is_ok() && !holder.is_empty() {
                    bail!(
                        "another daemon (process {holder}) uses {}; stop it, or take another --state-dir",
                        path.display()
                    );
                }
                bail!(
                    "another daemon uses {}; stop it, or take another --state-dir",
                    path.display()
                );
            }
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        };
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", lock_path.display()))?;
        // Format 1 is format 0 with the file that says so, and an older version passes the file over.
        if format < FORMAT.current {
            FORMAT
                .write(path, FORMAT.current)
                .with_context(|| format!("cannot write to {}", path.display()))?;
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The device's identity, made at the first call.
    ///
    /// # Errors
    /// When the key file cannot be read or made, or others may read it.
    pub fn identity(&self) -> Result<IdentityKey> {
        let path = self.path.join("identity.key");
        let source = KeySource {
            path: &path,
            credential: "gatereeve.identity-key",
        };
        source
            .load_or_create()
            .context("cannot use the device's identity key")
    }

    /// Which network the device is in.
    ///
    /// # Errors
    /// When the file is there and cannot be used: joining anew is for a person to decide.
    pub fn network(&self) -> Result<Option<NetworkFile>> {
        network_at(&self.path)
    }

    /// Keeps which network the device is in.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_network(&self, network: &NetworkFile) -> Result<()> {
        save_network(&self.network_path(), network)
    }

    /// Where which network the device is in is kept.
    #[must_use]
    pub fn network_path(&self) -> PathBuf {
        self.path.join("network")
    }

    /// Where the engine's memory is kept.
    #[must_use]
    pub fn stored_path(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The engine's memory, and a warning where there was one that cannot be used: it is set aside, and
    /// the device gets all of it from the controller again.
    ///
    /// # Errors
    /// When a newer version wrote it: it may be whole, so it is left as it is.
    pub fn stored(&self) -> Result<(Stored, Option<String>)> {
        let path = self.stored_path();
        let problem = match std::fs::read(&path) {
            Ok(bytes) => match Stored::from_bytes(&bytes) {
                Ok(stored) => return Ok((stored, None)),
                Err(error @ StoredError::Newer) => {
                    return Err(error).with_context(|| {
                        format!(
                            "{} cannot be used, and was left as it is: run that version again, or move the \
                             file away to begin with what the controller sends",
                            path.display()
                        )
                    });
                }
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Stored::default(), None));
            }
            Err(error) => error.to_string(),
        };
        let aside = self.path.join("state.unusable");
        let moved = std::fs::rename(&path, &aside);
        let mut warning = format!("{} could not be used: {problem}", path.display());
        if moved.is_ok() {
            warning = format!("{warning}; it is kept as {}", aside.display());
        }
        Ok((Stored::default(), Some(warning)))
    }

    /// Keeps who had a session for the next start, which may be at once. It is no loss where that fails.
    pub fn keep_recent(&self, devices: Vec<DeviceId>, at: UnixMillis) {
        let path = self.path.join("recent");
        let kept = serde_json::to_vec(&RecentFile { at, devices })
            .map_err(anyhow::Error::from)
            .and_then(|bytes| Ok(atomic_file::write(&path, &bytes, FILE_MODE)?));
        if let Err(error) = kept {
            tracing::debug!(error = in_words(error), "who had a session is forgotten");
        }
    }

    /// Who had a session when the daemon stopped a moment ago. Once: the list is gone afterwards.
    #[must_use]
    pub fn take_recent(&self, now: UnixMillis) -> Vec<DeviceId> {
        let path = self.path.join("recent");
        let Ok(bytes) = state_file::read(&path, RECENT_LIMIT) else {
            return Vec::new();
        };
        // One that stays is too old soon.
        drop(std::fs::remove_file(&path));
        match serde_json::from_slice::<RecentFile>(&bytes) {
            Ok(recent) if recent.at <= now && now.since(recent.at) < RECENT => recent.devices,
            _ => Vec::new(),
        }
    }

    /// Forgets the network, and the keys with it.
    ///
    /// # Errors
    /// Names the file that cannot be removed.
    pub fn forget(&self) -> Result<()> {
        for name in [
            "network",
            "state",
            "state.unusable",
            "recent",
            "identity.key",
        ] {
            let path = self.path.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        atomic_file::sync_directory(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Whether the device whose state is at `path` is in a network and is to take part: for who works without a
/// daemon. Nothing there means no.
///
/// # Errors
/// When it is there and cannot be read.
pub fn wants_to_take_part(path: &Path) -> Result<bool> {
    Ok(network_at(path)?.is_some_and(|network| network.up))
}

fn network_at(directory: &Path) -> Result<Option<NetworkFile>> {
    let path = directory.join("network");
    match state_file::read(&path, NETWORK_LIMIT) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
            format!(
                "{} is damaged; `gatereeve leave` and join again, or restore it",
                path.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes the engine's memory.
///
/// # Errors
/// When it cannot be encoded or written.
pub fn save_stored(path: &Path, stored: &Stored) -> Result<()> {
    let bytes = stored.to_bytes().context("cannot encode the state")?;
    atomic_file::write(path, &bytes, FILE_MODE)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Writes which network the device is in.
///
/// # Errors
/// When the file cannot be written.
pub fn save_network(path: &Path, network: &NetworkFile) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(network).context("cannot encode the network file")?;
    atomic_file::write(path, &bytes, FILE_MODE)
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkFile {
        NetworkFile {
            controllers: vec!["controller.example.com:8443".into()],
            fingerprint: Fingerprint([7; 32]),
            tls_key: None,
            up: true,
        }
    }

    #[test]
    fn a_second_daemon_learns_who_holds_the_state() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        let first = StateDir::open(&directory).unwrap();
        let error = StateDir::open(&directory).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(StateDir::open(&directory).is_ok());
    }

    #[test]
    fn a_directory_open_to_others_is_refused_and_a_newer_one_too() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        drop(StateDir::open(&directory).unwrap());
        let mode = |mode| std::fs::set_permissions(&directory, PermissionsExt::from_mode(mode));
        mode(0o750).unwrap();
        let refused = StateDir::open(&directory).unwrap_err().to_string();
        assert!(refused.contains("chmod 700"), "{refused}");
        mode(0o700).unwrap();
        drop(StateDir::open(&directory).unwrap());
        std::fs::write(directory.join("format"), "gatereeve state format 2\n").unwrap();
        let refused = StateDir::open(&directory).unwrap_err().to_string();
        assert!(refused.contains("newer version"), "{refused}");
    }

    #[test]
    fn the_network_reads_back_and_leaving_forgets_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        let state = StateDir::open(&directory).unwrap();
        assert_eq!(state.network().unwrap(), None);
        let mut network = network();
        let key = state.identity().unwrap().public();
        assert!(network.set_tls_key(&key));
        assert!(!network.set_tls_key(&key));
        state.save_network(&network).unwrap();
        assert_eq!(state.network().unwrap(), Some(network));
        assert!(wants_to_take_part(&directory).unwrap());
        assert_eq!(state.identity().unwrap().public(), key);
        state.forget().unwrap();
        assert!(!wants_to_take_part(&directory).unwrap());
        assert_eq!(state.network().unwrap(), None);
        assert_ne!(state.identity().unwrap().public(), key);
    }

    #[test]
    fn who_had_a_session_is_known_once_and_not_for_long() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("state")).unwrap();
        let (device, at) = (DeviceId([7; 20]), UnixMillis(1_800_000_000_000));
        let after = |seconds: u64| at.saturating_add(Duration::from_secs(seconds));
        assert!(state.take_recent(at).is_empty());
        state.keep_recent(vec![device], at);
        assert_eq!(state.take_recent(after(2)), [device]);
        assert!(state.take_recent(after(2)).is_empty());
        for (kept, now) in [(at, after(180)), (after(1), at)] {
            state.keep_recent(vec![device], kept);
            assert!(state.take_recent(now).is_empty());
        }
        std::fs::write(root.path().join("state/recent"), b"{").unwrap();
        assert!(state.take_recent(at).is_empty());
        state.keep_recent(vec![device], at);
        state.forget().unwrap();
        assert!(state.take_recent(at).is_empty());
    }

    #[test]
    fn a_damaged_state_is_set_aside_and_said() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        let state = StateDir::open(&directory).unwrap();
        assert!(state.stored().unwrap().1.is_none());
        save_stored(&state.stored_path(), &Stored::default()).unwrap();
        assert!(state.stored().unwrap().1.is_none());
        std::fs::write(state.stored_path(), b"nonsense").unwrap();
        assert!(
            state
                .stored()
                .unwrap()
                .1
                .unwrap()
                .contains("state.unusable")
        );
        assert!(directory.join("state.unusable").exists());
        std::fs::write(directory.join("network"), b"{}").unwrap();
        assert!(state.network().is_err());
    }
}
