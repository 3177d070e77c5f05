//! Makes connections of one kind to one address, as often as it is asked to.

use std::io;
#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::Arc;

use crate::address::{Address, Kind};
use crate::connection::{BoxedIo, Connection};
use crate::options::{DialOptions, OptionsError};
use crate::proxy::Proxy;
#[cfg(feature = "tls")]
use crate::tls;
#[cfg(feature = "ws")]
use crate::websocket;
use crate::words;

/// Dials one address. Clones share what it was made of.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Address,
    proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    tls: Option<tls::Client>,
}

impl Dialer {
    /// For connections to `address`. Reads certificates from files, and blocks as long as that takes.
    ///
    /// # Errors
    ///
    /// This version has no such carriers, or a file cannot be used.
    pub fn new(address: Address, options: DialOptions) -> Result<Self, OptionsError> {
        let kind = address.kind();
        if !kind.is_here() {
            return Err(OptionsError::NotHere(kind));
        }
        #[cfg(feature = "tls")]
        let tls = match kind.has_tls() {
            true => {
                let name = options.server_name.as_deref().or(address.host()).unwrap_or_default();
                let ca_file = options.ca_file.as_deref().map(Path::new);
                Some(tls::Client::new(name, options.roots, ca_file, kind.has_ws())?)
            }
            false => None,
        };
        Ok(Self(Arc::new(Inner {
            address,
            proxy: options.proxy,
            #[cfg(feature = "tls")]
            tls,
        })))
    }

    /// Where it dials.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// A connection that is ready for bytes: handshakes of proxy, TLS and WebSocket are done, a command runs. Names are resolved anew each time. To be called within a tokio
    /// runtime.
    ///
    /// It has no time limit of its own; a session gives up a dial after 10 s. Dropping the call closes what it has opened and kills the command.
    ///
    /// # Errors
    ///
    /// In words: who could not be reached, what answered in the server's place, why its certificate is not believed.
    pub async fn dial(&self) -> io::Result<Connection> {
        let Inner { address, .. } = &*self.0;
        match address.kind() {
            Kind::Exec => Ok(Connection::new(exec(address)?, None)),
            Kind::Unix => Ok(Connection::new(unix(address).await?, None)),
            Kind::Tcp | Kind::Tls | Kind::Ws | Kind::Wss => self.dial_tcp().await,
        }
    }

    async fn dial_tcp(&self) -> io::Result<Connection> {
        let Inner { address, proxy, .. } = &*self.0;
        let (io, peer): (BoxedIo, _) = match proxy {
            None => {
                let stream = turbotunnel::tcp::connect(&address.for_resolver()).await?;
                let peer = stream.peer_addr().ok();
                (Box::new(stream), peer)
            }
            Some(proxy) => {
                let stream = turbotunnel::tcp::connect(&proxy.authority()).await.map_err(|error| {
                    words::other(words::during(&format!("the proxy {proxy} cannot be reached"), &error).to_string())
                })?;
                let peer = stream.peer_addr().ok();
                (Box::new(proxy.pass(stream, address).await?), peer)
            }
        };
        #[cfg(feature = "tls")]
        let io = match &self.0.tls {
            Some(tls) => Box::new(tls.connect(io).await?),
            None => io,
        };
        #[cfg(feature = "ws")]
        if address.kind().has_ws() {
            return Ok(Connection::new(websocket::connect(io, address).await?, peer));
        }
        Ok(Connection::new(io, peer))
    }
}

#[cfg(any(unix, windows))]
fn exec(address: &Address) -> io::Result<crate::exec::Exec> {
    crate::exec::run(address.command().unwrap_or_default())
}

#[cfg(not(any(unix, windows)))]
fn exec(_: &Address) -> io::Result<tokio::io::DuplexStream> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
async fn unix(address: &Address) -> io::Result<tokio::net::UnixStream> {
    crate::unix::connect(address.file().unwrap_or_default()).await
}

#[cfg(not(unix))]
async fn unix(_: &Address) -> io::Result<tokio::io::DuplexStream> {
    Err(io::ErrorKind::Unsupported.into())
}
