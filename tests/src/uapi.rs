//! A userspace WireGuard as a child process, configured over its own interface: the text protocol
//! that `wireguard-go`, `boringtun-cli` and `gotatun` share.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::clock::wait_for;
use crate::netns::Namespace;
use crate::netns::links;
use crate::process::{Process, Setting};

/// The tunnel interface of every such program; each is alone in its namespace.
pub const INTERFACE: &str = "wg0";
/// Where they put their sockets (as `/var/run`, which is a link that would lead out of their mount
/// namespace), whatever network namespace they are in.
const SOCKETS: &str = "/run/wireguard";
const LIMIT: Duration = Duration::from_secs(20);
/// Most bytes of an answer that are read.
const MOST: usize = 16 << 20;

/// A running userspace WireGuard.
#[derive(Debug)]
pub struct UserspaceWireGuard {
    process: Process,
    label: &'static str,
}

impl UserspaceWireGuard {
    /// Starts `program` with `arguments`, which have to make it create [`INTERFACE`] and stay in the
    /// foreground, and waits until it listens.
    ///
    /// # Errors
    /// Where it cannot be started or does not come to listen.
    pub fn start(
        label: &'static str,
        program: &Path,
        arguments: &[&str],
        namespace: &Namespace,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(SOCKETS).or_else(|error| {
            // It may be there, and not ours to make.
            if Path::new(SOCKETS).is_dir() {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        let mut command = Command::new(program);
        // Some explain at length that the kernel's own would be quicker.
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let setting = Setting {
            namespace: Some(namespace.clone()),
            hostname: None,
            private_directory: Some(SOCKETS.into()),
            ..Setting::default()
        };
        let mut process = Process::start_in(setting, label, command, None)?;
        let socket = socket_of(process.id());
        wait_for(&format!("the socket of {label}"), LIMIT, || {
            ensure!(process.is_running(), "{label} has ended");
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        Ok(Self { process, label })
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Says something over its interface and returns the answer.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn talk(&self, text: &str) -> anyhow::Result<String> {
        let path = socket_of(self.process.id());
        let mut stream = UnixStream::connect(&path).with_context(|| path.display().to_string())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"\n\n") {
            let length = stream.read(&mut buffer)?;
            let so_far = || String::from_utf8_lossy(&answer).into_owned();
            ensure!(length > 0, "{} hung up: {}", self.label, so_far());
            ensure!(answer.len() < MOST, "{} does not stop", self.label);
            answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Configures it: lines of `key=value`, keys as in `wg`'s cross-platform interface.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn set(&self, lines: &str) -> anyhow::Result<()> {
        let answer = self.talk(&format!("set=1\n{}\n\n", lines.trim_end()))?;
        ensure!(answer.contains("errno=0"), "{}: {answer}", self.label);
        Ok(())
    }

    /// Seconds since the epoch of the last handshake with any peer; 0 for none.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn last_handshake(&self) -> anyhow::Result<u64> {
        let answer = self.talk("get=1\n\n")?;
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("last_handshake_time_sec="))
            .try_fold(0, |last: u64, line| Ok(last.max(line.parse()?)))
    }
}

/// Gives the tunnel interface in `namespace` its addresses and MTU, and sets it up.
///
/// # Errors
/// Where the kernel refuses.
pub fn bring_up(namespace: &Namespace, addresses: &[(IpAddr, u8)], mtu: u32) -> anyhow::Result<()> {
    namespace.netlink(async |netlink| {
        let index = links::index(&netlink, INTERFACE).await?;
        for (address, prefix) in addresses {
            netlink
                .address()
                .add(index, *address, *prefix)
                .execute()
                .await
                .with_context(|| format!("add {address}"))?;
        }
        let up = rtnetlink::LinkUnspec::new_with_index(index).mtu(mtu).up();
        netlink
            .link()
            .set(up.build())
            .execute()
            .await
            .context("set it up")
    })
}

/// A key as the interface writes it.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Its socket, seen through the process's own mount namespace.
fn socket_of(process: u32) -> PathBuf {
    Path::new("/proc")
        .join(process.to_string())
        .join("root")
        .join(SOCKETS.trim_start_matches('/'))
        .join(format!("{INTERFACE}.sock"))
}
