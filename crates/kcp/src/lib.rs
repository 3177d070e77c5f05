//! A KCP engine without clock, sockets or threads, wire-compatible with kcp-go (no encryption, no FEC).
//!
//! # KCP in a page
//!
//! KCP makes an ordered, reliable byte stream out of packets that may be lost. A *packet* holds one or more *segments*,
//! each a header of 24 bytes and, for data, a payload ([`wire`] has the layout):
//!
//! ```text
//! PUSH  data number `sn`                      ACK   "I have `sn`", with the `ts` of that PUSH copied
//! WASK  "how large is your window?"           WINS  "this large" (every segment says so; this one says nothing else)
//! ```
//!
//! Every segment, whatever it is, also tells `una` (the sender has everything below this number) and `wnd` (it has room
//! for so many segments more). Numbers count modulo 2^32 and are compared by the shorter way round ([`Sn`]).
//!
//! ```text
//!  write/fill ─> | unsent | in flight ........ | ─> packets ─> | out of order | in order, unread | ─> peek/consume
//!                         nxt               una                          rcv_nxt
//! ```
//!
//! * The sender numbers at most `min(peer's window, send_window, congestion window)` segments beyond `una`, and keeps each
//!   until `una` passes it. Nothing is queued beyond that: [`Kcp::write`] takes fewer bytes, or none.
//! * The receiver acknowledges what it takes in, old duplicates too (their first ACK may have died on the way), and hands
//!   out bytes in order. Unread chunks close the window.
//!
//! The format and the receiving rules are kcp-go's. When to send something *again* is a local matter that no peer can see
//! going wrong, and here it is built for carriers that keep order and lose packets only by dying: [`Retransmission`].
//!
//! # The verbs
//!
//! ```
//! # #[allow(clippy::disallowed_methods, reason = "an example needs some instant to start from")]
//! # fn main() -> Result<(), turbotunnel_kcp::DecodeError> {
//! use turbotunnel_kcp::{Config, Kcp};
//!
//! let now = std::time::Instant::now();
//! let mut alice = Kcp::new(now, 7, Config::default());
//! let mut bob = Kcp::new(now, 7, Config::default());
//!
//! alice.write(b"hello");
//! let mut packet = Vec::new();
//! while alice.poll_transmit(now, &mut packet) {
//!     bob.handle_packet(now, &packet)?;
//!     packet.clear();
//! }
//! assert_eq!(bob.peek(), Some(&b"hello"[..]));
//! bob.consume();
//! # Ok(())
//! # }
//! ```
//!
//! Time comes in as `now` and is never asked for. After [`Kcp::handle_timeout`] the next [`Kcp::poll_timeout`] is later
//! than `now`, or `None`. Whatever can be sent is there for [`Kcp::poll_transmit`] at once; it may be called late, and
//! what it gives is never stale. A packet costs the same whatever the window is, and allocates nothing in a running
//! transfer. What a peer sends can be refused and counted ([`Stats`]), never cause a panic.

mod config;
mod congestion;
mod engine;
mod flight;
mod pool;
mod recv;
mod rto;
mod send;
mod sn;
mod stats;
pub mod wire;

pub use config::{Config, PLACE, Resume, Retransmission};
pub use engine::Kcp;
pub use sn::{Sn, Ts};
pub use stats::Stats;
pub use wire::{DecodeError, Segment, conv_of, segments};
