//! A LAN that uses the overlay's addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::netns::Namespace;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::tcp::{TcpSource, attempt};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};
use gatereeve_tests::world::host_state::ip;
use gatereeve_tests::world::{DeviceHost, PATIENCE};

use crate::scene::{LIMIT, QUIET, apply, open_pair, pair, wait_open, world};

fn run(namespace: &Namespace, line: &str) -> anyhow::Result<()> {
    ip(namespace, &line.split(' ').collect::<Vec<_>>()).map(drop)
}

fn wait_answer(from: &Namespace, to: IpAddr) -> anyhow::Result<()> {
    wait_for(&format!("{to} to answer"), PATIENCE, || {
        Ok((ping(from, to, 1, QUIET)? == 1).then_some(()))
    })
}

fn wait_warning(client: &DeviceHost, words: &[&str]) -> anyhow::Result<()> {
    client
        .wait_until(&format!("it warns of {words:?}"), |status| {
            status
                .warnings
                .iter()
                .any(|warning| words.iter().all(|word| warning.contains(word)))
        })
        .map(drop)
}

/// What `neighbour` sends to `overlay` without asking for an answer, which would be kept back elsewhere, does not arrive; what it
/// sends to `own` does.
fn nothing_arrives_unasked(
    neighbour: &Namespace,
    at: &Namespace,
    overlay: IpAddr,
    own: IpAddr,
) -> anyhow::Result<()> {
    let receiver = UdpReceiver::start(at, 53, false)?;
    let send = |to, flow| {
        let pace = Duration::from_millis(2);
        UdpSender::start(neighbour, SocketAddr::new(to, 53), flow, pace)
    };
    let (unasked, _control) = (send(overlay, 1)?, send(own, 2)?);
    wait_for("the control", LIMIT, || {
        Ok((unasked.sent() > 50 && receiver.flow(2).packets > 50).then_some(()))
    })?;
    ensure!(receiver.flow(1).packets == 0, "{:?}", receiver.flow(1));
    Ok(())
}

/// The LAN's hosts stay reachable, peers stay behind the tunnel even where the LAN has a host with a peer's
/// address, and `status` tells. All of it comes and goes while the daemon runs.
pub(crate) fn a_lan_within_the_overlay_keeps_working() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server) = pair(&mut world)?;
    let (printer, _) = world.connect()?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let impostor = TcpSource::start(&printer, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    ensure!(client.status()?.warnings.is_empty());

    // A network of its own, far from any peer.
    let v4 = server.addresses()?.v4;
    let [a, b, c, _] = v4.octets();
    let far = if b == 100 { 101 } else { 100 };
    run(&printer, &format!("address add 100.{far}.0.1/24 dev eth0"))?;
    run(
        &client.namespace,
        &format!("address add 100.{far}.0.2/24 dev eth0"),
    )?;
    let lan: IpAddr = format!("100.{far}.0.1").parse()?;
    let own: IpAddr = format!("100.{far}.0.2").parse()?;
    let network = format!("100.{far}.0.0/24");
    wait_warning(&client, &[&network, "eth0", "100.64.0.0/10"])?;
    wait_answer(&client.namespace, lan)?;
    wait_answer(&printer, own)?;
    wait_open(&client, &server, 80)?;

    // One around the server's address, which a neighbour takes.
    let (beside, neighbour) = (
        format!("{a}.{b}.{}.250", c ^ 1),
        format!("{a}.{b}.{}.251", c ^ 1),
    );
    run(&printer, &format!("address add {v4}/16 dev eth0"))?;
    run(&printer, &format!("address add {neighbour}/16 dev eth0"))?;
    run(
        &client.namespace,
        &format!("address add {beside}/16 dev eth0"),
    )?;
    let network = format!("{a}.{b}.0.0/16");
    wait_warning(&client, &[&network, "one address"])?;
    wait_answer(&client.namespace, neighbour.parse()?)?;
    let before = impostor.accepted();
    ensure!(attempt(&client.namespace, SocketAddr::new(v4.into(), 80), LIMIT)?.is_connected());
    ensure!(impostor.accepted() == before, "the neighbour got it");
    // A neighbour that asks for the client's overlay address past the tunnel gets nothing.
    let overlay = client.addresses()?;
    run(&printer, &format!("route add {}/32 dev eth0", overlay.v4))?;
    ensure!(ping(&printer, overlay.v4.into(), 1, QUIET)? == 0);
    nothing_arrives_unasked(&printer, &client.namespace, overlay.v4.into(), own)?;
    run(&printer, "address add 2001:db8::1/64 dev eth0")?;
    run(&client.namespace, "address add 2001:db8::2/64 dev eth0")?;
    let past = format!("route add {}/128 via 2001:db8::2 dev eth0", overlay.v6);
    run(&printer, &past)?;
    let own_v6 = "2001:db8::2".parse()?;
    nothing_arrives_unasked(&printer, &client.namespace, overlay.v6.into(), own_v6)?;

    // The peer's address stays the overlay's while no daemon runs.
    client.kill();
    let got = attempt(&client.namespace, SocketAddr::new(v4.into(), 80), QUIET)?;
    ensure!(got.bytes() == 0 && impostor.accepted() == before, "{got:?}");
    wait_answer(&client.namespace, lan)?;
    client.repair(&["--remove"])?;
    let got = attempt(&client.namespace, SocketAddr::new(v4.into(), 80), LIMIT)?;
    ensure!(
        got.is_connected() && impostor.accepted() == before + 1,
        "control: without us the neighbour gets it: {got:?}"
    );
    client.start()?;
    wait_warning(&client, &[&network])?;
    wait_answer(&client.namespace, lan)?;
    let before = impostor.accepted();
    wait_open(&client, &server, 80)?;
    ensure!(impostor.accepted() == before);

    // Gone from the host, gone from the warnings and from our table.
    run(&client.namespace, &format!("address del {own}/24 dev eth0"))?;
    run(
        &client.namespace,
        &format!("address del {beside}/16 dev eth0"),
    )?;
    client.wait_until("it has nothing to warn of", |status| {
        status.warnings.is_empty()
    })?;
    wait_for("our table to have only the tunnel", PATIENCE, || {
        let places = client.repair(&[])?.places;
        let place = places.first().context("a place")?;
        Ok((place.routes.len() == 4).then_some(()))
    })?;
    wait_open(&client, &server, 80)
}

/// What a LAN draws to itself by routes, or by a network as large as the overlay, is told of and stays ours.
pub(crate) fn a_lan_draws_no_overlay_traffic() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let (evil, at) = world.connect()?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let impostor = TcpSource::start(&evil, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let v4 = server.addresses()?.v4;
    run(&evil, &format!("address add {v4}/32 dev lo"))?;
    // As DHCP option 121 would have it, for the peer alone and for all.
    run(
        &client.namespace,
        &format!("route add {v4}/32 via {}", at.v4),
    )?;
    wait_warning(&client, &[&v4.to_string(), "eth0", "overlaps"])?;
    run(
        &client.namespace,
        &format!("route add 100.64.0.0/10 via {}", at.v4),
    )?;
    run(&client.namespace, "address add 100.127.0.9/10 dev eth0")?;
    wait_warning(&client, &["100.64.0.0/10 of eth0", "as large as"])?;
    let target = SocketAddr::new(v4.into(), 80);
    ensure!(attempt(&client.namespace, target, LIMIT)?.is_connected());
    ensure!(impostor.accepted() == 0);
    client.cli.ask(&["down"])?;
    let got = attempt(&client.namespace, target, LIMIT)?;
    ensure!(
        got.is_connected() && impostor.accepted() == 1,
        "control: the routes do draw it once we are down: {got:?}"
    );
    client.cli.ask(&["up"])?;
    wait_open(&client, &server, 80)?;
    ensure!(impostor.accepted() == 1);
    Ok(())
}
