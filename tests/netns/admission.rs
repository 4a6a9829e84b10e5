//! Who gets in, and what malformed input does: nothing.

use anyhow::ensure;

use gatereeve_client_core::api::Connection;
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::wire::controller::Standing;
use gatereeve_tests::traffic::tcp::TcpSource;

use crate::scene::{apply, open_pair, pair, wait_open, world};

/// An invite lets in as often as it says, and not after it was revoked.
pub(crate) fn an_invite_lets_in_once() -> anyhow::Result<()> {
    let mut world = world()?;
    let invite = world.controller.cli.invite(&["--tag", "tag:client"])?;
    let mut first = world.host("first")?;
    first.join(&invite)?;
    let second = world.host("second")?;
    let refused = second.cli.run(&["join", &invite])?;
    ensure!(refused.status == Some(3), "{refused:?}");
    ensure!(world.controller.status()?.devices == 1);
    // Damaged, and not an invite at all.
    for text in [invite.replace('a', "b"), "hello".to_owned()] {
        let refused = second.cli.run(&["join", &text])?;
        ensure!(
            refused.status.is_some_and(|status| status != 0),
            "{refused:?}"
        );
    }
    // Positive control: a fresh one lets the second in.
    let mut second = second;
    let fresh = world.controller.cli.invite(&["--tag", "tag:client"])?;
    second.join(&fresh)?;
    ensure!(world.controller.status()?.devices == 2);
    Ok(())
}

/// Without an invite, or with one that asks for it, a device waits for approval and learns nothing.
pub(crate) fn approval_comes_from_an_administrator() -> anyhow::Result<()> {
    let mut world = world()?;
    let waiting = world.host("waiting")?;
    let status = world.controller.status()?;
    let address = format!("{}:8443", world.controller.underlay.v4);
    let fingerprint = status.fingerprint.to_string();
    let joined = waiting
        .cli
        .run(&["join", &address, "--key", &fingerprint, "--no-wait"])?;
    ensure!(joined.status == Some(0), "{joined:?}");
    waiting.wait_until("it waits", |status| {
        status.standing == Some(Standing::Pending)
    })?;
    ensure!(world.controller.status()?.pending == 1);
    ensure!(waiting.status()?.addresses.is_none() && waiting.peers()?.is_empty());
    world
        .controller
        .cli
        .change(&["device", "approve", "waiting", "--tag", "tag:client"])?;
    waiting.wait_until("it is in", |status| {
        status.connection == Connection::Synced && status.standing == Some(Standing::Approved)
    })?;
    let view = world.controller.device("waiting")?;
    ensure!(
        view.status == DeviceStatus::Approved && view.tags.len() == 1,
        "{view:?}"
    );
    // A controller with another key is not believed.
    let other = world.host("careful")?;
    let wrong = fingerprint.chars().rev().collect::<String>();
    let refused = other.cli.run(&["join", &address, "--key", &wrong])?;
    ensure!(
        refused.status.is_some_and(|status| status != 0),
        "{refused:?}"
    );
    ensure!(world.controller.status()?.pending == 0);
    Ok(())
}

/// A policy that does not hold is refused with its place, and the one in force stays.
pub(crate) fn a_bad_policy_changes_nothing() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;
    let before = world.controller.status()?;
    let failing_test = format!(
        "{}\n[[test]]\nfrom = \"tag:client\"\nto = \"tag:server\"\nports = [\"tcp:80\"]\nexpect = [\"deny\"]\n",
        open_pair()
    );
    let bad = [
        "version = 2".to_owned(),
        "version = 1\n[[allow]]\nfrom = [\"tag:client\"]\n".to_owned(),
        open_pair().replace("tcp:80", "tcp:800000"),
        open_pair().replace("tag:server", "group:nobody"),
        format!("{}\nsurprise = true\n", open_pair()),
        "version = 1\n[segment.payments]\nmembers = [\"tag:server\"]\n".to_owned(),
        "not toml at all [".to_owned(),
        failing_test,
    ];
    for text in bad {
        let file = world.directory().join("bad.toml");
        std::fs::write(&file, &text)?;
        let path = file.to_string_lossy();
        for verb in ["check", "apply"] {
            let refused = world.controller.cli.run(&["policy", verb, &path])?;
            ensure!(
                refused.status.is_some_and(|status| status != 0),
                "{text}\n{refused:?}"
            );
            ensure!(
                !refused.stderr.is_empty() || !refused.stdout.is_empty(),
                "it says why"
            );
        }
    }
    let stale = world.controller.cli.run(&[
        "policy",
        "apply",
        &world.directory().join("bad.toml").to_string_lossy(),
        "--if-generation",
        "77",
    ])?;
    ensure!(stale.status.is_some_and(|status| status != 0), "{stale:?}");
    let after = world.controller.status()?;
    ensure!(
        after.policy_revision == before.policy_revision,
        "{before:?} then {after:?}"
    );
    wait_open(&client, &server, 80)
}
