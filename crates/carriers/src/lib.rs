//! Connections for the sessions of [`turbotunnel`]: what a session goes over, and moves between, is here.
//!
//! | address | carrier |
//! |---|---|
//! | `[tcp://]HOST:PORT` | a TCP connection |
//! | `tls://HOST:PORT` | TLS |
//! | `ws://HOST[:PORT]/PATH` | a WebSocket, from port 80 if none is said |
//! | `wss://HOST[:PORT]/PATH` | a WebSocket over TLS, from port 443 if none is said |
//! | `unix:PATH` | a Unix domain socket |
//! | `exec:COMMAND` | whatever speaks on standard input and output; to dial only |
//!
//! A [`Dialer`] makes them, through an HTTP or SOCKS5 proxy if need be, an [`Acceptor`] takes them. Both give a [`Connection`], which is `AsyncRead + AsyncWrite`:
//! [`Builder::connect`](turbotunnel::Builder::connect) takes the one, [`Listener::attach`](turbotunnel::Listener::attach) the other. A session need not stay with one kind.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use turbotunnel::{Listener, Session};
//! use turbotunnel_carriers::{Acceptor, DialOptions, Dialer, ListenOptions};
//!
//! // A server that is reached over TCP as well as by a WebSocket.
//! let listener = Arc::new(Listener::builder().detached());
//! let mut dialers = Vec::new();
//! for text in ["127.0.0.1:0", "ws://127.0.0.1:0/tunnel"] {
//! #   if text.starts_with("ws") && cfg!(not(feature = "ws")) { continue; }
//!     let acceptor = Acceptor::bind(text.parse()?, ListenOptions::default()).await?;
//!     dialers.push(Dialer::new(acceptor.address().to_string().parse()?, DialOptions::default())?);
//!     let listener = listener.clone();
//!     tokio::spawn(async move {
//!         while let Ok(connection) = acceptor.accept().await {
//!             let peer = connection.peer();
//!             listener.attach(connection, peer);
//!         }
//!     });
//! }
//!
//! // A client that uses the one and the other in turn.
//! let dial = move |attempt: turbotunnel::Attempt| {
//!     let dialer = dialers[attempt.number as usize % dialers.len()].clone();
//!     async move { dialer.dial().await }
//! };
//! let session = Session::builder().connect(dial).await?;
//! session.open().await?.write_all(b"hello").await?;
//!
//! let (mut stream, _) = listener.accept().await?;
//! let mut hello = [0; 5];
//! stream.read_exact(&mut hello).await?;
//! assert_eq!(&hello, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # What each is good for
//!
//! A WebSocket goes where a web server or a content delivery network passes it on, and where only a proxy leads out. `exec:` is for everything else: `exec:ssh HOST nc -N 127.0.0.1 8000`.
//! TLS here hides what is said from those on the way, but a session with keys (`turbotunnel`'s feature `secure`) is protected without it, and end to end: a web server that takes
//! the TLS off reads everything of a plain session.
//!
//! None of them looks like a browser to somebody who looks closely: the order of headers and the TLS handshake are others.
//!
//! # Half-close
//!
//! [`shutdown`](tokio::io::AsyncWriteExt::shutdown) says that no more comes, and reading goes on, over TCP, TLS, Unix sockets and pipes. A WebSocket has no such thing: shutting it down
//! sends Close, and a peer that reads it sends no more but its own Close, to which everything before is still read. A session does not mind: what is missing comes over the next carrier.
//!
//! # Limits
//!
//! No time limit for a dial (a session has one), 10 s for a handshake at the server, 256 of them at once, 64 of one source. A head of HTTP: 16 KiB. A message on a WebSocket: 1 MiB read, 64 KiB written.
//! Buffers: none over TCP, Unix sockets and pipes; TLS up to 64 KiB to write and one record to read; a WebSocket 16 KiB while idle, 64 KiB to write and one message to read while busy.
//!
//! # Cargo features
//!
//! `tls` and `ws`, both on by default. Without them addresses of these kinds can be read, and [`Dialer::new`] and [`Acceptor::bind`] say that this version has none.

mod acceptor;
mod address;
mod connection;
mod dialer;
#[cfg(any(unix, windows))]
mod exec;
mod http;
mod options;
mod proxy;
#[cfg(feature = "tls")]
mod tls;
#[cfg(unix)]
mod unix;
#[cfg(feature = "ws")]
mod websocket;
mod words;

pub use acceptor::{Acceptor, AcceptorStats, BindError};
pub use address::{Address, AddressProblem, Kind, ListenAddress, ParseAddressError};
pub use connection::Connection;
pub use dialer::Dialer;
pub use options::{DialOptions, ListenOptions, OptionsError, Roots};
pub use proxy::{ParseProxyError, Proxy};
