//! The daemon confines itself, before it has a thread, a key or a socket.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use gatereeve_runtime::sandbox::{Access, Calls, Confinement, Files, Sandbox};

use super::program_pages::Tables;
use crate::config::Config;
use crate::helper::PreparedHelper;
use crate::posture::watch::Sight;

/// This program, even when its file was replaced by an upgrade.
const PROGRAM: &str = "/proc/self/exe";

/// A confined daemon, and what it needs others for.
#[derive(Debug)]
pub(super) struct Confined {
    pub(super) confinement: Confinement,
    /// Where there is no other collector, or no other way to look names up.
    pub(super) helper: Option<PreparedHelper>,
    /// Where they were found.
    pub(super) tables: Option<Tables>,
    /// Whose processes the daemon can look at.
    pub(super) sight: Sight,
}

/// Starts the helper where one is needed, and enters the sandbox.
///
/// # Errors
/// When the helper cannot be started, or the state directory cannot be made.
pub(super) fn confine(config: &Config) -> Result<Confined> {
    let tables = Tables::find();
    let is_root = nix::unistd::geteuid().is_root();
    // Directories can be granted only where they are.
    make(&config.state_dir, 0o700)?;
    if let Some(directory) = config.socket.parent() {
        make(directory, 0o755)?;
    }
    // Confined, the daemon has no TCP, which long answers of name servers take, and root cannot read what is
    // replaced below /etc (`Files::allow_look_ups`).
    let looks_up_alone = !config.sandbox;
    let helper = if config.posture_socket.exists() && looks_up_alone {
        None
    } else {
        // What is ambient would be the helper's, too; this process keeps what it has.
        rustix::thread::clear_ambient_capability_set()
            .context("cannot keep capabilities from the helper process")?;
        let spawned = PreparedHelper::spawn(Path::new(PROGRAM), &config.config_dir);
        Some(spawned.context("cannot start the daemon's helper process")?)
    };
    let confinement = if config.sandbox {
        sandbox(config, is_root).enter()
    } else {
        Confinement::switched_off()
    };
    // Landlock keeps a confined process from looking at others, whatever its rights.
    let sees_all = confinement.landlock.is_none() && std::fs::read_link("/proc/1/exe").is_ok();
    Ok(Confined {
        confinement,
        helper,
        tables,
        sight: if sees_all { Sight::All } else { Sight::Own },
    })
}

/// The sandbox of a daemon with this configuration.
#[must_use]
pub fn sandbox(config: &Config, is_root: bool) -> Sandbox {
    let mut files = Files::none()
        .allow(&config.state_dir, Access::Write)
        .allow(&config.config_dir, Access::Read)
        .allow("/dev/net/tun", Access::Device)
        .allow("/proc", Access::List)
        .allow("/proc/self", Access::Read)
        // Which address families there are.
        .allow_if_there("/proc/sys/net", Access::Read)
        // How many processors the daemon may use.
        .allow_if_there("/sys/fs/cgroup", Access::Read)
        .allow_look_ups(is_root);
    if let Some(directory) = config.socket.parent() {
        files = files.allow(directory, Access::Sockets);
    }
    if let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        files = files.allow_if_there(directory, Access::Read);
    }
    Sandbox {
        files,
        calls: Calls::Client,
    }
}

fn make(directory: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))
}
