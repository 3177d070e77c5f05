//! Tests against Go programs on kcp-go and smux, both ways round. `interop/build` makes the programs.

mod control_packets;
mod echo;
mod fin;
mod limits;
mod program;
mod restart;
mod scripts;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    turbotunnel_interop::runner::main(turbotunnel_interop::tests![
        echo::our_client_go_server,
        echo::go_client_our_server,
        echo::our_client_go_server_cut_every_second,
        echo::go_client_our_server_cut_every_second,
        echo::our_client_go_server_cut_every_20_to_60_kb,
        echo::go_client_our_server_cut_every_20_to_60_kb,
        echo::go_client_go_server_cut_every_second,
        echo::our_client_go_servers_with_small_and_large_windows,
        echo::go_clients_with_small_and_large_windows_our_server,
        fin::hi_comes_back_whatever_a_fin_means_to_the_go_server,
        fin::a_mebibyte_comes_back_whatever_a_fin_means_to_the_go_server,
        fin::a_half_closing_go_client_gets_everything_back,
        fin::a_go_client_that_just_leaves_harms_nobody,
        restart::our_client_recognises_a_restarted_go_server,
        restart::a_go_client_that_our_server_forgot_does_not_dial_without_end,
        limits::a_go_client_beyond_the_limit_waits_and_is_served,
        program::files_come_back_whole_from_go_servers,
        program::it_exits_with_8_when_the_go_server_has_forgotten_the_session,
        scripts::our_client_go_server,
        scripts::go_client_our_server,
        control_packets::short_random_packets_do_no_harm_between_go_programs,
    ])
}
