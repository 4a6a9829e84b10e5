//! Daemons as somebody with few rights, as their units run them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};

use crate::suite::Skip;

/// Who somebody is, and what else they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// User and group, by number: the user need not exist.
    pub user: u32,
    /// Capabilities, in `setpriv`'s spelling.
    pub capabilities: &'static [&'static str],
}

impl Rights {
    /// The command, run with these rights and no way to more.
    #[must_use]
    pub fn limit(&self, command: &Command) -> Command {
        let user = self.user.to_string();
        let capabilities: String = self
            .capabilities
            .iter()
            .map(|capability| format!(",+{capability}"))
            .collect();
        let mut limited = Command::new("setpriv");
        limited
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg(format!("--inh-caps=-all{capabilities}"))
            .arg(format!("--ambient-caps=-all{capabilities}"))
            .arg(format!("--bounding-set=-all{capabilities}"))
            .args(["--no-new-privs", "--pdeathsig", "keep", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        limited
    }

    /// The program where these users can get at it: a clone may lie in somebody's home.
    ///
    /// # Errors
    /// Where it cannot be put into `directory`.
    pub fn reach(program: &Path, directory: &Path) -> anyhow::Result<PathBuf> {
        let name = program.file_name().context("a program has a name")?;
        let there = directory.join(name);
        if !there.exists() && std::fs::hard_link(program, &there).is_err() {
            std::fs::copy(program, &there).context("copy a program")?;
        }
        Ok(there)
    }

    /// Makes `directory` theirs, and lets them get there.
    ///
    /// # Errors
    /// Where it cannot be given away.
    pub fn own(&self, directory: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.user));
        chown(directory, Some(user), Some(group))
            .with_context(|| format!("give {} away", directory.display()))?;
        if let Some(above) = directory.parent() {
            std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Makes `directory` and all below it theirs.
    ///
    /// # Errors
    /// Where it cannot be given away.
    pub fn own_all(&self, directory: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                self.own_all(&path)?;
            } else {
                let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.user));
                chown(&path, Some(user), Some(group))?;
            }
        }
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.user));
        chown(directory, Some(user), Some(group))?;
        Ok(())
    }
}

/// Users can be changed only by somebody who is root outside of every user namespace.
///
/// # Errors
/// [`Skip`] where this is not so.
pub fn needs_users() -> anyhow::Result<()> {
    let map = std::fs::read_to_string("/proc/self/uid_map")?;
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    if Uid::effective().is_root() && is_whole {
        Ok(())
    } else {
        Err(Skip("users can be changed by the host's root only".into()).into())
    }
}

/// A device node for TUN that everybody may open, as udev makes it, at `path`.
///
/// # Errors
/// Where nodes cannot be made.
pub fn tun_for_everybody(path: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    if !path.exists() {
        mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200)).context("make a TUN node")?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(path.to_owned())
}

/// What the kernel says of a process and each of its threads, in `/proc/PID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Effective user.
    pub user: u32,
    /// Effective, permitted and bounding capabilities, as bits.
    pub capabilities: [u64; 3],
    /// Whether it can get no more rights.
    pub no_new_privileges: bool,
    /// 2 where system calls are filtered.
    pub seccomp: u32,
}

impl Standing {
    /// Of the process, which all its threads must share.
    ///
    /// # Errors
    /// Where it is gone, or threads differ.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end meanwhile.
            if let Ok(text) = std::fs::read_to_string(task?.path().join("status")) {
                all.push(Self::read(&text)?);
            }
        }
        let first = all.first().context("no thread")?.clone();
        ensure!(
            all.iter().all(|one| *one == first),
            "threads differ: {all:?}"
        );
        Ok(first)
    }

    fn read(status: &str) -> anyhow::Result<Self> {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .with_context(|| format!("no {name}"))
        };
        let bits = |name| Ok::<_, anyhow::Error>(u64::from_str_radix(field(name)?, 16)?);
        let user = field("Uid")?.split_whitespace().nth(1);
        Ok(Self {
            user: user.context("no effective user")?.parse()?,
            capabilities: [bits("CapEff")?, bits("CapPrm")?, bits("CapBnd")?],
            no_new_privileges: field("NoNewPrivs")? == "1",
            seccomp: field("Seccomp")?.parse()?,
        })
    }
}
