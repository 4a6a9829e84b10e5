//! Packets that the kernel cuts and joins arrive as they were sent, and as they do without.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_cipher::{Implementation, implementation};
use gatereeve_client_core::api::{Connection, StatusView};
use gatereeve_tests::traffic::bulk::{bursts, exchange};
use gatereeve_tests::world::DeviceHost;

use crate::scene::{apply, pair, rule, wait_open, world};
use gatereeve_tests::traffic::tcp::TcpSource;

/// How long nothing may come in the middle of a transfer.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes in each direction.
const BYTES: usize = 8 << 20;
/// Payloads of UDP datagrams: tiny, odd, full, and such that IP has to make two fragments of them, or more.
const SIZES: [usize; 10] = [1, 7, 64, 333, 1200, 1299, 1392, 1400, 2700, 4000];
/// What is counted when a packet is not what its header says, or was cut or joined wrongly.
const FAULTS: [&str; 5] = [
    "malformed",
    "bad_fragment",
    "tun_unreadable",
    "tun_refused",
    "udp_path_mtu",
];

/// TCP and UDP, both families, with offloads and the processor's own cipher at both ends, at one, and at none.
pub(crate) fn contents_survive_offloads() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, mut server) = pair(&mut world)?;
    let ports = r#"["tcp:80-81", "udp:53"]"#;
    apply(&world, &rule("tag:client", "tag:server", ports, ""))?;
    for (at_client, at_server) in [(true, true), (true, false), (false, false)] {
        configure(&mut client, at_client)?;
        configure(&mut server, at_server)?;
        let source = TcpSource::start(&server.namespace, 81)?;
        wait_open(&client, &server, 81)?;
        drop(source);
        for (to, udp) in [
            (server.v4(80)?, server.v4(53)?),
            (server.v6(80)?, server.v6(53)?),
        ] {
            let (near, far) = (&client.namespace, &server.namespace);
            let what = || format!("fast at the client {at_client}, at the server {at_server}");
            exchange(near, far, to, BYTES, LIMIT).with_context(what)?;
            bursts(near, far, udp, &SIZES, LIMIT).with_context(what)?;
        }
        for device in [&client, &server] {
            let status = device.status()?;
            for fault in FAULTS {
                ensure!(!status.drops.contains_key(fault), "{:?}", status.drops);
            }
            // What was joined, or put together of fragments, was taken as a whole.
            let offloads = status.offloads.context("no offloads")?;
            let refused = |what: &String| what.contains("joining");
            ensure!(!offloads.missing.iter().any(refused), "{offloads:?}");
        }
    }
    Ok(())
}

/// Starts the daemon again with or without what makes it fast, and checks that it says so.
fn configure(device: &mut DeviceHost, fast: bool) -> anyhow::Result<()> {
    device.stop()?;
    let (cipher, sealed_by) = if fast {
        ("auto", implementation())
    } else {
        ("aws-lc", Implementation::AwsLc)
    };
    device.configure(&format!("offload = {fast}\ncipher = \"{cipher}\"\n"))?;
    device.start()?;
    let status = device.wait_until("it is back", |status| {
        status.connection == Connection::Synced && status.offloads.is_some()
    })?;
    let StatusView {
        offloads: Some(view),
        ..
    } = &status
    else {
        anyhow::bail!("no offloads in {status:?}");
    };
    // Every kernel of these years has them; UDP over TUN is newer.
    let all = [
        view.tun.tso,
        view.tun.tcp_joining,
        view.udp.gso,
        view.udp.gro,
    ];
    ensure!(all == [fast; 4], "{view:?}");
    ensure!(status.cipher == Some(sealed_by.to_string()), "{status:?}");
    ensure!(view.workers >= 1 && view.tun.queues >= 1, "{view:?}");
    Ok(())
}
