//! A device turns bad while it downloads, and well again.

use std::time::Duration;

use gatereeve_tests::clock::{unix_millis, wall};
use gatereeve_tests::traffic::tcp::{Download, attempt};

use super::access::wait_for_rule;
use super::{ATTEMPT, CUT, SILENCE, Stage, start_agent};
use crate::report::{Report, Step};

/// The watched process is killed; it is started again at the end.
pub(super) fn process_stops(stage: &mut Stage, report: &mut Report) -> anyhow::Result<Step> {
    let mut step = Step::new("alice was cut when her agent stopped, and let in again when it ran");
    let cut = cut_while_downloading(stage, report, &mut step, "stopping the agent", |stage| {
        stage.agent_process = None;
        Ok(())
    })?;
    report.figure("process_stop_to_last_byte_ms", cut);
    stage.agent_process = Some(start_agent(&stage.agent)?);
    regained(stage, &mut step)?;
    Ok(step)
}

/// The firewall is flushed; it is raised again at the end.
pub(super) fn firewall_flushed(stage: &mut Stage, report: &mut Report) -> anyhow::Result<Step> {
    let mut step = Step::new("alice was cut when her firewall went, and let in again with it");
    let cut = cut_while_downloading(stage, report, &mut step, "flushing the firewall", |stage| {
        stage.alice.flush_firewall()
    })?;
    report.figure("firewall_flush_to_last_byte_ms", cut);
    stage.alice.raise_firewall()?;
    regained(stage, &mut step)?;
    Ok(step)
}

fn cut_while_downloading(
    stage: &mut Stage,
    report: &Report,
    step: &mut Step,
    what: &str,
    turn_bad: impl FnOnce(&mut Stage) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let download = Download::start(&stage.alice.namespace, stage.web.v4(443)?, ATTEMPT)?;
    // The positive control: what does not ask for posture goes on.
    let control = Download::start(&stage.admin.namespace, stage.web.v4(22)?, ATTEMPT)?;
    let flowing = download.bytes_during(Duration::from_secs(1));
    step.must(flowing > 0, "the download runs before");
    step.fact("bytes_in_the_second_before", flowing);
    report.progress(&format!(
        "alice downloads from web ({} kB/s); {what}",
        flowing / 1000
    ));
    let started = wall();
    let at = unix_millis();
    turn_bad(stage)?;
    let last = download.wait_cut(SILENCE, CUT)?;
    let took = u64::try_from(last.saturating_sub(started).as_millis()).unwrap_or(u64::MAX);
    let after = download.bytes_during(Duration::from_secs(1));
    let control_after = control.bytes_during(Duration::from_millis(500));
    step.line(format!(
        "{what} at {}: last byte {took} ms later, then {after} bytes",
        at.0
    ));
    step.line(format!(
        "positive control, admin's download: {control_after} bytes in the 500 ms after"
    ));
    step.must(after == 0, format!("{after} bytes came after the cut"));
    step.must(control_after > 0, "the control download went on");
    let why = stage.alice.why("web:443")?;
    for reason in &why.missing {
        step.line(format!("alice's `gatereeve why web:443`: {reason}"));
    }
    step.must(
        !why.allowed && !why.missing.is_empty(),
        "`why` says what is missing",
    );
    step.fact("milliseconds_to_last_byte", took);
    step.fact("denied_bytes", after);
    step.fact("positive_control_bytes", control_after);
    Ok(took)
}

fn regained(stage: &Stage, step: &mut Step) -> anyhow::Result<()> {
    wait_for_rule(&stage.alice, "web:443")?;
    let again = attempt(&stage.alice.namespace, stage.web.v4(443)?, ATTEMPT)?;
    step.line(format!(
        "well again: alice -> web:443 {} bytes",
        again.bytes()
    ));
    step.must(again.is_connected(), format!("access came back: {again:?}"));
    Ok(())
}
