//! Tests against Go programs on kcp-go and smux, both ways round. `interop/build` makes the programs.

mod control_packets;

use std::process::ExitCode;

fn main() -> ExitCode {
    turbotunnel_interop::runner::main(turbotunnel_interop::tests![
        control_packets::short_random_packets_do_no_harm_between_go_programs,
    ])
}
