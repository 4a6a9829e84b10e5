//! `cargo demo`: the main job, played in network namespaces on this machine.
//!
//! A controller and five devices come up with the real binaries, real TUN devices and real traffic.
//! Each step shows what is allowed or denied, and why; a denial is shown beside the same thing where
//! it is allowed. Nothing on the machine itself is touched, and nothing stays behind.

mod policy;
mod report;
mod story;

use std::process::ExitCode;

use clap::Parser;

use gatereeve_tests::clock::Stopwatch;
use gatereeve_tests::{interrupt, netns::privilege};

use report::Report;

/// Plays Gatereeve's main job in network namespaces: default deny, posture, revocation.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// Print one JSON object: {"steps": [{"name", "ok", "detail"}], "figures": {…}}; progress goes to
    /// standard error.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json);
    let watch = Stopwatch::start();
    // Rights first: the kernel moves only a process of one thread into a user namespace.
    let played = privilege::acquire()
        .and_then(|()| interrupt::clean_up_on_signals())
        .and_then(|()| story::play(&mut report));
    if let Err(error) = played {
        report.fail("the demo", &error);
    }
    report.figure(
        "demo_seconds",
        (watch.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    );
    if report.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
