//! What a configured peer takes, as asked of the allocator.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use std::sync::atomic::{AtomicUsize, Ordering};

use gatereeve_client_core::datapath::{
    Batch, DataPath, LocalKey, Outbox, PeerSpec, RuleSpec, TableSpec,
};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{NoiseTunnels, Opened, TunnelFactory as _};
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::ids::{DeviceId, DeviceName, RuleId};
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::map::OverlayAddresses;

const PEERS: u16 = 4_000;
/// What a peer may take that nobody talks to.
const SILENT: usize = 2 * 1024;
/// What a session may take, most of it to know which messages have come.
const SESSION: usize = 1024 + 512;

#[global_allocator]
static COUNTING: Counting = Counting;
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The system's, with a count of what is taken and not given back.
struct Counting;

#[expect(
    unsafe_code,
    reason = "counts, and leaves the work to the system's allocator"
)]
// SAFETY: both functions do what the system's do, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this same function.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn a_silent_peer_takes_little() {
    let now = Mono(1_000_000_000_000);
    let path = DataPath::new([1; 32], Box::new(NoiseTunnels), now);
    path.open_until(Mono(u64::MAX));
    let before = taken();
    // What the table is made from is no part of it, and is gone afterwards.
    path.publish(spec(), now);
    path.prepare(now);
    let silent = (taken() - before) / usize::from(PEERS);

    let mut out = Outbox::new();
    let mut batch = Batch::new(1, 2048);
    let mut handshake = |peer: u16| {
        let before = taken();
        let (from, to) = (addresses(0).v4, addresses(peer).v4);
        let packet = samples::udp((from.into(), 1), (to.into(), 2), b"hello");
        assert!(batch.push(&packet, None));
        path.outbound(&mut batch, now, &mut out);
        assert!(out.transmits().count() > 0, "an initiation");
        out.clear();
        batch.clear();
        taken().saturating_sub(before)
    };
    // The buffers are made with the first one.
    handshake(1);
    let prepared = handshake(2);
    let busy = (3..=PEERS).map(handshake).sum::<usize>() / usize::from(PEERS - 2);
    println!(
        "a silent peer takes {silent} bytes, a handshake with it {busy} more, {prepared} where it was prepared"
    );
    assert!(prepared < 4 * 1024, "{prepared}");
    assert!(silent <= SILENT, "{silent}");
    // Positive control: this does see what is taken.
    assert!(busy > 2 * 1024, "{busy}");

    let session = session(now);
    println!("a session takes {session} more, of which a peer has one or two in use");
    assert!((1024..=SESSION).contains(&session), "{session}");
}

/// What either end of a session takes for it.
fn session(now: Mono) -> usize {
    let (ours, theirs, from) = (secret(1), secret(2), SocketAddr::from(([192, 0, 2, 1], 1)));
    let create = |ours: &WgSecret, theirs: &WgSecret, index| {
        let tunnel = NoiseTunnels.create(ours, &theirs.public(), index, now);
        let mut tunnel = tunnel.unwrap();
        tunnel.prepare(now);
        tunnel
    };
    let (mut one, mut other) = (create(&ours, &theirs, 1), create(&theirs, &ours, 2));
    let (mut there, mut back) = ([0; 148], [0; 148]);
    let before = taken();
    let len = one.initiate(now, &mut there).unwrap();
    let opened = other.decapsulate(from, &mut there[..len], now, &mut back);
    let Ok(Opened::Response { len }) = opened else {
        unreachable!("an initiation");
    };
    let opened = one.decapsulate(from, &mut back[..len], now, &mut there);
    assert!(matches!(opened, Ok(Opened::Established { .. })));
    (taken() - before) / 2
}

fn taken() -> usize {
    TAKEN.load(Ordering::Relaxed)
}

fn spec() -> TableSpec {
    let rules = vec![RuleSpec {
        rule: RuleId::new("engineers-to-web").unwrap(),
        ports: vec!["tcp:443".parse().unwrap(), "udp:2".parse().unwrap()],
        end: Mono(u64::MAX),
    }];
    let peers = (1..=PEERS).map(|number| PeerSpec {
        device: DeviceId(number.to_be_bytes().repeat(10).try_into().unwrap()),
        name: DeviceName::new(format!("device-{number}")).unwrap(),
        addresses: addresses(number),
        keys: vec![(1, secret(number).public())],
        endpoints: vec![
            SocketAddr::from(([192, 0, 2, 1], number)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], number)),
        ],
        ingress: rules.clone(),
        egress: rules.clone(),
    });
    TableSpec {
        serial: 1,
        own: Some(addresses(0)),
        local_keys: vec![LocalKey {
            counter: 1,
            secret: secret(0),
        }],
        peers: peers.collect(),
        ..TableSpec::default()
    }
}

fn secret(number: u16) -> WgSecret {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [7; 32];
    (bytes[1], bytes[2]) = (high, low);
    WgSecret::from_bytes(bytes)
}

fn addresses(number: u16) -> OverlayAddresses {
    let [high, low] = number.to_be_bytes();
    OverlayAddresses {
        v4: Ipv4Addr::new(100, 64, high, low),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number),
    }
}
