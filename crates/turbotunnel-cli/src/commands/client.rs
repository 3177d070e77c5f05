//! `client`: connections of programs here, or standard input and output, to targets at the server; and ports at the server to targets here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use turbotunnel::{Config, Session, SessionError, Stream};

use turbotunnel_carriers::DialOptions;

use crate::args::ClientArgs;
use crate::failure::{Exit, Failure, reason};
use crate::forward::inlet::{self, Answered, Inlet, Uplink, Want};
use crate::forward::open::Open;
use crate::forward::outlet;
use crate::forward::pump::{Broken, Moved, pump};
use crate::forward::request::{Answer, Code, Request, Target};
use crate::forward::spec::{self, Reverse};
use crate::forward::uplink::Line;
use crate::keys::{self, Way};
use crate::log::Log;
use crate::signals::{Signal, Signals};
use crate::status;
use crate::status::board::{Board, Traffic};
use crate::stdio::{self, Stdin, Stdout};
use crate::text;

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The same when something went wrong, or the user wants to leave.
const HASTY_GOODBYE: Duration = Duration::from_millis(200);
/// Before a port at the server is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// "Never": as long as a session may live at all.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) async fn run(args: &ClientArgs, log: &Log) -> Result<(), Failure> {
    let way = Way::new(&args.server, args.server_key.as_deref(), args.key.is_some(), args.plain)?;
    if way.key.is_none() && !args.plain {
        return Err(Failure::new(Exit::Usage, format!("no key for {}", way.address())).tip(
            "use the turbotunnel:// link the server printed, or -k KEY; --plain talks to the worked example, readable by everybody",
        ));
    }
    let mut options = DialOptions::default();
    options.ca_file.clone_from(&args.tls_ca);
    options.server_name.clone_from(&args.tls_name);
    options.proxy.clone_from(&args.proxy);
    let dialers = way.dialers(&options)?;
    let ports = Ports::of(args)?;
    let to = args.stdio.as_deref().map(|to| spec::one_target("-W", to)).transpose()?;
    let names = to.is_some()
        || !ports.reverse.is_empty()
        || ports.local.iter().any(|(_, want)| !matches!(want, Want::Forward(None)));
    if args.plain && names {
        return Err(Failure::new(Exit::Usage, "in the plain format streams go where the server sends them")
            .tip("-L PORT leads there; -W, -D, -R and targets of -L need a server with a key"));
    }
    let mut config = Config::default();
    config.time_to_live = args.give_up.0.unwrap_or(NEVER);
    config.keepalive = args.keepalive.0;
    config.fail_fast = args.fail_fast;
    config.max_backoff = args.max_backoff;
    config.stall = args.stall;
    let own = args.key.as_deref().map(keys::own_key).transpose()?;
    let open = Open::default();
    let board = Board::new("client", open.clone());
    if let Some(at) = &args.status {
        super::serve_status(at, board.clone(), log).await?;
    }
    let line = Line { way, dialers, own, config, serving: "server", board, log: log.clone() };
    if ports.is_empty() {
        let _one = open.one();
        through_stdio(&line, to, args).await
    } else {
        through_ports(line, ports, open, args).await
    }
}

/// What is forwarded.
struct Ports {
    local: Vec<(spec::Local, Want)>,
    reverse: Vec<Reverse>,
}

impl Ports {
    fn of(args: &ClientArgs) -> Result<Self, Failure> {
        let forwards = args.local.iter().map(|text| {
            let forward = spec::forward(text)?;
            Ok((forward.local, Want::Forward(forward.target)))
        });
        let dynamic = args.dynamic.iter().map(|text| Ok((spec::dynamic(text)?, Want::Socks)));
        Ok(Self {
            local: forwards.chain(dynamic).collect::<Result<_, Failure>>()?,
            reverse: args.remote.iter().map(|text| spec::reverse(text)).collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.local.is_empty() && self.reverse.is_empty()
    }
}

async fn through_ports(line: Line, ports: Ports, open: Open, args: &ClientArgs) -> Result<(), Failure> {
    let log = line.log.clone();
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::Statistics])?;
    let mut listeners = Vec::new();
    for (local, want) in ports.local {
        listeners.push((super::listen(&local.bind, async |at| TcpListener::bind(at).await).await?, want));
    }
    let (up, uplink) = watch::channel(None);
    let inlet = Arc::new(Inlet {
        uplink: uplink.clone(),
        plain: args.plain,
        open: open.clone(),
        traffic: line.board.traffic().clone(),
        log: log.clone(),
    });
    let mut accepting = JoinSet::new();
    for (listener, want) in listeners {
        if let Ok(addr) = listener.local_addr() {
            match &want {
                Want::Socks => log.info(format_args!("SOCKS 5 on {addr}")),
                Want::Forward(None) => log.info(format_args!("forwarding {addr} to the server's target")),
                Want::Forward(Some(target)) => log.info(format_args!("forwarding {addr} to {target}")),
            }
        }
        accepting.spawn(inlet::accept(listener, want, inlet.clone()));
    }
    if log.has_footer() {
        accepting.spawn(status::line::keep(line.board.clone(), uplink.clone(), log.clone()));
    }
    let borrowing = borrow_ports(&ports.reverse, uplink, &open, line.board.traffic(), &log);
    let keeping = line.keep(&up, &open);
    let signalled = obey(&mut signals, &up, &open, &log);
    let ended = tokio::select! {
        failure = keeping => Err(failure),
        failure = borrowing => Err(failure),
        ended = signalled => ended,
    };
    // No new connections; those that there are may end.
    accepting.abort_all();
    let result = match ended {
        Err(failure) => Err(failure),
        Ok(()) => drain(&mut signals, &open, args.drain, &log).await,
    };
    let session = up.borrow().clone();
    if let Some(session) = session {
        let patience = if result.is_ok() { GOODBYE } else { HASTY_GOODBYE };
        let _ = tokio::time::timeout(patience, session.close()).await;
    }
    result
}

/// Until SIGTERM (well) or Ctrl-C.
async fn obey(
    signals: &mut Signals,
    up: &watch::Sender<Option<Session>>,
    open: &Open,
    log: &Log,
) -> Result<(), Failure> {
    loop {
        let signal = signals.next().await;
        let session = up.borrow().clone();
        match (signal, session) {
            (Signal::Hangup, Some(session)) => session.redial(),
            // It is dialling anyhow.
            (Signal::Hangup, None) => {}
            (Signal::Statistics, Some(session)) => {
                let stats = session.stats().tunnel;
                let (id, streams) = (session.id(), text::count(open.now() as u64, "stream"));
                let (carriers, cuts) = (text::count(stats.carriers, "carrier"), text::count(stats.cuts, "cut"));
                log.info(format_args!("session {}: {streams}, {carriers}, {cuts} survived", id.short()));
            }
            (Signal::Statistics, None) => {
                log.info(format_args!("no session, {} waiting", text::count(open.now() as u64, "stream")));
            }
            (Signal::Terminate, _) => return Ok(()),
            (Signal::Interrupt, _) => return Err(Failure::interrupted()),
        }
    }
}

async fn drain(signals: &mut Signals, open: &Open, limit: Duration, log: &Log) -> Result<(), Failure> {
    let waiting = open.now() as u64;
    if waiting > 0 {
        log.info(format_args!("ending; waiting up to {} for {}", text::setting(limit), text::count(waiting, "stream")));
    }
    tokio::select! {
        () = open.none() => {}
        () = tokio::time::sleep(limit) => {}
        failure = signals.at_once() => return Err(failure),
    }
    match open.now() as u64 {
        0 => Ok(()),
        cut => Err(Failure::new(Exit::Unexpected, format!("{} cut before the end", text::count(cut, "stream")))
            .tip("--drain TIME is how long the end waits for streams")),
    }
}

/// `-R`: asks for ports in each session that comes up, and serves what comes to them. Returns when the server does not allow one.
async fn borrow_ports(reverse: &[Reverse], mut uplink: Uplink, open: &Open, traffic: &Traffic, log: &Log) -> Failure {
    if reverse.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let session = match uplink.wait_for(Option::is_some).await {
            Ok(session) => session.clone(),
            Err(_) => return std::future::pending().await,
        };
        let Some(session) = session else { continue };
        let borrowed = Arc::new(Borrowed::default());
        let asking = reverse.iter().map(|reverse| ask(&session, reverse, &borrowed, log));
        let asking = async {
            let mut asking: Vec<Pin<Box<_>>> = asking.map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                let refused = asking.iter_mut().find_map(|asking| match asking.as_mut().poll(cx) {
                    Poll::Ready(failure) => Some(failure),
                    Poll::Pending => None,
                });
                refused.map_or(Poll::Pending, Poll::Ready)
            })
            .await
        };
        tokio::select! {
            // The answer that lends a port first: the connections that waited there come right behind it.
            biased;
            failure = asking => return failure,
            () = serve_arrivals(&session, &borrowed, open, traffic, log) => {}
        }
        // The session is over.
        if uplink.wait_for(Option::is_none).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Ports at the server, and where they lead.
#[derive(Default)]
struct Borrowed(std::sync::Mutex<std::collections::HashMap<u16, Target>>);

impl Borrowed {
    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<u16, Target>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Asks for one port and holds it for as long as the session lives. Returns when it is not allowed.
async fn ask(session: &Session, reverse: &Reverse, borrowed: &Borrowed, log: &Log) -> Failure {
    let wanted = &reverse.listen;
    loop {
        let asked = async {
            let mut stream = inlet::opened(session, Some(&Request::Listen(wanted.clone()))).await?;
            let answer = Answer::read(&mut stream).await?;
            io::Result::Ok((stream, answer))
        };
        match asked.await {
            Ok((mut stream, Answer { code: Code::Done, port: Some(port) })) => {
                let target = &reverse.target;
                log.info(format_args!("the server's port {port} leads to {target}"));
                borrowed.lock().insert(port, target.clone());
                // It ends when the port is lost.
                let _ = stream.read(&mut [0; 1]).await;
                borrowed.lock().remove(&port);
                log.info(format_args!("the server's port {port} is lost"));
            }
            Ok((_, Answer { code: Code::NotAllowed, .. })) => {
                return Failure::new(Exit::NotAllowed, format!("the server does not lend port {}", wanted.port))
                    .tip(format!("its operator can start it with --reverse {}", wanted.port));
            }
            Ok((_, answer)) => {
                log.info(format_args!(
                    "the server cannot listen on port {}: {}; asking again",
                    wanted.port, answer.code
                ));
            }
            // The session is over; whoever keeps it says so.
            Err(_) => return std::future::pending().await,
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Brings what comes to the server's ports to where they lead, until the session ends.
async fn serve_arrivals(session: &Session, borrowed: &Arc<Borrowed>, open: &Open, traffic: &Traffic, log: &Log) {
    while let Ok(mut stream) = session.accept().await {
        let (borrowed, one, traffic, log) = (borrowed.clone(), open.one(), traffic.clone(), log.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_arrival(&mut stream, &borrowed, &traffic, &log).await {
                stream.reset();
                log.detail(format_args!("a connection from the server ended: {}", reason(&error)));
            }
            drop(one);
        });
    }
}

async fn serve_arrival(stream: &mut Stream, borrowed: &Borrowed, traffic: &Traffic, log: &Log) -> io::Result<()> {
    let target = match Request::read(&mut *stream).await? {
        Request::Arrived(from) => borrowed.lock().get(&from.port).cloned(),
        _ => return stream.write_all(&Answer::new(Code::UnknownKind).encode()).await,
    };
    let Some(target) = target else {
        return stream.write_all(&Answer::new(Code::NotAllowed).encode()).await;
    };
    let mut connection = match outlet::connect(&target).await {
        Ok(connection) => connection,
        Err(error) => {
            log.info(format_args!("a connection from the server to {target}: {}", Code::of(&error)));
            return stream.write_all(&Answer::new(Code::of(&error)).encode()).await;
        }
    };
    stream.write_all(&Answer::new(Code::Done).encode()).await?;
    match pump(&mut connection, stream, &mut Moved::default(), traffic).await {
        Ok(()) => Ok(()),
        Err(Broken::Connection(error)) => Err(error),
        Err(Broken::Stream(error)) => {
            outlet::reset(connection);
            Err(error)
        }
    }
}

async fn through_stdio(line: &Line, to: Option<Target>, args: &ClientArgs) -> Result<(), Failure> {
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup])?;
    let session = tokio::select! {
        session = line.connect() => session.map_err(|error| line.failure(&error, None))?,
        failure = signals.at_once() => return Err(failure),
    };
    let (stop, stopped) = oneshot::channel();
    let request = to.map_or(Request::Default, Request::Connect);
    let result = tokio::select! {
        result = carry(line, &session, &request, args.plain, stopped) => result,
        failure = obey_in_stdio(&mut signals, stop, args.drain) => Err(failure),
    };
    let patience = if result.is_ok() { GOODBYE } else { HASTY_GOODBYE };
    let _ = tokio::time::timeout(patience, session.close()).await;
    result
}

/// SIGTERM: nothing more is read from stdin, and what is on its way may arrive, within the limit. SIGHUP is the same: it is how ssh ends its ProxyCommand. Returns when it has to end at
/// once.
async fn obey_in_stdio(signals: &mut Signals, stop: oneshot::Sender<()>, limit: Duration) -> Failure {
    let asked = async |signals: &mut Signals| loop {
        match signals.next().await {
            Signal::Terminate | Signal::Hangup => return None,
            Signal::Interrupt => return Some(Failure::interrupted()),
            Signal::Statistics => {}
        }
    };
    if let Some(failure) = asked(signals).await {
        return failure;
    }
    // Whoever listens is gone only with everything else.
    let _ = stop.send(());
    let end = tokio::time::sleep(limit);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => {
                return Failure::new(Exit::Unexpected, "1 stream cut before the end")
                    .tip("--drain TIME is how long the end waits for it");
            }
            signal = signals.next() => match signal {
                Signal::Interrupt => return Failure::interrupted(),
                Signal::Terminate => return Failure::terminated(),
                // ssh says it more than once.
                Signal::Hangup | Signal::Statistics => {}
            },
        }
    }
}

async fn carry(
    line: &Line,
    session: &Session,
    request: &Request,
    plain: bool,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let unexpected =
        |what: &str, error: &io::Error| Failure::new(Exit::Unexpected, format!("{what}: {}", reason(error)));
    let stdin = stdio::stdin().map_err(|error| unexpected("cannot read standard input", &error))?;
    let stdout = stdio::stdout().map_err(|error| unexpected("cannot write standard output", &error))?;
    let mut program = Program { stdin, stdout: Some(stdout), stopped: Some(stopped), failed: None };
    let stream =
        inlet::opened(session, (!plain).then_some(request)).await.map_err(|error| line.failure(&error, None))?;
    let mut stream = Answered::new(stream, !plain);
    let mut moved = Moved::default();
    let broken = match pump(&mut program, &mut stream, &mut moved, line.board.traffic()).await {
        Ok(()) => return Ok(()),
        Err(Broken::Stream(error)) => Broken::Stream(stream.cause(error).await),
        Err(broken) => broken,
    };
    let (up, down) = (text::size(moved.up), text::size(moved.down));
    let consequence = format!("{up} were sent and {down} came back; what was on its way may be lost");
    match broken {
        Broken::Connection(error) => {
            stream.reset();
            Err(unexpected(program.failed.unwrap_or("cannot read standard input"), &error))
        }
        Broken::Stream(error) => Err(match (inlet::refusal(&error), session_error(&error)) {
            (Some(code), _) => refused(request, code),
            (_, Some(ended)) => line.failure(&ended, Some(&consequence)),
            _ => {
                let why = match error.kind() {
                    io::ErrorKind::BrokenPipe => "the target takes no more".to_owned(),
                    io::ErrorKind::ConnectionReset => "the target, or its connection, broke".to_owned(),
                    _ => reason(&error),
                };
                Failure::new(Exit::Unexpected, format!("the stream was lost: {why}\n{consequence}"))
            }
        }),
    }
}

fn refused(request: &Request, code: Code) -> Failure {
    match (request, code) {
        (Request::Connect(to), Code::NotAllowed) => {
            Failure::new(Exit::NotAllowed, format!("the server does not allow {to}"))
                .tip(format!("its operator can start it with --allow {to}"))
        }
        (_, Code::NotAllowed) => Failure::new(Exit::NotAllowed, "the server has no target of its own")
            .tip("-W HOST:PORT names one; its operator can start it with --to HOST:PORT"),
        (Request::Connect(to), code) => {
            Failure::new(Exit::TargetUnreachable, format!("the server cannot reach {to}: {code}"))
        }
        (_, code) => Failure::new(Exit::TargetUnreachable, format!("the server cannot reach its target: {code}")),
    }
}

fn session_error(error: &io::Error) -> Option<SessionError> {
    error.get_ref()?.downcast_ref::<SessionError>().cloned()
}

/// Standard input and output as one connection.
struct Program {
    stdin: Stdin,
    stdout: Option<Stdout>,
    stopped: Option<oneshot::Receiver<()>>,
    failed: Option<&'static str>,
}

impl AsyncRead for Program {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Told once; a sender that is gone has nothing to tell.
        match self.stopped.as_mut().map(|stopped| Pin::new(stopped).poll(cx)) {
            Some(Poll::Ready(Ok(()))) => return Poll::Ready(Ok(())),
            Some(Poll::Ready(Err(_))) => self.stopped = None,
            _ => {}
        }
        let outcome = ready!(Pin::new(&mut self.stdin).poll_read(cx, buf));
        if outcome.is_err() {
            self.failed = Some("cannot read standard input");
        }
        Poll::Ready(outcome)
    }
}

impl Program {
    fn told(&mut self, outcome: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if matches!(outcome, Poll::Ready(Err(_))) {
            self.failed = Some("cannot write standard output");
        }
        outcome
    }
}

impl AsyncWrite for Program {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(stdout) = &mut self.stdout else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let outcome = ready!(Pin::new(stdout).poll_write(cx, bytes));
        if outcome.is_err() {
            self.failed = Some("cannot write standard output");
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stdout) = &mut self.stdout else { return Poll::Ready(Ok(())) };
        let outcome = Pin::new(stdout).poll_flush(cx);
        self.told(outcome)
    }

    /// Whoever reads our output sees its end, also while we still read his input.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let closed = self.stdout.take().map_or(Ok(()), Stdout::close);
        self.told(Poll::Ready(closed))
    }
}
