//! Ports that a server lends to its clients (`-R`), and what comes of their connections.
//!
//! A port belongs to the stream that asked for it: it is listened on until that stream ends, with the session if need be. The same client, known by its key, may ask for it again in a
//! new session before the old one has run out; then it gets the very socket, and nobody who connects meanwhile is refused.

use std::collections::HashMap;
use std::fmt;
use std::io;
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
use super::pump::{Moved, pump};
use super::request::{Answer, Code, Request, Target};
use crate::log::Log;
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
        if bind != "*" && bind.parse::<std::net::IpAddr>().is_err() {
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
        Self { lent, held: Mutex::default(), closed: watch::Sender::new(false), open, traffic, log }
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
            Err(error) => return stream.write_all(&Answer::new(Code::of(&error)).encode()).await,
        };
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
                Err(_) => {
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
                let carried =
                    carry(&mut connection, &mut stream, Request::Arrived(Target { host: from, port }), &traffic).await;
                if carried.is_err() {
                    stream.reset();
                    outlet::reset(connection);
                }
                drop((place, one));
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
        let lent = self.lent.iter().find(|lent| {
            (wanted.host.is_empty() || wanted.host == lent.bind)
                && (wanted.port == 0 || lent.ports.contains(wanted.port))
        })?;
        let ports = if wanted.port == 0 { lent.ports.iter().collect() } else { vec![wanted.port] };
        Some((lent.bind.clone(), ports))
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
    stream.write_all(&request.encode()).await?;
    if Answer::read(&mut *stream).await?.code != Code::Done {
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
        for text in ["x", "8000-", "host:80", "80:x", "[::1:7"] {
            assert!(text.parse::<Lent>().is_err(), "{text}");
        }
    }
}
