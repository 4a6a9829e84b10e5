//! The harness itself: what it builds carries traffic, and goes when it is dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::netns::links::Switch;
use gatereeve_tests::process::Process;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::tcp::{Attempt, Download, TcpSource, attempt};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};

const LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn namespaces_carry_traffic() -> anyhow::Result<()> {
    let switch = Switch::new()?;
    let (a, _) = switch.connect(1)?;
    let (b, at) = switch.connect(2)?;
    let source = TcpSource::start(&b, 80)?;
    let receiver = UdpReceiver::start(&b, 53, true)?;
    for (number, ip) in [(1, at.v4.into()), (2, at.v6.into())] {
        ensure!(ping(&a, ip, 3, LIMIT)? == 3, "{ip} answers to ping");
        let got = attempt(&a, SocketAddr::new(ip, 80), LIMIT)?;
        ensure!(got.is_connected(), "{ip} takes a connection: {got:?}");
        let closed = attempt(&a, SocketAddr::new(ip, 81), LIMIT)?;
        ensure!(matches!(closed, Attempt::Refused { .. }), "{closed:?}");
        let download = Download::start(&a, SocketAddr::new(ip, 80), LIMIT)?;
        wait_for("bytes", LIMIT, || {
            Ok((download.bytes() > 100_000).then_some(()))
        })?;
        ensure!(download.ended().is_none());
        let sender = UdpSender::start(
            &a,
            SocketAddr::new(ip, 53),
            number,
            Duration::from_millis(1),
        )?;
        wait_for("answers", LIMIT, || {
            Ok((sender.answers() > 100).then_some(()))
        })?;
        let flow = receiver.flow(number);
        ensure!(
            flow.packets > 100 && flow.last_at > flow.first_at,
            "{flow:?}"
        );
    }
    ensure!(source.accepted() == 4);
    ensure!(receiver.flow(3).packets == 0);
    Ok(())
}

pub(crate) fn children_end_with_their_guard() -> anyhow::Result<()> {
    let mut command = Command::new("sleep");
    command.arg("100");
    let process = Process::start("sleep", command, None, None)?;
    let path = format!("/proc/{}", process.id());
    ensure!(Path::new(&path).exists());
    drop(process);
    ensure!(!Path::new(&path).exists());
    Ok(())
}
