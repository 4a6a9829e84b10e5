//! End to end: the real binaries, real TUN devices and routes, real traffic, in network namespaces.
//!
//! Every check that something does not pass has a check beside it that the same thing passes where
//! it is allowed. Tests run one after another; what the machine lacks is said and counted.

use std::process::ExitCode;

use gatereeve_tests::{cases, netns::privilege, suite};

mod access;
mod admission;
mod confined;
mod cuts;
mod faults;
mod firewall;
mod harness;
mod host;
mod interop;
mod knowledge;
mod local_api;
mod names;
mod narrow;
mod offload;
mod order;
mod overlap;
mod roaming;
mod scene;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((local_api::CALLER, rest)) = arguments.split_first().map(|(a, b)| (a.as_str(), b)) {
        return local_api::caller(rest);
    }
    suite::main(
        cases![
            harness::namespaces_carry_traffic,
            harness::children_end_with_their_guard,
            access::nothing_passes_by_default,
            access::a_rule_opens_what_it_names,
            access::the_underlay_sees_no_plaintext,
            access::the_command_line_shows_the_peer,
            access::flows_are_counted_with_names,
            knowledge::an_outsider_learns_nothing,
            names::a_name_is_had_by_who_may_use_it,
            names::nobody_else_asks,
            cuts::posture_cuts_and_restores,
            cuts::a_policy_change_cuts_open_flows,
            cuts::nothing_arrives_after_revoke_returned,
            cuts::a_change_of_the_host_that_takes_long_delays_no_cut,
            cuts::quarantine_and_back,
            cuts::leases_end_without_a_controller,
            faults::flows_survive_the_controllers_crash,
            faults::a_killed_client_breaks_nothing,
            faults::a_restarted_server_greets_its_clients,
            faults::a_second_daemon_is_refused,
            faults::what_is_not_written_is_not_confirmed,
            faults::key_rotation_loses_no_packet,
            host::everything_is_put_back,
            host::repair_knows_what_nothing_needs,
            host::an_upgrade_takes_over_what_it_finds,
            host::what_others_remove_comes_back,
            host::an_interface_that_goes_is_made_again,
            host::no_daemon_listens_on_tcp,
            local_api::changes_are_for_root_and_the_operator_group,
            local_api::a_flood_of_one_user_keeps_no_other_out,
            overlap::a_lan_within_the_overlay_keeps_working,
            overlap::a_lan_draws_no_overlay_traffic,
            roaming::open_flows_survive_another_address,
            roaming::a_link_that_comes_back_is_used_at_once,
            roaming::another_source_address_is_taken_up,
            interop::wireguard_go_both_ways,
            offload::contents_survive_offloads,
            offload::datagrams_in_fragments_are_sent_on,
            order::an_answer_moves_no_flow,
            narrow::a_narrower_path_loses_no_flow,
            narrow::a_path_below_the_least_packet_is_sent_fragments,
            narrow::a_path_that_drops_in_silence_is_found_out,
            narrow::a_silent_hole_for_long_packets_alone_is_found_out,
            narrow::the_interface_follows_the_way_out,
            admission::an_invite_lets_in_once,
            admission::approval_comes_from_an_administrator,
            admission::a_bad_policy_changes_nothing,
            confined::the_sandbox_denies_what_it_should,
            confined::daemons_without_root_do_their_work,
            confined::posture_comes_from_a_process_of_its_own,
            confined::what_cannot_be_seen_is_unknown,
            confined::posture_is_collected_again_after_its_process_died,
            firewall::netlink_shows_what_nft_has_made,
            firewall::netlink_reads_long_rulesets_and_sleeping_tables,
        ],
        privilege::acquire,
    )
}
