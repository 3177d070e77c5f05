//! `echo-server`: whatever comes on a stream goes back on it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use turbotunnel::secure::{Link, Route, StaticKey};
use turbotunnel::{Clients, Config, Event, Limits, Listener, SessionError, SessionId, Stream};

use crate::address;
use crate::args::EchoServerArgs;
use crate::failure::{Exit, Failure};
use crate::keys;
use crate::log::{Level, Log};
use crate::signals::{Signal, Signals};
use crate::text;

const SCRATCH: usize = 64 << 10;

thread_local! {
    /// Where reads go. A stream that waits holds no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

pub(super) async fn run(args: &EchoServerArgs, log: &Log) -> Result<(), Failure> {
    let mut signals = match args.clients {
        Some(_) => Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup])?,
        None => Signals::catch(&[Signal::Interrupt, Signal::Terminate])?,
    };
    let keys = Keys::of(args, log)?;
    let mut config = Config::default();
    config.time_to_live = args.session_timeout;
    let limits = limits(args);
    let serving = Arc::new(Serving { streams: watch::Sender::new(0), log: log.clone() });
    let mut listeners = Vec::new();
    for at in &args.listen {
        let listener = bind(&address::listen(at)?, &config, limits, keys.as_ref(), log).await?;
        listeners.push(Arc::new(listener));
    }
    let mut accepting = tokio::task::JoinSet::new();
    for listener in &listeners {
        if let Ok(addr) = listener.local_addr() {
            match &keys {
                None => log.info(format_args!("listening on tcp://{addr}, plain (worked example), echo")),
                Some(keys) => {
                    log.info(format_args!("listening on tcp://{addr}, key {}, echo", keys.own.public().short()));
                    log.info(format_args!("clients: turbotunnel echo-client '{}'", keys.link(addr)));
                }
            }
        }
        accepting.spawn(accept(listener.clone(), serving.clone()));
    }
    reread_until_end(&mut signals, args.clients.as_deref(), &listeners, log).await?;

    // No new streams, but the carriers of the old ones may come and go.
    accepting.abort_all();
    let mut open = serving.streams.subscribe();
    let waiting = *open.borrow();
    if waiting > 0 {
        log.info(format_args!(
            "ending; waiting up to {} for {}",
            text::setting(args.drain),
            text::count(waiting as u64, "stream")
        ));
    }
    let result = tokio::select! {
        _ = open.wait_for(|&open| open == 0) => Ok(()),
        () = tokio::time::sleep(args.drain) => Ok(()),
        again = signals.end() => again,
    };
    let cut = *serving.streams.borrow();
    // Clients of ours hear that it is over; they need not try for minutes.
    for listener in &listeners {
        listener.close().await;
    }
    result?;
    match cut {
        0 => Ok(()),
        cut => Err(Failure::new(Exit::Unexpected, format!("{} cut before the end", text::count(cut as u64, "stream")))
            .tip("--drain TIME is how long the end waits for streams")),
    }
}

fn limits(args: &EchoServerArgs) -> Limits {
    let mut limits = if args.no_limits { Limits::none() } else { Limits::default() };
    let whole = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    limits.sessions = args.max_sessions.map_or(limits.sessions, |n| whole(n.into()));
    limits.memory = args.max_memory.map(whole).or(limits.memory);
    limits
}

/// What a server with keys has of them.
struct Keys {
    own: StaticKey,
    clients: Clients,
    route: Route,
}

impl Keys {
    fn of(args: &EchoServerArgs, log: &Log) -> Result<Option<Self>, Failure> {
        let Some(path) = &args.key else { return Ok(None) };
        let clients = args.clients.as_deref().map_or(Ok(Clients::Anyone), keys::clients)?;
        let (own, is_new) = keys::own_key_or_new(path)?;
        if is_new {
            log.info(format_args!("new key in {}", path.display()));
        }
        Ok(Some(Self { own, clients, route: args.route.unwrap_or_default() }))
    }

    /// What clients need, with a place for the address where only the user knows it.
    fn link(&self, addr: SocketAddr) -> String {
        let key = self.own.public();
        match Link::new(key, [addr]) {
            Ok(link) if !addr.ip().is_unspecified() => link.to_string(),
            _ => format!("turbotunnel://{key}@HOST:{}", addr.port()),
        }
    }
}

/// Until the end is wanted: SIGHUP has the list of clients read again. One that cannot be read changes nothing.
async fn reread_until_end(
    signals: &mut Signals,
    clients: Option<&Path>,
    listeners: &[Arc<Listener>],
    log: &Log,
) -> Result<(), Failure> {
    loop {
        match (signals.next().await, clients) {
            (Signal::Hangup, Some(path)) => match keys::clients(path) {
                Ok(clients) => {
                    listeners.iter().for_each(|listener| listener.set_clients(clients.clone()));
                    log.info(format_args!("clients read again from {}", path.display()));
                }
                Err(failure) => log.info(format_args!("{}; the list stays as it was", failure.error)),
            },
            (Signal::Hangup, None) => {}
            (Signal::Terminate, _) => return Ok(()),
            (Signal::Interrupt, _) => return Err(Failure::interrupted()),
        }
    }
}

async fn bind(
    at: &[String],
    config: &Config,
    limits: Limits,
    keys: Option<&Keys>,
    log: &Log,
) -> Result<Listener, Failure> {
    let mut last = None;
    for addr in at {
        let events = log.clone();
        let on_event = move |id: SessionId, event: Event| tell(&events, id, event);
        let builder = Listener::builder().config(config.clone()).limits(limits).on_event(on_event);
        let builder = match keys {
            Some(keys) => builder.server_keys([keys.own.clone()]).clients(keys.clients.clone()).route(keys.route),
            None => builder.plain(),
        };
        match builder.bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let next = super::try_next_address(&error);
                last = Some(Failure::cannot_listen(addr, &error));
                if !next {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| Failure::cannot_listen("", &io::ErrorKind::InvalidInput.into())))
}

fn tell(log: &Log, id: SessionId, event: Event) {
    let id = id.short();
    match event {
        Event::CarrierUp { number, addr, gap: None, .. } => {
            let from = addr.map_or_else(|| "somewhere".into(), |addr| shown(addr, log.level()));
            log.info(format_args!("session {id} new, carrier {number} from {from}"));
        }
        Event::CarrierUp { number, addr, gap: Some(gap), resent } => {
            let from = addr.filter(|_| log.level() == Level::Verbose).map(|addr| format!(" from {addr}"));
            let (from, gap) = (from.unwrap_or_default(), text::age(gap));
            let resent = text::count(resent as u64, "packet");
            log.info(format_args!("session {id} carrier {number}{from}, gap {gap}, {resent} resent"));
        }
        Event::CarrierLost { number, reason, age, unacknowledged } => {
            let age = text::age(age);
            let unacknowledged = text::count(unacknowledged as u64, "packet");
            log.info(format_args!(
                "session {id} carrier {number} ended ({reason}) after {age}, {unacknowledged} unacknowledged"
            ));
        }
        Event::SessionEnded(SessionError::Closed) => log.info(format_args!("session {id} ended")),
        Event::SessionEnded(error) => log.info(format_args!("session {id} ended: {error}")),
        other => log.detail(format_args!("session {id} {other:?}")),
    }
}

/// Addresses of clients are nobody's business: `203.0.x.x`, unless asked for with `-v`.
fn shown(addr: SocketAddr, level: Level) -> String {
    if level == Level::Verbose || addr.ip().to_canonical().is_loopback() {
        return SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string();
    }
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            format!("{a}.{b}.x.x")
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            format!("[{a:x}:{b:x}:...]")
        }
    }
}

/// What all streams share.
struct Serving {
    /// How many there are.
    streams: watch::Sender<usize>,
    log: Log,
}

/// One stream fewer, however it ends.
struct Open(Arc<Serving>);

impl Open {
    fn new(serving: Arc<Serving>) -> Self {
        serving.streams.send_modify(|open| *open += 1);
        Self(serving)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.streams.send_modify(|open| *open -= 1);
    }
}

async fn accept(listener: Arc<Listener>, serving: Arc<Serving>) {
    while let Ok((mut stream, peer)) = listener.accept().await {
        let open = Open::new(serving.clone());
        tokio::spawn(async move {
            match echo(&mut stream).await {
                Ok(bytes) => open.0.log.detail(format_args!("{peer} ended, {} echoed", text::size(bytes))),
                Err(error) => open.0.log.detail(format_args!("{peer} ended: {error}")),
            }
            drop((stream, open));
        });
    }
}

/// Sends back everything until the peer has finished, then finishes too. The bytes are counted.
pub(crate) async fn echo(stream: &mut Stream) -> io::Result<u64> {
    let mut bytes = 0;
    loop {
        let (n, rest) = poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
                let read = read.filled();
                let written = match Pin::new(&mut *stream).poll_write(cx, read) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                };
                Poll::Ready(io::Result::Ok((read.len(), read[written..].to_vec())))
            })
        })
        .await?;
        if n == 0 {
            stream.shutdown().await?;
            return Ok(bytes);
        }
        stream.write_all(&rest).await?;
        bytes += n as u64;
    }
}
