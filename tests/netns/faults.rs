//! Crashes, restarts and second copies of the daemons.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_client_core::api::Connection;
use gatereeve_tests::cli;
use gatereeve_tests::clock::wait_for;
use gatereeve_tests::netns::Namespace;
use gatereeve_tests::process::{self, Setting};
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::tcp::{TcpSource, attempt};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};

use crate::scene::{LIMIT, QUIET, apply, ensure_closed, open_pair, pair, wait_open, world};

/// The controller is killed and comes back; what flows does not notice.
pub(crate) fn flows_survive_the_controllers_crash() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_for("packets", LIMIT, || {
        Ok((receiver.flow(1).packets > 100).then_some(()))
    })?;
    let before = world.controller.status()?;
    world.controller.kill();
    client.wait_until("it notices", |status| {
        status.connection != Connection::Synced
    })?;
    // New connections pass too, on what is leased.
    ensure!(attempt(&client.namespace, server.v4(80)?, LIMIT)?.is_connected());
    world.controller.start()?;
    for device in [&client, &server] {
        device.wait_until("it is back", |status| {
            status.connection == Connection::Synced
        })?;
    }
    let after = world.controller.status()?;
    ensure!(
        after.generation >= before.generation,
        "{before:?} then {after:?}"
    );
    ensure!(after.policy_revision == before.policy_revision);
    let sent = sender.sent();
    wait_for("the rest", LIMIT, || {
        Ok((receiver.flow(1).highest >= sent).then_some(()))
    })?;
    let flow = receiver.flow(1);
    ensure!(
        flow.packets == flow.highest + 1,
        "{} of {} packets",
        flow.packets,
        flow.highest + 1
    );
    Ok(())
}

/// After `kill -9` of a client the host's own network works, and nothing leaks around the tunnel.
pub(crate) fn a_killed_client_breaks_nothing() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let underlay = SocketAddr::new(IpAddr::V4(server.underlay.v4), 80);
    client.kill();
    ensure!(
        attempt(&client.namespace, underlay, LIMIT)?.is_connected(),
        "the underlay works"
    );
    for address in [
        IpAddr::V4(server.underlay.v4),
        IpAddr::V6(server.underlay.v6),
    ] {
        ensure!(
            ping(&client.namespace, address, 1, LIMIT)? == 1,
            "{address} answers"
        );
    }
    ensure_closed(&client, &server, 80)?;
    client.start()?;
    wait_open(&client, &server, 80)?;
    // An orderly end leaves nothing at all: what has no route is unreachable at once.
    client.stop()?;
    ensure_closed(&client, &server, 80)?;
    client.start()?;
    wait_open(&client, &server, 80)?;
    // `down` holds over a restart, and `up` ends it.
    client.cli.ask(&["down"])?;
    ensure_closed(&client, &server, 80)?;
    client.stop()?;
    client.start()?;
    ensure_closed(&client, &server, 80)?;
    client.cli.ask(&["up"])?;
    wait_open(&client, &server, 80)
}

/// Whoever sends to a device all along reaches it again as soon as its daemon has been restarted, as by an upgrade: the
/// sender itself would notice after 15 seconds that its session is gone.
pub(crate) fn a_restarted_server_greets_its_clients() -> anyhow::Result<()> {
    const SOON: Duration = Duration::from_secs(10);
    let mut world = world()?;
    let (client, mut server) = pair(&mut world)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, false)?;
    apply(&world, &open_pair())?;
    let sender = UdpSender::start(
        &client.namespace,
        server.v4(53)?,
        3,
        Duration::from_millis(5),
    )?;
    let arrived = |before: u64| Ok((receiver.flow(3).packets > before).then_some(()));
    wait_for("packets", LIMIT, || arrived(10))?;
    for _ in 0..2 {
        server.stop()?;
        let before = receiver.flow(3).packets;
        server.start()?;
        wait_for("packets after the restart", SOON, || arrived(before))?;
    }
    ensure!(sender.sent() > receiver.flow(3).packets, "some were lost");
    Ok(())
}

/// A second daemon on the same state is told who holds it.
pub(crate) fn a_second_daemon_is_refused() -> anyhow::Result<()> {
    let mut world = world()?;
    let client = world.device("client", &[])?;
    let second = client.daemon_command();
    ensure_refused(second, &client.namespace, client.process())?;

    let second = world
        .controller
        .cli
        .command(["serve", "--listen", "[::]:9443"]);
    let controller = &world.controller;
    ensure_refused(second, &controller.namespace, controller.process())?;
    // Both first ones go on.
    ensure!(client.status()?.connection == Connection::Synced);
    world.controller.status().map(drop)
}

/// A device whose disk takes nothing enforces what it is told, and confirms it only once a restart would not bring the old
/// state back.
pub(crate) fn what_is_not_written_is_not_confirmed() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let state = client.directory().join("state/state");
    let aside = state.with_extension("aside");
    std::fs::rename(&state, &aside)?;
    // No file comes in the place of a directory.
    std::fs::create_dir(&state)?;
    let quarantine = |options: &[&str]| {
        let arguments = [&["device", "quarantine", "server"], options].concat();
        world.controller.cli.change(&arguments)
    };
    let committed = quarantine(&["--wait=2s"])?;
    let waits_for: Vec<_> = committed
        .unconfirmed
        .iter()
        .map(|waited| waited.name.to_string())
        .collect();
    ensure!(waits_for == ["client"], "{committed:?}");
    ensure_closed(&client, &server, 80)?;
    let warnings = client.status()?.warnings;
    ensure!(
        warnings.iter().any(|warning| warning.contains("state")),
        "{warnings:?}"
    );
    std::fs::remove_dir(&state)?;
    // It is tried again by itself.
    wait_for("the state to be written", Duration::from_secs(20), || {
        Ok(state.is_file().then_some(()))
    })?;
    let committed = quarantine(&["--lift", "--wait"])?;
    ensure!(committed.unconfirmed.is_empty(), "{committed:?}");
    wait_open(&client, &server, 80)
}

/// The daemon does not start, and says which process is in its way.
fn ensure_refused(
    mut daemon: Command,
    namespace: &Namespace,
    holder: Option<&process::Process>,
) -> anyhow::Result<()> {
    let holder = holder.context("the first one runs")?.id().to_string();
    let setting = Setting {
        namespace: Some(namespace.clone()),
        ..Setting::default()
    };
    process::prepare(&mut daemon, setting);
    let refused = cli::run(daemon)?;
    ensure!(
        refused.status.is_some_and(|status| status != 0),
        "{refused:?}"
    );
    ensure!(
        refused.stderr.contains(&holder),
        "it names {holder}: {refused:?}"
    );
    Ok(())
}

/// Keys change under traffic, and no packet is lost.
pub(crate) fn key_rotation_loses_no_packet() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    let policy = format!("{}\n[network]\nrotate_key = \"4s\"\n", open_pair());
    apply(&world, &policy)?;
    wait_open(&client, &server, 80)?;
    let keys = || anyhow::Ok((client.status()?.wg_key, server.status()?.wg_key));
    let first = keys()?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    let mut last = first.clone();
    let mut rotations = 0;
    wait_for("three rotations", Duration::from_secs(60), || {
        let now = keys()?;
        rotations += usize::from(now.0 != last.0) + usize::from(now.1 != last.1);
        last = now;
        Ok((rotations >= 3).then_some(()))
    })?;
    ensure!(
        last.0 != first.0 && last.1 != first.1,
        "both ends have new keys"
    );
    let sent = sender.sent();
    wait_for("the rest", LIMIT, || {
        Ok((receiver.flow(1).highest >= sent).then_some(()))
    })?;
    let flow = receiver.flow(1);
    ensure!(
        flow.packets == flow.highest + 1,
        "{} of {} packets",
        flow.packets,
        flow.highest + 1
    );
    std::thread::sleep(QUIET);
    ensure!(sender.errors() == 0, "{} packets refused", sender.errors());
    Ok(())
}
