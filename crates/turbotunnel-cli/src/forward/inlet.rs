//! The client's end: connections of programs become streams of whatever session there is.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use turbotunnel::{Session, SessionError, Stream};

use super::open::Open;
use super::outlet;
use super::pump::{Broken, Moved, Side, pump};
use super::request::{Answer, Code, Request, Target};
use super::socks;
use crate::failure::reason;
use crate::log::Log;
use crate::open_files::Shortage;
use crate::status::board::Traffic;
use crate::text;

/// Connections of programs at once, of one port, those that wait for a session among them: as many as a session has streams. More wait to be accepted.
const CONNECTIONS: usize = 2500;
/// After an accept that failed, for want of descriptors mostly.
const PAUSE: Duration = Duration::from_millis(100);
/// The answer of a stream that the server has ended already has come, or comes with the next carrier.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A program has so long to say in SOCKS where it wants to go.
const SOCKS_LIMIT: Duration = Duration::from_secs(30);

/// The session that there is, if there is one now.
pub(crate) type Uplink = watch::Receiver<Option<Session>>;

/// What a local port does with its connections.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// To this target; `None`: to where the server sends everybody.
    Forward(Option<Target>),
    /// Wherever the program says.
    Socks,
}

/// What all local ports share.
pub(crate) struct Inlet {
    pub uplink: Uplink,
    /// The plain format: no requests.
    pub plain: bool,
    /// Connections of programs.
    pub open: Open,
    pub traffic: Traffic,
    pub shortage: Shortage,
    pub log: Log,
}

/// Takes the connections of one local port, until dropped.
pub(crate) async fn accept(listener: TcpListener, want: Want, inlet: Arc<Inlet>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let (connection, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                inlet.shortage.on_error(&error, &inlet.log);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        outlet::settle(&connection);
        let (inlet, want, one) = (inlet.clone(), want.clone(), inlet.open.one());
        tokio::spawn(async move {
            let work = inlet.bring(connection, from, want);
            one.until_cut(work).await;
            drop((place, one));
        });
    }
}

enum Failed {
    Program(io::Error),
    Socks(io::Error),
    Target(Code),
    Stream(io::Error),
}

impl Inlet {
    /// One connection to its end, which the log tells of.
    async fn bring(&self, connection: TcpStream, from: SocketAddr, want: Want) {
        let log = &self.log;
        let began = Instant::now();
        let mut moved = Moved::default();
        let (to, outcome) = self.serve(connection, want, &mut moved).await;
        let (up, down, age) = (text::size(moved.up), text::size(moved.down), text::age(began.elapsed()));
        match outcome {
            Ok(()) => log.detail(format_args!("{from} to {to} ended after {age}, {up} up, {down} down")),
            // A program that has gone knows why.
            Err(Failed::Program(error)) => {
                log.detail(format_args!(
                    "{from} to {to} went away after {age} ({}), {up} up, {down} down",
                    reason(&error)
                ));
            }
            Err(Failed::Socks(error)) => log.info(format_args!("{from}: {error}")),
            Err(Failed::Target(code)) => log.info(format_args!("{from} to {to}: {code}")),
            Err(Failed::Stream(error)) => {
                log.info(format_args!("{from} to {to} was cut after {age}: {}, {up} up, {down} down", reason(&error)));
            }
        }
    }

    /// One connection to its end. Where it went is told, too.
    async fn serve(&self, mut connection: TcpStream, want: Want, moved: &mut Moved) -> (String, Result<(), Failed>) {
        // Until it is known what became of it; a program that waits for its stream has not had an answer.
        connection.set_break_on_drop(true);
        let mut socks = false;
        let target = match want {
            Want::Forward(target) => target,
            Want::Socks => {
                socks = true;
                match tokio::time::timeout(SOCKS_LIMIT, socks::accept(&mut connection)).await {
                    Ok(Ok(target)) => Some(target),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                        connection.set_break_on_drop(false);
                        socks::hear_out(&mut connection).await;
                        return ("nowhere".into(), Err(Failed::Socks(error)));
                    }
                    Ok(Err(error)) => return ("nowhere".into(), Err(Failed::Program(error))),
                    Err(_) => return ("nowhere".into(), Err(Failed::Program(io::ErrorKind::TimedOut.into()))),
                }
            }
        };
        let to = target.as_ref().map_or_else(|| "the server's target".to_owned(), Target::to_string);
        let outcome = self.carry(&mut connection, target, socks, moved).await;
        match outcome {
            // It has been told in SOCKS, which a reset would overtake.
            Err(Failed::Target(_)) if socks => connection.set_break_on_drop(false),
            _ => {}
        }
        (to, outcome)
    }

    async fn carry(
        &self,
        connection: &mut TcpStream,
        target: Option<Target>,
        socks: bool,
        moved: &mut Moved,
    ) -> Result<(), Failed> {
        let request = target.map_or(Request::Default, Request::Connect);
        let stream = self.stream(&request).await.map_err(|error| Failed::Stream(error.into()))?;
        let mut stream = Answered::new(stream, !self.plain).counted(&self.traffic);
        stream.set_break_on_drop(true);
        if socks {
            // The program wants to know before it goes on.
            let code = stream.answer().await.map_err(Failed::Stream)?;
            socks::reply(connection, code).await.map_err(Failed::Program)?;
            if code != Code::Done {
                return Err(Failed::Target(code));
            }
        }
        match pump(connection, &mut stream, moved, &self.traffic).await {
            Ok(()) => Ok(()),
            Err(Broken::Connection(error)) => Err(Failed::Program(error)),
            Err(Broken::Stream(error)) => Err(match stream.cause(error).await {
                error if refusal(&error).is_some() => Failed::Target(refusal(&error).unwrap_or(Code::Failed)),
                error => Failed::Stream(error),
            }),
        }
    }

    /// A stream with its request on it, of the session that there is, or the next.
    async fn stream(&self, request: &Request) -> Result<Stream, SessionError> {
        let mut uplink = self.uplink.clone();
        loop {
            // An error: the client ends.
            let session = uplink.wait_for(Option::is_some).await.map_err(|_| SessionError::Closed)?.clone();
            let Some(session) = session else { continue };
            match opened(&session, (!self.plain).then_some(request)).await {
                Err(SessionError::TooManyStreams) => return Err(SessionError::TooManyStreams),
                // The session is over: the next one.
                Err(_) => uplink.changed().await.map_err(|_| SessionError::Closed)?,
                Ok(stream) => return Ok(stream),
            }
        }
    }
}

/// A new stream, with a request on it.
pub(crate) async fn opened(session: &Session, request: Option<&Request>) -> Result<Stream, SessionError> {
    let mut stream = session.open().await?;
    if let Some(request) = request {
        // A new stream has room for it, so an error is the session's.
        if stream.write_all(&request.encode()).await.is_err() {
            return Err(session.closed().await);
        }
    }
    Ok(stream)
}

/// The code that an [`Answered`] stream was refused with.
pub(crate) fn refusal(error: &io::Error) -> Option<Code> {
    error.get_ref()?.downcast_ref::<Refusal>().map(|refusal| refusal.0)
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(Code);

/// A stream on which the answer comes before the data; reading gives the data, or an error with the code ([`refusal`]). Writing does not wait for it.
pub(crate) struct Answered {
    stream: Stream,
    /// What has come of the answer; `None`: all of it, or there is none.
    partial: Option<Vec<u8>>,
    /// Where it is counted what the answer was.
    counted: Option<Traffic>,
}

impl Answered {
    /// `awaited`: there will be one.
    pub(crate) fn new(stream: Stream, awaited: bool) -> Self {
        Self { stream, partial: awaited.then(Vec::new), counted: None }
    }

    /// The same, and what the answer was is counted.
    pub(crate) fn counted(self, traffic: &Traffic) -> Self {
        Self { counted: Some(traffic.clone()), ..self }
    }

    fn count(&self, code: Code) {
        if let Some(traffic) = &self.counted {
            traffic.count(code);
        }
    }

    /// Waits for the answer alone, before anything is read.
    pub(crate) async fn answer(&mut self) -> io::Result<Code> {
        if self.partial.take().is_none() {
            return Ok(Code::Done);
        }
        let code = Answer::read(&mut self.stream).await?.code;
        self.count(code);
        Ok(code)
    }

    /// What is behind an error of the stream: who writes to a stream that is being refused may meet its end before the answer that says why.
    pub(crate) async fn cause(&mut self, error: io::Error) -> io::Error {
        if self.partial.is_none() || error.kind() != io::ErrorKind::BrokenPipe {
            return error;
        }
        match tokio::time::timeout(ANSWER_LIMIT, poll_fn(|cx| self.poll_answer(cx))).await {
            Ok(Err(answer)) if refusal(&answer).is_some() => answer,
            _ => error,
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(partial) = &mut self.partial {
            let missing = Answer::missing(partial)?;
            if missing == 0 {
                let code = Answer::decode(partial);
                self.partial = None;
                self.count(code);
                return Poll::Ready(match code {
                    Code::Done => Ok(()),
                    code => Err(io::Error::new(io::ErrorKind::ConnectionRefused, Refusal(code))),
                });
            }
            let mut bytes = [0; 64];
            let mut read = ReadBuf::new(&mut bytes[..missing.min(64)]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            partial.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl Side for Answered {
    fn set_break_on_drop(&mut self, on: bool) {
        self.stream.set_break_on_drop(on);
    }

    fn unsent(&self) -> usize {
        self.stream.unsent()
    }
}

impl AsyncRead for Answered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Answered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
