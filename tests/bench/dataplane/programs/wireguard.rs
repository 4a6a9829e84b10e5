//! Userspace WireGuards that are configured over the interface they share.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{anyhow, ensure};

use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_tests::uapi::{self, UserspaceWireGuard, hex};
use gatereeve_tests::world::device::WIREGUARD_PORT;

use super::{Guard, Running, TUNNEL_MTU, own_addresses};
use crate::arguments::Arguments;
use crate::pair::Pair;

impl Guard for UserspaceWireGuard {}

pub(super) fn start(
    label: &'static str,
    program: &Path,
    flags: &[&str],
    pair: &Pair,
    arguments: &Arguments,
) -> anyhow::Result<Running> {
    let (v4, v6) = own_addresses();
    let secrets = [
        WgSecret::from_bytes(random()?),
        WgSecret::from_bytes(random()?),
    ];
    let mut daemons = Vec::new();
    for (number, host) in pair.hosts().into_iter().enumerate() {
        let wireguard = UserspaceWireGuard::start(label, program, flags, &host.namespace)?;
        let other = 1 - number;
        let peer = Peer {
            key: secrets[other].public().0,
            v4: v4[other].into(),
            v6: v6[other].into(),
            endpoint: pair.hosts()[other].underlay.v4.into(),
        };
        let mut text = format!(
            "private_key={}\nlisten_port={WIREGUARD_PORT}\n",
            hex(&secrets[number].to_bytes()[..])
        );
        peer.write(&mut text)?;
        for stranger in 1..arguments.peers {
            Peer::stranger(stranger, peer.endpoint)?.write(&mut text)?;
        }
        wireguard.set(&text)?;
        let addresses = [(v4[number].into(), 24), (v6[number].into(), 64)];
        uapi::bring_up(&host.namespace, &addresses, TUNNEL_MTU.into())?;
        daemons.push(wireguard);
    }
    for daemon in &daemons {
        ensure!(
            daemon.last_handshake()? == 0,
            "a handshake before any packet"
        );
    }
    Ok(Running {
        v4,
        v6: Some(v6),
        daemons: daemons.iter().map(|daemon| daemon.process().id()).collect(),
        guards: daemons
            .into_iter()
            .map(|daemon| Box::new(daemon) as Box<dyn Guard>)
            .collect(),
    })
}

struct Peer {
    key: [u8; 32],
    v4: IpAddr,
    v6: IpAddr,
    endpoint: IpAddr,
}

impl Peer {
    /// Somebody who is configured and never heard of.
    fn stranger(number: u16, endpoint: IpAddr) -> anyhow::Result<Self> {
        let [high, low] = number.to_be_bytes();
        Ok(Self {
            key: WgSecret::from_bytes(random()?).public().0,
            v4: [10, 99, high, low].into(),
            v6: [0xfd99, 0, 0, 0, 0, 0, 0, number].into(),
            endpoint,
        })
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self {
            key,
            v4,
            v6,
            endpoint,
        } = self;
        writeln!(
            text,
            "public_key={}\nendpoint={endpoint}:{WIREGUARD_PORT}",
            hex(key)
        )?;
        writeln!(text, "allowed_ip={v4}/32\nallowed_ip={v6}/128")
    }
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(bytes)
}
