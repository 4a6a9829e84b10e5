//! A guest that leaves the host as it found it, beside others who do not ask.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_client_core::api::{LocalReply, RepairView};
use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};
use gatereeve_tests::world::host_state::{Others, Snapshot, ip};
use gatereeve_tests::world::{DeviceHost, PATIENCE, World};

use crate::scene::{LIMIT, QUIET, apply, ensure_closed, open_pair, pair, wait_open, world};

/// Rules and routes that stay while no daemon runs: three rules and a route for each family.
const LASTING: usize = 8;

/// A server to reach, and a client whose daemon runs and has not joined.
fn unjoined(world: &mut World) -> anyhow::Result<(DeviceHost, DeviceHost, TcpSource)> {
    let server = world.device("server", &["--tag", "tag:server"])?;
    let source = TcpSource::start(&server.namespace, 80)?;
    let client = world.host("client")?;
    apply(world, &open_pair())?;
    Ok((client, server, source))
}

/// What is there without a daemon: all of the others', and of ours what fails closed.
fn ensure_only_blackhole(client: &DeviceHost, before: &Snapshot, when: &str) -> anyhow::Result<()> {
    let (others, ours) = Snapshot::take(&client.namespace)?.without_ours()?;
    let (before, already) = before.without_ours()?;
    others.ensure_same(&before, when)?;
    ensure!(ours == already + LASTING, "{when}: {ours} of ours");
    let view = client.repair(&[])?;
    ensure!(!view.daemon && view.places.len() == 1, "{when}: {view:?}");
    ensure!(
        view.places
            .iter()
            .all(|place| place.interface.is_none() && place.blackhole.len() == 2),
        "{when}: {view:?}"
    );
    ensure!(view.notes.iter().any(|note| note.contains("on purpose")));
    let status = client.run_here(&["status"])?;
    ensure!(status.status == Some(6), "{when}: {status:?}");
    let told: LocalReply = status.json(&[6])?;
    ensure!(told == LocalReply::Repair(view), "{when}: {told:?}");
    Ok(())
}

/// Start, join, down, stop, crash, restart, leave: after each the host is byte for byte what it was, or has our
/// blackhole besides, until `repair --remove`. The others work all the while.
pub(crate) fn everything_is_put_back() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server, _source) = unjoined(&mut world)?;
    let _others = Others::settle(&client.namespace)?;
    let before = Snapshot::take(&client.namespace)?;
    let ensure_as_before = |client: &DeviceHost, when: &str| {
        Snapshot::take(&client.namespace)?.ensure_same(&before, when)
    };
    client.stop()?;
    ensure_as_before(&client, "stopped before joining")?;
    ensure!(client.repair(&[])?.places.is_empty());
    client.start()?;
    let invite = world.controller.cli.invite(&["--tag", "tag:client"])?;
    client.join(&invite)?;
    wait_open(&client, &server, 80)?;
    ensure!(
        Snapshot::take(&client.namespace)? != before,
        "control: a running client shows"
    );
    let running = client.status()?;
    ensure!(
        running
            .blackhole
            .as_ref()
            .is_some_and(|view| view.prefixes.len() == 2),
        "{running:?}"
    );

    client.cli.ask(&["down"])?;
    ensure_as_before(&client, "down")?;
    client.cli.ask(&["up"])?;
    wait_open(&client, &server, 80)?;
    let refused = client.run_here(&["repair", "--remove"])?;
    ensure!(refused.status == Some(5), "beside a daemon: {refused:?}");
    wait_open(&client, &server, 80)?;

    client.stop()?;
    ensure_only_blackhole(&client, &before, "stopped")?;
    ensure_closed(&client, &server, 80)?;
    let gone = client.repair(&["--remove"])?;
    ensure!(gone.changes.len() == LASTING, "{gone:?}");
    ensure_as_before(&client, "stopped and removed")?;

    client.start()?;
    wait_open(&client, &server, 80)?;
    client.kill();
    ensure_only_blackhole(&client, &before, "killed")?;
    ensure_closed(&client, &server, 80)?;
    let mended = client.repair(&["--apply"])?;
    ensure!(mended.changes.is_empty(), "up, so it stays: {mended:?}");
    client.repair(&["--remove", "--all"])?;
    ensure_as_before(&client, "killed and removed")?;

    client.start()?;
    wait_open(&client, &server, 80)?;
    client.kill();
    client.start()?;
    wait_open(&client, &server, 80)?;
    client.cli.ask(&["leave"])?;
    ensure_as_before(&client, "left")?;
    client.stop()?;
    ensure_as_before(&client, "stopped after leaving")
}

/// A crash while down, or a network file that says so: `repair --apply` takes away what nothing needs.
pub(crate) fn repair_knows_what_nothing_needs() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    client.kill();
    ensure!(client.repair(&["--apply"])?.changes.is_empty());
    let file = client.directory().join("state/network");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("\"up\": true", "\"up\": false"))?;
    let mended = client.repair(&["--apply"])?;
    ensure!(
        mended.changes.len() == LASTING && mended.places.is_empty(),
        "{mended:?}"
    );
    Ok(())
}

/// Rules and routes that an older version has left, at our place with our number, go at the start; those of a
/// newer place stay for their own daemon. A restart under traffic lets nothing past the tunnel.
pub(crate) fn an_upgrade_takes_over_what_it_finds() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let as_usual = client.repair(&[])?;
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&client.namespace, server.v4(53)?, 1, pace)?;
    wait_for("packets", LIMIT, || {
        Ok((receiver.flow(1).packets > 100).then_some(()))
    })?;
    client.stop()?;
    let route = ip(
        &client.namespace,
        &["route", "get", &server.addresses()?.v4.to_string()],
    );
    let refused = route.err().context("there is a route past the tunnel")?;
    ensure!(
        refused.to_string().contains("No route to host"),
        "{refused}"
    );
    for line in [
        "rule add pref 5249 from 100.99.0.1 unreachable protocol 82",
        "rule add pref 5247 to 100.99.0.0/16 lookup 5247 protocol 82",
        "rule add pref 5247 to 100.64.0.0/10 fwmark 0x5247 lookup main protocol 82",
        "-6 rule add pref 5247 to fd00::/8 fwmark 0x5247 lookup main protocol 82",
        "route add blackhole 100.99.0.0/16 table 5247 proto 82",
    ] {
        ip(&client.namespace, &line.split(' ').collect::<Vec<_>>())?;
    }
    let arrived = receiver.flow(1).packets;
    client.start()?;
    wait_for("the flow to go on", PATIENCE, || {
        Ok((receiver.flow(1).packets > arrived + 100).then_some(()))
    })?;
    ensure!(sender.errors() > 0, "control: it failed meanwhile");
    let RepairView { places, .. } = client.repair(&[])?;
    ensure!(places == as_usual.places, "{places:?} but {as_usual:?}");
    Ok(())
}

/// Whoever flushes rules or routes of ours (systemd-networkd at its restart, a careless script) leaves no gap
/// for longer than a moment, and is told of.
pub(crate) fn what_others_remove_comes_back() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let as_usual = client.repair(&[])?;
    ensure!(
        as_usual.daemon
            && client
                .status()?
                .warnings
                .iter()
                .all(|w| !w.contains("removed"))
    );
    for line in [
        "rule del pref 5248",
        "-6 rule del pref 5249",
        "route flush table 5247",
        "address flush dev gatereeve0",
    ] {
        ip(&client.namespace, &line.split(' ').collect::<Vec<_>>())?;
        wait_for(line, PATIENCE, || {
            Ok((client.repair(&[])?.places == as_usual.places).then_some(()))
        })?;
        wait_open(&client, &server, 80)?;
    }
    let own = format!("{}/128", client.addresses()?.v6);
    let interface = ["-6", "address", "show", "dev", "gatereeve0"];
    let has_own = || {
        Ok(ip(&client.namespace, &interface)?
            .contains(&own)
            .then_some(()))
    };
    wait_for("control: it shows", PATIENCE, has_own)?;
    let gone = ["address", "del", &own, "dev", "gatereeve0"];
    ip(&client.namespace, &gone)?;
    wait_for("the IPv6 address alone", PATIENCE, has_own)?;
    // Back before anybody looks, and with that without the IPv4 routes, of which the kernel says nothing.
    let own = format!("{}/32 dev gatereeve0", client.addresses()?.v4);
    for lines in [
        format!("address del {own}\naddress add {own}\n"),
        "link set gatereeve0 down\nlink set gatereeve0 up\n".to_owned(),
    ] {
        let file = client.directory().join("batch");
        std::fs::write(&file, &lines)?;
        ip(&client.namespace, &["-batch", &file.to_string_lossy()])?;
        wait_for(&lines, PATIENCE, || {
            Ok((client.repair(&[])?.places == as_usual.places).then_some(()))
        })?;
        wait_open(&client, &server, 80)?;
    }
    client.wait_until("it tells", |status| {
        status
            .warnings
            .iter()
            .any(|warning| warning.contains("removed routes or rules"))
    })?;
    let mended = client.repair(&["--apply"])?;
    ensure!(mended.daemon && mended.changes.is_empty(), "{mended:?}");
    Ok(())
}

/// The interface removed, renamed, or moved to another namespace: it is made again, and once.
pub(crate) fn an_interface_that_goes_is_made_again() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let as_usual = client.repair(&[])?;
    let elsewhere = world.controller.process().context("it runs")?.id();
    let file = client.directory().join("batch");
    // With its number in front.
    let shown = || {
        let line = ip(&client.namespace, &["-o", "link", "show", "gatereeve0"])?;
        anyhow::Ok(line.split(':').next().unwrap_or_default().to_owned())
    };
    for lines in [
        "link del gatereeve0\n".to_owned(),
        "link set gatereeve0 down\nlink set gatereeve0 name other0\n".to_owned(),
        format!("link set gatereeve0 netns {elsewhere}\n"),
    ] {
        let before = shown()?;
        std::fs::write(&file, &lines)?;
        ip(&client.namespace, &["-batch", &file.to_string_lossy()])?;
        wait_for(&lines, PATIENCE, || {
            Ok((client.repair(&[])?.places == as_usual.places).then_some(()))
        })?;
        wait_open(&client, &server, 80)?;
        let made = shown()?;
        ensure!(made != before, "{lines}: control: {before} is another one");
        std::thread::sleep(QUIET);
        ensure!(shown()? == made, "{lines}: made more than once");
    }
    for namespace in [&client.namespace, &world.controller.namespace] {
        let links = ip(namespace, &["-o", "link"])?;
        ensure!(!links.contains("other0"), "{links}");
    }
    let links = ip(&world.controller.namespace, &["-o", "link"])?;
    ensure!(!links.contains("gatereeve0"), "the one moved away: {links}");
    Ok(())
}

/// Neither daemon listens on TCP, whatever it does.
pub(crate) fn no_daemon_listens_on_tcp() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    for process in [client.process(), world.controller.process()] {
        let id = process.context("it runs")?.id();
        let owned = sockets_of(id)?;
        ensure!(!owned.is_empty(), "control: it has sockets");
        for table in ["tcp", "tcp6"] {
            let text = std::fs::read_to_string(format!("/proc/{id}/net/{table}"))?;
            for line in text.lines().skip(1) {
                let inode = line.split_whitespace().nth(9).unwrap_or_default();
                ensure!(
                    !owned.iter().any(|own| own == inode),
                    "process {id} has a TCP socket: {line}"
                );
            }
        }
    }
    // Control: the table does show listeners of that namespace.
    let id = server.process().context("it runs")?.id();
    let text = std::fs::read_to_string(format!("/proc/{id}/net/tcp6"))?;
    ensure!(
        text.contains(" 0A "),
        "the test's own listener shows: {text}"
    );
    Ok(())
}

fn sockets_of(id: u32) -> anyhow::Result<Vec<String>> {
    let mut inodes = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{id}/fd"))? {
        // Descriptors come and go meanwhile.
        let Ok(target) = std::fs::read_link(entry?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[") {
            inodes.push(inode.trim_end_matches(']').to_owned());
        }
    }
    Ok(inodes)
}
