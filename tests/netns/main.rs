//! End to end: the real binaries, real TUN devices and routes, real traffic, in network namespaces.
//!
//! Every check that something does not pass has a check beside it that the same thing passes where
//! it is allowed. Tests run one after another; what the machine lacks is said and counted.

use std::process::ExitCode;

use gatereeve_tests::{cases, netns::privilege, suite};

mod harness;

fn main() -> ExitCode {
    suite::main(
        cases![
            harness::namespaces_carry_traffic,
            harness::children_end_with_their_guard
        ],
        privilege::acquire,
    )
}
