//! What the driver of a session and the handles to it share: the tunnel behind one lock, and who waits for what.
//!
//! The lock is held for pure work only, never across I/O and never while something is woken.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use smux::{StreamError, StreamId};
use tokio::sync::Notify;

use crate::SessionId;
use crate::carrier::Carrier;
use crate::encapsulation::PacketBatch;
use crate::error::SessionError;
use crate::session_map::Name;
use crate::tunnel::{Event, Tunnel};

/// The clock of the tokio half. Under tokio's paused test clock it is virtual.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Kept for its end only.
pub(crate) type Kept = Box<dyn Send + Sync>;

/// A connection that somebody accepted for this session.
pub(crate) struct Newcomer {
    pub carrier: Box<dyn Carrier>,
    pub addr: Option<SocketAddr>,
    /// What it brought before it was known which session it belongs to.
    pub early: PacketBatch,
    /// What has to live as long as the connection: its place within the listener's limits.
    pub kept: Option<Kept>,
}

/// Newcomers that wait for the driver's next turn; the tunnel takes no more carriers at a time.
pub(crate) const NEWCOMERS: usize = 4;

/// Who waits for one stream. Small for one that nothing has been done with but to wait for its first byte: there can be thousands.
#[derive(Default)]
pub(crate) struct StreamWaiters {
    pub reader: Option<Waker>,
    writing: Option<Box<Writing>>,
}

/// What concerns our direction of a stream.
#[derive(Default)]
pub(crate) struct Writing {
    pub writer: Option<Waker>,
    pub finisher: Vec<Waker>,
    /// The peer has acknowledged everything up to our FIN.
    pub delivered: bool,
    /// The peer has let go of the stream and written bytes were thrown away unsent, or it has never taken it.
    pub lost: Option<StreamError>,
}

impl StreamWaiters {
    pub(crate) fn writing(&mut self) -> &mut Writing {
        self.writing.get_or_insert_default()
    }

    /// Everybody, because the stream is over.
    fn take(&mut self, wakers: &mut WakeList) {
        wakers.push(self.reader.take());
        if let Some(writing) = &mut self.writing {
            wakers.push(writing.writer.take());
            wakers.append(&mut writing.finisher);
        }
    }
}

pub(crate) struct State {
    pub tunnel: Tunnel,
    pub streams: HashMap<StreamId, StreamWaiters>,
    pub newcomers: VecDeque<Newcomer>,
    /// Newcomers that were dropped because newer ones came before the driver's next turn.
    pub newcomers_dropped: u64,
    /// At least one carrier has been up.
    pub connected: bool,
    /// What the last failed dial said, for the error if it stays the last.
    pub last_dial_error: Option<String>,
    /// That was: whoever answers there has not shown that he is the server.
    pub unanswered: bool,
    /// The driver's waker while it sleeps; taken by whoever has work for it.
    pub driver: Option<Waker>,
    /// The driver has gone: no carrier is taken any more.
    pub driver_gone: bool,
    /// Times that the driver ran.
    pub turns: u64,
}

pub(crate) struct Shared {
    pub id: SessionId,
    pub name: Name,
    state: Mutex<State>,
    /// A first carrier, an incoming stream, the end: for whoever waits for one of them.
    news: Notify,
}

/// Who has to be woken: collected under the lock, to be woken without it.
#[derive(Default)]
pub(crate) struct WakeList {
    wakers: Vec<Waker>,
    news: bool,
}

impl WakeList {
    pub(crate) fn push(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    pub(crate) fn append(&mut self, wakers: &mut Vec<Waker>) {
        self.wakers.append(wakers);
    }

    pub(crate) fn push_news(&mut self) {
        self.news = true;
    }

    pub(crate) fn wake(&mut self, shared: &Shared) {
        self.wakers.drain(..).for_each(Waker::wake);
        if std::mem::take(&mut self.news) {
            shared.news.notify_waiters();
        }
    }
}

impl Shared {
    pub(crate) fn new(name: impl Into<Name>, tunnel: Tunnel) -> Self {
        let name = name.into();
        Self {
            id: name.id,
            name,
            news: Notify::new(),
            state: Mutex::new(State {
                tunnel,
                streams: HashMap::new(),
                newcomers: VecDeque::new(),
                newcomers_dropped: 0,
                connected: false,
                last_dial_error: None,
                unanswered: false,
                driver: None,
                driver_gone: false,
                turns: 0,
            }),
        }
    }

    /// A poisoned lock means that an engine panicked in another thread: the state is whole between calls, so go on.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the session, then sees to it that the driver and whoever is concerned hear of it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut wakers = WakeList::default();
        let mut state = self.lock();
        let result = work(&mut state);
        wakers.push(state.driver.take());
        drop(state);
        wakers.wake(self);
        result
    }

    /// Waits until `look` finds what it looks for. It looks again at each news. Cancel-safe if `look` is.
    pub(crate) async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Made before looking: what comes in between is told to it.
            let news = self.news.notified();
            let found = look(&mut self.lock());
            if let Some(found) = found {
                return found;
            }
            news.await;
        }
    }

    /// Hands a connection over to the session. It comes back if the session is over.
    pub(crate) fn attach(&self, newcomer: Newcomer) -> Result<(), Newcomer> {
        let attached = self.with(|state| {
            if state.driver_gone || state.tunnel.ended().is_some() {
                return Err(newcomer);
            }
            // The newest is the one that the client uses.
            let oldest = if state.newcomers.len() >= NEWCOMERS { state.newcomers.pop_front() } else { None };
            state.newcomers_dropped += u64::from(oldest.is_some());
            state.newcomers.push_back(newcomer);
            Ok(oldest)
        });
        // The oldest is closed without the lock.
        attached.map(drop)
    }
}

impl State {
    /// Why the session is over, with what the last dial said if it never came up.
    pub(crate) fn ended(&self) -> Option<SessionError> {
        let error = self.tunnel.ended()?.clone();
        Some(match (error, &self.last_dial_error) {
            (SessionError::NeverConnected(_), _) if self.unanswered => SessionError::NoValidAnswer,
            (SessionError::NeverConnected(_), Some(said)) => SessionError::NeverConnected(said.clone()),
            (error, _) => error,
        })
    }

    /// Takes the tunnel's events: notes who has to be woken, and gives the others on.
    pub(crate) fn drain_events(&mut self, wakers: &mut WakeList, mut pass_on: impl FnMut(Event)) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                Event::Readable(id) => {
                    wakers.push(self.streams.get_mut(&id).and_then(|waiters| waiters.reader.take()));
                }
                Event::Writable(id) => {
                    wakers.push(self.streams.get_mut(&id).and_then(|waiters| waiters.writing().writer.take()));
                }
                Event::Delivered(id) => {
                    if let Some(waiters) = self.streams.get_mut(&id) {
                        waiters.writing().delivered = true;
                        wakers.append(&mut waiters.writing().finisher);
                    }
                }
                Event::ClosedByPeer { id, lost } => {
                    if let Some(waiters) = self.streams.get_mut(&id) {
                        waiters.writing().lost = lost.then_some(StreamError::ClosedByPeer);
                        waiters.take(wakers);
                    }
                }
                Event::Refused(id) | Event::Reset(id) => {
                    if let Some(waiters) = self.streams.get_mut(&id) {
                        let reset = matches!(event, Event::Reset(_));
                        waiters.writing().lost = Some(if reset { StreamError::Reset } else { StreamError::Refused });
                        waiters.take(wakers);
                    }
                }
                Event::Incoming => {
                    wakers.push_news();
                    pass_on(event);
                }
                Event::CarrierUp { .. } => {
                    self.connected = true;
                    wakers.push_news();
                    pass_on(event);
                }
                Event::Ended(_) => {
                    wakers.push_news();
                    self.streams.values_mut().for_each(|waiters| waiters.take(wakers));
                    pass_on(event);
                }
                Event::CarrierLost { .. }
                | Event::DialFailed { .. }
                | Event::SpareReady { .. }
                | Event::Held { .. } => pass_on(event),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::carrier::StreamCarrier;

    /// Twice that, for the slack of a map that has just grown, and it is still little beside what the application keeps of the stream.
    #[test]
    fn waiting_for_a_stream_costs_32_bytes() {
        assert!(size_of::<(StreamId, StreamWaiters)>() <= 32);
    }

    /// Connections come faster than the session's task runs. The newest are kept.
    #[test]
    fn connections_that_the_driver_has_not_taken_yet_are_four() {
        let tunnel = Tunnel::server(now(), Config::default(), 1, [7; 8]);
        let shared = Shared::new(SessionId([1; 8]), tunnel);
        for port in 0..10 {
            let carrier = Box::new(StreamCarrier::server(tokio::io::duplex(64).0));
            let addr = Some(SocketAddr::from(([127, 0, 0, 1], port)));
            assert!(shared.attach(Newcomer { carrier, addr, early: PacketBatch::new(), kept: None }).is_ok());
        }
        let state = shared.lock();
        let ports: Vec<_> =
            state.newcomers.iter().filter_map(|newcomer| newcomer.addr).map(|addr| addr.port()).collect();
        assert_eq!((ports, state.newcomers_dropped), (vec![6, 7, 8, 9], 6));
    }
}
