//! A device with stock WireGuard: the harness enrols it through the real control protocol with its
//! WireGuard key, keeps the session, and configures `wireguard-go` over its own interface from the
//! maps that come.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::sync::mpsc;

use gatereeve_client::control::{ControlEvent, ControlLink, Names, Target};
use gatereeve_shared::identity::binding::KeyBinding;
use gatereeve_shared::identity::identity_key::IdentityKey;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::DeviceId;
use gatereeve_shared::invite::Invite;
use gatereeve_shared::posture::fact::PostureReport;
use gatereeve_shared::wire::client::{Attach, ClientMessage, EndpointUpdate, Enroll, KeyUpdate};
use gatereeve_shared::wire::controller::{ControllerMessage, EnrollReply, Standing};
use gatereeve_shared::wire::map::{MapUpdate, OverlayAddresses, PeerEntry};

use crate::clock::wait_for;
use crate::netns::Namespace;
use crate::netns::links::UnderlayAddresses;
use crate::suite::Skip;
use crate::uapi::{self, UserspaceWireGuard, hex};
use crate::world::World;
use crate::world::device::WIREGUARD_PORT;

const LIMIT: Duration = Duration::from_secs(20);

/// What the session knows, shared with its thread.
#[derive(Debug, Default)]
struct Held {
    addresses: Option<OverlayAddresses>,
    peers: Vec<PeerEntry>,
    error: Option<String>,
}

/// A device whose data path is `wireguard-go`.
#[derive(Debug)]
pub struct StockPeer {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its addresses on the underlay.
    pub underlay: UnderlayAddresses,
    held: Arc<Mutex<Held>>,
    wireguard: UserspaceWireGuard,
    secret: WgSecret,
    _session: tokio_util::sync::DropGuard,
}

impl StockPeer {
    /// Enrols by `invite` as `name`, and starts `wireguard-go`.
    ///
    /// # Errors
    /// [`Skip`] where `wireguard-go` is not installed; or what failed.
    pub fn join(world: &mut World, name: &str, invite: &str) -> anyhow::Result<Self> {
        let program = PathBuf::from("/usr/bin/wireguard-go");
        if !program.exists() {
            return Err(Skip("wireguard-go is not installed".into()).into());
        }
        let (namespace, underlay) = world.connect()?;
        let arguments = ["--foreground", uapi::INTERFACE];
        let wireguard =
            UserspaceWireGuard::start("wireguard-go", &program, &arguments, &namespace)?;
        let secret = WgSecret::from_bytes(random()?);
        let held = Arc::new(Mutex::new(Held::default()));
        let stop = tokio_util::sync::CancellationToken::new();
        let session = Session {
            invite: invite
                .parse::<Invite>()
                .map_err(|error| anyhow!("{error}"))?,
            identity: Arc::new(IdentityKey::from_seed(&random()?)),
            name: name.to_owned(),
            public: secret.public(),
            endpoint: SocketAddr::new(IpAddr::V4(underlay.v4), WIREGUARD_PORT),
            held: Arc::clone(&held),
        };
        let (inside, token) = (namespace.clone(), stop.clone());
        std::thread::spawn(move || session.run(&inside, &token));
        let peer = Self {
            namespace,
            underlay,
            held,
            wireguard,
            secret,
            _session: stop.drop_guard(),
        };
        let addresses = wait_for("the stock peer's map", LIMIT, || {
            let held = peer.held();
            match &held.error {
                Some(error) => bail!("{error}"),
                None => Ok(held.addresses),
            }
        })?;
        // On-link prefixes as wide as the overlay's defaults: routes by themselves.
        let on_link = [
            (IpAddr::V4(addresses.v4), 10),
            (IpAddr::V6(addresses.v6), 48),
        ];
        uapi::bring_up(&peer.namespace, &on_link, 1420)?;
        peer.configure_peers()?;
        Ok(peer)
    }

    /// Its overlay addresses.
    ///
    /// # Errors
    /// Where it has no map.
    pub fn addresses(&self) -> anyhow::Result<OverlayAddresses> {
        self.held().addresses.context("no map")
    }

    /// Its peers now.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerEntry> {
        self.held().peers.clone()
    }

    /// Waits until the map has `count` peers, and gives them to `wireguard-go`.
    ///
    /// # Errors
    /// Where it does not come to that.
    pub fn wait_peers(&self, count: usize) -> anyhow::Result<()> {
        wait_for(&format!("{count} peers"), LIMIT, || {
            Ok((self.held().peers.len() == count).then_some(()))
        })?;
        self.configure_peers()
    }

    /// Seconds since the epoch of the last handshake, as `wireguard-go` says; 0 for none.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn last_handshake(&self) -> anyhow::Result<u64> {
        self.wireguard.last_handshake()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configure_peers(&self) -> anyhow::Result<()> {
        let mut text = format!(
            "private_key={}\nlisten_port={WIREGUARD_PORT}\nreplace_peers=true\n",
            hex(&self.secret.to_bytes()[..])
        );
        for peer in self.peers() {
            writeln!(
                text,
                "public_key={}\nreplace_allowed_ips=true",
                hex(&peer.key.wg_key.0)
            )?;
            let OverlayAddresses { v4, v6 } = peer.addresses;
            writeln!(text, "allowed_ip={v4}/32\nallowed_ip={v6}/128")?;
            if let Some(endpoint) = peer.endpoints.iter().find(|endpoint| endpoint.is_ipv4()) {
                writeln!(text, "endpoint={endpoint}")?;
            }
        }
        self.wireguard.set(&text)
    }
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}

/// The control session of a stock peer.
struct Session {
    invite: Invite,
    identity: Arc<IdentityKey>,
    name: String,
    public: gatereeve_shared::identity::wg_key::WgPublicKey,
    endpoint: SocketAddr,
    held: Arc<Mutex<Held>>,
}

impl Session {
    fn run(self, namespace: &Namespace, stop: &tokio_util::sync::CancellationToken) {
        let held = Arc::clone(&self.held);
        let result = crate::netns::enter(std::os::fd::AsFd::as_fd(namespace)).and_then(|()| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    result = self.talk() => result,
                }
            })
        });
        if let Err(error) = result {
            held.lock().unwrap_or_else(PoisonError::into_inner).error = Some(format!("{error:#}"));
        }
    }

    async fn talk(&self) -> anyhow::Result<()> {
        let (sender, mut events) = mpsc::channel(64);
        let link = ControlLink::connect(
            Target {
                controllers: self.invite.controllers.clone(),
                network: self.invite.network,
                identity: Arc::clone(&self.identity),
                known_tls: None,
                names: Names::System,
            },
            sender,
        );
        let binding = KeyBinding::sign(&self.identity, &self.invite.network, self.public, 1);
        while let Some(event) = events.recv().await {
            match event {
                ControlEvent::Connected { hello, .. } => {
                    ensure!(hello.standing == Standing::Unknown, "{:?}", hello.standing);
                    link.send(ClientMessage::Enroll(Enroll {
                        invite: Some((self.invite.id, self.invite.secret.clone())),
                        name: self.name.clone(),
                        binding: binding.clone(),
                    }))?;
                }
                ControlEvent::Message(ControllerMessage::Enrolled(reply)) => {
                    ensure!(reply == EnrollReply::Done(Standing::Approved), "{reply:?}");
                    link.send(ClientMessage::Attach(self.attach(&binding)))?;
                }
                ControlEvent::Message(ControllerMessage::Map(update)) => {
                    let generation = update.to;
                    let is_last = !update.more;
                    self.take(update);
                    if is_last {
                        link.send(ClientMessage::Ack(generation))?;
                    }
                }
                ControlEvent::Message(ControllerMessage::Refused(refusal)) => bail!("{refusal:?}"),
                ControlEvent::Message(_) => {}
                ControlEvent::Disconnected { error, .. } => bail!("disconnected: {error}"),
            }
        }
        Ok(())
    }

    fn attach(&self, binding: &KeyBinding) -> Attach {
        Attach {
            keys: KeyUpdate {
                current: binding.clone(),
                next: None,
            },
            endpoints: EndpointUpdate {
                listen_port: self.endpoint.port(),
                endpoints: vec![self.endpoint],
            },
            have: None,
            report: PostureReport {
                counter: 1,
                facts: Vec::new(),
            },
            software: "stock WireGuard".into(),
        }
    }

    fn take(&self, update: MapUpdate) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if update.from.is_none() && update.this.is_some() {
            held.peers.clear();
        }
        if let Some(this) = update.this {
            held.addresses = Some(this.addresses);
        }
        let gone = |device: &DeviceId| {
            update.removed.contains(device) || update.upserted.iter().any(|p| p.device == *device)
        };
        held.peers.retain(|peer| !gone(&peer.device));
        held.peers.extend(update.upserted.iter().cloned());
    }
}
