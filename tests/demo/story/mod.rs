//! The story: who comes up, what they try, and what becomes of it.

mod access;
mod changes;
mod posture;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use gatereeve_tests::binaries::Profile;
use gatereeve_tests::clock::Stopwatch;
use gatereeve_tests::process::Process;
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::traffic::udp::UdpReceiver;
use gatereeve_tests::world::firewall;
use gatereeve_tests::world::{DeviceHost, World};

use crate::policy;
use crate::report::{Report, Step};

/// How long a connection attempt may take before it counts as denied without an answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Nothing for this long means that a running flow was cut: at 4 MB/s bytes come every few ms.
const SILENCE: Duration = Duration::from_millis(700);
/// What a cut may take before the step fails.
const CUT: Duration = Duration::from_secs(20);

/// All that the steps play with.
pub(crate) struct Stage {
    world: World,
    web: DeviceHost,
    db: DeviceHost,
    alice: DeviceHost,
    bob: DeviceHost,
    admin: DeviceHost,
    policy: String,
    agent: PathBuf,
    agent_process: Option<Process>,
    udp_on_web: UdpReceiver,
    udp_on_db: UdpReceiver,
    admin_udp_on_web: UdpReceiver,
    _services: Vec<TcpSource>,
}

/// Plays every step.
pub(crate) fn play(report: &mut Report) -> anyhow::Result<()> {
    report.progress("building gatereeve-controller and gatereeve (the first time takes minutes)");
    let mut stage = None;
    report.step("a controller and five devices", |report| {
        let (made, step) = come_up(report)?;
        stage = Some(made);
        Ok(step)
    });
    let mut stage = stage.context("without devices there is nothing to show")?;
    report.step(
        "default deny, then exactly what the policy allows",
        |report| access::from_nothing_to_policy(&mut stage, report),
    );
    report.step("who is denied, and why", |_| access::denied_and_why(&stage));
    report.step("invisible unless allowed", |_| access::need_to_know(&stage));
    report.step(
        "a watched process stops: a running download is cut",
        |report| posture::process_stops(&mut stage, report),
    );
    if firewall::nft().is_some() {
        report.step(
            "a firewall is flushed: a running download is cut",
            |report| posture::firewall_flushed(&mut stage, report),
        );
    }
    report.step("a policy change cuts a running flow", |report| {
        changes::policy_cuts(&mut stage, report)
    });
    report.step("a revocation, measured", |report| {
        changes::revocation(&stage, report)
    });
    report.step("the audit log says it all, and verifies", |_| {
        changes::audit(&stage)
    });
    report.step("through the tunnel at full speed", |report| {
        changes::throughput(&stage, report)
    });
    Ok(())
}

fn come_up(report: &mut Report) -> anyhow::Result<(Stage, Step)> {
    let mut world = World::new(Profile::Demo)?;
    report.progress(
        "controller: serving; each host below has its own namespace, TUN device and state",
    );
    let agent = world.directory().join("edr-agent");
    std::fs::copy("/bin/sleep", &agent).context("copy the stand-in for an EDR agent")?;
    let agent_process = Some(start_agent(&agent)?);
    let mut joined = Vec::new();
    let mut join = |name: &str, options: &[&str]| {
        let watch = Stopwatch::start();
        let device = world.device(name, options)?;
        let took = watch.elapsed().as_millis();
        let addresses = device.addresses()?;
        report.progress(&format!(
            "{name:<6} joined as {} {} in {took} ms",
            addresses.v4, addresses.v6
        ));
        joined.push(u64::try_from(took).unwrap_or(u64::MAX));
        anyhow::Ok(device)
    };
    let web = join("web", &["--tag", "tag:web"])?;
    let db = join("db", &["--tag", "tag:db"])?;
    let alice = join("alice", &["--user", "alice@example.com"])?;
    let bob = join("bob", &["--user", "bob@example.com"])?;
    let admin = join("admin", &["--user", "admin@example.com"])?;
    // Both laptops run the agent; bob's is not in the device management.
    for (laptop, enrolled) in [(&alice, true), (&bob, false)] {
        laptop.set_facts(&format!(r#"{{ "mdm_enrolled": {enrolled} }}"#))?;
        if firewall::nft().is_some() {
            laptop.raise_firewall()?;
        }
    }
    report.figure("devices", joined.len());
    report.figure(
        "slowest_join_ms",
        joined.iter().max().copied().unwrap_or_default(),
    );
    let mut step = Step::new("five devices joined by one-time invites and hold their maps");
    step.fact("joined_ms", joined);
    let services = [(&web, 443), (&web, 22), (&db, 5432), (&db, 22)];
    let services = services
        .map(|(host, port)| TcpSource::start(&host.namespace, port))
        .into_iter();
    let stage = Stage {
        policy: policy::first(&agent, firewall::nft().is_some()),
        _services: services.collect::<anyhow::Result<_>>()?,
        udp_on_web: UdpReceiver::start(&web.namespace, 8125, true)?,
        udp_on_db: UdpReceiver::start(&db.namespace, 5432, true)?,
        admin_udp_on_web: UdpReceiver::start(&web.namespace, 2222, true)?,
        world,
        web,
        db,
        alice,
        bob,
        admin,
        agent,
        agent_process,
    };
    Ok((stage, step))
}

/// The stand-in for an EDR agent: a real process with a path of its own.
fn start_agent(agent: &std::path::Path) -> anyhow::Result<Process> {
    let mut command = Command::new(agent);
    command.arg("3600");
    Process::start("edr-agent", command, None, None)
}
