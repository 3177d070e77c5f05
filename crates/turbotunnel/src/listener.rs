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
#[cfg(feature = "secure")]
mod gate;
mod nursery;
mod permit;
mod reception;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::admission::Admission;
use self::arrivals::{Arrivals, Guest};
#[cfg(feature = "secure")]
pub use self::gate::Clients;
#[cfg(feature = "secure")]
use self::gate::Gate;
use self::nursery::{Growth, Nursery};
use crate::SessionId;
use crate::budget::{self, Budget};
use crate::config::Config;
use crate::driver::Driver;
use crate::error::SessionError;
use crate::limits::{Limits, ListenerStats};
#[cfg(feature = "secure")]
use crate::secure::{Route, StaticKey};
use crate::session::{Event, Session};
use crate::session_map::{Name, SessionMap};
use crate::shared::{Shared, now};
use crate::stream::Stream;
use crate::tcp;

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
    accepting: Mutex<Vec<AbortHandle>>,
}

struct Server {
    /// Of all sessions.
    config: Arc<Config>,
    /// None: the plain mode.
    #[cfg(feature = "secure")]
    gate: Option<Gate>,
    sessions: SessionMap,
    admission: Arc<Mutex<Admission<AbortHandle>>>,
    budget: Arc<Budget>,
    /// Held by who is shedding sessions: one at a time.
    shedding: Mutex<()>,
    /// By name: a weak reference would hold the memory of a session that has ended.
    nursery: Mutex<Nursery<Name>>,
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
        self.server.sessions.remove(now(), shared.name, embryo);
        let mut admission = self.server.admission();
        admission.session_ended(shared.name.client());
        let stats = &mut admission.stats;
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

    /// Sessions that were begun and left have a number.
    fn look_after_embryonic(&self, shared: &Arc<Shared>) {
        let look = |name: &Name| self.sessions.live(*name).map_or(Growth::Grown, |shared| Growth::of(&shared));
        let mut nursery = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        let goes = nursery.begin(shared.name, look);
        drop(nursery);
        for oldest in goes.into_iter().filter_map(|oldest| self.sessions.live(oldest)) {
            oldest.with(|state| state.tunnel.abandon(now()));
            self.admission().stats.sessions_abandoned_early += 1;
        }
    }

    /// `of_client`: what its client's sessions may have together.
    fn spawn_driver(self: &Arc<Self>, guest: Arc<Guest>, of_client: Option<Arc<Budget>>) {
        let id = guest.shared.id;
        let on_event =
            self.on_event.clone().map(|tell| -> crate::driver::OnEvent { Arc::new(move |event| tell(id, event)) });
        let place = Place { server: self.clone(), guest: guest.clone() };
        let server = Arc::downgrade(self);
        let on_used_up = {
            let server = server.clone();
            move || server.upgrade().iter().for_each(|server| server.shed())
        };
        let mut driver = Driver::new(guest.shared.clone(), None, on_event)
            .on_incoming(move || server.upgrade().iter().for_each(|server| server.announce(&guest)))
            .within(self.budget.clone(), of_client, on_used_up);
        tokio::spawn(async move {
            // By reference: moved into the await it would lie in the task twice.
            (&mut driver).await;
            drop(place);
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
    async fn take<T>(&self, next: impl Fn(&Self) -> Option<T>) -> io::Result<T> {
        loop {
            // Made before looking: what comes in between is told to it.
            let news = self.news.notified();
            if let Some(next) = next(self) {
                return Ok(next);
            }
            self.check_open()?;
            news.await;
        }
    }

    /// An error once it is closed.
    fn check_open(&self) -> io::Result<()> {
        let closed = self.arrivals().is_closed();
        if closed { Err(io::Error::new(io::ErrorKind::NotConnected, "the listener is closed")) } else { Ok(()) }
    }
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

    /// Listens on TCP here, too, and gives the address that it got: several ports, one set of sessions.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the listener is [closed](Listener::close) ([`io::ErrorKind::NotConnected`]).
    pub async fn listen(&self, addr: impl ToSocketAddrs) -> io::Result<SocketAddr> {
        self.server.check_open()?;
        let tcp = TcpListener::bind(addr).await?;
        let local_addr = tcp.local_addr()?;
        let mut accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner);
        // Once more, as it may have been closed meanwhile, which ends those that it finds here.
        self.server.check_open()?;
        accepting.push(tokio::spawn(accept_on(tcp, self.server.clone())).abort_handle());
        Ok(local_addr)
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
    /// [`io::ErrorKind::NotConnected`] once the listener is [closed](Listener::close), at once for calls that wait.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        let stream = self.server.take(Server::next_stream).await?;
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
    /// As [`Listener::accept`].
    pub async fn accept_session(&self) -> io::Result<Session> {
        self.server.take(Server::next_session).await
    }

    /// Takes a connection that somebody else has accepted: a WebSocket upgrade, the inside of a TLS connection ... The first thing on it has to be the
    /// session id. Must be called within a tokio runtime. It is dropped if the listener is [closed](Listener::close).
    pub fn attach(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, from: Option<SocketAddr>) {
        self.server.welcome(io, from);
    }

    /// Ends everything: takes no more connections, lets [`Listener::accept`] and [`Listener::accept_session`] return with an error, tells each peer that its session is over, and returns when the last connection is closed,
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
        // First, so that whoever comes meanwhile is dismissed or does not get in: no session begins that nobody can accept.
        let unaccepted = self.server.arrivals().close();
        self.server.news.notify_waiters();
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|accepting| accepting.abort());
        let strangers = self.server.admission().dismiss();
        strangers.iter().for_each(AbortHandle::abort);
        drop(unaccepted);
    }

    /// Admits these clients from now on, and no others: sessions of others end at once, and their clients are told why. Without effect in plain mode.
    #[cfg(feature = "secure")]
    pub fn set_clients(&self, clients: Clients) {
        if let Some(gate) = &self.server.gate {
            gate.set_clients(clients);
            self.server.expel_unadmitted(gate);
        }
    }

    /// Answers to these keys from now on. Sessions go on, and with a key that is not among them any more they get no new carriers. Without effect in plain mode.
    #[cfg(feature = "secure")]
    pub fn set_server_keys(&self, keys: impl IntoIterator<Item = StaticKey>) {
        if let Some(gate) = &self.server.gate {
            gate.set_keys(keys.into_iter().collect());
        }
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

    /// The limits in force: those that it was built with, less what the process has no descriptors for, and none of them left open.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.server.admission().limits()
    }

    /// Sessions that exist, attached or not.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.server.sessions.len()
    }
}

async fn accept_on(tcp: TcpListener, server: Arc<Server>) {
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
    #[cfg(feature = "secure")]
    keys: Vec<StaticKey>,
    #[cfg(feature = "secure")]
    clients: Clients,
    #[cfg(feature = "secure")]
    route: Route,
}

impl ListenerBuilder {
    /// The plain mode: the worked example's wire format, in which everybody on the way can read, change and take over whatever he likes. It is what a builder without keys
    /// makes, too; this says that it is meant.
    pub fn plain(self) -> Self {
        #[cfg(feature = "secure")]
        return Self { keys: Vec::new(), ..self };
        #[cfg(not(feature = "secure"))]
        self
    }

    /// Carriers are encrypted, and only clients that know the public half of one of these keys are answered: to everybody else the listener is silent. Nobody but the client
    /// itself can reach its sessions, read, change or end them: they belong to the key that began them ([`crate::secure`]). Sessions of the plain format find nobody here, so
    /// it takes a port of its own.
    ///
    /// Several keys are for changing from one to the next: clients of the old one go on until it is left out ([`Listener::set_server_keys`]). None: the plain mode.
    #[cfg(feature = "secure")]
    pub fn server_keys(mut self, keys: impl IntoIterator<Item = StaticKey>) -> Self {
        self.keys = keys.into_iter().collect();
        self
    }

    /// Which clients are admitted, with [`ListenerBuilder::server_keys`]. Default: whoever knows the server's public key. See [`Listener::set_clients`].
    #[cfg(feature = "secure")]
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = clients;
        self
    }

    /// What carriers of this server's sessions are to begin with, so that a load balancer finds it, with [`ListenerBuilder::server_keys`]. Default: nothing.
    #[cfg(feature = "secure")]
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

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
        let mut listener = self.detached();
        listener.local_addr = Some(listener.listen(addr).await?);
        Ok(listener)
    }

    /// Listens nowhere: connections come from [`Listener::attach`] only.
    pub fn detached(self) -> Listener {
        let config = Config::shared(self.config);
        let remember_for = config.time_to_live;
        let mut limits = descriptors::limit().map_or(self.limits, |descriptors| self.limits.within(descriptors));
        let memory = *limits.memory.get_or_insert_with(budget::default_limit);
        limits.memory_per_client.get_or_insert(memory / 4);
        let server = Server {
            config,
            #[cfg(feature = "secure")]
            gate: (!self.keys.is_empty()).then(|| Gate::new(self.keys, self.clients, self.route)),
            sessions: SessionMap::new(remember_for),
            admission: Arc::new(Mutex::new(Admission::new(limits))),
            budget: Budget::new(memory),
            shedding: Mutex::new(()),
            nursery: Mutex::new(Nursery::new(limits.embryonic)),
            on_event: self.on_event,
            arrivals: Mutex::new(Arrivals::new(UNACCEPTED)),
            news: Notify::new(),
        };
        Listener { server: Arc::new(server), local_addr: None, accepting: Mutex::default() }
    }
}
