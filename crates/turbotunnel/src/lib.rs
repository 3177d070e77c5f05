//! Sessions that survive their connections.
//!
//! A TCP connection dies: a censor kills it after 20 seconds, a train enters a tunnel, a laptop changes networks. The program on top
//! does not notice: a **session** goes on over the next connection, and no byte of any of its streams is lost, doubled or out of
//! place. The idea is *Turbo Tunnel* (David Fifield, FOCI 2020); the wire format is that of its worked example, so the Go programs
//! there are peers of this crate.
//!
//! ```text
//!  your bytes         Stream, Stream ...     AsyncRead + AsyncWrite
//!  streams            smux                   many streams in one byte stream
//!  session            KCP                    a reliable byte stream over packets
//!  packets            encapsulation          u16 length, packet
//!  carriers           TCP, TCP, TCP ...      redialled as often as needed, tied together by a session id
//! ```
//!
//! # In two lines
//!
//! A tokio program changes two lines: `TcpStream` becomes [`Stream`], `TcpListener` becomes [`Listener`]. See `examples/`.
//!
//! ```
//! # #[cfg(feature = "tokio")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use turbotunnel::{Listener, Stream};
//!
//! let listener = Listener::bind("127.0.0.1:0").await?;
//! let mut client = Stream::connect(listener.local_addr()?).await?;
//! client.write_all(b"hello").await?;
//!
//! let (mut server, peer) = listener.accept().await?;
//! let mut hello = [0; 5];
//! server.read_exact(&mut hello).await?;
//! assert_eq!(&hello, b"hello", "from {peer}");
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "tokio"))]
//! # fn main() {}
//! ```
//!
//! A carrier can be anything that is `AsyncRead + AsyncWrite`: [`Session::builder`] takes a closure with a future that makes one,
//! [`Listener::attach`] takes connections that somebody else accepted, and [`carrier::Queue`] is for where there are only requests and answers.
//!
//! # Without I/O
//!
//! [`tunnel::Tunnel`] is one end of a session without sockets, tasks or clock; with `default-features = false` there is nothing else
//! in this crate. It speaks the dialect of all engines here, and promises:
//!
//! 1. Time comes in as `now`, never goes back, is never asked for.
//! 2. After `handle_timeout(now)` the next `poll_timeout` is later than `now`, or none. Calling early does nothing.
//! 3. Whatever can be sent or told is there for `poll_transmit` and `poll_event` at once; nothing waits behind a timer.
//! 4. `poll_transmit` may be called late, or not for a minute: nothing is produced before it can be sent, so nothing is stale,
//!    dropped, or counted as sent.
//! 5. A packet that does not parse changes nothing. A byte stream that does not parse ends the session.
//! 6. Every buffer has a limit in [`Config`]; at the limit `write` takes 0 bytes and an event comes when there is room.
//! 7. No allocation per packet, no walk over the window per packet.
//!
//! # What it is not
//!
//! The plain format, which is what you get without a key, hides and protects nothing: it is readable by everybody on the way, and whoever reads a session id there
//! can interfere with that session. With the feature `secure` and a key at both ends (`Builder::server_key`, `ListenerBuilder::server_keys`) carriers are encrypted
//! and authenticated, and a session can be reached by nobody but its client. Neither hides that it is this protocol, how much is said, and when.

mod backoff;
mod config;
pub mod control;
mod embryo;
pub mod encapsulation;
mod engine;
mod error;
#[doc(hidden)]
pub mod lifetime;
mod path;
#[cfg(feature = "secure")]
pub mod secure;
mod session_id;
mod silence;
pub mod tunnel;

// From here on tokio.
#[cfg(feature = "tokio")]
mod budget;
#[cfg(feature = "tokio")]
pub mod carrier;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "secure")]
mod key_file;
#[cfg(feature = "tokio")]
mod limits;
#[cfg(feature = "tokio")]
mod listener;
#[cfg(feature = "tokio")]
mod session;
#[cfg(feature = "tokio")]
mod session_map;
#[cfg(feature = "tokio")]
mod shared;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
pub mod tcp;

pub use config::{Config, Counters};
pub use embryo::Embryo;
pub use engine::PeerKind;
pub use error::{CarrierEnd, SessionError};
#[cfg(feature = "secure")]
pub use key_file::{KeyFileError, read_key_file, write_key_file};
#[cfg(feature = "tokio")]
pub use limits::{Limits, ListenerStats, Rate};
#[cfg(all(feature = "tokio", feature = "secure"))]
pub use listener::Clients;
#[cfg(feature = "tokio")]
pub use listener::{Listener, ListenerBuilder, Peer};
#[cfg(feature = "tokio")]
pub use session::{Attempt, Builder, Event, Session, Stats};
pub use session_id::{ParseSessionIdError, SessionId};
pub use smux::StreamId;
#[cfg(feature = "tokio")]
pub use stream::Stream;
pub use tunnel::Tunnel;
