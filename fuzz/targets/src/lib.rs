//! What `fuzz/` runs: one file for each target, and in it a story of what goes in and which promises are held to.
//!
//! A target makes packets, pieces of byte streams or operations out of any bytes at all, and panics when a promise is broken. The targets are
//! here and not in the fuzzing package, so that `cargo test` plays the whole corpus again, without cargo-fuzz.
//!
//! ```text
//! parsers    encapsulation  control  kcp_segments  command_line  keys
//! one end    kcp_input  smux_input  carrier_bytes         a stranger at the other end
//! two ends   kcp_pair  smux_pair  tunnel_pair  handshake  records             and whatever can happen between them
//! a model    session_map                                  beside one that is too simple to be wrong
//! ```
//!
//! With `FUZZ_TELL=1` in the environment each operation is printed before it is done.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub mod carrier_bytes;
pub mod command_line;
pub mod control;
pub mod encapsulation;
pub mod handshake;
mod kcp_end;
pub mod kcp_input;
pub mod kcp_pair;
pub mod kcp_segments;
pub mod keys;
mod mux_end;
mod pieces;
pub mod records;
pub mod session_map;
pub mod smux_input;
pub mod smux_pair;
mod tunnel_end;
pub mod tunnel_pair;
mod wires;

/// What a target does with its input.
pub type Run = fn(&[u8]);

/// All targets, by the names of their files and of their folders in `fuzz/corpus`.
pub const TARGETS: [(&str, Run); 14] = [
    ("carrier_bytes", carrier_bytes::run),
    ("command_line", command_line::run),
    ("control", control::run),
    ("encapsulation", encapsulation::run),
    ("handshake", handshake::run),
    ("kcp_input", kcp_input::run),
    ("kcp_pair", kcp_pair::run),
    ("kcp_segments", kcp_segments::run),
    ("keys", keys::run),
    ("records", records::run),
    ("session_map", session_map::run),
    ("smux_input", smux_input::run),
    ("smux_pair", smux_pair::run),
    ("tunnel_pair", tunnel_pair::run),
];

/// A point in time to count from. The time that passes is virtual.
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Prints what is about to be done, if somebody wants to know.
fn tell(what: &impl Debug) {
    static TOLD: OnceLock<bool> = OnceLock::new();
    if *TOLD.get_or_init(|| std::env::var_os("FUZZ_TELL").is_some()) {
        eprintln!("{what:?}");
    }
}
