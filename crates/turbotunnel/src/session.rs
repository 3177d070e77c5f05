//! A handle to a session, and how a client makes one.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
#[cfg(feature = "secure")]
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::SessionId;
#[cfg(feature = "secure")]
use crate::carrier::secure::{Dialling, SecureCarrier};
use crate::carrier::{Carrier, StreamCarrier};
use crate::config::Config;
use crate::control::Limit;
use crate::driver::{Dialer, Driver, OnEvent};
use crate::error::{CarrierEnd, SessionError};
#[cfg(feature = "secure")]
use crate::secure::{Link, PublicKey, StaticKey, Suite};
use crate::shared::{Shared, State, now};
use crate::stream::Stream;
use crate::tcp;
use crate::tunnel::{CarrierId, StreamFailure, Tunnel};

/// What happens to a session, as told to [`Builder::on_event`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A carrier is in use; on the client: and the server has answered on it.
    CarrierUp {
        /// Counted from 1.
        number: u32,
        /// The other end, as far as known.
        addr: Option<SocketAddr>,
        /// How long there was no contact; `None` for the first carrier.
        gap: Option<Duration>,
        /// KCP segments (up to 1,376 bytes) that are sent again on it.
        resent: usize,
    },
    /// A carrier is out of use. The session goes on.
    CarrierLost {
        /// Counted from 1.
        number: u32,
        /// Why.
        reason: CarrierEnd,
        /// How long it was in use.
        age: Duration,
        /// KCP segments sent on it that are not acknowledged.
        unacknowledged: usize,
    },
    /// A dial failed. The next one comes by itself.
    DialFailed {
        /// Counted from 1.
        number: u32,
        /// What the dialer said.
        error: String,
        /// Pause before the next dial.
        next_in: Duration,
        /// With keys: something took the connection and has not answered as the holder of the server's key would
        /// ([`SessionError::NoValidAnswer`]).
        unanswered: bool,
    },
    /// A client that keeps a spare ([`Config::spare`]) has one: it takes over when the carrier in use is lost.
    SpareReady {
        /// Counted from 1.
        number: u32,
        /// The other end, as far as known.
        addr: Option<SocketAddr>,
    },
    /// With keys: one of the server's limits keeps the session waiting. It begins, or goes on, by itself as soon as there is room.
    Held {
        /// Carrier on which the server said it, counted from 1.
        number: u32,
        /// Which limit.
        limit: Limit,
    },
    /// The session is over.
    SessionEnded(SessionError),
}

/// Counters of one session, from its start.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// What the tunnel counts: carriers, cuts, packets, resent segments ...
    pub tunnel: crate::tunnel::Stats,
    /// Times that the session's task ran. An idle session runs for its keepalives only.
    pub turns: u64,
    /// Server: connections dropped because newer ones of the session came at the same time, four and more.
    pub newcomers_dropped: u64,
}

/// One attempt to reach the server, as told to a dialer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Number of the carrier, counted from 1.
    pub number: u32,
}

/// A session with a peer: many streams that outlive the connections below them. Clones are handles to the same session.
///
/// It is driven by a task of its own; dropping any future of ours loses and repeats nothing. When the last handle of a client's session and its
/// last stream are dropped, the session is closed in the background.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// Closes the session when the last handle goes; servers' sessions have none.
    _guard: Option<Arc<CloseOnDrop>>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.with(|state| state.tunnel.close(now()));
    }
}

impl Session {
    /// How to make a session to a server.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A session over TCP to `host:port` in the worked example's plain format, with default settings. See [`Builder::connect_tcp`].
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    pub async fn connect(addr: impl ToString) -> Result<Self, SessionError> {
        Self::builder().connect_tcp(addr).await
    }

    pub(crate) fn client(shared: Arc<Shared>) -> Self {
        Self { _guard: Some(Arc::new(CloseOnDrop(shared.clone()))), shared }
    }

    pub(crate) fn server(shared: Arc<Shared>) -> Self {
        Self { shared, _guard: None }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The session's identifier.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.shared.id
    }

    /// On a server with keys: the key of the client that the session belongs to. `None` in plain mode and on the client.
    #[cfg(feature = "secure")]
    #[must_use]
    pub fn client_key(&self) -> Option<PublicKey> {
        self.shared.name.owner
    }

    /// Opens a stream. It does not wait for the peer, but to the pace at which a peer of ours takes streams: 4,000 at once, then 1,000 a second. Cancel-safe.
    /// A session that is closing takes no new ones.
    ///
    /// # Errors
    ///
    /// The session is over, or [`SessionError::TooManyStreams`].
    pub async fn open(&self) -> Result<Stream, SessionError> {
        loop {
            let opened = self.shared.with(|state| match state.tunnel.open(now()) {
                Err(StreamFailure::Session(_)) => Err(state.ended().unwrap_or(SessionError::Closed)),
                Err(StreamFailure::NotBefore(at)) => Ok(Err(at)),
                Err(_) => Err(SessionError::TooManyStreams),
                Ok(id) => Ok(Ok(id)),
            });
            match opened? {
                Ok(id) => return Ok(Stream::new(self.clone(), id)),
                Err(at) => tokio::time::sleep_until(at.into()).await,
            }
        }
    }

    /// Waits for a stream that the peer opens. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The session is over.
    pub async fn accept(&self) -> Result<Stream, SessionError> {
        let look = |state: &mut State| match state.tunnel.accept() {
            Some(id) => Some(Ok(id)),
            None => state.ended().map(Err),
        };
        self.shared.wait_for(look).await.map(|id| Stream::new(self.clone(), id))
    }

    pub(crate) fn try_accept(&self) -> Option<Stream> {
        let id = self.shared.lock().tunnel.accept()?;
        Some(Stream::new(self.clone(), id))
    }

    /// Closes the session in good order: streams are finished, and the call returns when the peer has acknowledged everything and the last
    /// connection is closed. Dropping the call does not stop that. What the peer still sends is not waited for.
    ///
    /// # Errors
    ///
    /// The session ended otherwise before that: [`SessionError::ClosedUnacknowledged`], [`SessionError::GaveUp`] ...
    pub async fn close(&self) -> Result<(), SessionError> {
        self.shared.with(|state| state.tunnel.close(now()));
        let gone = |state: &mut State| state.driver_gone.then(|| state.ended()).flatten();
        match self.shared.wait_for(gone).await {
            SessionError::Closed => Ok(()),
            error => Err(error),
        }
    }

    /// Waits for the end of the session and says why it came. Cancel-safe.
    pub async fn closed(&self) -> SessionError {
        self.shared.wait_for(|state| state.ended()).await
    }

    /// Dials at once, beside the carrier in use and whatever the backoff says: for when the network is known to have changed.
    pub fn redial(&self) {
        self.shared.with(|state| state.tunnel.redial(now()));
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.shared.lock();
        Stats { tunnel: state.tunnel.stats(), turns: state.turns, newcomers_dropped: state.newcomers_dropped }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.id()).finish()
    }
}

/// Makes a client's [`Session`].
#[derive(Default)]
#[must_use]
pub struct Builder {
    config: Config,
    id: Option<SessionId>,
    on_event: Option<OnEvent>,
    #[cfg(feature = "secure")]
    keys: Keys,
}

/// What a client was given of keys.
#[cfg(feature = "secure")]
#[derive(Default)]
struct Keys {
    server: Option<PublicKey>,
    own: Option<StaticKey>,
    suite: Option<Suite>,
}

/// What carriers are made with.
#[derive(Clone)]
struct Carriers {
    id: SessionId,
    #[cfg(feature = "secure")]
    dialling: Option<Arc<Dialling>>,
}

impl Carriers {
    async fn carrier<IO>(self, io: IO) -> io::Result<Box<dyn Carrier>>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        #[cfg(feature = "secure")]
        if let Some(dialling) = &self.dialling {
            return Ok(Box::new(SecureCarrier::dial(io, dialling, self.id).await?));
        }
        Ok(Box::new(StreamCarrier::client(io, self.id)))
    }

    fn authenticate(&self) -> bool {
        #[cfg(feature = "secure")]
        return self.dialling.is_some();
        #[cfg(not(feature = "secure"))]
        false
    }
}

impl Builder {
    /// All settings at once.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// How long the session lives without contact. Default 120 s. See [`Config::time_to_live`]. With keys a server's answer is waited for for 8 s: with less than that
    /// a wrong key is told as [`SessionError::NeverConnected`] and not as [`SessionError::NoValidAnswer`].
    pub fn give_up_after(mut self, time_to_live: Duration) -> Self {
        self.config.time_to_live = time_to_live;
        self
    }

    /// Pause after which an idle session sends a keepalive; `None`: off. See [`Config::keepalive`].
    pub fn keepalive(mut self, keepalive: Option<Duration>) -> Self {
        self.config.keepalive = keepalive;
        self
    }

    /// The very first dial decides: if it fails, so does [`Builder::connect`]. Off by default: the first dial is repeated like any other.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.config.fail_fast = fail_fast;
        self
    }

    /// The plain mode: the worked example's wire format, in which everybody on the way can read, change and take over whatever he likes. It is what a builder without a
    /// server's key makes, too; this says that it is meant.
    pub fn plain(self) -> Self {
        #[cfg(feature = "secure")]
        return Self { keys: Keys::default(), ..self };
        #[cfg(not(feature = "secure"))]
        self
    }

    /// Carriers are encrypted and go to the holder of this key and nobody else ([`crate::secure`]): whoever is on the way sees how much is said and when, and can cut, and
    /// that is all. One more round trip for each carrier. There is no falling back: a server without the key is not talked to.
    #[cfg(feature = "secure")]
    pub fn server_key(mut self, key: PublicKey) -> Self {
        self.keys.server = Some(key);
        self
    }

    /// Who this client is, for servers that admit only some, with [`Builder::server_key`]. Default: a new key for each session, kept in memory only.
    #[cfg(feature = "secure")]
    pub fn client_key(mut self, key: StaticKey) -> Self {
        self.keys.own = Some(key);
        self
    }

    /// What carriers are encrypted with, with [`Builder::server_key`]. Default: [`Suite::for_this_machine`].
    #[cfg(feature = "secure")]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.keys.suite = Some(suite);
        self
    }

    /// A given identifier instead of a random one. Two live sessions with one identifier destroy each other.
    pub fn session_id(mut self, id: SessionId) -> Self {
        self.id = Some(id);
        self
    }

    /// Told of carriers lost and gained. It runs in the session's task: it must not block.
    pub fn on_event(mut self, on_event: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// Starts the session over whatever `dial` gives, and waits until the server has answered, one round trip after the connection. `dial` gives a future (an async closure does, if it captures nothing); it is called again
    /// whenever a new connection is needed. One that has no result after 4 s gets another beside it (the first to succeed wins, the others
    /// are dropped), and after 10 s it is given up. Names should be resolved in it, anew each time.
    ///
    /// Must be called within a tokio runtime, which then drives the session. Dropping the call ends the session.
    ///
    /// # Errors
    ///
    /// [`SessionError::NeverConnected`]: no answer within the time to live, or with [`Builder::fail_fast`] the first dial failed.
    /// [`SessionError::NotAPeer`]: something answered that is no server of this kind. With a key: [`SessionError::NoValidAnswer`] in the place of that, and
    /// [`SessionError::NotAdmitted`].
    pub async fn connect<D, F, IO>(self, mut dial: D) -> Result<Session, SessionError>
    where
        D: FnMut(Attempt) -> F + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let carriers = self.carriers()?;
        self.start(
            carriers.clone(),
            Box::new(move |number: CarrierId| {
                let dialing = dial(Attempt { number: number.0 });
                let carriers = carriers.clone();
                Box::pin(async move { Ok((carriers.carrier(dialing.await?).await?, None)) })
            }),
        )
        .await
    }

    /// As [`Builder::connect`], over TCP to `host:port`. The name is resolved at each dial and all its addresses are tried.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    pub async fn connect_tcp(self, addr: impl ToString) -> Result<Session, SessionError> {
        let carriers = self.carriers()?;
        let addr: Arc<str> = addr.to_string().into();
        self.start(
            carriers.clone(),
            Box::new(move |_| {
                let (addr, carriers) = (addr.clone(), carriers.clone());
                Box::pin(async move {
                    let stream = tcp::connect(&addr).await?;
                    let peer = stream.peer_addr().ok();
                    Ok((carriers.carrier(stream).await?, peer))
                })
            }),
        )
        .await
    }

    /// As [`Builder::connect_tcp`], to the server of a `turbotunnel://` link: its key is the one that is expected, and its addresses are tried in turn, from dial to dial.
    /// Those of other kinds than TCP are passed over: `turbotunnel-carriers` has dialers for them.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`], and [`SessionError::NeverConnected`] at once if no address is one of TCP.
    #[cfg(feature = "secure")]
    pub async fn connect_link(self, link: &Link) -> Result<Session, SessionError> {
        let addresses: Arc<[String]> =
            link.addresses().iter().filter(|address| !address.contains("://")).cloned().collect();
        if addresses.is_empty() {
            return Err(SessionError::NeverConnected("the link has no address of TCP".to_owned()));
        }
        let dial = move |attempt: Attempt| {
            let addresses = addresses.clone();
            async move {
                // Carriers are counted from 1, and there is at least one address.
                let turn = (attempt.number as usize).wrapping_sub(1) % addresses.len();
                tcp::connect(&addresses[turn]).await
            }
        };
        self.server_key(link.server_key()).connect(dial).await
    }

    fn carriers(&self) -> Result<Carriers, SessionError> {
        Ok(Carriers {
            id: self.id.map_or_else(SessionId::random, Ok).map_err(|error| no_random(&error))?,
            #[cfg(feature = "secure")]
            dialling: match self.keys.server {
                None => None,
                Some(server) => Some(Arc::new(Dialling {
                    server,
                    own: self
                        .keys
                        .own
                        .clone()
                        .map_or_else(StaticKey::generate, Ok)
                        .map_err(|error| no_random(&error))?,
                    suite: self.keys.suite.unwrap_or_else(Suite::for_this_machine),
                    route: Mutex::default(),
                })),
            },
        })
    }

    async fn start(self, carriers: Carriers, dialer: Dialer) -> Result<Session, SessionError> {
        let random = SessionId::random().map_err(|error| no_random(&error))?;
        let random = u64::from_le_bytes(random.0);
        let mut tunnel = Tunnel::client(now(), self.config, random as u32, random);
        if carriers.authenticate() {
            tunnel.set_authenticated();
        }
        let shared = Arc::new(Shared::new(carriers.id, tunnel));
        let session = Session::client(shared.clone());
        tokio::spawn(Driver::new(shared, Some(dialer), self.on_event));
        let look = |state: &mut State| match state.ended() {
            Some(error) => Some(Err(error)),
            None => state.connected.then_some(Ok(())),
        };
        session.shared.wait_for(look).await?;
        Ok(session)
    }
}

fn no_random(error: &io::Error) -> SessionError {
    SessionError::NeverConnected(error.to_string())
}
