//! The rights to make namespaces: as root, or in a user namespace of our own.

use std::fs;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::Namespace;

/// Makes sure that this process can make network namespaces and TUN devices in them. Where it is
/// not root it moves into a user namespace, in which it is. Call it first thing in `main`, before
/// any thread: the kernel moves only processes of one thread.
///
/// # Errors
/// What is missing, in words for a person.
pub fn acquire() -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        enter_user_namespace().context(
            "not root, and no user namespace to be had: run as root, or allow unprivileged user \
             namespaces (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
        )?;
    }
    let namespace = Namespace::new().context("network namespaces are not to be had here")?;
    namespace
        .run(|| {
            let tun = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/net/tun");
            tun.map(drop).context(
                "/dev/net/tun cannot be opened (modprobe tun; in a container, pass --device /dev/net/tun)",
            )
        })
        .context("TUN devices are not to be had here")
}

fn enter_user_namespace() -> anyhow::Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .context("unshare a user namespace")?;
    fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).context("uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).context("gid_map")?;
    if Uid::effective().is_root() {
        Ok(())
    } else {
        bail!("the user namespace did not make this process root")
    }
}
