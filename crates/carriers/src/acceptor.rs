//! Takes connections at one address, and does their handshakes beside one another.
//!
//! ```text
//! connection -> TLS -> upgrade -> accept()      tls, ws, wss: at most 256 at once, 64 of a source, 10 s each
//!            -------------------> accept()      tcp, unix: there is nothing to be done
//! ```
//!
//! There is no task of its own: connections are taken while somebody waits in `accept`. Handshakes are tasks, and go on meanwhile. Behind a web server the peer is the web server:
//! what it says of others (`X-Forwarded-For`) is not looked at.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "tls")]
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};

use crate::address::{Kind, ListenAddress};
use crate::connection::{BoxedIo, Connection};
use crate::options::{ListenOptions, OptionsError};
#[cfg(feature = "tls")]
use crate::tls;
#[cfg(unix)]
use crate::unix::{self, SocketFile};

/// Beyond so many handshakes the oldest makes room: whoever is silent does not keep others out.
const HANDSHAKES: usize = 256;
/// Beyond so many of one source the oldest of that source makes room: whoever connects all the time does not keep others out either.
const HANDSHAKES_OF_SOURCE: usize = 64;
/// A handshake is two or three round trips.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections of one kind at one address. Dropping it ends that, and handshakes that are not done; connections that were given out go on.
pub struct Acceptor {
    address: ListenAddress,
    socket: Listening,
    #[cfg(feature = "tls")]
    tls: RwLock<Option<tls::Server>>,
    handshakes: Mutex<Handshakes>,
    accepted: AtomicU64,
    failed: AtomicU64,
    accept_errors: AtomicU64,
    accept_pauses: AtomicU64,
}

enum Listening {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when it is dropped")] SocketFile),
}

#[derive(Default)]
struct Handshakes {
    running: JoinSet<io::Result<Connection>>,
    /// Oldest first, some of them done.
    order: VecDeque<(Option<Source>, AbortHandle)>,
}

/// An IPv4 address, or 64 bits of an IPv6 address: what one host has, and may change within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source(u64);

impl Source {
    fn of(addr: SocketAddr) -> Self {
        match addr.ip().to_canonical() {
            // No address that is routed begins with 32 bits of zeros.
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            IpAddr::V6(ip) => Self((ip.to_bits() >> 64) as u64),
        }
    }
}

impl Handshakes {
    /// The one that makes room for another of this source.
    fn make_room(&mut self, source: Option<Source>) {
        let of_source = self.order.iter().filter(|(of, _)| *of == source).count();
        let oldest = if of_source >= HANDSHAKES_OF_SOURCE {
            self.order.iter().position(|(of, _)| *of == source)
        } else {
            (self.order.len() >= HANDSHAKES).then_some(0)
        };
        if let Some((_, oldest)) = oldest.and_then(|at| self.order.remove(at)) {
            oldest.abort();
        }
    }
}

/// Counters of an [`Acceptor`], from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptorStats {
    /// Connections that were given out.
    pub accepted: u64,
    /// Handshakes that came to nothing: another path, no TLS, 10 s without an end, or one too many at once.
    pub handshakes_failed: u64,
    /// Connections that could not be taken, for want of descriptors mostly, or that had gone before they were.
    pub accept_errors: u64,
    /// Those of them after which there was a pause: all but the ones that had gone.
    pub accept_pauses: u64,
}

/// Why one cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The options do not do.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The address does not do: in use, not allowed, not of this machine.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Acceptor {
    /// Listens at `address`. Reads certificates from files. On Unix a socket's file that a dead server has left is replaced.
    ///
    /// # Errors
    ///
    /// This version has no such carriers, a file cannot be used, or the address cannot be listened on.
    pub async fn bind(address: ListenAddress, options: ListenOptions) -> Result<Self, BindError> {
        let kind = address.kind();
        if !kind.is_here() {
            return Err(OptionsError::NotHere(kind).into());
        }
        #[cfg(feature = "tls")]
        let tls = RwLock::new(server_tls(kind, &options)?);
        let (address, socket) = listen(address, &options).await?;
        Ok(Self {
            address,
            socket,
            #[cfg(feature = "tls")]
            tls,
            handshakes: Mutex::default(),
            accepted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            accept_pauses: AtomicU64::new(0),
        })
    }

    /// The address, with the port that was given if any was wanted.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// IP address and port. `None`: not over TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Listening::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Listening::Unix(..) => None,
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> AcceptorStats {
        AcceptorStats {
            accepted: self.accepted.load(Ordering::Relaxed),
            handshakes_failed: self.failed.load(Ordering::Relaxed),
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
            accept_pauses: self.accept_pauses.load(Ordering::Relaxed),
        }
    }

    /// Reads certificate and key anew, for the handshakes to come: they are renewed every few weeks. Without effect on kinds without TLS.
    ///
    /// # Errors
    ///
    /// A file cannot be used. Then it stays as it was.
    #[cfg(feature = "tls")]
    pub fn reload(&self, options: &ListenOptions) -> Result<(), OptionsError> {
        let tls = server_tls(self.address.kind(), options)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// Waits for the next connection that is ready for bytes. Cancel-safe. Several may wait; one of them is served at a time.
    ///
    /// # Errors
    ///
    /// None at present; the shape is `TcpListener::accept`'s. What goes wrong with one connection is counted.
    pub async fn accept(&self) -> io::Result<Connection> {
        let mut handshakes = self.handshakes.lock().await;
        loop {
            let connection = tokio::select! {
                biased;
                Some(done) = handshakes.running.join_next() => {
                    handshakes.order.retain(|(_, handshake)| !handshake.is_finished());
                    match done {
                        Ok(Ok(connection)) => Some(connection),
                        Ok(Err(_)) | Err(_) => {
                            self.failed.fetch_add(1, Ordering::Relaxed);
                            None
                        }
                    }
                }
                taken = self.take() => match taken {
                    Ok((io, peer)) => self.welcome(&mut handshakes, io, peer),
                    // That one has gone; the next may be there.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                        self.accept_errors.fetch_add(1, Ordering::Relaxed);
                        None
                    }
                    Err(_) => {
                        self.accept_errors.fetch_add(1, Ordering::Relaxed);
                        self.accept_pauses.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        None
                    }
                },
            };
            if let Some(connection) = connection {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(connection);
            }
        }
    }

    async fn take(&self) -> io::Result<(BoxedIo, Option<SocketAddr>)> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, peer): (TcpStream, _) = listener.accept().await?;
                turbotunnel::tcp::configure(&stream);
                Ok((Box::new(stream), Some(peer)))
            }
            #[cfg(unix)]
            Listening::Unix(listener, _) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }

    /// The connection, if there is nothing to be done about it; else its handshake begins.
    fn welcome(&self, handshakes: &mut Handshakes, io: BoxedIo, peer: Option<SocketAddr>) -> Option<Connection> {
        if matches!(self.address.kind(), Kind::Tcp | Kind::Unix) {
            return Some(Connection::new(io, peer));
        }
        let source = peer.map(Source::of);
        handshakes.make_room(source);
        #[cfg(feature = "tls")]
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let path = self.address.path().map(str::to_owned);
        let handshake = async move {
            #[cfg(feature = "tls")]
            let io: BoxedIo = match tls {
                Some(tls) => Box::new(tls.accept(io).await?),
                None => io,
            };
            match path {
                #[cfg(feature = "ws")]
                Some(path) => Ok(Connection::new(crate::websocket::accept(io, &path).await?, peer)),
                _ => Ok(Connection::new(io, peer)),
            }
        };
        let handshake = async {
            let timeout = tokio::time::timeout(HANDSHAKE_TIME, handshake);
            timeout.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        handshakes.order.push_back((source, handshakes.running.spawn(handshake)));
        None
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("address", &self.address).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
fn server_tls(kind: Kind, options: &ListenOptions) -> Result<Option<tls::Server>, OptionsError> {
    if !kind.has_tls() {
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (&options.certificate, &options.key) else {
        return Err(OptionsError::NoCertificate(kind));
    };
    tls::Server::new(certificate, key, kind.has_ws()).map(Some)
}

async fn listen(address: ListenAddress, options: &ListenOptions) -> io::Result<(ListenAddress, Listening)> {
    #[cfg(not(unix))]
    let _ = options;
    #[cfg(unix)]
    if let Some(path) = address.file() {
        let (listener, file) = unix::bind(path, options.mode).await?;
        return Ok((address, Listening::Unix(listener, file)));
    }
    let port = address.port().unwrap_or_default();
    let listener = match address.host().unwrap_or_default() {
        // "[::]" takes IPv4 as well, on systems with IPv6.
        "" => match TcpListener::bind(("::", port)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await?,
        },
        host => TcpListener::bind((host, port)).await?,
    };
    let port = listener.local_addr()?.port();
    Ok((address.with_port(port), Listening::Tcp(listener)))
}
