//! `gatereeve`: the client's daemon and command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatereeve_client::main_with(std::env::args_os())
}
