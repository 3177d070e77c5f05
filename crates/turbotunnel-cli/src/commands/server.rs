//! `server`: sessions in, connections to their targets out. `echo-server` is the same with `--echo`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use turbotunnel::secure::{Link, Route, StaticKey};
use turbotunnel::{Clients, Config, Event, Limits, Listener, SessionError, SessionId};
use turbotunnel_carriers::{Acceptor, BindError, ListenAddress, ListenOptions, OptionsError, ParseAddressError};

use crate::address;
use crate::args::{EchoServerArgs, ServerArgs, ServingArgs};
use crate::failure::{Exit, Failure};
use crate::forward::allow::Allowed;
use crate::forward::failing::Failing;
use crate::forward::open::Open;
use crate::forward::outlet::{Outlet, Service};
use crate::forward::request::Code;
use crate::forward::reverse::{Lender, Lent};
use crate::forward::spec;
use crate::keys;
use crate::log::{Level, Log};
use crate::open_files;
use crate::proxy_protocol::{self, Missing};
use crate::service_manager;
use crate::signals::{Signal, Signals};
use crate::status::board::Board;
use crate::status::own::Doors;
use crate::text;

/// Clients have so long to be told that the server ends, when it is to end at once.
const HASTY_GOODBYE: Duration = Duration::from_millis(200);
/// How long a session lives without contact: with keys nobody but its client can come back to it, so it may wait longer.
const SECURE_TIMEOUT: Duration = Duration::from_secs(600);
const PLAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Only the first key is made when it is not there.
const NO_OLD_KEY: &str =
    "the first --key is the server's, and all others are old ones that clients still have; leave it out if it is lost";

/// `echo-server`
pub(super) async fn run_echo(args: &EchoServerArgs, log: &Log) -> Result<(), Failure> {
    if args.serving.key.is_empty() && (args.serving.clients.is_some() || args.serving.route.is_some()) {
        return Err(Failure::new(Exit::Usage, "--clients and --route are for servers with a key")
            .tip("--key FILE; it is made if it is not there"));
    }
    let keys = args.serving.key.first().map(|path| Keys::of(path, &args.serving, log)).transpose()?;
    let does = Does { service: Some(Service::Echo), allowed: Allowed::default(), lent: Vec::new() };
    serve(&args.listen, &args.serving, keys, does, "echo-client", log).await
}

/// `server`
pub(super) async fn run(args: &ServerArgs, log: &Log) -> Result<(), Failure> {
    let service = match &args.to {
        Some(to) => Some(Service::To(spec::one_target("--to", to)?)),
        None => args.echo.then_some(Service::Echo),
    };
    let allowed = Allowed::new(args.allow.iter().cloned().chain(args.socks.then(Allowed::public)));
    let does = Does { service, allowed, lent: args.reverse.clone() };
    let names = !does.allowed.is_empty() || !does.lent.is_empty();
    if does.service.is_none() && !names {
        return Err(Failure::new(Exit::Usage, "this server would do nothing")
            .tip("--to HOST:PORT, --echo, --allow TARGET, --socks or --reverse PORTS"));
    }
    if args.serving.plain && names {
        // Nobody can be told apart there, so whatever it reached would be reached by everybody.
        return Err(Failure::new(Exit::Usage, "in the plain format streams have one target, --to or --echo")
            .tip("without --plain, clients with this server's key may name targets"));
    }
    let keys = if args.serving.plain {
        None
    } else {
        let path = args.serving.key.first().cloned().map_or_else(default_key, Ok)?;
        Some(Keys::of(&path, &args.serving, log)?)
    };
    serve(&args.listen, &args.serving, keys, does, "client", log).await
}

/// What a server does for its clients.
struct Does {
    service: Option<Service>,
    allowed: Allowed,
    lent: Vec<Lent>,
}

/// Where a service manager, or else the user, keeps what programs remember.
fn default_key() -> Result<PathBuf, Failure> {
    let folder = |name: &str, below: &str| {
        let path = std::env::var_os(name).filter(|path| !path.is_empty())?;
        Some(Path::new(&path).join(below))
    };
    let folder = folder("STATE_DIRECTORY", "")
        .or_else(|| folder("XDG_STATE_HOME", "turbotunnel"))
        .or_else(|| folder("HOME", ".local/state/turbotunnel"))
        .or_else(|| folder("LOCALAPPDATA", "turbotunnel"))
        .ok_or_else(|| Failure::new(Exit::Usage, "no place to keep a key").tip("--key FILE says where"))?;
    keys::make_folder(&folder).map_err(|error| {
        let (folder, reason) = (folder.display(), crate::failure::reason(&error));
        Failure::new(Exit::Usage, format!("cannot keep a key in {folder}: {reason}")).tip("--key FILE says where else")
    })?;
    Ok(folder.join("server.key"))
}

async fn serve(
    listen: &[String],
    args: &ServingArgs,
    keys: Option<Keys>,
    does: Does,
    client: &str,
    log: &Log,
) -> Result<(), Failure> {
    if let (true, Some(at)) = (args.proxy_protocol && !listen.iter().any(|at| is_tcp(at)), listen.first()) {
        let error = format!("--proxy-protocol is for listeners over TCP, and {at} is none");
        return Err(
            Failure::new(Exit::Usage, error).tip("listen on HOST:PORT behind the balancer, or leave the option out")
        );
    }
    let mut signals = Signals::catch(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup, Signal::Statistics])?;
    let mut config = Config::default();
    config.time_to_live = args.session_timeout.unwrap_or(if keys.is_some() { SECURE_TIMEOUT } else { PLAIN_TIMEOUT });
    let open = Open::default();
    let board = Board::new("server", open.clone());
    let traffic = board.traffic().clone();
    let outlet = Outlet {
        asked: keys.is_some(),
        service: does.service,
        allowed: does.allowed,
        lender: Arc::new(Lender::new(does.lent, open.clone(), traffic.clone(), log.clone())),
        traffic,
        failing: Failing::new(log.clone()),
        log: log.clone(),
    };
    let (events, counts) = (log.clone(), board.clone());
    let builder =
        Listener::builder().config(config).limits(limits(args)).on_event(move |id: SessionId, event: Event| {
            counts.handle_event(id, &event);
            tell(&events, id, event);
        });
    let builder = match &keys {
        Some(keys) => builder.server_keys(keys.all()).clients(keys.clients.clone()).route(keys.route),
        None => builder.plain(),
    };
    let listener = Arc::new(builder.detached());
    let does = outlet.to_string();
    let mode = match &keys {
        None => "plain (worked example)".to_owned(),
        Some(keys) => format!("key {}", keys.own.public().short()),
    };
    let mut tls = ListenOptions::default();
    tls.certificate.clone_from(&args.tls_cert);
    tls.key.clone_from(&args.tls_key);
    let pauses = Counter::default();
    let balanced = args.proxy_protocol.then(|| Missing::new(board.headers_missing(), pauses.clone(), log.clone()));
    let (mut addresses, mut acceptors, mut listening) = (Vec::new(), Vec::new(), Vec::new());
    for at in listen.iter().map(|at| at.trim()) {
        let shown = if is_tcp(at) {
            let bind = async |at: &str| bind(&listener, at, balanced.as_ref()).await;
            let addr = super::listen(&address::listen(at)?, bind).await?;
            addresses.push(addr);
            format!("tcp://{addr}")
        } else {
            let acceptor = Arc::new(accept_at(at, &tls).await?);
            let shown = acceptor.address().to_string();
            if args.proxy_protocol {
                log.info(format_args!("--proxy-protocol does not count at {shown}"));
            }
            acceptors.push(acceptor.clone());
            tokio::spawn(attach(acceptor, listener.clone()));
            shown
        };
        log.info(format_args!("listening on {shown}, {mode}, {does}"));
        listening.push(shown);
    }
    if let Some(keys) = &keys {
        let everywhere = addresses.iter().find(|addr| addr.ip().is_unspecified());
        let of_tcp = addresses.iter().map(|addr| match addr.ip().is_unspecified() {
            true => format!("HOST:{}", addr.port()),
            false => addr.to_string(),
        });
        let at: Vec<_> = of_tcp.chain(acceptors.iter().map(|acceptor| as_seen(acceptor.address()))).collect();
        let key = keys.own.public();
        match Link::new(key, &at) {
            Ok(link) => log.info(format_args!("clients: turbotunnel {client} '{link}'")),
            // A link has no place for sockets of this machine.
            Err(_) => log.info(format_args!("clients: turbotunnel {client} '{}' -k {key}", at.join(","))),
        }
        if let Some(addr) = everywhere {
            let (port, file) = (addr.port(), keys.file.display());
            log.info(format_args!(
                "HOST is this machine as clients see it; the link to hand on: turbotunnel share HOST:{port} --key {file}"
            ));
        }
    }
    let doors = Doors { acceptors: acceptors.iter().map(Arc::downgrade).collect(), balanced: pauses };
    if let Some(at) = &args.status {
        board.own().set_listener(&listener, doors.clone());
        super::serve_status(at, board.clone(), log).await?;
    }
    let outlet = Arc::new(outlet);
    let accepting = tokio::spawn(accept(listener.clone(), outlet.clone(), open.clone()));
    open_files::warn_early(args.max_sessions, log);
    tokio::spawn(open_files::watch(Arc::downgrade(&listener), doors, log.clone()));
    service_manager::ready(&format!("listening on {}, {mode}, {does}", listening.join(", ")));
    let reread = Reread { clients: args.clients.as_deref(), tls: &tls, acceptors: &acceptors, board: &board };
    let ended = obey_until_end(&mut signals, &reread, &listener, &open, log).await;
    if ended.is_err() {
        // At once, but clients hear of it.
        let _ = tokio::time::timeout(HASTY_GOODBYE, listener.close()).await;
        return ended;
    }

    service_manager::stopping();
    board.set_ending();
    // New streams are refused in words from now on, and the carriers of the old ones may come and go.
    outlet.lender.close();
    let waiting = open.now();
    if waiting > 0 {
        log.info(format_args!(
            "ending; waiting up to {} for {}",
            text::setting(args.drain),
            text::count(waiting as u64, "stream")
        ));
    }
    let result = tokio::select! {
        () = open.none() => Ok(()),
        () = tokio::time::sleep(args.drain) => Ok(()),
        failure = signals.at_once() => Err(failure),
    };
    let cut = open.now();
    accepting.abort();
    // Clients of ours hear that it is over; they need not try for minutes.
    listener.close().await;
    result?;
    match cut {
        0 => Ok(()),
        cut => Err(Failure::new(Exit::Unexpected, format!("{} cut before the end", text::count(cut as u64, "stream")))
            .tip("--drain TIME is how long the end waits for streams")),
    }
}

fn limits(args: &ServingArgs) -> Limits {
    let mut limits = if args.no_limits { Limits::none() } else { Limits::default() };
    let whole = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    limits.sessions = args.max_sessions.map_or(limits.sessions, |n| whole(n.into()));
    limits.memory = args.max_memory.map(whole).or(limits.memory);
    limits
}

/// What a server with keys has of them.
struct Keys {
    file: PathBuf,
    own: StaticKey,
    /// On their way out.
    old: Vec<StaticKey>,
    clients: Clients,
    route: Route,
}

impl Keys {
    fn of(path: &Path, args: &ServingArgs, log: &Log) -> Result<Self, Failure> {
        let clients = args.clients.as_deref().map_or(Ok(Clients::Anyone), keys::clients)?;
        let (own, is_new) = keys::own_key_or_new(path)?;
        if is_new {
            log.info(format_args!("new key in {}", path.display()));
        }
        let old = args.key.iter().skip(1).map(|path| keys::known_key(path, NO_OLD_KEY)).collect::<Result<_, _>>()?;
        Ok(Self { file: path.to_owned(), own, old, clients, route: args.route.unwrap_or_default() })
    }

    fn all(&self) -> impl Iterator<Item = StaticKey> {
        std::iter::once(&self.own).chain(&self.old).cloned()
    }
}

/// What SIGHUP has read again.
struct Reread<'a> {
    clients: Option<&'a Path>,
    tls: &'a ListenOptions,
    acceptors: &'a [Arc<Acceptor>],
    board: &'a Board,
}

impl Reread<'_> {
    /// A file that cannot be read changes nothing.
    fn now(&self, listener: &Listener, log: &Log) {
        let mut all_is_well = true;
        let mut failed = |file: &Path, error: String, kept: String| {
            all_is_well = false;
            let fields = [("file", file.display().to_string().into()), ("error", error.as_str().into())];
            log.warn("reload_failed", &fields, format_args!("{error}; {kept}"));
        };
        match self.clients.map(|path| (path, keys::clients(path))) {
            Some((path, Ok(clients))) => {
                listener.set_clients(clients);
                log.info(format_args!("clients read again from {}", path.display()));
            }
            Some((path, Err(failure))) => failed(path, failure.error, "the list stays as it was".into()),
            None => {}
        }
        let certificate = self.tls.certificate.as_deref().unwrap_or(Path::new(""));
        for acceptor in self.acceptors.iter().filter(|acceptor| acceptor.address().kind().has_tls()) {
            let at = acceptor.address();
            match acceptor.reload(self.tls) {
                Ok(()) => log.info(format_args!("{at}: certificate read again from {}", certificate.display())),
                Err(error) => failed(certificate, error.to_string(), format!("{at} keeps its certificate")),
            }
        }
        self.board.set_reload_failed(!all_is_well);
    }
}

/// Until the end is wanted. SIGUSR1 is answered with a line of numbers.
async fn obey_until_end(
    signals: &mut Signals,
    reread: &Reread<'_>,
    listener: &Listener,
    open: &Open,
    log: &Log,
) -> Result<(), Failure> {
    loop {
        match signals.next().await {
            Signal::Hangup => reread.now(listener, log),
            Signal::Statistics => {
                let stats = listener.stats();
                let now = listener.sessions() as u64;
                let (sessions, streams) = (text::count(now, "session"), text::count(open.now() as u64, "stream"));
                let (memory, all) = (text::binary_size(stats.memory_now as u64), stats.sessions_begun);
                log.info(format_args!("{sessions}, {streams}, {memory}, {} so far", text::count(all, "session")));
            }
            Signal::Terminate => return Ok(()),
            Signal::Interrupt => return Err(Failure::interrupted()),
        }
    }
}

/// An address of the kind that the listener takes itself: without a scheme, or with that of TCP.
fn is_tcp(at: &str) -> bool {
    !["tls:", "ws:", "wss:", "unix:", "exec:"].iter().any(|scheme| at.starts_with(scheme))
}

/// As clients name it, with a place for the host where only the user knows it.
fn as_seen(at: &ListenAddress) -> String {
    match (at.host(), at.port()) {
        (Some(host), Some(port)) if host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) => {
            format!("{}://HOST:{port}{}", at.kind(), at.path().unwrap_or_default())
        }
        _ => at.to_string(),
    }
}

async fn accept_at(at: &str, tls: &ListenOptions) -> Result<Acceptor, Failure> {
    let address: ListenAddress = at.parse().map_err(|error: ParseAddressError| {
        Failure::new(Exit::Usage, format!("{:?} {}", error.text(), error.problem())).tip(error.tip().to_owned())
    })?;
    Acceptor::bind(address, tls.clone()).await.map_err(|error| match error {
        BindError::Io(error) => Failure::cannot_listen(at, &error),
        error @ BindError::Options(OptionsError::NoCertificate(_)) => {
            Failure::new(Exit::Usage, format!("cannot listen on {at}: {error}"))
                .tip("--tls-cert FILE and --tls-key FILE; or ws:// behind a web server that has them")
        }
        error => Failure::new(Exit::Usage, format!("cannot listen on {at}: {error}")),
    })
}

async fn attach(acceptor: Arc<Acceptor>, listener: Arc<Listener>) {
    while let Ok(connection) = acceptor.accept().await {
        let peer = connection.peer();
        listener.attach(connection, peer);
    }
}

/// Listens on TCP.
async fn bind(listener: &Arc<Listener>, at: &str, balanced: Option<&Missing>) -> io::Result<SocketAddr> {
    let Some(missing) = balanced else { return listener.listen(at).await };
    let tcp = tokio::net::TcpListener::bind(at).await?;
    let addr = tcp.local_addr()?;
    tokio::spawn(proxy_protocol::accept(tcp, listener.clone(), missing.clone()));
    Ok(addr)
}

fn tell(log: &Log, id: SessionId, event: Event) {
    let id = id.short();
    let session = || ("session", Value::from(id.as_str()));
    match event {
        Event::CarrierUp { number, addr, gap: None, .. } => {
            let from = addr.map_or_else(|| "somewhere".into(), |addr| shown(addr, log.level()));
            let fields = [session(), ("carrier", number.into()), ("from", from.as_str().into())];
            log.event("session_new", &fields, format_args!("session {id} new, carrier {number} from {from}"));
        }
        Event::CarrierUp { number, addr, gap: Some(gap), resent } => {
            let from = addr.filter(|_| log.level() == Level::Verbose).map(|addr| format!(" from {addr}"));
            let fields =
                [session(), ("carrier", number.into()), ("gap_s", gap.as_secs_f64().into()), ("resent", resent.into())];
            let (from, gap) = (from.unwrap_or_default(), text::age(gap));
            let resent = text::count(resent as u64, "packet");
            let text = format_args!("session {id} carrier {number}{from}, gap {gap}, {resent} resent");
            log.event("carrier_up", &fields, text);
        }
        Event::CarrierLost { number, reason, age, unacknowledged } => {
            let fields = [
                session(),
                ("carrier", number.into()),
                ("age_s", age.as_secs_f64().into()),
                ("reason", reason.to_string().into()),
                ("unacknowledged", unacknowledged.into()),
            ];
            let age = text::age(age);
            let unacknowledged = text::count(unacknowledged as u64, "packet");
            let text = format_args!(
                "session {id} carrier {number} ended ({reason}) after {age}, {unacknowledged} unacknowledged"
            );
            log.event("carrier_lost", &fields, text);
        }
        Event::SessionEnded(SessionError::Closed) => {
            log.event("session_ended", &[session()], format_args!("session {id} ended"));
        }
        Event::SessionEnded(error) => {
            let fields = [session(), ("reason", error.to_string().into())];
            log.event("session_ended", &fields, format_args!("session {id} ended: {error}"));
        }
        other => log.detail(format_args!("session {id} {other:?}")),
    }
}

/// Addresses of clients are nobody's business: `203.0.x.x`, unless asked for with `-v`.
fn shown(addr: SocketAddr, level: Level) -> String {
    if level == Level::Verbose || addr.ip().to_canonical().is_loopback() {
        return SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string();
    }
    text::masked(addr.ip())
}

async fn accept(listener: Arc<Listener>, outlet: Arc<Outlet>, open: Open) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (outlet, one) = (outlet.clone(), open.one());
        if outlet.only_echoes() {
            outlet.traffic.count(Code::Done);
            // As little as there can be in the task: there can be thousands that do nothing but wait.
            let mut stream = stream;
            tokio::spawn(async move {
                let outcome = crate::echo::echo(&mut stream, &outlet.traffic).await;
                outlet.echoed(outcome, &peer);
                drop((stream, one));
            });
        } else {
            tokio::spawn(async move {
                outlet.serve(stream, peer).await;
                drop(one);
            });
        }
    }
}
