//! `client`: connections of programs here, or standard input and output, to targets at the server; and ports at the server to targets here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use turbotunnel::{Config, Session, SessionError};

use crate::args::ClientArgs;
use crate::failure::{Exit, Failure, reason};
use crate::forward::borrow::borrow_ports;
use crate::forward::inlet::{self, Answered, Inlet, Want};
use crate::forward::open::Open;
use crate::forward::program::Program;
use crate::forward::pump::{Broken, Moved, pump};
use crate::forward::request::{Code, Request, Target};
use crate::forward::spec::{self, Reverse};
use crate::forward::uplink::Line;
use crate::keys::{self, Way};
use crate::log::Log;
use crate::open_files::Shortage;
use crate::service_manager;
use crate::signals::{Signal, Signals};
use crate::status;
use crate::status::board::Board;
use crate::stdio;
use crate::text;

/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The same when something went wrong, or the user wants to leave.
const HASTY_GOODBYE: Duration = Duration::from_millis(200);
/// "Never": as long as a session may live at all.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) async fn run(args: &ClientArgs, log: &Log) -> Result<(), Failure> {
    let (way, dialers) = Way::reach(&args.reach)?;
    let ports = Ports::of(args)?;
    let to = args.stdio.as_deref().map(|to| spec::one_target("-W", to)).transpose()?;
    let names = to.is_some()
        || !ports.reverse.is_empty()
        || ports.local.iter().any(|(_, want)| !matches!(want, Want::Forward(None)));
    if args.reach.plain && names {
        return Err(Failure::new(Exit::Usage, "in the plain format streams go where the server sends them")
            .tip("-L PORT leads there; -W, -D, -R and targets of -L need a server with a key"));
    }
    let mut config = Config::default();
    config.time_to_live = args.give_up.0.unwrap_or(NEVER);
    config.keepalive = args.keepalive.0;
    config.fail_fast = args.fail_fast;
    config.max_backoff = args.max_backoff;
    config.stall = args.stall;
    config.spare = args.spare;
    let own = args.reach.key.as_deref().map(keys::own_key).transpose()?;
    let open = Open::default();
    let board = Board::new("client", open.clone());
    if let Some(at) = &args.status {
        super::serve_status(at, board.clone(), log).await?;
    }
    let dialled = Arc::default();
    let line = Line { way, dialers, dialled, own, config, serving: "server", board, log: log.clone() };
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
    let (log, board) = (line.log.clone(), line.board.clone());
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::Statistics])?;
    let mut listeners = Vec::new();
    for (local, want) in ports.local {
        listeners.push((super::listen(&local.bind, async |at| TcpListener::bind(at).await).await?, want));
    }
    let (up, uplink) = watch::channel(None);
    line.board.own().set_session(uplink.clone());
    let inlet = Arc::new(Inlet {
        uplink: uplink.clone(),
        plain: args.reach.plain,
        open: open.clone(),
        traffic: line.board.traffic().clone(),
        shortage: Shortage::default(),
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
        accepting.spawn(status::line::keep(line.board.clone(), log.clone()));
    }
    service_manager::ready(&format!("session over {}", line.way.all()));
    let borrowing = borrow_ports(&ports.reverse, uplink, &open, line.board.traffic(), &log);
    let keeping = line.keep(&up);
    let signalled = obey(&mut signals, &up, &open, &log);
    let ended = tokio::select! {
        failure = keeping => Err(failure),
        failure = borrowing => Err(failure),
        ended = signalled => ended,
    };
    service_manager::stopping();
    board.set_ending();
    // No new connections; those that there are may end.
    accepting.abort_all();
    let result = match ended {
        Err(failure) => Err(failure),
        Ok(()) => drain(&mut signals, &open, args.drain, &log).await,
    };
    // Whoever was cut off is told so, at both ends, before the session says goodbye in good order.
    open.cut();
    let _ = tokio::time::timeout(HASTY_GOODBYE, open.none()).await;
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

async fn through_stdio(line: &Line, to: Option<Target>, args: &ClientArgs) -> Result<(), Failure> {
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup])?;
    let session = tokio::select! {
        session = line.connect() => session.map_err(|error| line.failure(&error, None))?,
        failure = signals.at_once() => return Err(failure),
    };
    line.board.own().set_session(watch::channel(Some(session.clone())).1);
    let (stop, stopped) = oneshot::channel();
    let request = to.map_or(Request::Default, Request::Connect);
    let result = tokio::select! {
        result = carry(line, &session, &request, args.reach.plain, stopped) => result,
        failure = obey_in_stdio(&mut signals, stop, args.drain, &line.board) => Err(failure),
    };
    let patience = if result.is_ok() { GOODBYE } else { HASTY_GOODBYE };
    let _ = tokio::time::timeout(patience, session.close()).await;
    result
}

/// SIGTERM: nothing more is read from stdin, and what is on its way may arrive, within the limit. SIGHUP is the same: it is how ssh ends its ProxyCommand. Returns when it has to end at
/// once.
async fn obey_in_stdio(signals: &mut Signals, stop: oneshot::Sender<()>, limit: Duration, board: &Board) -> Failure {
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
    board.set_ending();
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
    let mut program = Program::new(stdin, stdout, stopped);
    let stream =
        inlet::opened(session, (!plain).then_some(request)).await.map_err(|error| line.failure(&error, None))?;
    let mut stream = Answered::new(stream, !plain).counted(line.board.traffic());
    let mut moved = Moved::default();
    let broken = match pump(&mut program, &mut stream, &mut moved, line.board.traffic()).await {
        Ok(()) => return Ok(()),
        Err(Broken::Stream(error)) => Broken::Stream(stream.cause(error).await),
        Err(broken) => broken,
    };
    let (up, down) = (text::size(moved.up), text::size(moved.down));
    let consequence = format!("{up} were sent and {down} came back; what was on its way may be lost");
    match broken {
        Broken::Connection(error) => Err(unexpected(program.failed().unwrap_or("cannot read standard input"), &error)),
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
