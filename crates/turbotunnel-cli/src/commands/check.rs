//! `check`: walks the way to a server step by step, and ends by cutting the connection on purpose.
//!
//! ```text
//! name     127.0.0.1 (an address)                              ok
//! carrier  tcp, connected in 0.3 ms                            ok
//! key      keSldTB8y as expected, session up in 2 ms           ok
//! target   127.0.0.1:22 says "SSH-2.0-OpenSSH_9.2p1"           ok
//! cut      cut on purpose, resumed after 3 ms, stream goes on  ok
//! ```
//!
//! Each step takes 10 s at most. The first that fails ends it, with code 10, and what the program would say of it. Of several addresses each is tried, and the rest goes over those
//! that can be reached.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use turbotunnel::{Attempt, Config, Event, Session};
use turbotunnel_carriers::{Connection, Dialer};

use crate::args::CheckArgs;
use crate::failure::{Exit, Failure, plain, reason};
use crate::forward::inlet::{self, Answered};
use crate::forward::pump::Side;
use crate::forward::request::{Code, Request};
use crate::forward::spec;
use crate::keys::{self, Way};
use crate::text;

const LIMIT: Duration = Duration::from_secs(10);
/// Servers that speak first do so by then.
const GREETING: Duration = Duration::from_secs(1);
/// What is shown of a greeting.
const SHOWN: usize = 60;

pub(super) async fn run(args: &CheckArgs) -> Result<(), Failure> {
    let (way, dialers) = Way::reach(&args.reach)?;
    let target = args.target.as_deref().map(|target| spec::one_target("--target", target)).transpose()?;
    let own = args.reach.key.as_deref().map(keys::own_key).transpose()?;

    let all = dialers.len();
    let mut reached = Vec::new();
    for dialer in dialers.iter() {
        match reach(dialer).await {
            Ok(()) => reached.push(dialer.clone()),
            Err(failure) if all == 1 => return Err(failure),
            Err(failure) => super::print(&format!("{}  FAILED\n", failure.error))?,
        }
    }
    if reached.is_empty() {
        return Err(bad("carrier", "none of the addresses can be reached")
            .tip("is the server running, and is there a firewall between?"));
    }
    let bad_ones = all - reached.len();

    let (events, mut news) = mpsc::unbounded_channel();
    let cut = Arc::new(Notify::new());
    let began = Instant::now();
    let mut config = Config::default();
    config.fail_fast = true;
    let mut builder = Session::builder().config(config).on_event(move |event| drop(events.send(event)));
    builder = match way.key {
        Some(key) => builder.server_key(key),
        None => builder.plain(),
    };
    if let Some(own) = own {
        builder = builder.client_key(own);
    }
    let step = if way.key.is_some() { "key" } else { "session" };
    let on_cut = cut.clone();
    let dial = move |attempt: Attempt| {
        let dialer = reached[(attempt.number as usize).wrapping_sub(1) % reached.len()].clone();
        let cut = on_cut.clone();
        async move { dialer.dial().await.map(|connection| Cuttable::new(connection, cut)) }
    };
    let session = within(step, builder.connect(dial)).await?.map_err(|error| {
        let failure = super::session_failure(&error, &way.address(), "server", None);
        bad(step, failure.error).tip(failure.tip.unwrap_or_default())
    })?;
    let up = text::age(began.elapsed());
    match way.key {
        Some(key) => good(step, format_args!("{} as expected, session up in {up}", key.short()))?,
        None => good(step, format_args!("plain, readable by everybody, up in {up}"))?,
    }

    let request = target.map_or(Request::Default, Request::Connect);
    let outcome = try_out(&session, request, args.reach.plain, &mut news, &cut).await;
    // Also if it was not well: it would wait for us at the server.
    let _ = tokio::time::timeout(Duration::from_secs(2), session.close()).await;
    outcome?;
    match bad_ones {
        0 => super::print("All well.\n"),
        bad_ones => Err(bad("carrier", format_args!("{bad_ones} of {all} addresses cannot be reached"))
            .tip("a client goes on to the next one; all else is well")),
    }
}

/// The target, and a cut on the way to it.
async fn try_out(
    session: &Session,
    request: Request,
    plain: bool,
    news: &mut mpsc::UnboundedReceiver<Event>,
    cut: &Notify,
) -> Result<(), Failure> {
    let mut stream = reach_target(session, request, plain).await?;
    stream.set_break_on_drop(true);

    while news.try_recv().is_ok() {}
    cut.notify_waiters();
    let resumed = async {
        loop {
            match news.recv().await {
                Some(Event::CarrierUp { gap, .. }) => return Ok(gap.unwrap_or_default()),
                Some(Event::SessionEnded(error)) => return Err(error.to_string()),
                Some(_) => {}
                None => return Err("the session ended".to_owned()),
            }
        }
    };
    let gap = within("cut", resumed).await?.map_err(|why| bad("cut", why))?;
    let alive = poll_fn(|cx| {
        let mut byte = [0; 1];
        Poll::Ready(!matches!(Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte)), Poll::Ready(Err(_))))
    });
    if !alive.await {
        return Err(bad("cut", "the stream did not survive"));
    }
    good("cut", format_args!("cut on purpose, resumed after {}, the stream goes on", text::age(gap)))
}

fn good(step: &str, found: impl fmt::Display) -> Result<(), Failure> {
    super::print(&format!("{step:8} {:<58} ok\n", found.to_string()))
}

fn bad(step: &str, why: impl fmt::Display) -> Failure {
    Failure::new(Exit::BadVerdict, format!("{step}: {why}"))
}

async fn within<T>(step: &str, future: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(LIMIT, future).await.map_err(|_| bad(step, "no answer within 10 s"))
}

async fn reach(dialer: &Dialer) -> Result<(), Failure> {
    name(dialer).await?;
    carrier(dialer).await
}

async fn name(dialer: &Dialer) -> Result<(), Failure> {
    let (Some(host), Some(port)) = (dialer.address().host(), dialer.address().port()) else { return Ok(()) };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return good("name", format_args!("{host} (an address)"));
    }
    let found = within("name", tokio::net::lookup_host((host, port))).await?;
    let found: Vec<_> =
        found.map_err(|error| bad("name", format_args!("{host}: {}", plain(&error.to_string()))))?.collect();
    let shown: Vec<_> = found.iter().map(|addr| addr.ip().to_string()).collect();
    match &shown[..] {
        [] => Err(bad("name", format_args!("{host} has no address"))),
        shown => good("name", format_args!("{host} is {}", shown.join(", "))),
    }
}

async fn carrier(dialer: &Dialer) -> Result<(), Failure> {
    let began = Instant::now();
    let address = dialer.address();
    match within("carrier", dialer.dial()).await? {
        Ok(_) => good("carrier", format_args!("{}, connected in {}", address.kind(), text::age(began.elapsed()))),
        Err(error) => Err(bad("carrier", format_args!("{address}: {}", reason(&error)))
            .tip("is the server running, and is there a firewall between?")),
    }
}

async fn reach_target(session: &Session, request: Request, plain: bool) -> Result<Answered, Failure> {
    let named = match &request {
        Request::Connect(target) => target.to_string(),
        _ => "the server's target".to_owned(),
    };
    let stream = inlet::opened(session, (!plain).then_some(&request)).await;
    let mut stream = Answered::new(stream.map_err(|error| bad("target", error))?, !plain);
    let code = within("target", stream.answer()).await?.map_err(|error| bad("target", reason(&error)))?;
    if code == Code::NotAllowed && matches!(request, Request::Default) {
        // There need not be one: clients may name what they want.
        good("target", "none of its own; --target HOST:PORT tries one")?;
        return Ok(stream);
    }
    if code != Code::Done {
        return Err(
            bad("target", format_args!("{named}: {code}")).tip("the server's --to and --allow say what it reaches")
        );
    }
    let mut greeting = [0; 256];
    let mut read = ReadBuf::new(&mut greeting);
    let heard = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut read));
    let said = match tokio::time::timeout(GREETING, heard).await {
        Ok(Ok(())) if read.filled().is_empty() => return Err(bad("target", format_args!("{named} ended at once"))),
        Ok(Ok(())) => {
            let line = String::from_utf8_lossy(read.filled());
            let line: String =
                line.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
            format!("{named} says {line:?}")
        }
        Ok(Err(error)) => return Err(bad("target", format_args!("{named}: {}", reason(&error)))),
        Err(_) => format!("{named} is reached, and waits for us to speak"),
    };
    good("target", said)?;
    Ok(stream)
}

/// A connection that breaks when told to.
struct Cuttable {
    io: Connection,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl Cuttable {
    fn new(io: Connection, cut: Arc<Notify>) -> Self {
        Self { io, cut: Box::pin(async move { cut.notified().await }), is_cut: false }
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut || self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
