//! `gatereeve-controller`: see `gatereeve-controller --help`.

use std::process::ExitCode;

use gatereeve_controller::cli::output::Streams;

fn main() -> ExitCode {
    gatereeve_controller::main_with(std::env::args_os(), &mut Streams::of_process()).into()
}
