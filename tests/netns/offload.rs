//! Packets that the kernel cuts and joins arrive as they were sent, and as they do without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_cipher::{Implementation, implementation};
use gatereeve_client_core::api::{Connection, StatusView};
use gatereeve_tests::traffic::bulk::{bursts, exchange};
use gatereeve_tests::world::device::TUN;
use gatereeve_tests::world::{DeviceHost, firewall};

use crate::scene::{apply, pair, rule, wait_open, world};
use gatereeve_tests::traffic::tcp::TcpSource;

/// How long nothing may come in the middle of a transfer.
const LIMIT: Duration = Duration::from_secs(20);
/// Bytes in each direction.
const BYTES: usize = 8 << 20;
/// Datagrams one after the other: a socket's usual buffer has room for 46 in two fragments.
const BURST: usize = 30;
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
            ensure_taken(device)?;
        }
    }
    Ok(())
}

/// Datagrams that came in two fragments are put together before the host has them; where the host sends them on, as to a container
/// behind a published port, it cuts them again.
pub(crate) fn datagrams_in_fragments_are_sent_on() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let (inside, inner) = world.connect()?;
    let rules = rule("tag:client", "tag:server", r#"["tcp:81", "udp:53"]"#, "");
    apply(&world, &rules)?;
    let source = TcpSource::start(&server.namespace, 81)?;
    wait_open(&client, &server, 81)?;
    drop(source);
    server.namespace.run(|| {
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
            std::fs::write(&path, "1").context(path)?;
        }
        Ok(())
    })?;
    let publish = format!(
        "table ip published {{ chain in {{ type nat hook prerouting priority dstnat; iifname \"{TUN}\" udp dport 53 dnat to {}; }}; }}; \
         table ip6 published {{ chain in {{ type nat hook prerouting priority dstnat; iifname \"{TUN}\" udp dport 53 dnat to {}; }}; }}",
        inner.v4, inner.v6
    );
    firewall::load(&server.namespace, &publish)?;
    let receiver = inside.run(|| Ok(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53))?))?;
    receiver.set_read_timeout(Some(LIMIT))?;
    for to in [server.v4(53)?, server.v6(53)?] {
        let sender = client.namespace.run(|| {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            Ok(UdpSocket::bind((any, 0))?)
        })?;
        // The first goes as it is, the others in two.
        for len in [1200, 1400, 2000, 2700] {
            let datagram: Vec<u8> = (0..len).map(|at: u32| at.to_be_bytes()[3]).collect();
            // So many at once that both fragments are read in one batch.
            for _ in 0..BURST {
                sender.send_to(&datagram, to)?;
            }
            for number in 0..BURST {
                let mut room = [0; 4096];
                let what = || format!("{number} of {len} bytes to {to}, published at another host");
                let (received, _) = receiver.recv_from(&mut room).with_context(what)?;
                ensure!(
                    room.get(..received) == Some(&datagram[..]),
                    "{received} of {len}"
                );
            }
        }
    }
    ensure_taken(&server)
}

/// The host took every packet as it was given: none was malformed, and what was joined, or put together of fragments, as a whole.
fn ensure_taken(device: &DeviceHost) -> anyhow::Result<()> {
    let status = device.status()?;
    for fault in FAULTS {
        ensure!(!status.drops.contains_key(fault), "{:?}", status.drops);
    }
    let offloads = status.offloads.context("no offloads")?;
    let refused = |what: &String| what.contains("joining");
    ensure!(!offloads.missing.iter().any(refused), "{offloads:?}");
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
