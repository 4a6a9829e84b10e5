//! Gatereeve as it is used: a controller, two daemons that join by invites, and a policy that lets
//! each reach the other. The controller is on the left host.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use gatereeve_tests::binaries::Binaries;
use gatereeve_tests::clock::wait_for;
use gatereeve_tests::world::{ControllerHost, DeviceHost, PATIENCE};
use gatereeve_tests::{interrupt, strangers};

use super::{Guard, PORT, Running};
use crate::arguments::Arguments;
use crate::pair::{Host, Pair};

/// Fields are dropped in order: daemons first, the directory last.
struct Network {
    devices: Vec<DeviceHost>,
    controller: ControllerHost,
    _directory: TempDir,
}

impl Guard for Network {
    fn last_words(&self) -> String {
        let logs = self.devices.iter().map(DeviceHost::log_tail);
        let all: Vec<String> = logs.chain([self.controller.log_tail()]).collect();
        all.join("\n")
    }

    fn status(&self) -> Option<Value> {
        let all = self.devices.iter().map(|device| {
            let status = device.status().ok();
            json!({ "device": device.name, "status": status })
        });
        Some(all.collect())
    }
}

pub(super) fn start(
    binaries: &Binaries,
    settings: &str,
    pair: &Pair,
    arguments: &Arguments,
) -> anyhow::Result<Running> {
    // Paths of Unix sockets are short: the directory goes right below the temporary one.
    let directory = tempfile::Builder::new().prefix("gr-").tempdir()?;
    interrupt::register(directory.path().to_owned());
    let mut controller = ControllerHost::new(
        binaries.controller.clone(),
        &directory.path().join("controller"),
        pair.left.namespace.clone(),
        pair.left.underlay,
    )?;
    controller.start()?;
    let mut network = Network {
        devices: Vec::new(),
        controller,
        _directory: directory,
    };
    for (name, host) in ["left", "right"].into_iter().zip(pair.hosts()) {
        network.add(binaries, settings, name, host)?;
    }
    let cli = &network.controller.cli;
    let strangers = arguments.peers.saturating_sub(1);
    if strangers > 0 {
        let uses = strangers.to_string();
        let invite = cli.invite(&["--tag", "tag:stranger", "--uses", &uses])?;
        strangers::enroll(&pair.left.namespace, &invite, strangers)?;
    }
    let committed = cli.apply(&policy(), &["--wait"])?;
    ensure!(committed.unconfirmed.is_empty(), "{committed:?}");
    network.running(arguments.peers)
}

impl Network {
    fn add(
        &mut self,
        binaries: &Binaries,
        settings: &str,
        name: &str,
        host: &Host,
    ) -> anyhow::Result<()> {
        let mut device = DeviceHost::new(
            name,
            binaries.client.clone(),
            &self.directory().join(name),
            host.namespace.clone(),
            host.underlay,
        )?;
        device.configure(settings)?;
        device.start().with_context(|| format!("start {name}"))?;
        let tag = format!("tag:{name}");
        let invite = self.controller.cli.invite(&["--tag", &tag])?;
        device
            .join(&invite)
            .with_context(|| format!("join {name}"))?;
        self.devices.push(device);
        Ok(())
    }

    fn directory(&self) -> &Path {
        self._directory.path()
    }

    /// Checks that both know as many peers as they should and have not spoken yet.
    fn running(self, count: u16) -> anyhow::Result<Running> {
        let [left, right] = &self.devices[..] else {
            anyhow::bail!("two devices are needed");
        };
        for device in [left, right] {
            let peers = wait_for("its peers", PATIENCE, || {
                let peers = device.peers()?;
                Ok((peers.len() == usize::from(count)).then_some(peers))
            })?;
            let spoken = peers.iter().any(|peer| peer.last_handshake_secs.is_some());
            ensure!(!spoken, "{} had a handshake before any packet", device.name);
        }
        let (a, b) = (left.addresses()?, right.addresses()?);
        let processes = [left, right].map(|device| device.process().map(|process| process.id()));
        Ok(Running {
            v4: [a.v4, b.v4],
            v6: Some([a.v6, b.v6]),
            daemons: processes.into_iter().flatten().collect(),
            guards: vec![Box::new(self)],
        })
    }
}

/// Lets the test traffic pass both ways, has both know the strangers, and allows nothing else.
fn policy() -> String {
    let rule = |id: &str, from: &str, to: &str, ports: &str| {
        format!(
            "[[allow]]\nid = \"{id}\"\nfrom = [\"tag:{from}\"]\nto = [\"tag:{to}\"]\nports = [{ports}]\n"
        )
    };
    let ports = format!("\"tcp:{PORT}\", \"udp:{PORT}\", \"icmp\"");
    let tags = ["left", "right", "stranger"].map(|tag| format!("[tags.\"tag:{tag}\"]\n"));
    let rules = [
        rule("there", "left", "right", &ports),
        rule("back", "right", "left", &ports),
        rule("left-to-strangers", "left", "stranger", "\"icmp\""),
        rule("strangers-to-right", "stranger", "right", "\"icmp\""),
    ];
    format!("version = 1\n{}{}", tags.concat(), rules.concat())
}
