//! A session on virtual time, over carriers that come to grief.
//!
//! A test is a path, a fault, a promise:
//!
//! ```
//! use turbotunnel_sim::{How, Link, MIB, Sim, Traffic, ms, secs};
//!
//! // The path: 50 ms one way, 1 MiB a second. The fault: every two seconds all connections are reset.
//! let mut sim = Sim::new("a_download_survives")
//!     .link(Link::new(ms(50)).rate(MIB))
//!     .every(secs(2), How::Rst)
//!     .traffic(Traffic::download(8 * MIB));
//! // The promise: every byte arrives, once, in its place, and in less than ten seconds.
//! sim.run_until_done(secs(10));
//! ```
//!
//! What a received byte has to be is computed from session, stream, direction and offset ([`pattern`]), never read back from a buffer.
//! After each step both ends are held to the promises of the engines' verbs: time never goes back; a timer that fired is over; one that is
//! called early does nothing; whatever can be sent is sent; nothing is made without a carrier; nobody holds more than its limits; nobody is busy
//! for ever.
//!
//! Everything random comes from one seed, which a failing test prints. Two runs of a seed are equal to the last byte
//! ([`Sim::digest`]).
//!
//! Not here: sockets, tasks, the clock. The `tokio` half of `turbotunnel` is tested where it is.

mod app;
mod code;
mod fault;
mod go;
mod intruder;
mod listener;
mod network;
mod node;
mod ours;
pub mod pattern;
mod pipe;
mod random;
mod runs;
mod script;
mod sealed;
mod shrink;
mod sim;
mod trace;
mod traffic;

use std::time::Duration;

pub use app::App;
pub use fault::{Counts, Dial, Fault, How, When};
pub use go::{Fin, Go};
pub use network::{Seen, Side};
pub use ours::Told;
pub use pattern::Way;
pub use pipe::Link;
pub use random::{Random, seed_of};
pub use runs::{Totals, play_all, seeds};
pub use script::{Deed, Outcome, Peers, Script, Settings};
pub use sealed::Wear;
pub use shrink::shrink;
pub use sim::{SESSION_ID, Sim};
pub use traffic::{Reading, Traffic};
pub use turbotunnel::secure::Suite;

/// 1,024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1,048,576 bytes.
pub const MIB: u64 = 1 << 20;

/// So many milliseconds.
#[must_use]
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So many microseconds.
#[must_use]
pub const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// So many seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
