//! What takes access away takes it from running flows too.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};

use gatereeve_tests::clock::{wait_for, wall};
use gatereeve_tests::held::HeldThread;
use gatereeve_tests::traffic::tcp::{Download, TcpSource};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};
use gatereeve_tests::world::{DeviceHost, World};

use crate::scene::{
    LIMIT, QUIET, apply, ensure_closed, open_pair, pair, rule, tags, wait_open, world,
};

const CUT: Duration = Duration::from_secs(20);

/// A download that runs, and bytes of it as its own positive control.
pub(crate) fn running_download(from: &DeviceHost, to: &DeviceHost) -> anyhow::Result<Download> {
    let download = Download::start(&from.namespace, to.v4(80)?, LIMIT)?;
    wait_for("bytes", LIMIT, || {
        Ok((download.bytes() > 200_000).then_some(()))
    })?;
    Ok(download)
}

fn ensure_cut(download: &Download) -> anyhow::Result<()> {
    download.wait_cut(QUIET, CUT)?;
    let after = download.bytes_during(QUIET);
    ensure!(after == 0, "{after} bytes after the cut");
    Ok(())
}

/// A fact turns bad and good again; access follows, on a running flow.
pub(crate) fn posture_cuts_and_restores() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let other = world.device("other", &["--tag", "tag:other"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    client.set_facts(r#"{ "healthy": true }"#)?;
    let declared = tags(&["tag:client", "tag:other", "tag:server"]);
    let policy = format!(
        "version = 1\n{declared}[posture.healthy]\ncustom.healthy = true\n\
        [[allow]]\nid = \"asks\"\nfrom = [\"tag:client\"]\nto = [\"tag:server\"]\nports = [\"tcp:80\"]\nposture = [\"healthy\"]\n\
        [[allow]]\nid = \"does-not-ask\"\nfrom = [\"tag:other\"]\nto = [\"tag:server\"]\nports = [\"tcp:80\"]\n"
    );
    apply(&world, &policy)?;
    wait_open(&client, &server, 80)?;
    wait_open(&other, &server, 80)?;
    for bad in [r#"{ "healthy": false }"#, r#"{ "healthy": "yes" }"#, "{}"] {
        let download = running_download(&client, &server)?;
        let control = running_download(&other, &server)?;
        client.set_facts(bad)?;
        ensure_cut(&download)?;
        ensure!(
            control.bytes_during(QUIET) > 0,
            "the rule without posture goes on"
        );
        ensure_closed(&client, &server, 80)?;
        let why = client.why("server:80")?;
        ensure!(
            !why.allowed && why.missing.iter().any(|m| m.contains("healthy")),
            "{why:?}"
        );
        client.wait_until("it says which check fails", |status| {
            !status.failing_checks.is_empty()
        })?;
        ensure!(client.peers()?.is_empty(), "no rule, no peer");
        client.set_facts(r#"{ "healthy": true }"#)?;
        wait_open(&client, &server, 80)?;
    }
    Ok(())
}

/// A rule goes while it carries a download; the flow beside it goes on.
pub(crate) fn a_policy_change_cuts_open_flows() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let other = world.device("other", &["--tag", "tag:client", "--tag", "tag:other"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let download = running_download(&client, &server)?;
    let pace = Duration::from_millis(1);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_for("packets", LIMIT, || {
        Ok((receiver.flow(1).packets > 100).then_some(()))
    })?;
    // One protocol goes: the download ends, and the packets beside it do not.
    apply(
        &world,
        &rule("tag:client", "tag:server", r#"["udp:53"]"#, ""),
    )?;
    ensure_cut(&download)?;
    let before = receiver.flow(1).packets;
    wait_for("more packets", LIMIT, || {
        Ok((receiver.flow(1).packets > before + 100).then_some(()))
    })?;
    // The device loses everything, another keeps it.
    let control = UdpSender::start(&other.namespace, server.v4(53)?, 2, pace)?;
    wait_for("packets", LIMIT, || {
        Ok((receiver.flow(2).packets > 100).then_some(()))
    })?;
    apply(
        &world,
        &rule("tag:other", "tag:server", r#"["udp:53"]"#, ""),
    )?;
    let (stopped, goes_on) = (receiver.flow(1).packets, receiver.flow(2).packets);
    let tried = sender.sent() + sender.errors();
    std::thread::sleep(QUIET);
    ensure!(
        receiver.flow(1).packets == stopped,
        "packets after the change was confirmed"
    );
    ensure!(sender.sent() + sender.errors() > tried, "it still tries");
    ensure!(receiver.flow(2).packets > goes_on && control.sent() > 0);
    Ok(())
}

/// A flow of small datagrams from each, numbered from one on, which are answered.
fn answered_flows(from: [&DeviceHost; 2], to: &DeviceHost) -> anyhow::Result<[UdpSender; 2]> {
    let pace = Duration::from_millis(1);
    let flow =
        |number, host: &DeviceHost| UdpSender::start(&host.namespace, to.v4(53)?, number, pace);
    let flows = [flow(1, from[0])?, flow(2, from[1])?];
    wait_for("both flows", CUT, || {
        Ok(flows.iter().all(|flow| flow.answers() > 200).then_some(()))
    })?;
    Ok(flows)
}

/// After `revoke --wait` has returned not one packet arrives, in either direction.
pub(crate) fn nothing_arrives_after_revoke_returned() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let witness = world.device("witness", &["--tag", "tag:client"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let [sender, _control] = answered_flows([&client, &witness], &server)?;
    let committed = world
        .controller
        .cli
        .change(&["device", "revoke", "client", "--reason", "test", "--wait"])?;
    let (returned, control_at_return) = (wall(), receiver.flow(2).packets);
    let answered = sender.answers();
    ensure!(
        committed
            .confirmed
            .iter()
            .any(|name| name.as_str() == "server"),
        "{committed:?}"
    );
    std::thread::sleep(Duration::from_secs(1));
    let after = receiver.after(1, returned);
    ensure!(after == 0, "{after} packets after revoke --wait returned");
    ensure!(sender.answers() == answered, "answers after it returned");
    ensure!(
        receiver.flow(2).packets > control_at_return + 100,
        "the witness goes on"
    );
    ensure!(
        server
            .peers()?
            .iter()
            .all(|peer| peer.name.as_str() != "client")
    );
    // The key is refused for good; the device knows its standing, and can do nothing with it.
    use gatereeve_shared::wire::controller::Standing;
    client.wait_until("it knows", |status| {
        status.standing == Some(Standing::Revoked)
    })?;
    ensure!(client.peers()?.is_empty());
    ensure_closed(&client, &server, 80)
}

/// The kernel changes a host under locks that every program on it shares, and may have a daemon wait there. Meanwhile the
/// daemon lives, and cuts.
pub(crate) fn a_change_of_the_host_that_takes_long_delays_no_cut() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let witness = world.device("witness", &["--tag", "tag:client"])?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    let _flows = answered_flows([&client, &witness], &server)?;
    let daemon = server.process().context("the server's daemon")?;
    let held = HeldThread::hold(daemon.id(), "gatereeve-net")?;
    std::thread::scope(|scope| {
        let repair = scope.spawn(|| server.repair(&["--apply"]));
        // Longer than a daemon whose engine waits keeps its data path open.
        std::thread::sleep(Duration::from_secs(9));
        ensure!(!repair.is_finished(), "the host is being changed");
        let before = (receiver.flow(1).packets, receiver.flow(2).packets);
        std::thread::sleep(QUIET);
        let after = (receiver.flow(1).packets, receiver.flow(2).packets);
        ensure!(after.0 > before.0 + 100 && after.1 > before.1 + 100);
        let revoke = ["device", "revoke", "client", "--reason", "test", "--wait"];
        let committed = world.controller.cli.change(&revoke)?;
        let returned = wall();
        let has_confirmed = |name: &str| committed.confirmed.iter().any(|at| at.as_str() == name);
        ensure!(has_confirmed("server"), "{committed:?}");
        let goes_on = receiver.flow(2).packets;
        std::thread::sleep(QUIET);
        let late = receiver.after(1, returned);
        ensure!(late == 0, "{late} packets after revoke --wait returned");
        ensure!(receiver.flow(2).packets > goes_on + 100);
        ensure!(!repair.is_finished(), "the host is still being changed");
        drop(held);
        let repaired = repair
            .join()
            .map_err(|_| anyhow!("repair has panicked"))??;
        ensure!(repaired.daemon && !repaired.places.is_empty());
        Ok(())
    })
}

/// Quarantine keeps the session and takes all peers; lifting it gives them back.
pub(crate) fn quarantine_and_back() -> anyhow::Result<()> {
    use gatereeve_shared::wire::controller::Standing;
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let download = running_download(&client, &server)?;
    world.controller.cli.change(&[
        "device",
        "quarantine",
        "client",
        "--reason",
        "odd",
        "--wait",
    ])?;
    ensure_cut(&download)?;
    ensure_closed(&client, &server, 80)?;
    client.wait_until("it knows", |status| {
        status.standing == Some(Standing::Quarantined) && status.peers == 0
    })?;
    ensure!(
        world.controller.device("client")?.connected,
        "the control session stays"
    );
    world
        .controller
        .cli
        .change(&["device", "quarantine", "client", "--lift", "--wait"])?;
    wait_open(&client, &server, 80)
}

/// A lease that nobody renews ends by itself, where the controller is gone.
pub(crate) fn leases_end_without_a_controller() -> anyhow::Result<()> {
    let mut world: World = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let ports = r#"["tcp:80"]"#;
    apply(
        &world,
        &rule("tag:client", "tag:server", ports, "lease = \"8s\""),
    )?;
    wait_open(&client, &server, 80)?;
    // Positive control: with a controller it is renewed past its first end.
    let download = running_download(&client, &server)?;
    std::thread::sleep(Duration::from_secs(10));
    ensure!(download.bytes_during(QUIET) > 0, "the lease is renewed");
    world.controller.kill();
    ensure!(
        download.bytes_during(QUIET) > 0,
        "what is leased goes on without a controller"
    );
    ensure_cut(&download)?;
    ensure_closed(&client, &server, 80)?;
    world.controller.start()?;
    wait_open(&client, &server, 80)
}
