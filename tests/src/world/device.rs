//! A device's host.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};

use gatereeve_client_core::api::{
    Connection, FlowView, LocalReply, PeerView, RepairView, StatusView, WhyView,
};
use gatereeve_shared::generation::Generation;
use gatereeve_shared::wire::map::OverlayAddresses;

use super::{PATIENCE, firewall};
use crate::cli::{self, DeviceCli, Finished};
use crate::clock::wait_for;
use crate::netns::Namespace;
use crate::netns::links::UnderlayAddresses;
use crate::process::{self, Process, Setting};
use crate::rights::{Rights, tun_for_everybody};

/// UDP port of every device's WireGuard socket.
pub const WIREGUARD_PORT: u16 = 51820;
/// The TUN interface of every device.
pub const TUN: &str = "gatereeve0";

/// A device's daemon with its state, in its namespace.
#[derive(Debug)]
pub struct DeviceHost {
    /// What its host calls itself, and so its name in the network.
    pub name: String,
    /// Its command line.
    pub cli: DeviceCli,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its addresses on the underlay.
    pub underlay: UnderlayAddresses,
    daemon: Option<Process>,
    addresses: Option<OverlayAddresses>,
    directory: PathBuf,
    rights: Option<Rights>,
}

impl DeviceHost {
    /// Not started, with its configuration below `directory`.
    ///
    /// # Errors
    /// Where that cannot be made.
    pub fn new(
        name: &str,
        program: PathBuf,
        directory: &Path,
        namespace: Namespace,
        underlay: UnderlayAddresses,
    ) -> anyhow::Result<Self> {
        let facts = directory.join("config/facts.d");
        std::fs::create_dir_all(&facts)?;
        // The product takes facts only from a directory that others cannot write to.
        std::fs::set_permissions(&facts, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            name: name.to_owned(),
            cli: DeviceCli {
                program,
                socket: directory.join("d.sock"),
            },
            namespace,
            underlay,
            daemon: None,
            addresses: None,
            directory: directory.to_owned(),
            rights: None,
        })
    }

    /// Runs the daemon with these rights from its next start on.
    ///
    /// # Errors
    /// Where its directory cannot be given away.
    pub fn run_as(&mut self, rights: Rights) -> anyhow::Result<()> {
        rights.own(&self.directory)?;
        self.cli.program = Rights::reach(&self.cli.program, &self.directory)?;
        self.rights = Some(rights);
        Ok(())
    }

    /// Where the daemon looks for a posture collector.
    #[must_use]
    pub fn posture_socket(&self) -> PathBuf {
        self.directory.join("posture.sock")
    }

    /// The command that runs this device's daemon.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(&self.cli.program);
        command
            .arg("daemon")
            .arg("--state-dir")
            .arg(self.directory.join("state"))
            .arg("--socket")
            .arg(&self.cli.socket)
            .args(["--tun", TUN, "--listen", &WIREGUARD_PORT.to_string()])
            .arg("--config-dir")
            .arg(self.directory.join("config"))
            .arg("--posture-socket")
            .arg(self.posture_socket());
        match &self.rights {
            Some(rights) => rights.limit(&command),
            None => command,
        }
    }

    /// Starts the daemon and waits until it answers.
    ///
    /// # Errors
    /// Where it does not; with the end of its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = self.directory.join("log");
        let tun_node = match self.rights {
            Some(_) => Some(tun_for_everybody(&self.directory.join("tun"))?),
            None => None,
        };
        let setting = Setting {
            namespace: Some(self.namespace.clone()),
            hostname: Some(self.name.clone()),
            private_directory: None,
            tun_node,
        };
        let command = self.daemon_command();
        let daemon = Process::start_in(setting, "gatereeve daemon", command, Some(&log))?;
        let daemon = self.daemon.insert(daemon);
        let cli = &self.cli;
        wait_for("the daemon to answer", PATIENCE, || {
            if !daemon.is_running() {
                bail!("it has ended");
            }
            cli.ask(&["status"]).map(Some)
        })
        .map(drop)
        .map_err(|error| error.context(self.log_tail()))
    }

    /// Joins by an invite and waits for the map.
    ///
    /// # Errors
    /// Where the device is not let in or gets no map.
    pub fn join(&mut self, invite: &str) -> anyhow::Result<()> {
        self.cli
            .ask(&["join", invite])
            .with_context(|| self.log_tail())?;
        let status = self.wait_until("it has its map", |status| {
            status.connection == Connection::Synced && status.enforced.is_some()
        })?;
        self.addresses = status.addresses;
        Ok(())
    }

    /// Kills the daemon as power loss would.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Asks the daemon to end.
    ///
    /// # Errors
    /// Where it does not within the time given.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        daemon.stop(Duration::from_secs(15)).map(drop)
    }

    /// The daemon, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.daemon.as_ref()
    }

    /// Its overlay addresses.
    ///
    /// # Errors
    /// Where it has not joined.
    pub fn addresses(&self) -> anyhow::Result<OverlayAddresses> {
        self.addresses.context("the device has not joined")
    }

    /// Its overlay IPv4 address with a port.
    ///
    /// # Errors
    /// Where it has not joined.
    pub fn v4(&self, port: u16) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(IpAddr::V4(self.addresses()?.v4), port))
    }

    /// Its overlay IPv6 address with a port.
    ///
    /// # Errors
    /// Where it has not joined.
    pub fn v6(&self, port: u16) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(IpAddr::V6(self.addresses()?.v6), port))
    }

    /// Runs a command of this device's program on this host, where it sees what the daemon would.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run_here(&self, arguments: &[&str]) -> anyhow::Result<Finished> {
        let mut command = Command::new(&self.cli.program);
        command
            .args(arguments)
            .arg("--json")
            .arg("--socket")
            .arg(&self.cli.socket)
            .env("GATEREEVE_STATE_DIR", self.directory.join("state"))
            .env("GATEREEVE_CONFIG_DIR", self.directory.join("config"))
            .env("GATEREEVE_TUN", TUN);
        let setting = Setting {
            namespace: Some(self.namespace.clone()),
            ..Setting::default()
        };
        process::prepare(&mut command, setting);
        cli::run(command)
    }

    /// `repair` with these options.
    ///
    /// # Errors
    /// Where it fails.
    pub fn repair(&self, options: &[&str]) -> anyhow::Result<RepairView> {
        let arguments = [&["repair"], options].concat();
        let reply = self.run_here(&arguments)?.json(&[0])?;
        if let LocalReply::Repair(view) = reply {
            Ok(view)
        } else {
            Err(anyhow!("repair answered {reply:?}"))
        }
    }

    /// `status`.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn status(&self) -> anyhow::Result<StatusView> {
        let reply = self.cli.ask(&["status"])?;
        if let LocalReply::Status(status) = reply {
            Ok(*status)
        } else {
            Err(anyhow!("status answered {reply:?}"))
        }
    }

    /// `peers`.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn peers(&self) -> anyhow::Result<Vec<PeerView>> {
        let reply = self.cli.ask(&["peers"])?;
        if let LocalReply::Peers { peers } = reply {
            Ok(peers)
        } else {
            Err(anyhow!("peers answered {reply:?}"))
        }
    }

    /// `flows`, all there are.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn flows(&self) -> anyhow::Result<Vec<FlowView>> {
        let reply = self.cli.ask(&["flows", "-n", "1000"])?;
        if let LocalReply::Flows { flows, tracked } = reply {
            ensure!(flows.len() == tracked, "{tracked} flows, not all listed");
            Ok(flows)
        } else {
            Err(anyhow!("flows answered {reply:?}"))
        }
    }

    /// `why`; a destination is `web:22`, `web:udp:53` or `web:icmp`. A denial is an answer too.
    ///
    /// # Errors
    /// Where the command fails.
    pub fn why(&self, destination: &str) -> anyhow::Result<WhyView> {
        // 3 is the status of a denial.
        let reply = self.cli.run(&["why", destination])?.json(&[0, 3])?;
        if let LocalReply::Why(view) = reply {
            Ok(view)
        } else {
            Err(anyhow!("why answered {reply:?}"))
        }
    }

    /// Waits until its status is as `wanted`.
    ///
    /// # Errors
    /// Where it does not come to that; with the status and the end of its log.
    pub fn wait_until(
        &self,
        what: &str,
        wanted: impl Fn(&StatusView) -> bool,
    ) -> anyhow::Result<StatusView> {
        let mut last = None;
        let name = &self.name;
        wait_for(&format!("{name}: {what}"), PATIENCE, || {
            let status = self.status()?;
            let is_as_wanted = wanted(&status);
            last = Some(status.clone());
            Ok(is_as_wanted.then_some(status))
        })
        .map_err(|error| error.context(format!("{last:?}\n{}", self.log_tail())))
    }

    /// Waits until the data path enforces `generation` or a later one.
    ///
    /// # Errors
    /// Where it does not come to that.
    pub fn wait_enforced(&self, generation: Generation) -> anyhow::Result<StatusView> {
        self.wait_until(&format!("it enforces {generation}"), |status| {
            status.enforced.is_some_and(|held| held >= generation)
        })
    }

    /// Writes the daemon's configuration file, for its next start.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn configure(&self, toml: &str) -> anyhow::Result<()> {
        std::fs::write(self.directory.join("config/client.toml"), toml)?;
        Ok(())
    }

    /// Provides a fact, as the machine's administrator does.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_facts(&self, json: &str) -> anyhow::Result<()> {
        let path = self.directory.join("config/facts.d/facts.json");
        let new = self.directory.join("facts.new");
        std::fs::write(&new, json)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
        std::fs::rename(new, path)?;
        Ok(())
    }

    /// Loads a firewall that drops what nobody asked for into this host's namespace.
    ///
    /// # Errors
    /// Where `nft` fails.
    pub fn raise_firewall(&self) -> anyhow::Result<()> {
        firewall::raise(&self.namespace)
    }

    /// Flushes this host's firewall, as a careless user would.
    ///
    /// # Errors
    /// Where `nft` fails.
    pub fn flush_firewall(&self) -> anyhow::Result<()> {
        firewall::flush(&self.namespace)
    }

    /// The directory of its state, configuration and log.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default();
        format!("{} log:\n{}", self.name, tail.join("\n"))
    }
}
