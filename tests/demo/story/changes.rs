//! Decisions of the administrator that cut running flows, and what is left of them on record.

use std::time::Duration;

use anyhow::ensure;

use gatereeve_tests::clock::{wait_for, wall};
use gatereeve_tests::traffic::tcp::{Download, TcpSource};
use gatereeve_tests::traffic::udp::UdpSender;

use super::{ATTEMPT, CUT, SILENCE, Stage};
use crate::policy;
use crate::report::{Report, Step};

/// A rule shrinks under a running download.
pub(super) fn policy_cuts(stage: &mut Stage, report: &mut Report) -> anyhow::Result<Step> {
    let mut step = Step::new("the flow that lost its rule was cut; the one that kept it went on");
    let cut = Download::start(&stage.admin.namespace, stage.db.v4(22)?, ATTEMPT)?;
    let kept = Download::start(&stage.admin.namespace, stage.web.v4(22)?, ATTEMPT)?;
    let flowing = cut.bytes_during(Duration::from_millis(500));
    step.must(flowing > 0, "the download runs before");
    report.progress("admin downloads from db; a policy without that rule is applied");
    let next = policy::second(&stage.policy);
    ensure!(next != stage.policy, "the second policy takes a rule away");
    let committed = stage.world.controller.cli.apply(&next, &["--wait"])?;
    stage.policy = next;
    let last = cut.wait_cut(SILENCE, CUT)?;
    let after_ms = ms_after(last, committed.at.0);
    let after = cut.bytes_during(Duration::from_millis(500));
    let control = kept.bytes_during(Duration::from_millis(500));
    step.line(format!(
        "{} ({} device pairs lost access)",
        committed.summary, committed.lost_pairs
    ));
    step.line(format!(
        "admin <- db:22: last byte {after_ms} ms after the commit, then {after} bytes"
    ));
    step.line(format!(
        "positive control, admin <- web:22: {control} bytes in 500 ms after"
    ));
    step.must(after == 0, format!("{after} bytes came after the cut"));
    step.must(control > 0, "the other download went on");
    step.fact("milliseconds_from_commit_to_last_byte", after_ms);
    step.fact("denied_bytes", after);
    step.fact("positive_control_bytes", control);
    report.figure("policy_commit_to_last_byte_ms", after_ms);
    Ok(step)
}

/// A device is revoked while it sends a thousand packets a second.
pub(super) fn revocation(stage: &Stage, report: &mut Report) -> anyhow::Result<Step> {
    let mut step = Step::new("nothing of the revoked device arrived after the command returned");
    let pace = Duration::from_millis(1);
    let sender = UdpSender::start(&stage.admin.namespace, stage.web.v4(2222)?, 7, pace)?;
    let control = UdpSender::start(&stage.web.namespace, stage.db.v4(5432)?, 8, pace)?;
    wait_for("both flows to run", CUT, || {
        let running =
            stage.admin_udp_on_web.flow(7).packets > 300 && stage.udp_on_db.flow(8).packets > 300;
        Ok(running.then_some(()))
    })?;
    report.progress("admin sends to web, 1000 packets a second; admin's laptop is reported stolen");
    let committed = stage
        .world
        .controller
        .cli
        .change(&["device", "revoke", "admin", "--reason", "stolen", "--wait"])?;
    let returned = wall();
    let at_return = stage.admin_udp_on_web.flow(7);
    let (sent_at_return, control_at_return) = (sender.sent(), stage.udp_on_db.flow(8).packets);
    std::thread::sleep(Duration::from_secs(1));
    let end = stage.admin_udp_on_web.flow(7);
    let after_return = stage.admin_udp_on_web.after(7, returned);
    let control_after = stage.udp_on_db.flow(8).packets - control_at_return;
    let after_ms = ms_after(end.last_at, committed.at.0);
    let still_sent = sender.sent() - sent_at_return + sender.errors();
    step.line(format!(
        "{} packets before; confirmed by {:?}",
        at_return.packets,
        names(&committed.confirmed)
    ));
    step.line(format!(
        "last packet {after_ms} ms after the commit (kernel receive timestamp), {after_return} after the command returned"
    ));
    step.line(format!("admin still tried: {still_sent} packets; positive control, web -> db: {control_after} packets in the same second"));
    step.must(
        after_return == 0,
        format!("{after_return} packets after `--wait` returned"),
    );
    step.must(control_after > 100, "the control flow went on");
    step.must(control.sent() > 0, "the control flow was sent");
    step.must(
        committed
            .unconfirmed
            .iter()
            .all(|u| u.name.as_str() == "admin"),
        format!("unconfirmed: {:?}", committed.unconfirmed),
    );
    step.fact("denied_bytes", after_return * 200);
    step.fact("positive_control_bytes", control_after * 200);
    step.fact("milliseconds_from_commit_to_last_packet", after_ms);
    report.figure("revocation_commit_to_last_packet_ms", after_ms);
    report.figure("packets_after_wait_returned", after_return);
    Ok(step)
}

fn names<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(T::to_string).collect()
}

/// The log, checked.
pub(super) fn audit(stage: &Stage) -> anyhow::Result<Step> {
    let cli = &stage.world.controller.cli;
    let verified = cli.run(&["audit", "verify"])?;
    let tail = cli.run(&["audit", "tail"])?;
    let mut step = Step::new("every decision and change is in the hash-chained log");
    step.must(
        verified.status == Some(0),
        format!("audit verify: {verified:?}"),
    );
    step.must(
        tail.stdout.contains("stolen"),
        "the revocation and its reason are in the log",
    );
    step.line(format!(
        "`audit verify`: {}",
        verified
            .stdout
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    ));
    Ok(step)
}

/// One TCP connection for two seconds.
pub(super) fn throughput(stage: &Stage, report: &mut Report) -> anyhow::Result<Step> {
    let source = TcpSource::start_unpaced(&stage.db.namespace, 5201)?;
    let download = Download::start(&stage.web.namespace, stage.db.v4(5201)?, ATTEMPT)?;
    report.progress("web reads from db for two seconds");
    let bytes = download.bytes_during(Duration::from_secs(2));
    let rate = bytes * 8 / 2 / 1_000_000;
    report.figure("tcp_mbit_per_second", rate);
    let mut step = Step::new(format!("{rate} Mbit/s over one TCP connection"));
    step.must(
        bytes > 1_000_000 && source.accepted() == 1,
        format!("only {bytes} bytes in 2 s"),
    );
    step.fact("bytes", bytes);
    Ok(step)
}

/// Milliseconds from a commit to the last packet; 0 where that came before it.
fn ms_after(packet: Duration, commit_ms: u64) -> u64 {
    u64::try_from(packet.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_sub(commit_ms)
}
