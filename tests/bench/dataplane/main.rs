//! The data path beside other userspace WireGuards and overlays, on one machine, in one run.
//!
//! ```text
//! cargo run --release -p gatereeve-tests --bin bench-dataplane -- --json figures.json --plot figures.svg
//! ```
//!
//! Each turn makes two namespaces with a cable between them, sets one program up in both, measures,
//! and takes everything down; the next program has its turn; and so on for several rounds, so that
//! slow drift of the machine hits all of them alike. What counts are the ratios within a round. For the
//! idle round trip all programs are up at once (`measure/idle.rs`).
//! `tests/README.md` says how to read the figures.

mod arguments;
mod figure;
mod machine;
mod measure;
mod pair;
mod programs;
mod report;
mod results;
mod session;
mod statistics;
mod targets;
mod together;
mod tool;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use gatereeve_tests::{interrupt, netns::privilege};

use crate::arguments::Arguments;
use crate::session::Session;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = privilege::acquire()
        .and_then(|()| interrupt::clean_up_on_signals())
        .and_then(|()| Session::new(arguments))
        .and_then(Session::run);
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:?}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Says something about the progress.
fn say(text: &str) {
    let mut out = std::io::stderr();
    // Whoever closed standard error does not want to know.
    drop(out.write_all(text.as_bytes()));
    drop(out.flush());
}
