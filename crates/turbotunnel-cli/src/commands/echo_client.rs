//! `echo-client`: stdin to an echo server, and what comes back to stdout.
//!
//! It ends well, with 0, when stdin has ended and as many bytes have come back, and have been written, as were sent: an echo needs no more to
//! know that nothing is missing. (It also does when both directions have ended and the peer has acknowledged everything.) Whenever a
//! byte is not accounted for, it does not end with 0.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use turbotunnel::{Config, Session, SessionError};

use turbotunnel_carriers::DialOptions;

use crate::args::EchoClientArgs;
use crate::failure::{Exit, Failure, reason};
use crate::forward::inlet::{self, Answered};
use crate::forward::open::Open;
use crate::forward::request::Request;
use crate::forward::uplink::Line;
use crate::keys::{self, Way};
use crate::log::Log;
use crate::signals::{Signal, Signals};
use crate::status::board::Board;
use crate::stdio;
use crate::text;

/// Read at once: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// How long saying goodbye may take when every byte has come back already.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long it may take when something went wrong, or the user wants to leave.
const HASTY_GOODBYE: Duration = Duration::from_millis(200);

pub(super) async fn run(args: &EchoClientArgs, log: &Log) -> Result<(), Failure> {
    let way = Way::new(&args.server, args.server_key.as_deref(), args.key.is_some(), args.plain)?;
    let plain = way.key.is_none();
    let dialers = way.dialers(&DialOptions::default())?;
    let own = args.key.as_deref().map(keys::own_key).transpose()?;
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup])?;
    let mut config = Config::default();
    config.time_to_live = args.session_timeout;
    config.keepalive = args.keepalive.0;
    config.fail_fast = args.fail_fast;
    let line = Line {
        way,
        dialers,
        dialled: Arc::default(),
        own,
        config,
        serving: "echo-server",
        board: Board::new("client", Open::default()),
        log: log.clone(),
    };
    let session = tokio::select! {
        session = line.connect() => session.map_err(|error| line.failure(&error, None))?,
        failure = signals.at_once() => return Err(failure),
    };

    let progress = Progress::default();
    let result = tokio::select! {
        result = carry(&line, &session, plain, &progress) => result,
        failure = obey(&mut signals, &session, &progress) => Err(failure),
    };
    // Every byte is where it belongs, or known to be missing; what is left is politeness towards the server.
    let patience = if result.is_ok() { GOODBYE } else { HASTY_GOODBYE };
    let _ = tokio::time::timeout(patience, session.close()).await;
    result
}

/// SIGHUP: the user, or a script that knows of a new network, wants a new carrier now. SIGTERM: nothing more is read from stdin, and what is on its
/// way may come back. Returns at Ctrl-C and at a second SIGTERM.
async fn obey(signals: &mut Signals, session: &Session, progress: &Progress) -> Failure {
    loop {
        match signals.next().await {
            Signal::Hangup => session.redial(),
            Signal::Terminate if !progress.stop.replace(true) => progress.stopped.notify_one(),
            Signal::Terminate => return Failure::terminated(),
            Signal::Interrupt => return Failure::interrupted(),
            Signal::Statistics => {}
        }
    }
}

/// What has been taken from stdin and what has come back.
#[derive(Default)]
struct Progress {
    sent: Cell<u64>,
    stdin_ended: Cell<bool>,
    /// The peer has acknowledged everything, with our end of the stream.
    acknowledged: Cell<bool>,
    changed: Notify,
    /// No more is to be read from stdin.
    stop: Cell<bool>,
    stopped: Notify,
}

impl Progress {
    fn is_back(&self, received: u64) -> bool {
        self.stdin_ended.get() && received == self.sent.get()
    }
}

async fn carry(line: &Line, session: &Session, plain: bool, progress: &Progress) -> Result<(), Failure> {
    let cannot =
        |what: &str, error: &io::Error| Failure::new(Exit::Unexpected, format!("cannot {what}: {}", reason(error)));
    let stdin = stdio::stdin().map_err(|e| cannot("read standard input", &e))?;
    let stdout = stdio::stdout().map_err(|e| cannot("write standard output", &e))?;
    let request = (!plain).then_some(&Request::Default);
    let stream = inlet::opened(session, request).await.map_err(|e| line.failure(&e, None))?;
    let (from_server, to_server) = tokio::io::split(Answered::new(stream, !plain));
    let received = Cell::new(0);
    let ended = tokio::select! {
        ended = bring_back(from_server, stdout, progress, &received) => ended,
        ended = send(stdin, to_server, progress) => ended,
    };
    let (sent, received) = (progress.sent.get(), received.get());
    let missing = sent.saturating_sub(received);
    let consequence = || {
        let sent_more = if progress.stdin_ended.get() { "" } else { " so far" };
        format!("{} were sent{sent_more}, {} of them did not come back", text::size(sent), text::size(missing))
    };
    match ended {
        Ok(()) => Ok(()),
        Err(Ended::Stdin(e)) => Err(cannot("read standard input", &e)),
        Err(Ended::Stdout(e)) => {
            Err(Failure::new(Exit::Unexpected, format!("cannot write standard output: {}", reason(&e))))
        }
        Err(Ended::TooEarly) if missing > 0 => {
            Err(Failure::new(Exit::Unexpected, format!("the server ended the stream\n{}", consequence()))
                .tip("is it an echo server?"))
        }
        Err(Ended::TooEarly) => {
            Err(Failure::new(Exit::Unexpected, "the server ended the stream before standard input ended"))
        }
        Err(Ended::Stream(e)) => match session_error(&e) {
            // The session may have ended because the server has said goodbye after everything had come back.
            Some(SessionError::ClosedByPeer(_)) if progress.is_back(received) => Ok(()),
            Some(error) => Err(line.failure(&error, Some(&consequence()))),
            None => {
                let why =
                    if e.kind() == io::ErrorKind::BrokenPipe { "the server let go of it".into() } else { reason(&e) };
                Err(Failure::new(Exit::Unexpected, format!("the stream was lost: {why}\n{}", consequence())))
            }
        },
    }
}

/// Why copying ended, if not well.
enum Ended {
    Stdin(io::Error),
    Stdout(io::Error),
    Stream(io::Error),
    /// The server has ended the stream, and something is missing.
    TooEarly,
}

fn session_error(error: &io::Error) -> Option<SessionError> {
    error.get_ref()?.downcast_ref::<SessionError>().cloned()
}

/// stdin to the stream. Returns with an error only; the other direction knows when all is well.
async fn send(
    mut stdin: impl AsyncRead + Unpin,
    mut to_server: impl AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Ended> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = tokio::select! {
            biased;
            () = progress.stopped.notified() => 0,
            n = stdin.read(&mut buffer) => n.map_err(Ended::Stdin)?,
        };
        if n == 0 {
            break;
        }
        progress.sent.set(progress.sent.get() + n as u64);
        to_server.write_all(&buffer[..n]).await.map_err(Ended::Stream)?;
    }
    progress.stdin_ended.set(true);
    progress.changed.notify_one();
    to_server.shutdown().await.map_err(Ended::Stream)?;
    progress.acknowledged.set(true);
    progress.changed.notify_one();
    std::future::pending().await
}

/// The stream to stdout, until everything is back.
async fn bring_back(
    mut from_server: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin,
    progress: &Progress,
    received: &Cell<u64>,
) -> Result<(), Ended> {
    let mut buffer = vec![0; CHUNK];
    while !progress.is_back(received.get()) {
        let n = tokio::select! {
            biased;
            n = from_server.read(&mut buffer) => n.map_err(Ended::Stream)?,
            () = progress.changed.notified() => continue,
        };
        if n == 0 {
            // The server has said all it had to say. Well, if all that was sent came back (a server that says more than that is none of ours,
            // but it has acknowledged everything).
            if !progress.stdin_ended.get() || received.get() < progress.sent.get() {
                return Err(Ended::TooEarly);
            }
            while !progress.acknowledged.get() {
                progress.changed.notified().await;
            }
            break;
        }
        stdout.write_all(&buffer[..n]).await.map_err(Ended::Stdout)?;
        received.set(received.get() + n as u64);
    }
    stdout.flush().await.map_err(Ended::Stdout)
}
