//! The PROXY protocol (versions 1 and 2, HAProxy's specification): a load balancer says in front of each connection where it comes from.
//!
//! In: a connection of a balancer. Out: the same behind the header, and the address of the client in it. Whoever says none is dropped: with `--proxy-protocol` only balancers may reach the
//! port, because anybody can say any address. At most 256 connections at once may be without a header, each for 10 s.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ppp::{HeaderResult, v1, v2};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use turbotunnel::Listener;

use crate::log::{Level, Log};
use crate::text;

const LIMIT: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 256;
/// Version 2 may add fields to the addresses (216 bytes); nobody adds so many.
const MAX_HEADER: usize = 536;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V1_LONGEST: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length of the rest.
const V2_HEAD: usize = 16;
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// That there are connections without a header is told once in this time.
const REMIND: Duration = Duration::from_secs(60);

/// Connections without a header, at all ports together. Clones count together.
#[derive(Clone)]
pub(crate) struct Missing {
    count: Counter,
    /// Pauses because nothing could be accepted.
    pauses: Counter,
    told_at: Arc<Mutex<Option<Instant>>>,
    log: Log,
}

impl Missing {
    pub(crate) fn new(count: Counter, pauses: Counter, log: Log) -> Self {
        Self { count, pauses, told_at: Arc::default(), log }
    }

    fn one_more(&self, from: IpAddr) {
        self.count.inc();
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        *told_at = Some(Instant::now());
        let shows_all = from.to_canonical().is_loopback() || self.log.level() == Level::Verbose;
        let from = if shows_all { from.to_canonical().to_string() } else { text::masked(from) };
        let so_far = self.count.get();
        self.log.event(
            "no_proxy_header",
            &[("from", from.as_str().into()), ("so_far", so_far.into())],
            format_args!("no PROXY header from {from}: is send-proxy set at the balancer? ({so_far} so far)"),
        );
    }
}

/// Takes connections of balancers, until dropped.
pub(crate) async fn accept(tcp: TcpListener, listener: Arc<Listener>, missing: Missing) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (mut connection, balancer) = match tcp.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                missing.pauses.inc();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (listener, missing) = (listener.clone(), missing.clone());
        tokio::spawn(async move {
            let told = tokio::time::timeout(LIMIT, read_header(&mut connection)).await;
            drop(place);
            match told {
                Ok(Ok(client)) => {
                    turbotunnel::tcp::configure(&connection);
                    attach(&listener, connection, client.unwrap_or(balancer));
                }
                // Balancers connect and go away again, to see whether somebody is there.
                Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => {}
                // Silence, and whatever is no header, are nothing to answer.
                Ok(Err(_)) | Err(_) => missing.one_more(balancer.ip()),
            }
        });
    }
}

fn attach(listener: &Listener, connection: TcpStream, client: SocketAddr) {
    listener.attach(connection, Some(client));
}

/// Reads the header to its last byte and no further. `None`: the balancer speaks for itself (a health check), or says no address.
async fn read_header(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = Vec::new();
    loop {
        // One byte at a time: what follows is the session's. A header comes in one packet, and there is one a connection.
        header.push(from.read_u8().await?);
        if header.starts_with(V2_SIGNATURE) {
            let Some([.., high, low]) = header.first_chunk::<V2_HEAD>() else { continue };
            let rest = usize::from(u16::from_be_bytes([*high, *low]));
            if V2_HEAD + rest > MAX_HEADER {
                return Err(io::ErrorKind::InvalidData.into());
            }
            header.resize(V2_HEAD + rest, 0);
            from.read_exact(&mut header[V2_HEAD..]).await?;
            return client_of(&HeaderResult::parse(&header));
        }
        let may_be_one =
            V2_SIGNATURE.starts_with(&header) || header.iter().zip(V1_SIGNATURE).all(|(is, should)| is == should);
        match header.ends_with(b"\r\n") {
            _ if !may_be_one || header.len() > V1_LONGEST => return Err(io::ErrorKind::InvalidData.into()),
            true if header.starts_with(V1_SIGNATURE) => return client_of(&HeaderResult::parse(&header)),
            _ => {}
        }
    }
}

fn client_of(parsed: &HeaderResult<'_>) -> io::Result<Option<SocketAddr>> {
    match parsed {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(tcp) => Some((IpAddr::from(tcp.source_address), tcp.source_port).into()),
            v1::Addresses::Tcp6(tcp) => Some((IpAddr::from(tcp.source_address), tcp.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => Some((IpAddr::from(ip.source_address), ip.source_port).into()),
            v2::Addresses::IPv6(ip) => Some((IpAddr::from(ip.source_address), ip.source_port).into()),
            _ => None,
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2_IPV4: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x9c\x40\x1f\x40";

    #[tokio::test]
    async fn the_client_is_the_one_that_the_balancer_tells() {
        let client = Some("203.0.113.7:40000".parse().unwrap());
        let six = Some("[2001:db8::7]:40000".parse().unwrap());
        for (header, expected) in [
            (&b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 8000\r\n"[..], client),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 8000\r\n", six),
            (b"PROXY UNKNOWN\r\n", None),
            (V2_IPV4, client),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", None),
        ] {
            let bytes = [header, b"session"].concat();
            let mut from = &bytes[..];
            assert_eq!(read_header(&mut from).await.unwrap(), expected);
            assert_eq!(from, b"session", "the rest is untouched");
            for cut in 0..header.len() {
                assert!(read_header(&mut &header[..cut]).await.is_err());
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error_soon() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 600],
            b"PROXY TCP4 x y z\r\n",
            &[&V2_IPV4[..14], &[0xff; 600]].concat(),
        ] {
            let mut from = bytes;
            assert!(read_header(&mut from).await.is_err(), "{bytes:?}");
        }
    }
}
