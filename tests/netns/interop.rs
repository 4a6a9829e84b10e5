//! Stock WireGuard as a peer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::stock::StockPeer;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::tcp::{TcpSource, attempt};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};

use crate::scene::{LIMIT, QUIET, apply, rule, world};

/// `wireguard-go` and our client reach each other in both roles; what no rule allows stays shut at
/// our end, whatever the stock peer sends.
pub(crate) fn wireguard_go_both_ways() -> anyhow::Result<()> {
    let mut world = world()?;
    let ours = world.device("ours", &["--tag", "tag:ours"])?;
    let invite = world.controller.cli.invite(&["--tag", "tag:stock"])?;
    let stock = StockPeer::join(&mut world, "stock", &invite)?;
    let _sources = [
        TcpSource::start(&ours.namespace, 80)?,
        TcpSource::start(&ours.namespace, 81)?,
        TcpSource::start(&stock.namespace, 80)?,
    ];
    let receiver = UdpReceiver::start(&ours.namespace, 53, true)?;
    // The stock peer begins.
    apply(
        &world,
        &rule(
            "tag:stock",
            "tag:ours",
            r#"["tcp:80", "udp:53", "icmp"]"#,
            "",
        ),
    )?;
    stock.wait_peers(1)?;
    for ip in [
        IpAddr::V4(ours.addresses()?.v4),
        IpAddr::V6(ours.addresses()?.v6),
    ] {
        wait_for(&format!("{ip} answers"), Duration::from_secs(20), || {
            Ok((ping(&stock.namespace, ip, 1, Duration::from_secs(1))? == 1).then_some(()))
        })?;
        let reached = attempt(&stock.namespace, SocketAddr::new(ip, 80), LIMIT)?;
        ensure!(reached.is_connected(), "{ip}: {reached:?}");
        let denied = attempt(&stock.namespace, SocketAddr::new(ip, 81), QUIET)?;
        ensure!(denied.bytes() == 0, "{ip}: {denied:?}");
    }
    ensure!(stock.last_handshake()? > 0);
    let pace = Duration::from_millis(2);
    let sender = UdpSender::start(&stock.namespace, ours.v4(53)?, 1, pace)?;
    wait_for("answers", LIMIT, || {
        Ok((sender.answers() > 200).then_some(()))
    })?;
    ensure!(receiver.flow(1).packets > 200);
    // Nothing lets ours reach the stock peer: refused at our own end.
    let to_stock = SocketAddr::new(stock.addresses()?.v4.into(), 80);
    ensure!(attempt(&ours.namespace, to_stock, QUIET)?.bytes() == 0);
    // The other way round: ours begins, and the stock peer's own flow is cut.
    apply(&world, &rule("tag:ours", "tag:stock", r#"["tcp:80"]"#, ""))?;
    let before = receiver.flow(1).packets;
    wait_for("ours reaches stock", Duration::from_secs(20), || {
        Ok(attempt(&ours.namespace, to_stock, Duration::from_secs(1))?
            .is_connected()
            .then_some(()))
    })?;
    ensure!(sender.sent() > before, "the stock peer goes on sending");
    ensure!(
        receiver.flow(1).packets == before,
        "what lost its rule does not pass"
    );
    // Revoked: our end alone is enough.
    world
        .controller
        .cli
        .change(&["device", "revoke", "stock", "--wait"])?;
    ensure!(attempt(&ours.namespace, to_stock, QUIET)?.bytes() == 0);
    ensure!(ping(&stock.namespace, ours.addresses()?.v4.into(), 1, QUIET)? == 0);
    Ok(())
}
