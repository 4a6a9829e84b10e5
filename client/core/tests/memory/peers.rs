//! What a peer takes that nobody talks to, and more once somebody does.

use std::net::SocketAddr;

use gatereeve_client_core::datapath::{Batch, DataPath, Outbox};
use gatereeve_client_core::packet::samples;
use gatereeve_client_core::wg::{NoiseTunnels, Opened, TunnelFactory as _};
use gatereeve_shared::identity::wg_key::WgSecret;
use gatereeve_shared::time::Mono;

use crate::allocator::taken;
use crate::wire::{addresses, secret, table};

const PEERS: u16 = 4_000;
/// What a peer may take that nobody talks to.
const SILENT: usize = 2 * 1024;
/// What a session may take, most of it to know which messages have come.
const SESSION: usize = 1024 + 512;

#[test]
fn a_silent_peer_takes_little() {
    let now = Mono(1_000_000_000_000);
    let path = DataPath::new([1; 32], Box::new(NoiseTunnels), now);
    path.open_until(Mono(u64::MAX));
    let before = taken();
    // What the table is made from is no part of it, and is gone afterwards.
    path.publish(table(0, 1..=PEERS), now);
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
