//! The server: takes connections, finds out which session each belongs to, and hands it over.
//!
//! ```text
//! connection -> stranger: 8 bytes of id -> known session  -> handed to it at once
//!                                       -> unknown        -> waits for the first packet of a new session
//!                                       -> neither        -> held silently until 10 s are over
//! ```
//!
//! A session with streams that nobody has accepted yet can be accepted and read also after its end: its peer was told that they are here.
//!
//! Somebody who is refused is held, not closed: a Go client dials again at once, thousands of times a second, when it is closed.

mod admission;
mod arrivals;
mod descriptors;
mod nursery;
mod permit;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::admission::{Admission, Source};
use self::arrivals::{Arrivals, Guest};
use self::nursery::{Growth, Nursery};
use self::permit::Permit;
use crate::SessionId;
use crate::budget::{self, Budget};
use crate::carrier::{Carrier, StreamCarrier, tcp};
use crate::config::Config;
use crate::control::Control;
use crate::driver::Driver;
use crate::embryo::Embryo;
use crate::encapsulation::PacketBatch;
use crate::error::SessionError;
use crate::limits::{Limits, ListenerStats};
use crate::session::{Event, Session};
use crate::session_map::{Known, SessionMap};
use crate::shared::{Newcomer, Shared, now};
use crate::stream::Stream;
use crate::tunnel::{Tunnel, opening_conv};

/// A connection has to say within this time which session it belongs to.
const STRANGER_LIMIT: Duration = Duration::from_secs(10);
/// What is kept of a stranger's packets while they open no session, or may not yet. A client of ours says less before it is answered; a Go client says it
/// again.
const KEPT_LIMIT: usize = 2 << 10;
/// Pause after which the server asks for a refused stranger whether a session may begin now. So whoever stays has twenty times the chance of
/// those who flood and go.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// New sessions waiting for `accept_session`, and ended ones whose streams wait for `accept`; beyond it the oldest are not offered any more.
const UNACCEPTED: usize = 1024;
/// Pause after an accept that failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same when a stranger had to go for the next one: until his descriptor is free.
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// Where a stream came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its session.
    pub session: SessionId,
    /// Its number in the session.
    pub stream: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} stream {}", self.session.short(), self.stream)
    }
}

type OnEvent = Arc<dyn Fn(SessionId, Event) + Send + Sync>;

/// Accepts sessions and their streams.
///
/// Dropping it ends the accepting of connections; sessions that exist go on as long as their carriers live.
pub struct Listener {
    server: Arc<Server>,
    local_addr: Option<SocketAddr>,
    accepting: Option<AbortHandle>,
}

struct Server {
    config: Config,
    sessions: SessionMap,
    admission: Arc<Mutex<Admission<AbortHandle>>>,
    budget: Arc<Budget>,
    /// Held by who is shedding sessions: one at a time.
    shedding: Mutex<()>,
    nursery: Mutex<Nursery<Weak<Shared>>>,
    on_event: Option<OnEvent>,
    arrivals: Mutex<Arrivals>,
    /// Something has arrived.
    news: Notify,
}

/// The place of a session in the map, for as long as it is driven, however that ends.
struct Place {
    server: Arc<Server>,
    guest: Arc<Guest>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.guest.shared;
        let (why, embryo) = {
            let state = shared.lock();
            (state.tunnel.ended().cloned(), state.tunnel.embryo())
        };
        self.server.arrivals().end(&self.guest);
        self.server.sessions.remove(now(), shared.id, embryo);
        let stats = &mut self.server.admission().stats;
        stats.sessions_ended += 1;
        stats.sessions_abandoned += u64::from(why == Some(SessionError::Abandoned));
        stats.sessions_stalled += u64::from(matches!(why, Some(SessionError::Stalled(_))));
        stats.sessions_shed += u64::from(why == Some(SessionError::OutOfMemory));
    }
}

impl Server {
    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, guest: &Arc<Guest>) {
        self.arrivals().announce(guest);
        self.news.notify_waiters();
    }

    fn admission(&self) -> MutexGuard<'_, Admission<AbortHandle>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives a connection in a task of its own.
    fn welcome(self: &Arc<Self>, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, from: Option<SocketAddr>) {
        let (number, goes) = self.admission().arrive(now(), from.map(Source::of));
        goes.iter().for_each(AbortHandle::abort);
        let permit = Permit::new(self.admission.clone(), number);
        // Without the lock: on a runtime that goes down the permit is dropped at once.
        let task = tokio::spawn(self.clone().receive(io, from, permit)).abort_handle();
        let goes = self.admission().look_after(number, task);
        goes.iter().for_each(AbortHandle::abort);
    }

    /// Finds out where a connection belongs, and sees to it until then. Whoever is slow, or speaks something else, is held in silence and then dropped.
    #[allow(clippy::manual_async_fn, reason = "it would keep its arguments twice, and a thousand may say nothing")]
    fn receive<IO>(
        self: Arc<Self>,
        mut io: IO,
        from: Option<SocketAddr>,
        permit: Permit,
    ) -> impl Future<Output = ()> + Send
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        async move {
            let deadline = tokio::time::Instant::now() + STRANGER_LIMIT;
            let mut id = [0; SessionId::LEN];
            let in_time = match tokio::time::timeout_at(deadline, io.read_exact(&mut id)).await {
                // Allocated now, when it is needed.
                Ok(Ok(_)) => {
                    let admitted = self.admit(SessionId(id), io, from, permit);
                    Box::pin(tokio::time::timeout_at(deadline, admitted)).await.is_ok()
                }
                Ok(Err(_)) => true,
                Err(_) => false,
            };
            if !in_time {
                self.admission().stats.strangers_timed_out += 1;
            }
        }
    }

    /// Sees to a connection whose session id is known.
    async fn admit<IO>(
        self: &Arc<Self>,
        id: SessionId,
        io: IO,
        addr: Option<SocketAddr>,
        permit: Permit,
    ) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut carrier = StreamCarrier::server(io);
        let known = self.sessions.get(now(), id);
        let embryo = if let Known::Abandoned(embryo) = known { Some(embryo) } else { None };
        match known {
            Known::Live(shared) => {
                let replaces = shared.lock().tunnel.current().is_some();
                if permit.attach(replaces).is_err() {
                    return carrier.swallow().await;
                }
                let early = PacketBatch::new();
                let newcomer = Newcomer { carrier: Box::new(carrier), addr, early, kept: Some(Box::new(permit)) };
                if let Err(newcomer) = shared.attach(newcomer) {
                    hold(newcomer).await;
                }
            }
            Known::Ended => {
                self.admission().stats.strangers_too_late += 1;
                match self.answer_unknown(&mut carrier).await {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => carrier.swallow().await?,
                    other => other?,
                }
            }
            Known::Unknown | Known::Abandoned(_) => match self.opening(&mut carrier, &permit, embryo).await {
                Ok(Some((conv, early))) => {
                    let newcomer = Newcomer { carrier: Box::new(carrier), addr, early, kept: Some(Box::new(permit)) };
                    self.begin(id, conv, embryo, newcomer).await;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.admission().stats.strangers_not_understood += 1;
                    carrier.swallow().await?;
                }
                other => drop(other?),
            },
        }
        Ok(())
    }

    /// Reads packets until one opens a session, or goes on with one that was abandoned, and may. `None`: the stranger went away. While it only says what
    /// belongs to no session it is held.
    async fn opening(
        &self,
        carrier: &mut impl Carrier,
        permit: &Permit,
        embryo: Option<Embryo>,
    ) -> io::Result<Option<(u32, PacketBatch)>> {
        let mut early = PacketBatch::new();
        let mut batch = PacketBatch::new();
        let mut conv = None;
        loop {
            if let Some(conv) = conv
                && permit.begin(now(), self.budget.is_scarce()).is_ok()
            {
                return Ok(Some((conv, early)));
            }
            if early.len() > KEPT_LIMIT {
                // It comes again.
                early.clear(0);
                conv = None;
            }
            let more = poll_fn(|cx| carrier.poll_recv(cx, &mut batch));
            let read = match conv {
                Some(_) => match tokio::time::timeout(ASK_AGAIN, more).await {
                    Ok(read) => read?,
                    Err(_) => continue,
                },
                None => more.await?,
            };
            if read == 0 {
                return Ok(None);
            }
            for packet in batch.packets() {
                if let Some(embryo) = embryo {
                    conv = conv.or_else(|| conv_of(packet).filter(|conv| *conv == embryo.conv()));
                } else if let Some(unknown) = self.unknown_answer(packet) {
                    send(carrier, &unknown).await?;
                    continue;
                } else {
                    conv = conv.or_else(|| opening_conv(packet, self.config.counters.sn));
                }
                early.push(packet);
            }
        }
    }

    /// Tells everyone who asks that his session is not known here, until he goes.
    async fn answer_unknown(&self, carrier: &mut impl Carrier) -> io::Result<()> {
        let mut batch = PacketBatch::new();
        while poll_fn(|cx| carrier.poll_recv(cx, &mut batch)).await? > 0 {
            for packet in batch.packets() {
                if let Some(unknown) = self.unknown_answer(packet) {
                    send(carrier, &unknown).await?;
                }
            }
        }
        Ok(())
    }

    /// A HELLO of somebody who has heard from the session before; here nobody has.
    fn unknown_answer(&self, packet: &[u8]) -> Option<Control> {
        match Control::decode(packet)? {
            Control::Hello(hello) if hello.heard => Some(Control::Unknown { conv: hello.conv }),
            _ => None,
        }
    }

    async fn begin(self: &Arc<Self>, id: SessionId, conv: u32, embryo: Option<Embryo>, newcomer: Newcomer) {
        let Ok(token) = SessionId::random() else { return hold(newcomer).await };
        let new = || {
            let config = self.config.clone();
            let tunnel = match embryo {
                Some(embryo) => Tunnel::reborn(now(), config, embryo),
                None => Tunnel::server(now(), config, conv, token.0),
            };
            Arc::new(Shared::new(id, tunnel))
        };
        let (shared, is_new) = self.sessions.insert(id, new);
        if is_new {
            self.admission().stats.sessions_begun += 1;
            let guest = Guest::new(shared.clone());
            self.arrivals().begin(&guest);
            self.spawn_driver(guest);
            self.news.notify_waiters();
        }
        if let Err(newcomer) = shared.attach(newcomer) {
            hold(newcomer).await;
        }
        if is_new {
            self.look_after_embryonic(&shared);
        }
    }

    /// Sessions that were begun and left have a number.
    fn look_after_embryonic(&self, shared: &Arc<Shared>) {
        let look = |shared: &Weak<Shared>| shared.upgrade().map_or(Growth::Grown, |shared| Growth::of(&shared));
        let mut nursery = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        let goes = nursery.begin(Arc::downgrade(shared), look);
        drop(nursery);
        for oldest in goes.into_iter().filter_map(|oldest| oldest.upgrade()) {
            oldest.with(|state| state.tunnel.abandon(now()));
            self.admission().stats.sessions_abandoned_early += 1;
        }
    }

    fn spawn_driver(self: &Arc<Self>, guest: Arc<Guest>) {
        let id = guest.shared.id;
        let on_event =
            self.on_event.clone().map(|tell| -> crate::driver::OnEvent { Arc::new(move |event| tell(id, event)) });
        let place = Place { server: self.clone(), guest: guest.clone() };
        let server = Arc::downgrade(self);
        let on_used_up = {
            let server = server.clone();
            move || server.upgrade().iter().for_each(|server| server.shed())
        };
        let driver = Driver::new(guest.shared.clone(), None, on_event)
            .on_incoming(move || server.upgrade().iter().for_each(|server| server.announce(&guest)))
            .within(self.budget.clone(), on_used_up);
        tokio::spawn(async move {
            let _place = place;
            driver.await;
        });
    }

    /// Memory is used up: the sessions that have stood still for longest go, until it is scarce no more.
    fn shed(&self) {
        let Ok(_alone) = self.shedding.try_lock() else { return };
        let mut left = self.budget.used().saturating_sub(self.budget.scarce_from());
        let sessions = self.sessions.all();
        let looked_at = sessions.iter().map(|session| {
            let state = session.lock();
            (state.tunnel.moved_at(), state.tunnel.memory(), session)
        });
        let mut stale: Vec<_> = looked_at.filter(|(_, memory, _)| *memory >= budget::MUCH).collect();
        stale.sort_by_key(|(moved_at, ..)| *moved_at);
        for (_, memory, session) in stale {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(memory);
            session.with(|state| state.tunnel.shed(now()));
        }
    }

    /// A stream of the session whose turn it is. Sessions take turns, one stream each.
    fn next_stream(&self) -> Option<Stream> {
        loop {
            let guest = self.arrivals().next_with_streams()?;
            if let Some(stream) = Session::server(guest.shared.clone()).try_accept() {
                // Others may wait for what is behind it.
                self.announce(&guest);
                return Some(stream);
            }
        }
    }

    fn next_session(&self) -> Option<Session> {
        let guest = self.arrivals().next_fresh()?;
        Some(Session::server(guest.shared.clone()))
    }

    /// Takes what `next` gives, or waits until there is something new.
    async fn take<T>(&self, next: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            // Made before looking: what comes in between is told to it.
            let news = self.news.notified();
            if let Some(next) = next(self) {
                return next;
            }
            news.await;
        }
    }
}

/// Reads and forgets, until the peer closes or the caller's deadline comes.
async fn hold(mut newcomer: Newcomer) {
    let mut batch = PacketBatch::new();
    while poll_fn(|cx| newcomer.carrier.poll_recv(cx, &mut batch)).await.is_ok_and(|read| read > 0) {}
}

/// The conv that a packet of either kind says.
fn conv_of(packet: &[u8]) -> Option<u32> {
    Control::decode(packet).map(|control| control.conv()).or_else(|| kcp::conv_of(packet))
}

async fn send(carrier: &mut impl Carrier, control: &Control) -> io::Result<()> {
    carrier.buffer().push_with(|out| {
        control.encode(out);
        true
    });
    poll_fn(|cx| carrier.poll_flush(cx)).await
}

impl Listener {
    /// Listens on TCP with default settings, in the worked example's plain format.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub async fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::builder().bind(addr).await
    }

    /// How to make one with other settings.
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder::default()
    }

    /// The address that [`Listener::bind`] got.
    ///
    /// # Errors
    ///
    /// It listens nowhere and only takes connections from [`Listener::attach`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Waits for the next stream of any session. Cancel-safe.
    ///
    /// Streams that came before their session ended are given too. At most 1,024 ended sessions wait for that, then the oldest is dropped.
    ///
    /// # Errors
    ///
    /// None at present; the shape is `TcpListener::accept`'s.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        let stream = self.server.take(Server::next_stream).await;
        let peer = Peer { session: stream.session().id(), stream: stream.id() };
        Ok((stream, peer))
    }

    /// Waits for the next new session, for servers that look after sessions themselves: its streams come from [`Session::accept`] then, and
    /// [`Listener::accept`] gives none of them. Cancel-safe. Use either this or [`Listener::accept`]. At most 1,024 sessions wait here; then the
    /// oldest is not offered any more.
    ///
    /// Dropping the [`Session`] does not end it: it lives on until its own end, with streams that nobody accepts. Say [`Session::close`] to a
    /// session that is not wanted.
    ///
    /// # Errors
    ///
    /// None at present.
    pub async fn accept_session(&self) -> io::Result<Session> {
        Ok(self.server.take(Server::next_session).await)
    }

    /// Takes a connection that somebody else has accepted: a WebSocket upgrade, the inside of a TLS connection ... The first thing on it has to be the
    /// session id. Must be called within a tokio runtime.
    pub fn attach(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, from: Option<SocketAddr>) {
        self.server.welcome(io, from);
    }

    /// Ends everything: takes no more connections, tells each peer that its session is over, and returns when the last connection is closed,
    /// within two seconds. What was written and is not acknowledged may be lost: let streams end before that. Dropping the call does not stop it.
    pub async fn close(&self) {
        self.stop_accepting();
        let sessions = self.server.sessions.all();
        sessions.iter().for_each(|session| session.with(|state| state.tunnel.abort()));
        for session in sessions {
            session.wait_for(|state| state.driver_gone.then_some(())).await;
        }
    }

    fn stop_accepting(&self) {
        self.accepting.iter().for_each(AbortHandle::abort);
        // No session begins that nobody can accept.
        let strangers = self.server.admission().dismiss();
        strangers.iter().for_each(AbortHandle::abort);
        let unaccepted = self.server.arrivals().close();
        drop(unaccepted);
    }

    /// What came, what was refused and by which of the [`Limits`], and what is here now.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        let arrivals = self.server.arrivals().stats;
        ListenerStats {
            memory_now: self.server.budget.used(),
            sessions_not_offered: arrivals.not_offered,
            sessions_ended_unaccepted: arrivals.ended_unaccepted,
            ..self.server.admission().stats()
        }
    }

    /// Sessions that exist, attached or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.server.sessions.len()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("local_addr", &self.local_addr).field("sessions", &self.sessions()).finish()
    }
}

/// Makes a [`Listener`].
#[derive(Default)]
#[must_use]
pub struct ListenerBuilder {
    config: Config,
    limits: Limits,
    on_event: Option<OnEvent>,
}

impl ListenerBuilder {
    /// Settings of each session.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Limits of all connections and sessions together. The default bears the open internet, with some hundred honest clients behind each address.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Told of carriers lost and gained, and of sessions that end. It runs in the sessions' tasks: it must not block.
    pub fn on_event(mut self, on_event: impl Fn(SessionId, Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// Listens on TCP.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub async fn bind(self, addr: impl ToSocketAddrs) -> io::Result<Listener> {
        let tcp = TcpListener::bind(addr).await?;
        let local_addr = tcp.local_addr()?;
        let mut listener = self.detached();
        listener.local_addr = Some(local_addr);
        let server = listener.server.clone();
        let accepting = tokio::spawn(async move {
            loop {
                match tcp.accept().await {
                    Ok((stream, from)) => {
                        tcp::configure(&stream);
                        server.welcome(stream, Some(from));
                        // Whoever has said his id already is not in line with those who are silent.
                        tokio::task::yield_now().await;
                    }
                    // That one has gone; the next may be there.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => {
                        let oldest = server.admission().make_room();
                        oldest.iter().for_each(AbortHandle::abort);
                        tokio::time::sleep(if oldest.is_some() { ROOM_PAUSE } else { ACCEPT_PAUSE }).await;
                    }
                }
            }
        });
        listener.accepting = Some(accepting.abort_handle());
        Ok(listener)
    }

    /// Listens nowhere: connections come from [`Listener::attach`] only.
    pub fn detached(self) -> Listener {
        let remember_for = self.config.time_to_live;
        let limits = descriptors::limit().map_or(self.limits, |descriptors| self.limits.within(descriptors));
        let server = Server {
            config: self.config,
            sessions: SessionMap::new(remember_for),
            admission: Arc::new(Mutex::new(Admission::new(limits))),
            budget: Budget::new(limits.memory.unwrap_or_else(budget::default_limit)),
            shedding: Mutex::new(()),
            nursery: Mutex::new(Nursery::new(limits.embryonic)),
            on_event: self.on_event,
            arrivals: Mutex::new(Arrivals::new(UNACCEPTED)),
            news: Notify::new(),
        };
        Listener { server: Arc::new(server), local_addr: None, accepting: None }
    }
}
