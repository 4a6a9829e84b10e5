//! Another address, another network, a moment without any: what is open goes on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::ensure;

use gatereeve_client_core::api::{Connection, PathView};
use gatereeve_tests::clock::{Stopwatch, wait_for};
use gatereeve_tests::netns::Namespace;
use gatereeve_tests::traffic::tcp::{Download, TcpSource};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};
use gatereeve_tests::world::host_state::ip;
use gatereeve_tests::world::{DeviceHost, PATIENCE};

use crate::scene::{LIMIT, apply, open_pair, pair, wait_open, world};

/// How soon what is open has to go on where the new address is there at once. A busy machine may take longer
/// for the commands themselves.
const SOON: Duration = Duration::from_secs(5);

fn run(namespace: &Namespace, line: &str) -> anyhow::Result<()> {
    ip(namespace, &line.split(' ').collect::<Vec<_>>()).map(drop)
}

/// Moves a host to the address `10.77.HIGH.9`, and takes all its old ones.
fn move_to(host: &DeviceHost, high: u8) -> anyhow::Result<Ipv4Addr> {
    let new = Ipv4Addr::new(10, 77, high, 9);
    let namespace = &host.namespace;
    run(namespace, "address flush dev eth0")?;
    run(namespace, &format!("address add {new}/16 dev eth0"))?;
    run(
        namespace,
        &format!("address add fd77::{high}:9/64 dev eth0"),
    )?;
    Ok(new)
}

fn wait_answers(sender: &UdpSender, what: &str) -> anyhow::Result<Duration> {
    let (watch, before) = (Stopwatch::start(), sender.answers());
    wait_for(what, PATIENCE, || {
        Ok((sender.answers() > before + 50).then_some(()))
    })?;
    Ok(watch.elapsed())
}

/// Whichever end of a flow changes its address, the flow goes on, without a new connection; the peer learns
/// the new endpoint, and the controller keeps the device.
pub(crate) fn open_flows_survive_another_address() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let _receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_answers(&sender, "answers")?;
    let download = Download::start(&client.namespace, server.v4(80)?, LIMIT)?;
    for (high, moving, other) in [(9, &client, &server), (10, &server, &client)] {
        let new = move_to(moving, high)?;
        let took = wait_answers(&sender, "answers after the move")?;
        ensure!(took < SOON, "{} moved, answers after {took:?}", moving.name);
        wait_for("the download to go on", PATIENCE, || {
            ensure!(download.ended().is_none(), "{:?}", download.ended());
            Ok((download.bytes_during(Duration::from_millis(200)) > 0).then_some(()))
        })?;
        wait_for("the peer to know the new address", PATIENCE, || {
            Ok(other
                .peers()?
                .iter()
                .any(|peer| {
                    matches!(&peer.path, Some(PathView::Direct { endpoint, .. }) if endpoint.ip() == IpAddr::V4(new) || endpoint.is_ipv6())
                })
                .then_some(()))
        })?;
        moving.wait_until("the controller keeps it", |status| {
            status.connection == Connection::Synced
        })?;
    }
    Ok(())
}

/// A cable that is pulled and put back, with addresses that go and come: back within a moment of the link.
pub(crate) fn a_link_that_comes_back_is_used_at_once() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let _receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_answers(&sender, "answers")?;
    for away in [Duration::from_secs(2), Duration::from_secs(25)] {
        run(&client.namespace, "link set eth0 down")?;
        run(&client.namespace, "address flush dev eth0")?;
        let before = sender.answers();
        std::thread::sleep(away);
        ensure!(
            sender.answers() <= before + 50,
            "control: nothing comes back"
        );
        run(&client.namespace, "link set eth0 up")?;
        let new = move_to(&client, 11)?;
        let took = wait_answers(&sender, "answers after the link is back")?;
        ensure!(
            took < SOON,
            "away {away:?}, at {new}: answers after {took:?}"
        );
        let watch = Stopwatch::start();
        client.wait_until("it is synced", |status| {
            status.connection == Connection::Synced
        })?;
        let took = watch.elapsed();
        ensure!(took < SOON, "away {away:?}: synced after {took:?}");
    }
    Ok(())
}

/// The addresses of a host from which sockets are connected to one peer, as its kernel has them.
fn connected_from(host: &DeviceHost) -> anyhow::Result<BTreeSet<Ipv4Addr>> {
    let table = host
        .namespace
        .run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/udp")?))?;
    let rows = table.lines().skip(1);
    let addresses = rows.filter_map(|row| {
        let mut columns = row.split_whitespace().skip(1);
        let (local, _, state) = (columns.next()?, columns.next()?, columns.next()?);
        // The number that TCP has for an established connection.
        let (address, _) = local.split_once(':').filter(|_| state == "01")?;
        let address = u32::from_str_radix(address, 16).ok()?;
        Some(Ipv4Addr::from(address.to_ne_bytes()))
    });
    Ok(addresses.collect())
}

/// A route that prefers another of the host's addresses, which all stay: what is open goes on from there.
pub(crate) fn another_source_address_is_taken_up() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    // IPv4 alone, so that there is one way.
    for host in [&client, &server] {
        run(&host.namespace, "-6 address flush dev eth0")?;
    }
    let new = Ipv4Addr::new(10, 77, 12, 9);
    run(&client.namespace, &format!("address add {new}/16 dev eth0"))?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_answers(&sender, "answers")?;
    let knows = || -> anyhow::Result<bool> {
        let peers = server.peers()?;
        Ok(peers.iter().any(|peer| {
            matches!(&peer.path, Some(PathView::Direct { endpoint, .. }) if endpoint.ip() == IpAddr::V4(new))
        }))
    };
    ensure!(!knows()?, "control: it is the old one");
    // A worker connects to whom it hears itself, and a flow of UDP stays with the worker that it began at. Of these, some
    // begin at the one that hears the server.
    let slow = Duration::from_millis(40);
    let more = (2..18).map(|flow| UdpSender::start(&client.namespace, server.v4(53)?, flow, slow));
    let _more = more.collect::<anyhow::Result<Vec<_>>>()?;
    wait_for("a socket of the peer's own", PATIENCE, || {
        let connected = connected_from(&client)?;
        ensure!(!connected.contains(&new), "{connected:?}");
        Ok((!connected.is_empty()).then_some(()))
    })?;
    run(
        &client.namespace,
        &format!("route change 10.77.0.0/16 dev eth0 proto kernel scope link src {new}"),
    )?;
    let watch = Stopwatch::start();
    wait_for("the peer to know the other address", PATIENCE, || {
        Ok(knows()?.then_some(()))
    })?;
    let took = watch.elapsed();
    ensure!(took < SOON, "after {took:?}");
    wait_answers(&sender, "answers from there")?;
    wait_for(
        "a socket with the other address, and no other",
        PATIENCE,
        || Ok((connected_from(&client)? == BTreeSet::from([new])).then_some(())),
    )?;
    // What is bound to this address would be sent another way from now on. (It leads to the server all the same.)
    let gateway = server.underlay.v4;
    let elsewhere = format!("route add 10.77.0.0/16 via {gateway} dev eth0 table 99");
    run(&client.namespace, &elsewhere)?;
    let rule = format!("rule add from {new} lookup 99 priority 99");
    run(&client.namespace, &rule)?;
    wait_for("no socket of the peer's own", PATIENCE, || {
        Ok(connected_from(&client)?.is_empty().then_some(()))
    })?;
    for _ in 0..3 {
        wait_answers(&sender, "answers over the shared socket")?;
    }
    ensure!(connected_from(&client)?.is_empty(), "it is not made again");
    Ok(())
}
