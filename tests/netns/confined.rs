//! The daemons with the rights that their units give them, and inside the sandbox that they enter themselves.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use gatereeve_client_core::api::LocalReply;
use gatereeve_shared::posture::fact::FactValue;
use gatereeve_tests::binaries::{self, Profile};
use gatereeve_tests::cli;
use gatereeve_tests::clock::wait_for;
use gatereeve_tests::process::{Process, children_of};
use gatereeve_tests::rights::{Rights, Standing, needs_users};
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::world::posture::PostureSocket;
use gatereeve_tests::world::{DeviceHost, World};

use crate::cuts::running_download;
use crate::scene::{LIMIT, QUIET, apply, ensure_closed, open_pair, rule, wait_open, world};

/// Numbers that no user of a host has.
const CLIENT: Rights = Rights {
    user: 64_990,
    capabilities: &["net_admin"],
};
const CONTROLLER: Rights = Rights {
    user: 64_991,
    capabilities: &[],
};
const COLLECTOR: Rights = Rights {
    user: 64_992,
    capabilities: &["sys_ptrace", "dac_read_search"],
};
const NET_ADMIN: u64 = 1 << 12;
const CUT: Duration = Duration::from_secs(20);

/// A device whose daemon runs as its unit runs it, joined with the tag `tag:client`.
fn limited_client(world: &mut World) -> anyhow::Result<DeviceHost> {
    let mut client = world.idle_host("client")?;
    client.run_as(CLIENT)?;
    client.start()?;
    let invite = world.controller.cli.invite(&["--tag", "tag:client"])?;
    client.join(&invite)?;
    Ok(client)
}

fn standing(process: Option<&Process>) -> anyhow::Result<Standing> {
    Standing::of(process.context("it does not run")?.id())
}

/// A client with CAP_NET_ADMIN alone and a controller without any right do all that they are there for.
pub(crate) fn daemons_without_root_do_their_work() -> anyhow::Result<()> {
    needs_users()?;
    let mut world = world()?;
    world.controller.stop()?;
    world.controller.run_as(CONTROLLER)?;
    world.controller.start()?;
    let client = limited_client(&mut world)?;
    let server = world.device("server", &["--tag", "tag:server"])?;
    let expected = |user, capabilities| Standing {
        user,
        capabilities: [capabilities; 3],
        no_new_privileges: true,
        seccomp: 2,
    };
    let of_client = standing(client.process())?;
    ensure!(
        of_client == expected(CLIENT.user, NET_ADMIN),
        "{of_client:?}"
    );
    let of_controller = standing(world.controller.process())?;
    ensure!(
        of_controller == expected(CONTROLLER.user, 0),
        "{of_controller:?}"
    );
    // Root is confined too, whatever it could do otherwise.
    let of_server = standing(server.process())?;
    ensure!(
        of_server.user == 0 && of_server.no_new_privileges && of_server.seccomp == 2,
        "{of_server:?}"
    );
    let status = client.status()?;
    let sandbox = status.sandbox.unwrap_or_default();
    ensure!(
        sandbox.contains("Landlock") && sandbox.contains("system calls"),
        "{sandbox}"
    );
    ensure!(status.warnings.is_empty(), "{:?}", status.warnings);

    let _source = TcpSource::start(&server.namespace, 80)?;
    ensure_closed(&client, &server, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    for peer in ["server".to_owned(), server.addresses()?.v6.to_string()] {
        let reply = client.cli.ask(&["ping", &peer, "-c", "2"])?;
        ensure!(
            matches!(&reply, LocalReply::Pinged { sent: 2, round_trips_ms, .. } if round_trips_ms.len() == 2),
            "{reply:?}"
        );
    }
    // A ping that the policy does not allow says so, and is not sent.
    apply(
        &world,
        &rule("tag:client", "tag:server", r#"["tcp:80"]"#, ""),
    )?;
    let refused = client.cli.run(&["ping", "server", "-c", "1"])?;
    ensure!(refused.status == Some(1), "{refused:?}");
    ensure!(refused.stdout.contains("prohibited"), "{refused:?}");
    // It goes on after the daemon's restart, and is gone with the device.
    let mut client = client;
    client.stop()?;
    client.start()?;
    wait_open(&client, &server, 80)?;
    let download = running_download(&client, &server)?;
    world
        .controller
        .cli
        .change(&["device", "revoke", "client", "--wait"])?;
    download.wait_cut(QUIET, CUT)?;
    ensure_closed(&client, &server, 80)
}

/// The client asks the collector behind its socket, which sees what the client may not, and the end of a process
/// shows without asking again.
pub(crate) fn posture_comes_from_a_process_of_its_own() -> anyhow::Result<()> {
    needs_users()?;
    let mut world = world()?;
    let agent = world.directory().join("agent");
    std::fs::copy("/bin/sleep", &agent).context("an agent to look for")?;
    let run_agent = || {
        let mut command = Command::new(&agent);
        command.arg("1000");
        Process::start("agent", command, None, None)
    };
    let mut client = world.idle_host("client")?;
    client.run_as(CLIENT)?;
    let collector = PostureSocket::start(
        &client.posture_socket(),
        &Rights::reach(&world.binaries().client, client.directory())?,
        &client.directory().join("config"),
        CLIENT.user,
        COLLECTOR,
    )?;
    client.start()?;
    let invite = world.controller.cli.invite(&["--tag", "tag:client"])?;
    client.join(&invite)?;
    let server = world.device("server", &["--tag", "tag:server"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    client.raise_firewall()?;
    let running = run_agent()?;
    let checked = format!(
        "{}[posture.managed]\nfirewall = true\nprocess = [{:?}]\n",
        rule(
            "tag:client",
            "tag:server",
            r#"["tcp:80"]"#,
            r#"posture = ["managed"]"#
        ),
        agent.to_string_lossy(),
    );
    apply(&world, &checked)?;
    wait_open(&client, &server, 80)?;
    ensure!(collector.served() > 0, "the collector was asked");
    let facts = facts(&client)?;
    let process = format!("process:{}", agent.display());
    ensure!(
        facts.get(&process) == Some(&FactValue::Bool(true)),
        "{facts:?}"
    );
    ensure!(
        facts.get("firewall") == Some(&FactValue::Bool(true)),
        "{facts:?}"
    );

    let download = running_download(&client, &server)?;
    drop(running);
    download.wait_cut(QUIET, CUT)?;
    ensure_closed(&client, &server, 80)?;
    let _running = run_agent()?;
    wait_open(&client, &server, 80)?;
    let download = running_download(&client, &server)?;
    client.flush_firewall()?;
    download.wait_cut(QUIET, CUT).map(drop)
}

/// Without a collector that may look at others, what cannot be seen is unknown.
pub(crate) fn what_cannot_be_seen_is_unknown() -> anyhow::Result<()> {
    needs_users()?;
    let mut world = world()?;
    let client = limited_client(&mut world)?;
    let policy = format!(
        "{}[posture.managed]\nprocess = [\"/sbin/init-of-another\"]\n",
        rule(
            "tag:client",
            "tag:client",
            r#"["tcp:80"]"#,
            r#"posture = ["managed"]"#
        ),
    );
    apply(&world, &policy)?;
    let fact = wait_for("the fact", LIMIT * 5, || {
        Ok(facts(&client)?.remove("process:/sbin/init-of-another"))
    })?;
    ensure!(matches!(fact, FactValue::Unknown(_)), "{fact:?}");
    Ok(())
}

/// Where the process that collects dies, every check fails, and passes again once one lives, without a restart.
/// Without the helper that starts it they fail for good, and `status` says what to do.
pub(crate) fn posture_is_collected_again_after_its_process_died() -> anyhow::Result<()> {
    const FACTS: [&str; 2] = [
        r#"{"managed":true,"round":1}"#,
        r#"{"managed":true,"round":2}"#,
    ];
    needs_users()?;
    let mut world = world()?;
    let client = limited_client(&mut world)?;
    let server = world.device("server", &["--tag", "tag:server"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    client.set_facts(FACTS[0])?;
    let checked = rule(
        "tag:client",
        "tag:server",
        r#"["tcp:80"]"#,
        r#"posture = ["managed"]"#,
    );
    apply(
        &world,
        &format!("{checked}[posture.managed]\ncustom.managed = true\n"),
    )?;
    wait_open(&client, &server, 80)?;
    let daemon = client.process().context("it does not run")?.id();
    let helper = *children_of(daemon)
        .first()
        .context("the daemon has no helper")?;
    // The check passes with either set of facts: it is their collection that fails.
    let collect_until = |what: &str, reached: &dyn Fn() -> anyhow::Result<bool>| {
        let mut rounds = FACTS.iter().cycle();
        wait_for(what, LIMIT, || {
            client.set_facts(rounds.next().unwrap_or(&FACTS[0]))?;
            std::thread::sleep(QUIET);
            Ok(reached()?.then_some(()))
        })
    };
    let warns = |of: &str| -> anyhow::Result<bool> {
        let warnings = client.status()?.warnings;
        Ok(warnings.iter().any(|warning| warning.contains(of)))
    };

    let download = running_download(&client, &server)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                children_of(helper).into_iter().for_each(kill);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let cut = collect_until("a warning", &|| warns("every check fails"))
            .and_then(|()| download.wait_cut(QUIET, CUT).map(drop))
            .and_then(|()| ensure_closed(&client, &server, 80));
        is_over.store(true, Ordering::Relaxed);
        cut
    })?;
    wait_open(&client, &server, 80)?;
    ensure!(!warns("every check fails")?, "it is collected again");

    let download = running_download(&client, &server)?;
    kill(helper);
    collect_until("a warning", &|| warns("restart the daemon"))?;
    download.wait_cut(QUIET, CUT)?;
    ensure_closed(&client, &server, 80)?;
    let mut client = client;
    client.stop()?;
    client.start()?;
    wait_open(&client, &server, 80)
}

fn kill(process: u32) {
    let Ok(process) = i32::try_from(process) else {
        return;
    };
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(Pid::from_raw(process), Signal::SIGKILL);
}

fn facts(device: &DeviceHost) -> anyhow::Result<BTreeMap<String, FactValue>> {
    let LocalReply::Posture { facts, .. } = device.cli.ask(&["posture"])? else {
        anyhow::bail!("posture answered something else");
    };
    Ok(facts
        .into_iter()
        .map(|fact| (fact.id.to_string(), fact.value))
        .collect())
}

const EPERM: &str = "1";
const EACCES: &str = "13";
const ENOSYS: &str = "38";
const DONE: &str = "done";

/// What each daemon's sandbox denies, and what it does not; each attempt succeeds outside of it.
pub(crate) fn the_sandbox_denies_what_it_should() -> anyhow::Result<()> {
    needs_users()?;
    let probe = binaries::example("confined-probe", Profile::Dev)?;
    let directory = tempfile::Builder::new().prefix("gr-").tempdir()?;
    for name in ["state", "config", "run", "elsewhere"] {
        std::fs::create_dir(directory.path().join(name))?;
    }
    for name in ["config/there", "elsewhere/there"] {
        std::fs::write(directory.path().join(name), "x")?;
    }
    for role in ["client", "controller", "collector"] {
        for (attempt, denied) in ATTEMPTS {
            let control = attempted(&probe, "nothing", directory.path(), attempt)?;
            ensure!(control == DONE, "{attempt} outside: {control}");
            let inside = attempted(&probe, role, directory.path(), attempt)?;
            ensure!(
                inside == *denied,
                "{role} {attempt}: {inside} and not {denied}"
            );
        }
        let own = match role {
            "client" => CLIENT_ATTEMPTS,
            "controller" => CONTROLLER_ATTEMPTS,
            _ => COLLECTOR_ATTEMPTS,
        };
        for (attempt, expected) in own {
            if attempt.contains("tcp") || attempt.starts_with("fast-open") {
                let control = attempted(&probe, "nothing", directory.path(), attempt)?;
                ensure!(control == DONE, "{attempt} outside: {control}");
            }
            let inside = attempted(&probe, role, directory.path(), attempt)?;
            ensure!(
                inside == *expected,
                "{role} {attempt}: {inside} and not {expected}"
            );
        }
    }
    Ok(())
}

/// Attempts that every sandbox denies to root, and how.
const ATTEMPTS: &[(&str, &str)] = &[
    ("write-config", EACCES),
    ("write-elsewhere", EACCES),
    ("read-elsewhere", EACCES),
    ("read-shadow", EACCES),
    ("read-environment", EACCES),
    ("execute", EPERM),
    ("start-process", EPERM),
    ("packet-socket", EPERM),
    ("raw-socket", EPERM),
    ("trace", EPERM),
    // Not among the calls that are needed.
    ("signal-others", ENOSYS),
    ("unshare", EPERM),
    ("enter-namespace", EPERM),
    ("mount", EPERM),
    ("become-another", EPERM),
    ("bpf", EPERM),
    ("userfaultfd", EPERM),
    ("io_uring", EPERM),
    ("keyctl", EPERM),
    ("perf", EPERM),
];

const CLIENT_ATTEMPTS: &[(&str, &str)] = &[
    ("write-state", DONE),
    ("rename-in-state", DONE),
    ("read-config", DONE),
    ("start-thread", DONE),
    ("udp-socket", DONE),
    // No TCP at all, nor anything like it: Landlock's rules for ports do not cover every way to use it.
    ("listen-on-tcp", ENOSYS),
    ("listen-on-any-tcp", ENOSYS),
    ("tcp-socket", ENOSYS),
    ("mptcp-socket", ENOSYS),
    ("connect-tcp", ENOSYS),
    ("fast-open-sendto", ENOSYS),
    ("fast-open-sendmsg", ENOSYS),
    ("fast-open-sendmmsg", ENOSYS),
    ("send-datagram", DONE),
];
const CONTROLLER_ATTEMPTS: &[(&str, &str)] = &[
    ("write-state", DONE),
    ("rename-in-state", DONE),
    ("read-config", EACCES),
    ("start-thread", DONE),
    ("udp-socket", DONE),
    ("listen-on-tcp", ENOSYS),
    ("listen-on-any-tcp", ENOSYS),
    ("fast-open-sendto", ENOSYS),
    ("send-datagram", DONE),
];
const COLLECTOR_ATTEMPTS: &[(&str, &str)] = &[
    ("write-state", EACCES),
    ("read-config", DONE),
    ("start-thread", DONE),
    ("udp-socket", ENOSYS),
    ("listen-on-tcp", ENOSYS),
];

fn attempted(probe: &Path, role: &str, directory: &Path, attempt: &str) -> anyhow::Result<String> {
    let mut command = Command::new(probe);
    command.arg(role).arg(directory).arg(attempt);
    let finished = cli::run(command)?;
    ensure!(finished.status == Some(0), "{finished:?}");
    Ok(finished.stdout.trim().to_owned())
}
