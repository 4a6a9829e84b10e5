//! The host's side of taking part: TUN interface, addresses, routes and the data-path threads, made and
//! taken away together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::sync::mpsc;

use gatereeve_client_core::api::OffloadView;
use gatereeve_client_core::datapath::{DataPath, DataPathEvent};
use gatereeve_client_core::output::HostConfig;

use super::workers::{Shared, Workers};
use crate::routes::guard::Guard;
use crate::routes::linux::HostNetwork;
use crate::routes::{HostPlan, Place};
use crate::tun::linux::LinuxTun;
use crate::tun::{self, Tun};
use crate::udp::Udp;

/// What stands while the device takes part.
#[derive(Debug)]
struct Standing {
    // Dropped first: the threads hold the interface.
    workers: Workers,
    tun: Arc<LinuxTun>,
    plan: HostPlan,
    guard: Result<Guard, String>,
}

/// The host, as far as the daemon changes it.
#[derive(Debug)]
pub struct Host {
    tun: String,
    network: HostNetwork,
    offload: bool,
    udp: Arc<Udp>,
    events: mpsc::Sender<DataPathEvent>,
    broken: mpsc::Sender<String>,
    undelivered: Arc<AtomicU64>,
    standing: Option<Standing>,
}

impl Host {
    /// A host that nothing was done to yet. With `offload`, the interface `tun` leaves cutting and joining
    /// packets to the kernel.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn new(
        tun: &str,
        offload: bool,
        udp: Arc<Udp>,
        events: mpsc::Sender<DataPathEvent>,
        broken: mpsc::Sender<String>,
    ) -> Result<Self> {
        Ok(Self {
            tun: tun.to_owned(),
            network: HostNetwork::open(Place::of(tun))?,
            offload,
            udp,
            events,
            broken,
            undelivered: Arc::default(),
            standing: None,
        })
    }

    /// Makes the host what `wanted` says. Without addresses there is no interface, and the routes that
    /// fail closed stay: those of an earlier run before the first map, or of a device that was revoked.
    ///
    /// # Errors
    /// What could not be done; calling again tries again.
    pub async fn apply(&mut self, wanted: &HostConfig, datapath: &Arc<DataPath>) -> Result<()> {
        if !wanted.up {
            return self.take_down().await;
        }
        let (Some(addresses), Some(prefixes)) = (wanted.addresses, wanted.prefixes) else {
            self.stop();
            return Ok(());
        };
        let plan = HostPlan {
            tun: self.tun.clone(),
            mtu: u32::from(wanted.mtu),
            addresses,
            prefixes,
        };
        if let Some(standing) = &mut self.standing {
            if standing.plan != plan {
                self.network.apply(&plan).await?;
                tune(&self.network, &standing.tun, &plan).await;
                // The old table goes first: its name is taken for as long as it lives.
                standing.guard = Err("being replaced".into());
                standing.guard = guard(&plan);
                standing.plan = plan;
            }
            return Ok(());
        }
        let tun = Arc::new(LinuxTun::open(&self.tun, self.udp.workers(), self.offload)?);
        self.network.apply(&plan).await?;
        tune(&self.network, &tun, &plan).await;
        let workers = Workers::start(Shared {
            datapath: Arc::clone(datapath),
            tun: Arc::clone(&tun) as Arc<dyn Tun>,
            udp: Arc::clone(&self.udp),
            events: self.events.clone(),
            broken: self.broken.clone(),
            undelivered: Arc::clone(&self.undelivered),
        })?;
        tracing::info!(interface = tun.name(), "taking part");
        self.standing = Some(Standing {
            guard: guard(&plan),
            workers,
            tun,
            plan,
        });
        Ok(())
    }

    /// Stops the data path and takes the interface away; the routes that fail closed stay.
    pub fn stop(&mut self) {
        if let Some(standing) = self.standing.take() {
            drop(standing.workers);
            tracing::info!(interface = standing.tun.name(), "not taking part");
        }
    }

    /// Stops, and takes every route and rule of ours away.
    ///
    /// # Errors
    /// When the kernel refuses; what is left is named.
    pub async fn take_down(&mut self) -> Result<()> {
        self.stop();
        self.network.remove().await
    }

    /// What the host lacks of the protection it should have.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let problem = self.standing.as_ref()?.guard.as_ref().err()?;
        Some(format!(
            "packets for this device's overlay addresses that arrive outside the tunnel are not dropped ({problem}); \
             they get no answer, but a datagram may reach an application"
        ))
    }

    /// Packets lost between the data path and the host, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let refused = self.undelivered.load(Ordering::Relaxed);
        let of_tun = self
            .standing
            .iter()
            .flat_map(|standing| standing.tun.drops());
        of_tun.chain([("tun_refused", refused)])
    }

    /// What the kernel takes off the data path, while there is one.
    #[must_use]
    pub fn offloads(&self) -> Option<OffloadView> {
        let tun = &self.standing.as_ref()?.tun;
        let mut missing = tun.missing();
        missing.extend(self.udp.missing());
        if !self.offload {
            missing.push("offloads are switched off in client.toml".to_owned());
        }
        Some(OffloadView {
            tun: tun.offloads(),
            udp: self.udp.offloads(),
            workers: self.udp.workers(),
            missing,
        })
    }
}

/// Sets the limits of the interface's queue. What cannot be set costs speed, nothing else.
async fn tune(network: &HostNetwork, tun: &LinuxTun, plan: &HostPlan) {
    let longest = tun
        .offloads()
        .tso
        .then(|| tun::longest_super_packet(plan.mtu));
    if let Err(error) = network.tune(&plan.tun, tun::QUEUE_LENGTH, longest).await {
        tracing::info!(
            error = format!("{error:#}"),
            "the interface keeps its queue as it is"
        );
    }
}

/// Guards the addresses of `plan`, or says why not: the device takes part all the same, and warns.
fn guard(plan: &HostPlan) -> Result<Guard, String> {
    Guard::new(&plan.tun, &plan.addresses).map_err(|error| {
        let problem = format!("{error:#}");
        tracing::warn!(error = %problem, "the overlay addresses are not guarded on other interfaces");
        problem
    })
}
