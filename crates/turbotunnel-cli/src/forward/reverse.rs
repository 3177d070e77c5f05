//! Ports that a server lends to its clients (`-R`), and what comes of their connections.
//!
//! A port belongs to the stream that asked for it: it is listened on until that stream ends, with the session if need be. The same client, known by its key, may ask for it again in a
//! new session before the old one has run out; then it gets the very socket, and nobody who connects meanwhile is refused.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use turbotunnel::secure::PublicKey;
use turbotunnel::{Session, Stream};

use super::allow::Ports;
use super::open::Open;
use super::outlet;
use super::pump::{Moved, Side, pump};
use super::request::{Answer, Code, Request, Target};
use crate::log::Log;
use crate::open_files::Shortage;
use crate::status::board::Traffic;

/// Connections of one port at once.
const CONNECTIONS: usize = 1024;
/// After an accept that failed, for want of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Ports that may be lent: `--reverse [BIND:]PORTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lent {
    bind: String,
    ports: Ports,
}

impl FromStr for Lent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (bind, ports) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let bare = bind.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(bind);
        let bind = if matches!(bare, "" | "*") { "*" } else { bare };
        if bind != "*" && bind.parse::<IpAddr>().is_err() {
            return Err("not ports to lend: [BIND:]PORTS, with an address and e.g. 8000-8100".to_owned());
        }
        Ok(Self { bind: bind.to_owned(), ports: ports.parse()? })
    }
}

impl fmt::Display for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bind.contains(':') {
            write!(f, "[{}]:{}", self.bind, self.ports)
        } else {
            write!(f, "{}:{}", self.bind, self.ports)
        }
    }
}

/// Who has which port.
pub(crate) struct Lender {
    lent: Vec<Lent>,
    held: Mutex<HashMap<(String, u16), Held>>,
    /// Nothing is lent any more.
    closed: watch::Sender<bool>,
    open: Open,
    traffic: Traffic,
    shortage: Shortage,
    log: Log,
}

struct Held {
    owner: Option<PublicKey>,
    listener: Arc<TcpListener>,
    /// Counts owners: whoever finds another number than his own has been succeeded.
    turn: watch::Sender<u64>,
}

impl Lender {
    pub(crate) fn new(lent: Vec<Lent>, open: Open, traffic: Traffic, log: Log) -> Self {
        Self {
            lent,
            held: Mutex::default(),
            closed: watch::Sender::new(false),
            open,
            traffic,
            shortage: Shortage::default(),
            log,
        }
    }

    /// Takes all ports back. The connections that came to them go on.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Nothing new begins.
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lent.is_empty()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(String, u16), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves [`Request::Listen`] until the stream ends.
    pub(crate) async fn lend(self: &Arc<Self>, stream: &mut Stream, wanted: &Target) -> io::Result<()> {
        let borrowed = match self.borrow(stream.session(), wanted).await {
            Ok(borrowed) => borrowed,
            Err(error) => {
                let code = Code::of(&error);
                self.traffic.count(code);
                // What is wrong is the address, and not the port.
                let port = Some(wanted.port).filter(|_| code == Code::NotAllowed && self.lends_elsewhere(wanted));
                return stream.write_all(&Answer { code, port }.encode()).await;
            }
        };
        self.traffic.count(Code::Done);
        let port = borrowed.at.1;
        let session = stream.session().clone();
        self.log.info(format_args!("session {} listens on {}", session.id().short(), shown(&borrowed.at)));
        stream.write_all(&Answer { code: Code::Done, port: Some(port) }.encode()).await?;
        let mut turn = borrowed.turn.clone();
        let mut closed = self.closed.subscribe();
        let mut nothing = [0; 1];
        tokio::select! {
            // Its end is all that may come.
            _ = stream.read(&mut nothing) => {}
            _ = turn.wait_for(|turn| *turn != borrowed.mine) => {}
            _ = closed.wait_for(|closed| *closed) => {}
            () = self.pass_on(&borrowed.listener, &session, port) => {}
        }
        self.log.info(format_args!("session {} listens on {} no more", session.id().short(), shown(&borrowed.at)));
        Ok(())
    }

    /// Brings what connects there to the client.
    async fn pass_on(&self, listener: &TcpListener, session: &Session, port: u16) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let (mut connection, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    self.shortage.on_error(&error, &self.log);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            outlet::settle(&connection);
            let Ok(mut stream) = session.open().await else { return };
            let one = self.open.one();
            let traffic = self.traffic.clone();
            tokio::spawn(async move {
                let from = from.ip().to_canonical().to_string();
                // An error has broken both sides.
                let _ =
                    carry(&mut connection, &mut stream, Request::Arrived(Target { host: from, port }), &traffic).await;
                drop((connection, stream, place, one));
            });
        }
    }

    async fn borrow(self: &Arc<Self>, session: &Session, wanted: &Target) -> io::Result<Borrowed> {
        let owner = session.client_key();
        let (bind, ports) = self.permitted(wanted).ok_or(io::ErrorKind::PermissionDenied)?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for port in ports {
            let at = (bind.clone(), port);
            if let Some(held) = self.held().get_mut(&at) {
                if wanted.port != 0 && owner.is_some() && held.owner == owner {
                    held.turn.send_modify(|turn| *turn += 1);
                    let (mine, turn) = (*held.turn.borrow(), held.turn.subscribe());
                    return Ok(Borrowed { lender: self.clone(), at, listener: held.listener.clone(), mine, turn });
                }
                continue;
            }
            let bound = match bind.as_str() {
                "*" => match TcpListener::bind(("::", port)).await {
                    Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                        TcpListener::bind(("0.0.0.0", port)).await
                    }
                    bound => bound,
                },
                bind => TcpListener::bind((bind, port)).await,
            };
            match bound {
                Ok(listener) => {
                    let (turn, listener) = (watch::Sender::new(0), Arc::new(listener));
                    let borrowed = Borrowed {
                        lender: self.clone(),
                        at: at.clone(),
                        listener: listener.clone(),
                        mine: 0,
                        turn: turn.subscribe(),
                    };
                    self.held().insert(at, Held { owner, listener, turn });
                    return Ok(borrowed);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The address that is meant, and the ports to try.
    fn permitted(&self, wanted: &Target) -> Option<(String, Vec<u16>)> {
        let (lent, bind) = self
            .lent
            .iter()
            .filter(|lent| lent.has(wanted.port))
            .find_map(|lent| Some((lent, lent.at(&wanted.host)?)))?;
        let ports = if wanted.port == 0 { lent.ports.iter().collect() } else { vec![wanted.port] };
        Some((bind, ports))
    }

    /// It can be had, but not at the address that is wanted.
    fn lends_elsewhere(&self, wanted: &Target) -> bool {
        self.lent.iter().any(|lent| lent.has(wanted.port) && lent.at(&wanted.host).is_none())
    }
}

impl Lent {
    /// Port 0 is any.
    fn has(&self, port: u16) -> bool {
        port == 0 || self.ports.contains(port)
    }

    /// Where to listen for somebody who wants this address; `None`: not there.
    fn at(&self, wanted: &str) -> Option<String> {
        // Another way to write an address is the same address.
        let ip = wanted.parse::<IpAddr>().ok();
        let all = wanted == "*" || ip.is_some_and(|ip| ip.is_unspecified());
        let own = self.bind.parse::<IpAddr>().ok();
        match self.bind.as_str() {
            _ if wanted.is_empty() => Some(self.bind.clone()),
            _ if all && own.is_none_or(|own| own.is_unspecified()) => Some(self.bind.clone()),
            // "*" is all addresses, and each of them.
            "*" if wanted == "localhost" => Some("127.0.0.1".to_owned()),
            "*" => ip.map(|ip| ip.to_string()),
            _ if wanted == "localhost" => own.filter(IpAddr::is_loopback).map(|_| self.bind.clone()),
            _ => own.filter(|_| own == ip).map(|_| self.bind.clone()),
        }
    }
}

impl fmt::Display for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lent.iter().map(Lent::to_string).collect::<Vec<_>>().join(" "))
    }
}

fn shown((bind, port): &(String, u16)) -> Target {
    Target { host: bind.clone(), port: *port }
}

/// A port, for as long as it is needed.
struct Borrowed {
    lender: Arc<Lender>,
    at: (String, u16),
    listener: Arc<TcpListener>,
    mine: u64,
    turn: watch::Receiver<u64>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut held = self.lender.held();
        if held.get(&self.at).is_some_and(|held| *held.turn.borrow() == self.mine) {
            held.remove(&self.at);
        }
    }
}

async fn carry(connection: &mut TcpStream, stream: &mut Stream, request: Request, traffic: &Traffic) -> io::Result<()> {
    connection.set_break_on_drop(true);
    stream.set_break_on_drop(true);
    stream.write_all(&request.encode()).await?;
    let code = Answer::read(&mut *stream).await?.code;
    traffic.count(code);
    if code != Code::Done {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    pump(connection, stream, &mut Moved::default(), traffic).await.map_err(|_| io::ErrorKind::ConnectionReset.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &str, port: u16) -> Target {
        Target { host: host.into(), port }
    }

    #[test]
    fn only_what_is_lent_can_be_had() {
        let lent = ["8000-8002", "*:9000", "[::1]:7"].map(|text| text.parse().unwrap());
        let lender = Lender::new(lent.to_vec(), Open::default(), Traffic::default(), Log::silent());
        let permitted = |host: &str, port| lender.permitted(&wanted(host, port));
        assert_eq!(permitted("", 8001), Some(("127.0.0.1".into(), vec![8001])));
        assert_eq!(permitted("127.0.0.1", 0), Some(("127.0.0.1".into(), vec![8000, 8001, 8002])));
        assert_eq!(permitted("", 9000), Some(("*".into(), vec![9000])));
        assert_eq!(permitted("::1", 7), Some(("::1".into(), vec![7])));
        assert_eq!(permitted("*", 8001), None);
        assert_eq!(permitted("", 22), None);
        assert_eq!(permitted("localhost", 8001), Some(("127.0.0.1".into(), vec![8001])));
        assert_eq!(permitted("localhost", 7), Some(("::1".into(), vec![7])));
        assert_eq!(permitted("0:0:0:0:0:0:0:1", 7), Some(("::1".into(), vec![7])));
        // All addresses, and each of them.
        for (host, bind) in
            [("*", "*"), ("0.0.0.0", "*"), ("::", "*"), ("10.0.0.1", "10.0.0.1"), ("localhost", "127.0.0.1")]
        {
            assert_eq!(permitted(host, 9000), Some((bind.into(), vec![9000])), "{host}");
        }
        for host in ["*", "0.0.0.0", "::", "::1", "10.0.0.1", "db.lan"] {
            assert_eq!(permitted(host, 8001), None, "{host}");
            assert!(
                lender.lends_elsewhere(&wanted(host, 8001)) && !lender.lends_elsewhere(&wanted(host, 22)),
                "{host}"
            );
        }
        assert_eq!((permitted("localhost", 22), permitted("db.lan", 9000)), (None, None));
        for text in ["x", "8000-", "host:80", "80:x", "[::1:7"] {
            assert!(text.parse::<Lent>().is_err(), "{text}");
        }
    }
}
