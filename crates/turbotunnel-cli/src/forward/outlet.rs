//! The server's end of a stream: reads where it is to go, and brings it there, if that is allowed.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use turbotunnel::{Peer, Stream};

use super::allow::{Allowed, folded};
use super::failing::Failing;
use super::pump::{Broken, Moved, pump};
use super::request::{Answer, Code, Request, Target};
use super::reverse::Lender;
use crate::failure::reason;
use crate::log::Log;
use crate::open_files;
use crate::status::board::Traffic;
use crate::text;

/// A name has so long to become an address, and an address to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Where streams go that do not say where.
#[derive(Clone, Debug)]
pub(crate) enum Service {
    /// Back to where they come from.
    Echo,
    /// `server --to`
    To(Target),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo => f.write_str("echo"),
            Self::To(target) => write!(f, "streams go to {target}"),
        }
    }
}

/// All that a server does with streams.
pub(crate) struct Outlet {
    /// What the first of a stream is: a request, or in the plain format its data.
    pub asked: bool,
    pub service: Option<Service>,
    pub allowed: Allowed,
    pub lender: Arc<Lender>,
    pub traffic: Traffic,
    pub failing: Failing,
    pub log: Log,
}

impl fmt::Display for Outlet {
    /// What it does, for a line of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.service.as_ref().map(Service::to_string),
            (!self.allowed.is_empty()).then(|| format!("clients may go to {}", self.allowed)),
            (!self.lender.is_empty()).then(|| format!("lends {}", self.lender)),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// Why a stream did not get where it wanted.
enum Ended {
    /// Before there was a target.
    Request(io::Error),
    Refused(String, String),
    Broken(String, Broken),
}

impl Outlet {
    /// All that there is to do with a stream is to send it back, and nobody asks for that.
    pub(crate) fn only_echoes(&self) -> bool {
        !self.asked && matches!(self.service, Some(Service::Echo))
    }

    /// Tells of a stream that was [only echoed](Outlet::only_echoes).
    pub(crate) fn echoed(&self, outcome: io::Result<u64>, peer: &Peer) {
        match outcome {
            Ok(bytes) => {
                self.log.detail(format_args!("{peer} ended, {} echoed", text::size(bytes)));
            }
            Err(error) => self.log.detail(format_args!("{peer} ended: {}", reason(&error))),
        }
    }

    /// Serves one stream to its end, and tells of it in the log.
    pub(crate) async fn serve(&self, mut stream: Stream, peer: Peer) {
        let began = Instant::now();
        let mut moved = Moved::default();
        let ended = self.bring(&mut stream, &mut moved).await;
        let Moved { up, down } = moved;
        let (up, down, age) = (text::size(up), text::size(down), text::age(began.elapsed()));
        match ended {
            Ok(to) => self.log.detail(format_args!("{peer} to {to} ended after {age}, {down} there, {up} back")),
            Err(Ended::Request(error)) => self.log.detail(format_args!("{peer} ended: {}", reason(&error))),
            Err(Ended::Refused(to, why)) => self.log.detail(format_args!("{peer} to {to}: {why}")),
            Err(Ended::Broken(to, broken)) => {
                let (who, error) = match &broken {
                    Broken::Connection(error) => ("the target", error),
                    Broken::Stream(error) => ("the client", error),
                };
                let why = reason(error);
                self.log
                    .detail(format_args!("{peer} to {to} broke after {age} at {who} ({why}), {down} there, {up} back"));
            }
        }
    }

    async fn bring(&self, stream: &mut Stream, moved: &mut Moved) -> Result<String, Ended> {
        let request = match self.asked {
            true => Request::read(&mut *stream).await.map_err(Ended::Request)?,
            false => Request::Default,
        };
        if self.lender.is_closed() {
            return self.refuse(stream, "a target".into(), Code::Ending).await;
        }
        let target = match request {
            Request::Default => match &self.service {
                None => return self.refuse(stream, "the server's own target".into(), Code::NotAllowed).await,
                Some(Service::Echo) => {
                    self.traffic.count(Code::Done);
                    self.answer(stream, Answer::new(Code::Done)).await.map_err(Ended::Request)?;
                    let echoed = crate::echo::echo(stream, &self.traffic).await.map_err(Ended::Request)?;
                    (moved.up, moved.down) = (echoed, echoed);
                    return Ok("echo".into());
                }
                Some(Service::To(target)) => target.clone(),
            },
            Request::Connect(target) if self.allowed.may(&target) => target,
            Request::Connect(target) => return self.refuse(stream, target.to_string(), Code::NotAllowed).await,
            Request::Listen(wanted) => {
                let name = format!("listen on {wanted}");
                let lending = Box::pin(self.lender.lend(stream, &wanted));
                return lending.await.map(|()| name).map_err(Ended::Request);
            }
            Request::Arrived(_) | Request::Unknown(_) => {
                return self.refuse(stream, "a request of an unknown kind".into(), Code::UnknownKind).await;
            }
        };
        // A stream that has not said yet what it wants does not hold the room that this takes.
        Box::pin(self.forward(stream, target, moved)).await
    }

    async fn forward(&self, stream: &mut Stream, target: Target, moved: &mut Moved) -> Result<String, Ended> {
        let own = matches!(&self.service, Some(Service::To(to)) if *to == target);
        let name = target.to_string();
        let mut connection = match self.connect(&target, own).await {
            Ok(connection) => connection,
            Err(error) => {
                let code = Code::of(&error);
                let why = if open_files::is_short(&error) {
                    self.traffic.count_short_of_files();
                    "the server has too many files open".to_owned()
                } else {
                    self.traffic.count(code);
                    code.to_string()
                };
                // However a client writes it, it is one target.
                let told = Target { host: folded(&target.host), port: target.port }.to_string();
                self.failing.tell((own || self.allowed.names(&target)).then_some(&told), &why);
                self.answer(stream, Answer::new(code)).await.map_err(Ended::Request)?;
                return Err(Ended::Refused(name, why));
            }
        };
        self.traffic.count(Code::Done);
        self.answer(stream, Answer::new(Code::Done)).await.map_err(Ended::Request)?;
        match pump(&mut connection, stream, moved, &self.traffic).await {
            Ok(()) => Ok(name),
            Err(broken) => Err(Ended::Broken(name, broken)),
        }
    }

    async fn answer(&self, stream: &mut Stream, answer: Answer) -> io::Result<()> {
        if self.asked { stream.write_all(&answer.encode()).await } else { Ok(()) }
    }

    async fn refuse(&self, stream: &mut Stream, what: String, code: Code) -> Result<String, Ended> {
        self.traffic.count(code);
        self.answer(stream, Answer::new(code)).await.map_err(Ended::Request)?;
        // What was sent in good hope comes to nothing.
        Err(Ended::Refused(what, code.to_string()))
    }

    async fn connect(&self, target: &Target, own: bool) -> io::Result<TcpStream> {
        let found = within_limit(resolve(target)).await?;
        let addresses = if own { found } else { self.allowed.addresses(target, found) };
        if addresses.is_empty() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        within_limit(connect_any(&addresses)).await
    }
}

/// A connection to a target on this side of things: the client's for a port at the server.
pub(crate) async fn connect(target: &Target) -> io::Result<TcpStream> {
    let addresses = within_limit(resolve(target)).await?;
    within_limit(connect_any(&addresses)).await
}

async fn within_limit<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn resolve(target: &Target) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    // Whatever a resolver says, there is no address, unless it could not even ask.
    let found: Vec<_> = match found {
        Ok(found) => found.collect(),
        Err(error) if open_files::is_short(&error) => return Err(error),
        Err(_) => return Err(io::ErrorKind::NotFound.into()),
    };
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(addresses).await?;
    settle(&connection);
    Ok(connection)
}

/// What is set on each connection to a program: small messages leave at once, and one whose other end has vanished without a word is found out.
pub(crate) fn settle(connection: &TcpStream) {
    // Neither is needed: a system that refuses is as good.
    let _ = connection.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60));
    let _ = socket2::SockRef::from(connection).set_tcp_keepalive(&keepalive);
}
