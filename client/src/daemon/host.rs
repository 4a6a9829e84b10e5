//! The host's side of taking part: TUN interface, addresses, routes and the data-path threads, made and
//! taken away together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::sync::mpsc;

use gatereeve_client_core::api::{BlackholeView, NamesState, NamesView, OffloadView};
use gatereeve_client_core::datapath::{DataPath, DataPathEvent};
use gatereeve_client_core::dns;
use gatereeve_client_core::output::HostConfig;

use super::ping::Pinger;
use super::workers::{Shared, Workers};
use crate::config::{Config, Names};
use crate::dns::Link;
use crate::dns::keeper::Keeper;
use crate::routes::guard::Guard;
use crate::routes::interfaces::NetworkView;
use crate::routes::linux::{self, HostNetwork};
use crate::routes::netlink::NetworkThread;
use crate::routes::overlap::Overlap;
use crate::routes::underlay::overlay_mtu;
use crate::routes::{HostPlan, Place, survey};
use crate::tun::linux::LinuxTun;
use crate::tun::{self, Tun};
use crate::udp::Udp;
use gatereeve_runtime::words::in_words;

/// What stands while the device takes part.
#[derive(Debug)]
struct Standing {
    // Dropped first: the threads hold the interface.
    workers: Workers,
    tun: Arc<LinuxTun>,
    plan: HostPlan,
    guard: Result<Guard, String>,
    /// What the host's resolver is to know.
    names: Option<Link>,
    /// A controller whose own name is in the domain, so that nobody is told to ask for it here.
    shadowed: Option<String>,
    /// What the threads say of their end. Goes with them: the word of one that is gone is about nothing any more.
    broken: mpsc::Receiver<String>,
}

/// The host, as far as the daemon changes it.
#[derive(Debug)]
pub struct Host {
    tun: String,
    /// Does what waits for the kernel.
    thread: NetworkThread,
    network: HostNetwork,
    offload: bool,
    udp: Arc<Udp>,
    events: mpsc::Sender<DataPathEvent>,
    undelivered: Arc<AtomicU64>,
    overlap: Overlap,
    /// What the way out of this host carries, in bytes, where that is known.
    underlay_mtu: Option<u32>,
    /// What of names is told to the host's resolver, and who tells it.
    names: (Names, Keeper),
    /// What stands is to be compared with the kernel's word, even if nothing else is wanted.
    is_suspect: bool,
    /// Times that something of ours had gone, and what was put back last.
    put_back: (u64, Vec<String>),
    blackhole: Option<BlackholeView>,
    standing: Option<Standing>,
}

impl Host {
    /// A host that nothing was done to yet, and that `thread` is to change.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn new(
        config: &Config,
        thread: NetworkThread,
        keeper: Keeper,
        udp: Arc<Udp>,
        events: mpsc::Sender<DataPathEvent>,
    ) -> Result<Self> {
        Ok(Self {
            tun: config.tun.clone(),
            network: HostNetwork::open(&thread, Place::of(&config.tun))?,
            thread,
            offload: config.offload,
            names: (config.names, keeper),
            udp,
            events,
            undelivered: Arc::default(),
            overlap: Overlap::default(),
            underlay_mtu: None,
            is_suspect: false,
            put_back: (0, Vec::new()),
            blackhole: None,
            standing: None,
        })
    }

    /// Takes what of the host's own lies within the overlay; whether [`Self::apply`] has something to do.
    pub fn set_overlap(&mut self, overlap: Overlap) -> bool {
        let is_new = self.overlap != overlap;
        self.overlap = overlap;
        is_new && self.standing.is_some()
    }

    /// Takes what the way out carries; whether [`Self::apply`] has something to do.
    pub fn set_underlay_mtu(&mut self, mtu: Option<u32>) -> bool {
        let is_new = self.underlay_mtu != mtu;
        self.underlay_mtu = mtu;
        is_new && self.standing.is_some()
    }

    /// The MTU of the interface, while there is one.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        self.standing.as_ref().map(|standing| standing.plan.mtu)
    }

    /// Something of ours may have gone; whether [`Self::apply`] has something to do.
    pub fn suspect(&mut self) -> bool {
        self.is_suspect = self.standing.is_some();
        self.is_suspect
    }

    /// Makes the host what `wanted` says, and says in words what was changed. Without addresses there is no
    /// interface, and the routes that fail closed stay: those of an earlier run before the first map, or of a
    /// device that was revoked.
    ///
    /// # Errors
    /// What could not be done; calling again tries again.
    pub async fn apply(
        &mut self,
        wanted: &HostConfig,
        controllers: &[String],
        datapath: &Arc<DataPath>,
    ) -> Result<Vec<String>> {
        if !wanted.up {
            return self.take_down().await;
        }
        let (Some(addresses), Some(prefixes)) = (wanted.addresses, wanted.prefixes) else {
            self.stop().await;
            return Ok(Vec::new());
        };
        if self
            .standing
            .as_ref()
            .is_some_and(|standing| !standing.tun.is_in_place())
        {
            tracing::warn!(
                interface = self.tun,
                "the TUN interface is gone, renamed or moved; making it again"
            );
            self.stop().await;
        }
        let mut plan = HostPlan {
            tun: self.tun.clone(),
            mtu: overlay_mtu(self.underlay_mtu, u32::from(wanted.mtu)),
            addresses,
            prefixes,
            overlap: self.overlap.clone(),
        };
        let changes = if let Some(standing) = &mut self.standing {
            let old = &standing.plan;
            if (old.addresses, old.prefixes) != (plan.addresses, plan.prefixes) {
                let old = std::mem::replace(&mut standing.guard, Err("being replaced".into()));
                standing.guard = guard(&self.thread, &plan, Some(old)).await;
            }
            // A neighbour must not reach an overlay address past the tunnel: without the guard, no network of
            // the host's is let be.
            if standing.guard.is_err() {
                plan.overlap = Overlap::default();
            }
            let is_same = standing.plan == plan;
            if is_same && !self.is_suspect {
                self.tell_resolver(wanted, controllers);
                return Ok(Vec::new());
            }
            let changes = self.network.apply(&plan).await?;
            tune(&self.network, &standing.tun, &plan).await;
            if standing.plan.mtu != plan.mtu {
                let (before, mtu) = (standing.plan.mtu, plan.mtu);
                tracing::info!(
                    before,
                    mtu,
                    underlay = self.underlay_mtu,
                    "the way out of this host is another"
                );
            }
            standing.plan = plan.clone();
            if is_same && !changes.is_empty() {
                tracing::warn!(
                    ?changes,
                    "something on this host has removed routes or rules of ours"
                );
                self.put_back = (self.put_back.0 + 1, changes.clone());
            }
            self.names.1.suspect();
            changes
        } else {
            self.set_up(&mut plan, datapath).await?
        };
        self.is_suspect = false;
        self.tell_resolver(wanted, controllers);
        self.blackhole = Some(BlackholeView {
            table: Place::of(&self.tun).table,
            prefixes: survey::blackhole(&plan),
        });
        Ok(changes)
    }

    /// Has the host's resolver told what it does not know yet of the interface that stands.
    fn tell_resolver(&mut self, wanted: &HostConfig, controllers: &[String]) {
        let (names, keeper) = &self.names;
        let (Some(standing), Some(domain)) = (&mut self.standing, &wanted.domain) else {
            return;
        };
        let search = *names == Names::Search;
        let link = Link::new(&self.tun, domain, &standing.plan.prefixes, search);
        let shadowed = controllers
            .iter()
            .find(|controller| link.covers(controller));
        let is_new = standing.names.as_ref() != Some(&link);
        if is_new && *names != Names::Off {
            keeper.want(shadowed.is_none().then(|| link.clone()));
        }
        standing.shadowed = shadowed.cloned();
        standing.names = Some(link);
    }

    /// Names of devices, while there are any.
    #[must_use]
    pub fn names(&self) -> Option<NamesView> {
        let standing = self.standing.as_ref()?;
        let (names, keeper) = &self.names;
        let (state, problem) = match (names, &standing.shadowed) {
            (Names::Off, _) => (NamesState::Off, None),
            (_, Some(controller)) => (
                NamesState::Off,
                Some(format!(
                    "the controller {controller} has a name in it, which would not be found any more"
                )),
            ),
            (Names::Whole | Names::Search, None) => keeper.state(),
        };
        Some(NamesView {
            domain: standing.names.as_ref()?.domain.clone(),
            resolver: dns::resolver(&standing.plan.prefixes),
            state,
            problem,
        })
    }

    /// Makes the interface and all that belongs to it.
    async fn set_up(
        &mut self,
        plan: &mut HostPlan,
        datapath: &Arc<DataPath>,
    ) -> Result<Vec<String>> {
        let (name, workers, offload) = (self.tun.clone(), self.udp.workers(), self.offload);
        let open = move || LinuxTun::open(&name, workers, offload);
        let tun = Arc::new(self.thread.run(open).await??);
        let guard = guard(&self.thread, plan, None).await;
        if guard.is_err() {
            plan.overlap = Overlap::default();
        }
        match self.prepare(&tun, plan, datapath).await {
            Ok((workers, broken, changes)) => {
                tracing::info!(interface = tun.name(), "taking part");
                self.standing = Some(Standing {
                    guard,
                    workers,
                    tun,
                    plan: plan.clone(),
                    names: None,
                    shadowed: None,
                    broken,
                });
                Ok(changes)
            }
            Err(error) => {
                let gone = self.thread.run(move || drop((tun, guard))).await;
                gone.and(Err(error))
            }
        }
    }

    /// Makes what leads into `tun`, and begins to move packets.
    async fn prepare(
        &self,
        tun: &Arc<LinuxTun>,
        plan: &HostPlan,
        datapath: &Arc<DataPath>,
    ) -> Result<(Workers, mpsc::Receiver<String>, Vec<String>)> {
        let changes = self.network.apply(plan).await?;
        tune(&self.network, tun, plan).await;
        let (told, broken) = mpsc::channel(1);
        let workers = Workers::start(Shared {
            datapath: Arc::clone(datapath),
            tun: Arc::clone(tun) as Arc<dyn Tun>,
            udp: Arc::clone(&self.udp),
            events: self.events.clone(),
            broken: told,
            undelivered: Arc::clone(&self.undelivered),
            echo: Arc::default(),
        })?;
        Ok((workers, broken, changes))
    }

    /// Waits until the data path that stands is broken, and says how.
    pub async fn broken(&mut self) -> String {
        if let Some(standing) = &mut self.standing
            && let Some(told) = standing.broken.recv().await
        {
            return told;
        }
        std::future::pending().await
    }

    /// A table was published.
    pub fn table_changed(&self) {
        if let Some(standing) = &self.standing {
            standing.workers.nudge_timers();
        }
    }

    /// Stops the data path and takes the interface away; the routes that fail closed stay.
    pub async fn stop(&mut self) {
        if let Some(standing) = self.standing.take() {
            self.names.1.want(None);
            let name = self.tun.clone();
            if let Err(error) = self.thread.run(move || drop(standing)).await {
                tracing::error!(
                    error = in_words(&error),
                    "the interface is not taken away in order"
                );
            }
            tracing::info!(interface = name, "not taking part");
        }
    }

    /// Stops, and takes every route and rule of ours away.
    ///
    /// # Errors
    /// When the kernel refuses; what is left is named.
    pub async fn take_down(&mut self) -> Result<Vec<String>> {
        self.stop().await;
        self.blackhole = None;
        self.network.remove().await
    }

    /// Pings through the data path, while there is one.
    #[must_use]
    pub fn pinger(&self) -> Option<Pinger> {
        Some(self.standing.as_ref()?.workers.pinger())
    }

    /// What is unreachable without the tunnel.
    #[must_use]
    pub fn blackhole(&self) -> Option<BlackholeView> {
        self.blackhole.clone()
    }

    /// Whether the interface has its addresses, as far as `view` tells. Where IPv6 is off, there is one.
    #[must_use]
    pub fn has_addresses(&self, view: &NetworkView) -> bool {
        self.standing.as_ref().is_none_or(|standing| {
            let ipv6 = linux::interface_has_ipv6(&self.tun);
            view.has_addresses(&self.tun, &standing.plan.addresses, ipv6)
        })
    }

    /// What the host lacks of the protection it should have, and who took of it.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Some(standing) = &self.standing else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        if let Err(problem) = &standing.guard {
            warnings.push(format!(
                "packets for this device's overlay addresses that arrive outside the tunnel are not dropped ({problem}); \
                 they get no answer, but a datagram may reach an application; networks of this host within the overlay's \
                 range go into the tunnel too"
            ));
        }
        if let Some(names) = self.names() {
            warnings.extend(names_warning(&names));
        }
        let (times, last) = &self.put_back;
        if *times > 0 {
            warnings.push(format!(
                "something on this host has removed routes or rules of ours {times} times; they were put back ({}). \
                 systemd-networkd does so unless networkd.conf says ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no",
                last.join(", ")
            ));
        }
        warnings
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

/// What of names needs attention.
fn names_warning(names: &NamesView) -> Option<String> {
    let NamesView {
        domain, problem, ..
    } = names;
    let problem = problem.as_deref().unwrap_or_default();
    match names.state {
        NamesState::Forbidden => Some(format!(
            "systemd-resolved does not ask for names in {domain} here: {problem}. The rule for polkit that comes with the packages              allows it, from polkit 0.106 on; `names = false` in client.toml does without names"
        )),
        NamesState::Failed => Some(format!(
            "systemd-resolved does not ask for names in {domain} here: {problem}; `gatereeve repair --apply` tries again"
        )),
        NamesState::Contested => Some(format!(
            "names in {domain} are asked for elsewhere, too, or only there: {problem}. Whoever answers there may lead this host's              programs to another one than they name"
        )),
        NamesState::Off if !problem.is_empty() => Some(format!(
            "systemd-resolved does not ask for names in {domain} here: {problem}; a network of another name, or a controller at an \
             address, has names"
        )),
        NamesState::Pending
        | NamesState::InUse
        | NamesState::Bypassed
        | NamesState::Absent
        | NamesState::Off => None,
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
            error = in_words(&error),
            "the interface keeps its queue as it is"
        );
    }
}

/// Guards the addresses of `plan` in the place of `old`, or says why not: the device takes part all the same, and warns.
async fn guard(
    thread: &NetworkThread,
    plan: &HostPlan,
    old: Option<Result<Guard, String>>,
) -> Result<Guard, String> {
    let (tun, addresses) = (plan.tun.clone(), plan.addresses);
    let made = thread.run(move || {
        // It goes first: its name is taken for as long as it lives.
        drop(old);
        Guard::new(&tun, &addresses)
    });
    made.await.flatten().map_err(|error| {
        let problem = in_words(&error);
        tracing::warn!(error = %problem, "the overlay addresses are not guarded on other interfaces");
        problem
    })
}
