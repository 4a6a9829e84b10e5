//! What is allowed, what is denied and why, and what a device learns.

use std::time::Duration;

use anyhow::Context as _;

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::traffic::tcp::attempt;
use gatereeve_tests::traffic::udp::UdpSender;
use gatereeve_tests::world::DeviceHost;

use super::{ATTEMPT, Stage};
use crate::report::{Report, Step};

/// Before any policy nothing passes; after it, exactly what it says.
pub(super) fn from_nothing_to_policy(
    stage: &mut Stage,
    report: &mut Report,
) -> anyhow::Result<Step> {
    let mut step = Step::new("nothing passed before the policy, and all it allows passes after it");
    report.progress("no policy yet: alice tries web, web tries db");
    let targets = [
        (&stage.alice, stage.web.v4(443)?),
        (&stage.web, stage.db.v4(5432)?),
    ];
    let mut before = 0;
    for (from, to) in targets {
        before += attempt(&from.namespace, to, Duration::from_secs(1))?.bytes();
    }
    step.fact("denied_bytes", before);
    step.must(
        before == 0,
        format!("{before} bytes passed without a policy"),
    );

    report.progress("applying a policy of three rules; its own tests run first");
    let committed = stage
        .world
        .controller
        .cli
        .apply(&stage.policy, &["--wait"])?;
    report.progress(&format!(
        "{}; {} device pairs gained access, confirmed by {} devices",
        committed.summary,
        committed.gained_pairs,
        committed.confirmed.len()
    ));
    wait_for_rule(&stage.alice, "web:443")?;

    let mut control = 0;
    for (from, to) in targets {
        let result = attempt(&from.namespace, to, ATTEMPT)?;
        step.line(format!(
            "{} -> {to} tcp: {} bytes",
            from.name,
            result.bytes()
        ));
        step.must(
            result.is_connected(),
            format!("{} -> {to}: {result:?}", from.name),
        );
        control += result.bytes();
    }
    step.fact("positive_control_bytes", control);
    let v6 = attempt(&stage.alice.namespace, stage.web.v6(443)?, ATTEMPT)?;
    step.line(format!("alice -> web tcp over IPv6: {} bytes", v6.bytes()));
    step.must(v6.is_connected(), format!("IPv6: {v6:?}"));
    let sender = UdpSender::start(
        &stage.alice.namespace,
        stage.web.v4(8125)?,
        1,
        Duration::from_millis(2),
    )?;
    let answers = wait_for("UDP answers", ATTEMPT, || {
        Ok((sender.answers() >= 100).then(|| sender.answers()))
    });
    step.must(answers.is_ok(), "alice -> web udp:8125 has no answers");
    let got = stage.udp_on_web.flow(1).packets;
    step.line(format!(
        "alice -> web udp:8125: {got} packets there, {} back",
        sender.answers()
    ));
    for address in [
        stage.web.addresses()?.v4.into(),
        stage.web.addresses()?.v6.into(),
    ] {
        let replies = ping(&stage.alice.namespace, address, 3, ATTEMPT)?;
        step.line(format!("alice -> {address} icmp: {replies} of 3 answered"));
        step.must(
            replies == 3,
            format!("{address} answered {replies} of 3 pings"),
        );
    }
    Ok(step)
}

/// Waits until the device's own answer is that it may.
pub(super) fn wait_for_rule(device: &DeviceHost, destination: &str) -> anyhow::Result<()> {
    wait_for(
        &format!("{} may reach {destination}", device.name),
        Duration::from_secs(20),
        || Ok(device.why(destination)?.allowed.then_some(())),
    )
}

/// Three denials, each beside the same thing where it is allowed.
pub(super) fn denied_and_why(stage: &Stage) -> anyhow::Result<Step> {
    let mut step = Step::new("three denials, each with its reason and its positive control");
    let cases = [
        (&stage.bob, &stage.web, 443, &stage.alice, "posture"),
        (&stage.alice, &stage.db, 5432, &stage.web, "no rule"),
        (
            &stage.alice,
            &stage.web,
            22,
            &stage.admin,
            "no rule for this port",
        ),
    ];
    let mut counts = Vec::new();
    for (who, to, port, control, kind) in cases {
        let denied = attempt(&who.namespace, to.v4(port)?, ATTEMPT)?;
        let allowed = attempt(&control.namespace, to.v4(port)?, ATTEMPT)?;
        let destination = format!("{}:{port}", to.name);
        let why = who.why(&destination)?;
        let explained =
            stage
                .world
                .controller
                .explain(&who.name, &to.name, &format!("tcp:{port}"))?;
        step.line(format!(
            "{} -> {destination} ({kind}): {denied:?}",
            who.name
        ));
        for reason in &why.missing {
            step.line(format!("    `gatereeve why`: {reason}"));
        }
        for reason in &explained.missing {
            step.line(format!("    `policy explain`: {reason}"));
        }
        step.line(format!(
            "    positive control, {} -> {destination}: {} bytes",
            control.name,
            allowed.bytes()
        ));
        step.must(
            denied.bytes() == 0,
            format!("{} reached {destination}", who.name),
        );
        step.must(
            allowed.is_connected(),
            format!("{}: {allowed:?}", control.name),
        );
        step.must(
            !why.allowed && !explained.allowed,
            "why and explain agree that it is denied",
        );
        step.must(
            !explained.missing.is_empty(),
            "explain names what is missing",
        );
        counts.push(serde_json::json!({
            "from": who.name, "to": destination, "denied_bytes": denied.bytes(),
            "positive_control_from": control.name, "positive_control_bytes": allowed.bytes(),
            "missing": explained.missing,
        }));
    }
    step.fact("denials", counts);
    Ok(step)
}

/// A device learns of nobody that it may not reach or be reached by.
pub(super) fn need_to_know(stage: &Stage) -> anyhow::Result<Step> {
    let mut step =
        Step::new("bob learned nothing of anybody; alice knows of web, and of nothing else");
    let names = |device: &DeviceHost| {
        let peers = device.peers().with_context(|| device.name.clone())?;
        anyhow::Ok(
            peers
                .iter()
                .map(|peer| peer.name.to_string())
                .collect::<Vec<_>>(),
        )
    };
    let expected = [
        (&stage.bob, vec![]),
        (&stage.alice, vec!["web"]),
        (&stage.db, vec!["admin", "web"]),
        (&stage.web, vec!["admin", "alice", "db"]),
    ];
    for (device, expected) in expected {
        let mut names = names(device)?;
        names.sort();
        step.line(format!("{:<6} knows of {names:?}", device.name));
        step.must(
            names == expected,
            format!("{} knows of {names:?}", device.name),
        );
        step.fact(&device.name, names);
    }
    Ok(step)
}
