//! Finds out where a connection belongs, and sees to it until then.
//!
//! In: a connection that was accepted. It ends as a carrier of a session that lives or begins, or is held in silence until its time is over. What is refused is counted
//! in [`ListenerStats`](crate::ListenerStats). Not here: who is let in (`admission.rs`), and what a session does with its carriers.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::AbortHandle;

use super::Server;
use super::admission::{Refused, Source};
use super::arrivals::Guest;
use super::permit::Permit;
use crate::SessionId;
use crate::carrier::{Carrier, StreamCarrier, swallow};
use crate::control::Control;
use crate::embryo::Embryo;
use crate::encapsulation::PacketBatch;
use crate::session_map::{Known, Name};
use crate::shared::{Newcomer, Shared, now};
use crate::tunnel::{Tunnel, opening_conv};

/// A connection has to say within this time which session it belongs to.
const STRANGER_LIMIT: Duration = Duration::from_secs(10);
/// What is kept of a stranger's packets while they open no session, or may not yet. A client of ours says less before it is answered; a Go client says it
/// again.
const KEPT_LIMIT: usize = 2 << 10;
/// Pause after which the server asks for a refused stranger whether a session may begin now. So whoever stays has twenty times the chance of
/// those who flood and go.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Server {
    /// Receives a connection in a task of its own.
    pub(super) fn welcome(
        self: &Arc<Self>,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        from: Option<SocketAddr>,
    ) {
        // Nobody could accept what comes on it.
        if self.check_open().is_err() {
            return;
        }
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
            #[cfg(feature = "secure")]
            if let Some(gate) = &self.gate {
                let introduced = self.introduce_secure(gate, io, from, permit);
                if Box::pin(tokio::time::timeout_at(deadline, introduced)).await.is_err() {
                    self.admission().stats.strangers_timed_out += 1;
                }
                return;
            }
            let mut id = [0; SessionId::LEN];
            let in_time = match tokio::time::timeout_at(deadline, io.read_exact(&mut id)).await {
                // Allocated now, when it is needed.
                Ok(Ok(_)) => {
                    let carrier = Box::new(StreamCarrier::server(io));
                    let placed = self.find_place(SessionId(id).into(), carrier, from, permit);
                    Box::pin(tokio::time::timeout_at(deadline, placed)).await.is_ok()
                }
                Ok(Err(_)) => true,
                Err(_) => false,
            };
            if !in_time {
                self.admission().stats.strangers_timed_out += 1;
            }
        }
    }

    /// It is known now which session the connection is for.
    pub(super) async fn find_place(
        self: &Arc<Self>,
        name: Name,
        mut carrier: Box<dyn Carrier>,
        addr: Option<SocketAddr>,
        permit: Permit,
    ) -> io::Result<()> {
        let known = self.sessions.get(now(), name);
        let embryo = if let Known::Abandoned(embryo) = known { Some(embryo) } else { None };
        match known {
            Known::Live(shared) => {
                // Held unread until there is room, so that nothing of what it says is lost.
                let mut told = !name.is_proved();
                loop {
                    let (replaces, conv) = {
                        let tunnel = &shared.lock().tunnel;
                        (tunnel.current().is_some(), tunnel.conv())
                    };
                    let Err(Refused(limit)) = permit.attach(replaces) else { break };
                    if !std::mem::replace(&mut told, true) {
                        send(&mut *carrier, &Control::Held { conv, limit }).await?;
                    }
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                let early = PacketBatch::new();
                let newcomer = Newcomer { carrier, addr, early, kept: Some(Box::new(permit)) };
                if let Err(newcomer) = shared.attach(newcomer) {
                    hold(newcomer).await;
                }
            }
            Known::Ended => {
                self.admission().stats.strangers_too_late += 1;
                match answer_all(&mut *carrier, unknown_answer).await {
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => swallow(&mut *carrier).await?,
                    other => other?,
                }
            }
            Known::Unknown | Known::Abandoned(_) => match self.opening(name, &mut *carrier, &permit, embryo).await {
                Ok(Some((conv, early))) => {
                    let newcomer = Newcomer { carrier, addr, early, kept: Some(Box::new(permit)) };
                    self.begin(name, conv, embryo, newcomer).await;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.admission().stats.strangers_not_understood += 1;
                    swallow(&mut *carrier).await?;
                }
                other => drop(other?),
            },
        }
        Ok(())
    }

    /// Reads packets until one opens a session, or goes on with one that was abandoned, and may. `None`: the stranger went away. While it only says what
    /// belongs to no session it is held. Who has proved who he is learns once which limit he waits for.
    async fn opening(
        &self,
        name: Name,
        carrier: &mut dyn Carrier,
        permit: &Permit,
        embryo: Option<Embryo>,
    ) -> io::Result<Option<(u32, PacketBatch)>> {
        let mut early = PacketBatch::new();
        let mut batch = PacketBatch::new();
        let mut conv = None;
        let mut told = !name.is_proved();
        loop {
            if let Some(conv) = conv {
                let Err(Refused(limit)) = permit.begin(now(), self.budget.is_scarce()) else {
                    return Ok(Some((conv, early)));
                };
                if !std::mem::replace(&mut told, true) {
                    send(carrier, &Control::Held { conv, limit }).await?;
                }
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
                } else if let Some(unknown) = unknown_answer(packet) {
                    send(carrier, &unknown).await?;
                    continue;
                } else {
                    conv = conv.or_else(|| opening_conv(packet, self.config.counters.sn));
                }
                early.push(packet);
            }
        }
    }

    async fn begin(self: &Arc<Self>, name: Name, conv: u32, embryo: Option<Embryo>, newcomer: Newcomer) {
        let Ok(token) = SessionId::random() else { return hold(newcomer).await };
        let new = || {
            let config = self.config.clone();
            let mut tunnel = match embryo {
                Some(embryo) => Tunnel::reborn(now(), config, embryo),
                None => Tunnel::server(now(), config, conv, token.0),
            };
            if name.is_proved() {
                tunnel.set_authenticated();
            }
            Arc::new(Shared::new(name, tunnel))
        };
        let (shared, is_new) = self.sessions.insert(name, new);
        let mut closed = false;
        if is_new {
            let of_client = self.admission().session_began(name.client());
            let guest = Guest::new(shared.clone());
            closed = !self.arrivals().begin(&guest);
            self.spawn_driver(guest, of_client);
            self.news.notify_waiters();
        }
        if let Err(newcomer) = shared.attach(newcomer) {
            hold(newcomer).await;
        }
        if closed {
            // Meanwhile, and the listener has not seen it: the client is told so.
            shared.with(|state| state.tunnel.abort());
        } else if is_new {
            self.look_after_embryonic(&shared);
            // The list may have changed since the client was looked for on it.
            #[cfg(feature = "secure")]
            if let Some((gate, owner)) = self.gate.as_ref().zip(name.owner)
                && !gate.admits(&owner)
            {
                shared.with(|state| state.tunnel.expel());
            }
        }
    }
}

/// Reads and forgets, until the peer closes or the caller's deadline comes.
async fn hold(mut newcomer: Newcomer) {
    let mut batch = PacketBatch::new();
    while poll_fn(|cx| newcomer.carrier.poll_recv(cx, &mut batch)).await.is_ok_and(|read| read > 0) {}
}

/// Gives an answer to each packet that `answer` has one for, until the stranger goes.
pub(super) async fn answer_all(carrier: &mut dyn Carrier, answer: impl Fn(&[u8]) -> Option<Control>) -> io::Result<()> {
    let mut batch = PacketBatch::new();
    while poll_fn(|cx| carrier.poll_recv(cx, &mut batch)).await? > 0 {
        for answer in batch.packets().filter_map(&answer) {
            send(carrier, &answer).await?;
        }
    }
    Ok(())
}

/// For a HELLO of somebody who has heard from the session before; here nobody has.
fn unknown_answer(packet: &[u8]) -> Option<Control> {
    match Control::decode(packet)? {
        Control::Hello(hello) if hello.heard => Some(Control::Unknown { conv: hello.conv }),
        _ => None,
    }
}

/// The conv that a packet of either kind says.
fn conv_of(packet: &[u8]) -> Option<u32> {
    Control::decode(packet).map(|control| control.conv()).or_else(|| kcp::conv_of(packet))
}

async fn send(carrier: &mut dyn Carrier, control: &Control) -> io::Result<()> {
    carrier.buffer().push_with(|out| {
        control.encode(out);
        true
    });
    poll_fn(|cx| carrier.poll_flush(cx)).await
}
