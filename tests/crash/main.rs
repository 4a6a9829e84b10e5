//! `kill -9` of the controller at random moments, while writers log what was acknowledged.
//!
//! After each crash the controller has to come back by itself, with everything that it had
//! acknowledged and an audit log that verifies. `GATEREEVE_CRASHES` says how often (20 by default),
//! `GATEREEVE_CRASH_SEED` brings the moments of a run back.

mod ledger;
mod writer;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_tests::binaries::{Binaries, Profile};
use gatereeve_tests::cli::ControllerCli;
use gatereeve_tests::clock::{Stopwatch, wait_for};
use gatereeve_tests::process::Process;
use gatereeve_tests::random::Random;

use ledger::Ledger;
use writer::Writers;

/// How long the controller may take to come back.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn nothing_acknowledged_is_lost() -> anyhow::Result<()> {
    let crashes: usize = match std::env::var("GATEREEVE_CRASHES") {
        Ok(text) => text.parse().context("GATEREEVE_CRASHES")?,
        Err(_) => 20,
    };
    let mut random = Random::from_environment("GATEREEVE_CRASH_SEED")?;
    println!("GATEREEVE_CRASH_SEED={}", random.seed());
    let directory = tempfile::Builder::new().prefix("gr-").tempdir()?;
    let binaries = Binaries::build(Profile::Dev)?;
    let cli = ControllerCli::new(binaries.controller, &directory.path().join("c"))?;
    let done = cli.run(&["init", "--name", "crash"])?;
    ensure!(done.status == Some(0), "{done:?}");

    let ledger = Ledger::default();
    let mut slowest_start = Duration::ZERO;
    let mut controller = start(&cli)?;
    for crash in 1..=crashes {
        let writers = Writers::start(cli.socket(), &ledger)?;
        std::thread::sleep(Duration::from_micros(random.next_u64() % 250_000));
        controller.kill();
        writers.stop()?;
        let watch = Stopwatch::start();
        controller = start(&cli).with_context(|| format!("start after crash {crash}"))?;
        slowest_start = slowest_start.max(watch.elapsed());
        ledger
            .check(&cli)
            .with_context(|| format!("after crash {crash}"))?;
        let verified = cli.run(&["audit", "verify"])?;
        ensure!(
            verified.status == Some(0),
            "audit verify after crash {crash}: {verified:?}"
        );
        if crash % 100 == 0 {
            println!(
                "{crash} crashes, {} changes acknowledged",
                ledger.acknowledged()
            );
        }
    }
    println!(
        "{crashes} crashes, {} changes acknowledged, none lost; slowest start {slowest_start:?}",
        ledger.acknowledged()
    );
    // Positive control: the writers wrote, so there was something to lose.
    ensure!(
        ledger.acknowledged() >= crashes,
        "{} changes",
        ledger.acknowledged()
    );
    controller.stop(PATIENCE).map(drop)
}

fn start(cli: &ControllerCli) -> anyhow::Result<Process> {
    let command: Command = cli.command(["serve", "--listen", "127.0.0.1:0"]);
    let log = cli.state_dir().with_file_name("log");
    let mut process = Process::start("gatereeve-controller serve", command, None, Some(&log))?;
    let answered = wait_for("the controller to answer", PATIENCE, || {
        ensure!(process.is_running(), "it has ended");
        cli.ask(&["status"]).map(Some)
    });
    answered.with_context(|| process.log_tail(10))?;
    Ok(process)
}
