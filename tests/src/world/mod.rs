//! A controller and devices, each in a network namespace of its own, with real binaries.
//!
//! Host 1 of the switch is the controller. Everything on disk is below one temporary directory.

mod controller;
pub mod device;
pub mod firewall;
pub mod host_state;
pub mod posture;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

pub use controller::ControllerHost;
pub use device::DeviceHost;

use crate::binaries::{Binaries, Profile};
use crate::interrupt;
use crate::netns::Namespace;
use crate::netns::links::{Switch, UnderlayAddresses};

/// How long anything may take that ought to take a moment. Generous: the machine may be busy, and a
/// test that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that a scenario plays on.
///
/// Fields are dropped in order: devices first, the directory last.
#[derive(Debug)]
pub struct World {
    /// The controller.
    pub controller: ControllerHost,
    /// The network below.
    pub switch: Switch,
    binaries: Binaries,
    hosts: u16,
    directory: tempfile::TempDir,
}

impl World {
    /// A controller that serves, and no devices yet.
    ///
    /// # Errors
    /// Where the binaries cannot be built, namespaces are not to be had, or the controller does not
    /// come up.
    pub fn new(profile: Profile) -> anyhow::Result<Self> {
        let binaries = Binaries::build(profile)?;
        // Paths of Unix sockets are short: the directory goes right below the temporary one.
        let directory = tempfile::Builder::new().prefix("gr-").tempdir()?;
        interrupt::register(directory.path().to_owned());
        let switch = Switch::new()?;
        let (namespace, underlay) = switch.connect(1)?;
        let mut controller = ControllerHost::new(
            binaries.controller.clone(),
            &directory.path().join("controller"),
            namespace,
            underlay,
        )?;
        controller.start()?;
        Ok(Self {
            controller,
            switch,
            binaries,
            hosts: 1,
            directory,
        })
    }

    /// A host on the switch with nothing on it.
    ///
    /// # Errors
    /// Where the kernel refuses a part of it.
    pub fn connect(&mut self) -> anyhow::Result<(Namespace, UnderlayAddresses)> {
        self.hosts += 1;
        self.switch.connect(self.hosts)
    }

    /// A host for a device called `name`, whose daemon runs and has not joined anything.
    ///
    /// # Errors
    /// Where the kernel refuses a part of it or the daemon does not come up.
    pub fn host(&mut self, name: &str) -> anyhow::Result<DeviceHost> {
        let mut device = self.idle_host(name)?;
        device.start().with_context(|| format!("start {name}"))?;
        Ok(device)
    }

    /// A host for a device called `name`, whose daemon does not run yet.
    ///
    /// # Errors
    /// Where the kernel refuses a part of it.
    pub fn idle_host(&mut self, name: &str) -> anyhow::Result<DeviceHost> {
        let (namespace, underlay) = self.connect()?;
        DeviceHost::new(
            name,
            self.binaries.client.clone(),
            &self.directory.path().join(name),
            namespace,
            underlay,
        )
    }

    /// A device called `name` that has joined by an invite with these options (such as `--tag
    /// tag:web`) and has its map.
    ///
    /// # Errors
    /// Where any of it fails.
    pub fn device(&mut self, name: &str, invite_options: &[&str]) -> anyhow::Result<DeviceHost> {
        let mut device = self.host(name)?;
        let invite = self.controller.cli.invite(invite_options)?;
        device
            .join(&invite)
            .with_context(|| format!("join {name}"))?;
        Ok(device)
    }

    /// The directory of everything on disk.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The programs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }
}
