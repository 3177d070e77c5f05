//! The handshake with whoever comes to a listener that has keys, and who may pass.
//!
//! Until a first message has verified nothing is said, and whatever comes instead is treated alike: read and forgotten until the stranger's time is over. After that a
//! failure ends the connection at once.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Server;
use super::permit::Permit;
use super::reception::{ASK_AGAIN, answer_all};
use crate::carrier::secure::SecureCarrier;
use crate::control::Control;
use crate::secure::{
    Accepted, HEADER_LEN, MESSAGE_3_LEN, PublicKey, Recognised, RecordError, ResponderRandom, Route, StaticKey,
};
use crate::session_map::Name;
use crate::shared::now;

/// Which clients a listener with keys admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clients {
    /// Whoever knows the server's public key, with any key of his own. Nobody else can use his sessions all the same.
    #[default]
    Anyone,
    /// The holders of these keys.
    Only(HashSet<PublicKey>),
}

impl Clients {
    /// Whether the holder of `key` is admitted.
    #[must_use]
    pub fn admit(&self, key: &PublicKey) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

impl FromIterator<PublicKey> for Clients {
    fn from_iter<T: IntoIterator<Item = PublicKey>>(keys: T) -> Self {
        Self::Only(keys.into_iter().collect())
    }
}

/// What a listener with keys knows.
pub(super) struct Gate {
    keys: RwLock<Arc<[StaticKey]>>,
    clients: RwLock<Clients>,
    route: Route,
}

impl Gate {
    pub(super) fn new(keys: Vec<StaticKey>, clients: Clients, route: Route) -> Self {
        Self { keys: RwLock::new(keys.into()), clients: RwLock::new(clients), route }
    }

    pub(super) fn set_keys(&self, keys: Vec<StaticKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    pub(super) fn set_clients(&self, clients: Clients) {
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    pub(super) fn admits(&self, client: &PublicKey) -> bool {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).admit(client)
    }

    fn keys(&self) -> Arc<[StaticKey]> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a connection came to nothing here.
enum Failed {
    /// Nothing was said to it: hold it.
    Stranger,
    /// It knows that somebody is here: close it.
    Known,
    Io,
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl Server {
    /// As the plain mode reads the session id, with a handshake in the place of it.
    pub(super) async fn introduce_secure<IO>(
        self: &Arc<Self>,
        gate: &Gate,
        mut io: IO,
        addr: Option<SocketAddr>,
        permit: Permit,
    ) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let accepted = match self.handshake(gate, &mut io, &permit).await {
            Ok(accepted) => accepted,
            Err(Failed::Stranger) => {
                self.admission().stats.strangers_not_understood += 1;
                return tokio::io::copy(&mut io, &mut tokio::io::sink()).await.map(drop);
            }
            Err(Failed::Known) => {
                self.admission().stats.handshakes_failed += 1;
                return Ok(());
            }
            Err(Failed::Io) => return Ok(()),
        };
        let Accepted { client, session, records } = accepted;
        let mut carrier = Box::new(SecureCarrier::new(Box::pin(io), records, Vec::new()));
        if !gate.admits(&client) {
            self.admission().stats.clients_refused += 1;
            return answer_all(&mut *carrier, not_admitted).await;
        }
        self.admission().stats.handshakes += 1;
        permit.identify(*client.as_bytes());
        let placed = self.find_place(Name { id: session, owner: Some(client) }, carrier, addr, permit).await;
        if placed.as_ref().is_err_and(is_not_sealed) {
            // There was no session to count it.
            self.admission().stats.strangers_not_understood += 1;
        }
        placed
    }

    async fn handshake<IO>(&self, gate: &Gate, io: &mut IO, permit: &Permit) -> Result<Accepted, Failed>
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let mut header = [0; HEADER_LEN];
        io.read_exact(&mut header).await?;
        let keys = gate.keys();
        let recognised = Recognised::new(&keys, &header).ok_or(Failed::Stranger)?;
        let mut message = vec![0; recognised.suite().message_1_len()];
        io.read_exact(&mut message).await?;
        // What follows costs more than a connection.
        while permit.handshake(now()).is_err() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let mut answer = Vec::new();
        let responder = recognised
            .handle_message(&message, gate.route, &ResponderRandom::generate()?, &mut answer)
            .map_err(|_| Failed::Stranger)?;
        drop((message, keys));
        io.write_all(&answer).await?;
        io.flush().await?;
        drop(answer);
        let mut message = [0; MESSAGE_3_LEN];
        io.read_exact(&mut message).await?;
        responder.handle_message(&message).map_err(|_| Failed::Known)
    }

    /// The list of admitted clients has changed: sessions of those who are not on it end.
    pub(super) fn expel_unadmitted(&self, gate: &Gate) {
        for session in self.sessions.all() {
            if session.name.owner.is_some_and(|owner| !gate.admits(&owner)) {
                session.with(|state| state.tunnel.expel());
            }
        }
    }
}

/// A record did not open.
fn is_not_sealed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|error| error.is::<RecordError>())
}

fn not_admitted(packet: &[u8]) -> Option<Control> {
    match Control::decode(packet)? {
        Control::Hello(hello) => Some(Control::NotAdmitted { conv: hello.conv }),
        _ => None,
    }
}
