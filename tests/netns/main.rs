//! End to end: the real binaries, real TUN devices and routes, real traffic, in network namespaces.
//!
//! Every check that something does not pass has a check beside it that the same thing passes where
//! it is allowed. Tests run one after another; what the machine lacks is said and counted.

use std::process::ExitCode;

use gatereeve_tests::{cases, netns::privilege, suite};

mod access;
mod admission;
mod cuts;
mod faults;
mod harness;
mod interop;
mod knowledge;
mod narrow;
mod offload;
mod scene;

fn main() -> ExitCode {
    suite::main(
        cases![
            harness::namespaces_carry_traffic,
            harness::children_end_with_their_guard,
            access::nothing_passes_by_default,
            access::a_rule_opens_what_it_names,
            access::the_underlay_sees_no_plaintext,
            access::the_command_line_shows_the_peer,
            knowledge::an_outsider_learns_nothing,
            cuts::posture_cuts_and_restores,
            cuts::a_policy_change_cuts_open_flows,
            cuts::nothing_arrives_after_revoke_returned,
            cuts::quarantine_and_back,
            cuts::leases_end_without_a_controller,
            faults::flows_survive_the_controllers_crash,
            faults::a_killed_client_breaks_nothing,
            faults::a_second_daemon_is_refused,
            faults::key_rotation_loses_no_packet,
            interop::wireguard_go_both_ways,
            offload::contents_survive_offloads,
            narrow::a_narrower_path_loses_no_flow,
            admission::an_invite_lets_in_once,
            admission::approval_comes_from_an_administrator,
            admission::a_bad_policy_changes_nothing,
        ],
        privilege::acquire,
    )
}
