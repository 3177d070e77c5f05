//! What `fuzz/` needs of the inside: a listener's map of sessions with the sessions in it. Not part of the API; it changes without notice.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::SessionId;
use crate::carrier::StreamCarrier;
use crate::config::Config;
use crate::encapsulation::PacketBatch;
use crate::session_map::{self, SessionMap};
use crate::shared::{Newcomer, Shared};
use crate::tunnel::Tunnel;

/// Ended sessions that a shard remembers.
pub const REMEMBERED: usize = session_map::REMEMBERED;
/// Parts of the map; which one an identifier belongs to is told by its last byte.
pub const SHARDS: usize = session_map::SHARDS;
/// Connections that wait for their session's task.
pub const NEWCOMERS: usize = crate::shared::NEWCOMERS;

/// The map of a listener.
pub struct Sessions(SessionMap);

/// What an identifier stands for.
#[derive(Debug)]
pub enum Known {
    /// A session that is in the map.
    Live(Entry),
    /// One that was.
    Ended,
    /// Never heard of, or too long ago.
    Unknown,
}

/// A session in the map. Equal to itself only.
pub struct Entry(Arc<Shared>);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.id.fmt(f)
    }
}

impl Sessions {
    /// An empty map.
    #[must_use]
    pub fn new(remember_for: Duration) -> Self {
        Self(SessionMap::new(remember_for))
    }

    /// What `id` stands for.
    #[must_use]
    pub fn get(&self, now: Instant, id: SessionId) -> Known {
        match self.0.get(now, id) {
            session_map::Known::Live(shared) => Known::Live(Entry(shared)),
            session_map::Known::Ended | session_map::Known::Abandoned(_) => Known::Ended,
            session_map::Known::Unknown => Known::Unknown,
        }
    }

    /// Enters a session, or gives the one that is there. True: it is new.
    pub fn insert(&self, now: Instant, id: SessionId) -> (Entry, bool) {
        let new = || Arc::new(Shared::new(id, Tunnel::server(now, Config::default(), 1, [7; 8])));
        let (shared, is_new) = self.0.insert(id, new);
        (Entry(shared), is_new)
    }

    /// The session has ended.
    pub fn remove(&self, now: Instant, id: SessionId) {
        self.0.remove(now, id, None);
    }

    /// Sessions in the map.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No session is in the map.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    /// Hands over a connection from there. False: the session does not take it.
    pub fn attach(&self, from: Option<SocketAddr>) -> bool {
        let carrier = StreamCarrier::server(tokio::io::join(tokio::io::empty(), tokio::io::sink()));
        self.0
            .attach(Newcomer { carrier: Box::new(carrier), addr: from, early: PacketBatch::new(), kept: None })
            .is_ok()
    }

    /// Where the connections that wait came from; they are taken.
    pub fn take_newcomers(&self) -> Vec<Option<SocketAddr>> {
        self.0.lock().newcomers.drain(..).map(|newcomer| newcomer.addr).collect()
    }

    /// The session is over.
    pub fn end(&self) {
        self.0.lock().tunnel.abort();
    }

    /// Its driver goes away.
    pub fn leave_alone(&self) {
        self.0.lock().driver_gone = true;
    }
}

/// What [`read_key_file`](crate::read_key_file) makes of a file with these bytes.
///
/// # Errors
///
/// As there.
#[cfg(feature = "secure")]
pub fn parse_key_file(bytes: &[u8]) -> Result<crate::secure::StaticKey, crate::KeyFileError> {
    crate::key_file::parse(std::path::Path::new("key"), bytes)
}
