//! smux without I/O: many streams over one reliable byte stream, wire-compatible with [xtaci/smux] version 2 (and 1).
//!
//! # smux in a page
//!
//! Both ends cut what they say into *frames* of eight bytes and a payload ([`wire`]). SYN opens a stream, PSH carries its
//! data, FIN ends one direction of it, NOP says that somebody is alive, and UPD (version 2) says how much of a stream was
//! read and how much more it takes. Nothing refuses a stream, resets one or ends the session.
//!
//! A version 2 sender may have 262,144 bytes of a stream in flight or unread. The first UPD, sent at the first read, puts
//! the receiver's real window in its place. A window that is read within two round trips is doubled.
//!
//! A FIN means "I will write no more", or "I am gone and throw away what you send": older Go peers mean the second. We
//! send one FIN for the first ([`Mux::finish`]), another for the second ([`Mux::close`]), which is what new Go peers do.
//! Towards a peer of unknown age the first is held until the stream is quiet ([`Mux::set_fin_quiet`]).
//!
//! # How to drive it
//!
//! ```text
//!   application   open accept write read finish close        poll_event -> Incoming, Readable, Writable, ...
//!                                     |
//!                                    Mux        handle_timeout(now) <- poll_timeout
//!                                     |
//!   below         handle_bytes(now, what arrived)            poll_transmit(now, out, room) -> frames to send
//! ```
//!
//! A [`Mux`] opens nothing, spawns nothing and asks nobody for the time: `now` comes in and never goes back. What can be
//! sent is there for [`Mux::poll_transmit`] at once; nothing is made before it can be sent.
//!
//! ```
//! use std::time::Instant;
//! use turbotunnel_smux::{Config, Event, Mux, Side};
//!
//! # #[allow(clippy::disallowed_methods)]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let mut client = Mux::new(now, Side::Client, Config::default());
//! let mut server = Mux::new(now, Side::Server, Config::default());
//!
//! let id = client.open()?;
//! client.write(id, b"hello")?;
//! client.finish(id)?;
//!
//! let mut wire = Vec::new();
//! while client.poll_transmit(now, &mut wire, 1_376) {}
//! server.handle_bytes(now, &wire)?;
//!
//! assert_eq!(server.poll_event(), Some(Event::Incoming));
//! let id = server.accept().expect("the client opened a stream");
//! let mut buf = [0; 16];
//! assert_eq!(server.read(now, id, &mut buf)?, Some(5));
//! assert_eq!(&buf[..5], b"hello");
//! assert_eq!(server.read(now, id, &mut buf)?, Some(0), "the client has finished");
//! # Ok(())
//! # }
//! ```
//!
//! # What it costs
//!
//! A frame costs the same however many streams there are, and no allocation once chunks circulate. Received data counts
//! by what is allocated for it, at most 1.25 times its size and 16 KiB a stream, however small the frames. An idle stream
//! costs less than 256 bytes.
//!
//! [xtaci/smux]: https://github.com/xtaci/smux

mod buffer;
mod config;
mod error;
mod input;
mod mux;
mod output;
mod quiet;
mod slab;
mod stats;
mod stream;
mod table;
mod wake;
pub mod wire;

pub use config::{ASSUMED_WINDOW, Config, LARGEST_WINDOW};
pub use error::{OpenError, ProtocolError, StreamError};
pub use mux::{Event, Mux, Side};
pub use stats::Stats;
pub use wire::{StreamId, Version};
