//! Default deny, and exactly what a policy allows, in both families.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_client_core::api::{FlowOpener, FlowView, LocalReply};

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::bulk::exchange;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::sniff::Sniffer;
use gatereeve_tests::traffic::tcp::{Attempt, TcpSource, attempt};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};

use crate::scene::{LIMIT, QUIET, apply, ensure_closed, open_pair, pair, rule, wait_open, world};

/// Bytes in each direction.
const BYTES: usize = 8 << 20;

/// Without a rule there is no packet, no handshake and no peer, whatever is tried.
pub(crate) fn nothing_passes_by_default() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let sniffer = Sniffer::start(world.switch.namespace())?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, false)?;
    // A policy about somebody else changes nothing either.
    for policy in [None, Some(rule("tag:other", "tag:server", r#"["*"]"#, ""))] {
        if let Some(policy) = &policy {
            apply(&world, policy)?;
        }
        ensure_closed(&client, &server, 80)?;
        ensure_closed(&server, &client, 80)?;
        let pace = Duration::from_millis(5);
        let senders = [server.v4(53)?, server.v6(53)?]
            .map(|to| UdpSender::start(&client.namespace, to, 1, pace));
        std::thread::sleep(QUIET);
        for sender in senders {
            ensure!(sender?.sent() > 10, "the attempts are made");
        }
        for to in [
            IpAddr::V4(server.addresses()?.v4),
            IpAddr::V6(server.addresses()?.v6),
        ] {
            ensure!(ping(&client.namespace, to, 1, QUIET)? == 0, "{to} answers");
        }
        ensure!(receiver.packets() == 0, "{} packets", receiver.packets());
        ensure!(
            sniffer.handshakes() == 0,
            "{} handshakes",
            sniffer.handshakes()
        );
        ensure!(sniffer.data() == 0, "{} data messages", sniffer.data());
        ensure!(client.peers()?.is_empty() && server.peers()?.is_empty());
    }
    // Positive control: with a rule all of it passes, and the sniffer sees it.
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let sender = UdpSender::start(
        &client.namespace,
        server.v4(53)?,
        2,
        Duration::from_millis(5),
    )?;
    wait_for("packets", LIMIT, || {
        Ok((receiver.flow(2).packets > 10).then_some(()))
    })?;
    ensure!(sender.sent() >= receiver.flow(2).packets);
    ensure!(sniffer.handshakes() > 0 && sniffer.data() > 0);
    Ok(())
}

/// TCP, UDP and ICMP pass in both families, in the direction and at the ports of the rule.
pub(crate) fn a_rule_opens_what_it_names() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _sources = [
        TcpSource::start(&server.namespace, 80)?,
        TcpSource::start(&server.namespace, 81)?,
        TcpSource::start(&client.namespace, 80)?,
    ];
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    let other = UdpReceiver::start(&server.namespace, 54, true)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let targets = [(server.v4(80)?, 1), (server.v6(80)?, 2)];
    for (target, flow) in targets {
        let result = attempt(&client.namespace, target, LIMIT)?;
        ensure!(result.is_connected(), "{target}: {result:?}");
        let at = |port: u16| std::net::SocketAddr::new(target.ip(), port);
        let pace = Duration::from_millis(2);
        let sender = UdpSender::start(&client.namespace, at(53), flow, pace)?;
        wait_for("answers", LIMIT, || {
            Ok((sender.answers() > 50).then_some(()))
        })?;
        ensure!(receiver.flow(flow).packets > 50);
        let denied = UdpSender::start(&client.namespace, at(54), flow, pace)?;
        std::thread::sleep(QUIET);
        ensure!(
            denied.sent() > 10 && other.packets() == 0,
            "{} packets at udp:54",
            other.packets()
        );
        ensure!(
            ping(&client.namespace, target.ip(), 3, LIMIT)? == 3,
            "{target} does not answer"
        );
    }
    // The next port, and the other direction, stay closed, and say so at once.
    let refused = attempt(&client.namespace, server.v4(81)?, LIMIT)?;
    ensure!(
        matches!(refused, Attempt::Refused { after_ms, .. } if after_ms < 500),
        "{refused:?}"
    );
    ensure_closed(&client, &server, 81)?;
    ensure_closed(&server, &client, 80)?;
    ensure!(ping(&server.namespace, client.addresses()?.v4.into(), 1, QUIET)? == 0);
    ensure!(ping(&server.namespace, client.addresses()?.v6.into(), 1, QUIET)? == 0);
    Ok(())
}

/// What crosses the underlay is not what was sent.
pub(crate) fn the_underlay_sees_no_plaintext() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let sniffer = Sniffer::start(world.switch.namespace())?;
    // What TCP sources send without end.
    sniffer.look_for(&[0x5a; 64]);
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    ensure!(
        sniffer.data() > 0 && sniffer.canaries() == 0,
        "{} in clear",
        sniffer.canaries()
    );
    // Positive control: past the tunnel it is seen.
    let clear = std::net::SocketAddr::new(server.underlay.v4.into(), 80);
    ensure!(attempt(&client.namespace, clear, LIMIT)?.is_connected());
    wait_for("the canary", LIMIT, || {
        Ok((sniffer.canaries() > 0).then_some(()))
    })
}

/// `ping`, `peers`, `whois` and `why` of the command line speak of the one peer there is.
pub(crate) fn the_command_line_shows_the_peer() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let LocalReply::Pinged {
        sent,
        round_trips_ms,
        ..
    } = client.cli.ask(&["ping", "server", "-c", "2"])?
    else {
        anyhow::bail!("ping answered something else");
    };
    ensure!(
        sent == 2 && round_trips_ms.len() == 2,
        "{sent} sent, {round_trips_ms:?}"
    );
    let peers = client.peers()?;
    ensure!(
        peers.len() == 1 && peers[0].name.as_str() == "server",
        "{peers:?}"
    );
    ensure!(
        peers[0].rx_bytes > 0 && peers[0].last_handshake_secs.is_some(),
        "{peers:?}"
    );
    ensure!(
        peers[0].egress.len() == 1 && peers[0].ingress.is_empty(),
        "{peers:?}"
    );
    let LocalReply::Whois { name, is_self, .. } = client
        .cli
        .ask(&["whois", &server.addresses()?.v6.to_string()])?
    else {
        anyhow::bail!("whois answered something else");
    };
    ensure!(name.as_str() == "server" && !is_self);
    let allowed = client.why("server:80")?;
    ensure!(
        allowed.allowed && allowed.answered_by == "controller",
        "{allowed:?}"
    );
    let denied = client.why("server:81")?;
    ensure!(!denied.allowed && !denied.missing.is_empty(), "{denied:?}");
    let explained = world.controller.explain("client", "server", "tcp:80")?;
    ensure!(
        explained.allowed && explained.rule.is_some(),
        "{explained:?}"
    );
    Ok(())
}

/// `flows` counts what passes packet by packet: for UDP what the applications count, for TCP what they read and the headers
/// that it came in, and both ends the same; all flows together are what `peers` says. It names device, user and rule.
pub(crate) fn flows_are_counted_with_names() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let receiver = UdpReceiver::start(&server.namespace, 53, true)?;
    ensure!(client.flows()?.is_empty(), "nothing has passed");
    apply(&world, &open_pair())?;
    let sender = UdpSender::start(
        &client.namespace,
        server.v6(53)?,
        7,
        Duration::from_millis(2),
    )?;
    wait_for("answers", LIMIT, || {
        Ok((sender.answers() > 200).then_some(()))
    })?;
    drop(sender);
    // Closed in order at the end, so that it is kept for two minutes.
    exchange(
        &client.namespace,
        &server.namespace,
        server.v4(80)?,
        BYTES,
        LIMIT,
    )?;

    wait_for("equal counts at both ends", LIMIT, || {
        let (ours, theirs) = (client.flows()?, server.flows()?);
        let same = |(one, other): (&FlowView, &FlowView)| {
            one.own == other.theirs && one.sent == other.received && one.received == other.sent
        };
        let is_same = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same);
        Ok(is_same.then_some(()))
    })?;
    let flows = client.flows()?;
    for flow in &flows {
        ensure!(
            flow.name.as_str() == "server" && flow.opened_by == FlowOpener::ThisDevice,
            "{flow:?}"
        );
        ensure!(flow.allowed && !flow.rule.as_str().is_empty(), "{flow:?}");
    }
    let peers = client.peers()?;
    let sum = |bytes: fn(&FlowView) -> u64| flows.iter().map(bytes).sum::<u64>();
    ensure!(
        peers[0].tx_bytes == sum(|flow| flow.sent.bytes)
            && peers[0].rx_bytes == sum(|flow| flow.received.bytes),
        "{peers:?} {flows:?}"
    );

    let most = flows.first().context("a flow")?;
    ensure!(
        most.protocol == "tcp" && most.theirs.port == 80,
        "{flows:?}"
    );
    for counted in [most.sent, most.received] {
        // No segment is longer than the interface's packets, however many came in one write.
        let least = counted.bytes.div_ceil(1420);
        ensure!(
            counted.bytes > u64::try_from(BYTES)? && (least..2 * least).contains(&counted.packets),
            "{most:?}"
        );
    }
    let udp = flows.iter().find(|flow| flow.protocol == "udp");
    let udp = udp.context("the datagrams' flow")?;
    let counted = receiver.flow(7).packets;
    // 200 bytes behind the headers of UDP and IPv6.
    ensure!(
        udp.sent.packets == counted && udp.sent.bytes == counted * 248,
        "{counted} received, {udp:?}"
    );
    // The same with a word of the command line for one peer, and none for one that there is not.
    let of_server = client.cli.run(&["flows", "server", "-n", "1"])?;
    let LocalReply::Flows {
        flows: one,
        tracked,
    } = of_server.json(&[0])?
    else {
        anyhow::bail!("flows answered something else");
    };
    ensure!(one.len() == 1 && tracked == flows.len(), "{one:?}");
    let nobody = client.cli.run(&["flows", "nobody"])?;
    ensure!(nobody.status == Some(4), "{nobody:?}");
    Ok(())
}
