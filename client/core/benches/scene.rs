//! Who is who.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gatereeve_client_core::datapath::{
    Batch, DataPath, LocalKey, Outbox, PeerSpec, RuleSpec, TableSpec,
};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::NoiseTunnels;
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::policy::port::PortSpec;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

pub(crate) const NOW: Mono = Mono(1_000_000_000_000);

/// A key for each number.
pub(crate) fn secret(number: u16) -> WgSecret {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [7; 32];
    (bytes[1], bytes[2]) = (high, low);
    WgSecret::from_bytes(bytes)
}

pub(crate) fn addresses(number: u16) -> OverlayAddresses {
    let [high, low] = number.to_be_bytes();
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, high, low),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number),
    }
}

pub(crate) fn endpoint(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([10, 77, high, low], 51820))
}

/// A UDP packet of `len` bytes from one device to another, of a flow for each `flow`.
pub(crate) fn packet(from: u16, to: u16, flow: u16, len: usize) -> Vec<u8> {
    let ip = |number| IpAddr::V4(addresses(number).v4);
    samples::udp((ip(from), flow), (ip(to), 7000), &vec![0x5a; len - 28])
}

/// The rule that allows everything.
pub(crate) fn everything() -> Vec<RuleSpec> {
    vec![RuleSpec {
        rule: RuleId::new("everything").unwrap(),
        ports: vec![PortSpec::ANY],
        end: Mono(u64::MAX),
    }]
}

/// A device with `peers` peers, numbered from `first` on.
pub(crate) fn data_path(own: u16, first: u16, peers: u16) -> DataPath {
    let path = DataPath::new([own.to_be_bytes()[1]; 32], Box::new(NoiseTunnels), NOW);
    path.open_until(Mono(u64::MAX));
    let peers = (first..first + peers).map(|number| PeerSpec {
        device: device(number),
        name: DeviceName::new(format!("device-{number}")).unwrap(),
        addresses: addresses(number),
        keys: vec![(1, secret(number).public())],
        endpoints: vec![endpoint(number)],
        ingress: everything(),
        egress: everything(),
    });
    let spec = TableSpec {
        serial: 1,
        own: Some(addresses(own)),
        prefixes: Some(OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd00::/48".parse().unwrap(),
        }),
        names: None,
        local_keys: vec![LocalKey {
            counter: 1,
            secret: secret(own),
        }],
        peers: peers.collect(),
        ..TableSpec::default()
    };
    path.publish(spec, NOW);
    path
}

fn device(number: u16) -> DeviceId {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    DeviceId(bytes)
}

/// Two data paths with a session between them; the one has many peers, of which the other is one.
pub(crate) struct Pair {
    pub(crate) one: DataPath,
    pub(crate) other: DataPath,
}

impl Pair {
    pub(crate) const ONE: u16 = 1;
    pub(crate) const OTHER: u16 = 700;

    pub(crate) fn new(peers: u16) -> Self {
        let pair = Self {
            one: data_path(Self::ONE, Self::OTHER, peers),
            other: data_path(Self::OTHER, Self::ONE, 1),
        };
        let mut batch = Batch::new(1, 2048);
        assert!(batch.push(&packet(Self::ONE, Self::OTHER, 1, 100), None));
        let mut out = Outbox::new();
        pair.one.outbound(&mut batch, NOW, &mut out);
        // Initiation, response, and the packet that waited.
        for (to, from) in [
            (&pair.other, Self::ONE),
            (&pair.one, Self::OTHER),
            (&pair.other, Self::ONE),
        ] {
            let mut batch = Batch::new(8, 2048);
            for (_, datagram) in out.transmits() {
                assert!(batch.push(datagram, Some(endpoint(from))));
            }
            out.clear();
            to.inbound(&mut batch, NOW, &mut out);
        }
        assert_eq!(out.deliveries().count(), 1);
        pair
    }
}
