//! Where everything is: built-in defaults, then the configuration file, the environment and flags.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// The configuration file, unless another is named.
pub const FILE: &str = "/etc/gatereeve/controller.toml";
const STATE_DIR: &str = "/var/lib/gatereeve-controller";
const SOCKET: &str = "/run/gatereeve-controller/admin.sock";
/// Both families, on the port that clients assume.
const LISTEN: &str = "[::]:8443";
/// Largest configuration file, in bytes.
const LIMIT: u64 = 64 * 1024;

/// The configuration file, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Keys, journal and tables.
    pub state_dir: Option<PathBuf>,
    /// The admin socket.
    pub socket: Option<PathBuf>,
    /// A group whose members may administrate.
    pub admin_group: Option<String>,
    /// UDP addresses where devices connect.
    pub listen: Option<Vec<SocketAddr>>,
    /// Logs as JSON.
    pub log_json: Option<bool>,
    /// Whether the daemon confines itself.
    pub sandbox: Option<bool>,
}

/// What flags and environment say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The configuration file; it must exist then.
    pub config: Option<PathBuf>,
    /// See [`RawConfig::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`RawConfig::socket`].
    pub socket: Option<PathBuf>,
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// See [`RawConfig::state_dir`].
    pub state_dir: PathBuf,
    /// See [`RawConfig::socket`].
    pub socket: PathBuf,
    /// See [`RawConfig::admin_group`].
    pub admin_group: Option<String>,
    /// See [`RawConfig::listen`]; at least one.
    pub listen: Vec<SocketAddr>,
    /// See [`RawConfig::log_json`].
    pub log_json: bool,
    /// See [`RawConfig::sandbox`].
    pub sandbox: bool,
}

impl Config {
    /// The configuration in force under these flags.
    ///
    /// # Errors
    /// The file that was named is not there, or a file is no configuration.
    pub fn load(overrides: Overrides) -> anyhow::Result<Self> {
        let raw = match &overrides.config {
            Some(path) => read(path)?
                .with_context(|| format!("there is no configuration file {}", path.display()))?,
            None => read(Path::new(FILE))?.unwrap_or_default(),
        };
        let listen = match raw.listen {
            Some(listen) if listen.is_empty() => {
                anyhow::bail!("`listen` in the configuration file names no address")
            }
            Some(listen) => listen,
            None => vec![LISTEN.parse().context("the default address is malformed")?],
        };
        let or = |flag: Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            flag.or(file).unwrap_or_else(|| PathBuf::from(default))
        };
        Ok(Self {
            state_dir: or(overrides.state_dir, raw.state_dir, STATE_DIR),
            socket: or(overrides.socket, raw.socket, SOCKET),
            admin_group: raw.admin_group,
            listen,
            log_json: raw.log_json.unwrap_or(false),
            sandbox: raw.sandbox.unwrap_or(true),
        })
    }
}

/// The file at `path`; `None` where there is none, or none that this user may read: a group member
/// can use the socket without it.
fn read(path: &Path) -> anyhow::Result<Option<RawConfig>> {
    let text = match std::fs::metadata(path).map(|meta| meta.len()) {
        Ok(length) if length > LIMIT => anyhow::bail!("{} is too long", path.display()),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => Ok(Some(toml::from_str(&text).with_context(|| {
            format!("{} is no valid configuration", path.display())
        })?)),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_file_says_the_defaults() {
        let packaged = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../packaging/config/controller.toml"
        );
        let raw = read(Path::new(packaged)).unwrap().unwrap();
        let defaults = RawConfig {
            state_dir: Some(STATE_DIR.into()),
            socket: Some(SOCKET.into()),
            admin_group: None,
            listen: Some(vec![LISTEN.parse().unwrap()]),
            log_json: Some(false),
            sandbox: Some(true),
        };
        assert_eq!(raw, defaults);
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("controller.toml");
        std::fs::write(
            &path,
            "state_dir = \"/a\"\nsocket = \"/b\"\nlisten = [\"[::1]:1\"]\n",
        )
        .unwrap();
        let config = Config::load(Overrides {
            config: Some(path.clone()),
            state_dir: Some("/c".into()),
            socket: None,
        })
        .unwrap();
        assert_eq!(config.state_dir, Path::new("/c"));
        assert_eq!(config.socket, Path::new("/b"));
        assert_eq!(config.listen, vec!["[::1]:1".parse().unwrap()]);
        for bad in ["listen = []", "no_such_key = 1", "listen = [\"x\"]"] {
            std::fs::write(&path, bad).unwrap();
            let overrides = Overrides {
                config: Some(path.clone()),
                ..Overrides::default()
            };
            assert!(Config::load(overrides).is_err(), "{bad}");
        }
        let missing = Overrides {
            config: Some(dir.path().join("none")),
            ..Overrides::default()
        };
        assert!(Config::load(missing).is_err());
    }
}
