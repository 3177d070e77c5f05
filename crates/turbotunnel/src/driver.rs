//! The one task of a session: moves packets between its tunnel and its carriers, dials, and keeps its timer.
//!
//! ```text
//! a turn:  newcomers -> dials -> read -> timer -> write -> actions -> events -> sleep
//! ```
//!
//! Reading goes first and never asks whether writing is possible. A turn moves a bounded amount, then lets others run. Nothing is decided
//! here: that is [`crate::tunnel`]'s.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::budget::{Account, Budget, MUCH};
use crate::carrier::Carrier;
use crate::encapsulation::PacketBatch;
use crate::error::CarrierEnd;
use crate::lifetime::{Due, Lifetime};
use crate::session::Event;
use crate::shared::{Kept, Newcomer, Shared, WakeList, now};
use crate::tunnel::{self, Action, CarrierId};

/// Reads of one carrier in a turn.
const READS_PER_TURN: usize = 4;
/// Fillings of the carrier's write buffer in a turn.
const WRITES_PER_TURN: usize = 4;
/// Bytes of packets that are handed to the kernel at once, no more as long as packets are of one length: two of Linux' largest segments on loopback. What
/// goes over is sent as a segment of its own, as no delay is wanted, and costs both ends as much as a full one.
const WRITE_CHUNK: usize = 2 * 65_483;
/// Pause after which a session that holds much looks whether memory is still scarce.
const SCARCE_LOOK: Duration = Duration::from_secs(1);
/// A timer may be so much too early.
const EARLY: Duration = Duration::from_millis(50);
/// When the session is over, its carriers may take so long to be closed in order.
const LINGER: Duration = Duration::from_secs(2);

/// A connection that was dialled.
pub(crate) type Dialed = (Box<dyn Carrier>, Option<SocketAddr>);
type Dial = Pin<Box<dyn Future<Output = io::Result<Dialed>> + Send>>;
/// Dials once: gets the carrier's number.
pub(crate) type Dialer = Box<dyn FnMut(CarrierId) -> Dial + Send>;
pub(crate) type OnEvent = Arc<dyn Fn(Event) + Send + Sync>;

thread_local! {
    /// Every carrier of this thread reads into the same buffer, so an idle one needs none.
    static SCRATCH: Cell<PacketBatch> = Cell::default();
}

struct Link {
    id: CarrierId,
    carrier: Box<dyn Carrier>,
    addr: Option<SocketAddr>,
    /// To be half-closed once everything is written.
    closing: bool,
    /// Half-closed.
    closed: bool,
    read_ended: bool,
    /// When it is dropped, closed in order or not.
    close_by: Option<Instant>,
    /// Only of one that gets old.
    lifetime: Option<Lifetime>,
    _kept: Option<Kept>,
}

impl Link {
    fn new(
        id: CarrierId,
        carrier: Box<dyn Carrier>,
        addr: Option<SocketAddr>,
        client: bool,
        kept: Option<Kept>,
    ) -> Self {
        let lifetime = carrier.lifetime().map(|lifetime| Lifetime::new(now(), lifetime, client));
        Self {
            id,
            carrier,
            addr,
            closing: false,
            closed: false,
            read_ended: false,
            close_by: None,
            lifetime,
            _kept: kept,
        }
    }
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    links: Vec<Link>,
    dialer: Option<Dialer>,
    dials: Vec<(CarrierId, Dial)>,
    /// A dial has failed in this turn, and has said why.
    dial_failed: bool,
    on_event: Option<OnEvent>,
    /// The server side: tells the listener of streams that came in.
    on_incoming: Option<Box<dyn Fn() + Send>>,
    /// The server side: what the session has allocated.
    account: Option<Account>,
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
    linger_until: Option<Instant>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, dialer: Option<Dialer>, on_event: Option<OnEvent>) -> Self {
        Self {
            shared,
            // Nearly always there is one; a vector that grows begins with four.
            links: Vec::with_capacity(1),
            dialer,
            dials: Vec::new(),
            dial_failed: false,
            on_event,
            on_incoming: None,
            account: None,
            sleep: None,
            linger_until: None,
        }
    }

    pub(crate) fn on_incoming(mut self, tell: impl Fn() + Send + 'static) -> Self {
        self.on_incoming = Some(Box::new(tell));
        self
    }

    /// Its memory is part of a budget, and of its client's. `on_used_up` may end sessions, this one among them.
    pub(crate) fn within(
        mut self,
        budget: Arc<Budget>,
        of_client: Option<Arc<Budget>>,
        on_used_up: impl Fn() + Send + 'static,
    ) -> Self {
        self.account = Some(Account::new(budget, of_client, on_used_up));
        self
    }

    /// Says what the session has allocated, and hears whether memory is scarce. Returns when to ask again, if it is and the session may be held back by
    /// that.
    fn settle_account(&mut self) -> Option<Instant> {
        let account = self.account.as_mut()?;
        let held: usize = self.links.iter().map(|link| link.carrier.held()).sum();
        let (holds, scarce) = {
            let mut state = self.shared.lock();
            let holds = state.tunnel.memory() + held;
            if let Some(scarce) = account.charge(holds) {
                state.tunnel.set_scarce(now(), scarce);
            }
            (holds, account.is_scarce())
        };
        account.tell_if_used_up();
        (scarce && holds >= MUCH).then(|| now() + SCARCE_LOOK)
    }

    fn take_newcomers(&mut self) {
        loop {
            let (id, newcomer) = {
                let mut state = self.shared.lock();
                let Some(newcomer) = state.newcomers.pop_front() else {
                    // The next comes when this connection is gone, if at all.
                    state.newcomers.shrink_to_fit();
                    return;
                };
                (state.tunnel.attach(now()), newcomer)
            };
            let Newcomer { carrier, addr, early, kept } = newcomer;
            self.links.push(Link::new(id, carrier, addr, false, kept));
            let mut state = self.shared.lock();
            early.packets().for_each(|packet| state.tunnel.handle_packet(now(), id, packet));
        }
    }

    fn poll_dials(&mut self, cx: &mut Context<'_>) {
        let mut i = 0;
        while i < self.dials.len() {
            let Poll::Ready(outcome) = self.dials[i].1.as_mut().poll(cx) else {
                i += 1;
                continue;
            };
            let (id, _) = self.dials.swap_remove(i);
            let mut state = self.shared.lock();
            match outcome {
                Ok((carrier, addr)) => {
                    (state.last_dial_error, state.unanswered) = (None, false);
                    state.tunnel.handle_dialed(now(), id);
                    drop(state);
                    self.links.push(Link::new(id, carrier, addr, true, None));
                }
                Err(error) => {
                    self.dial_failed = true;
                    state.last_dial_error = Some(error.to_string());
                    state.unanswered = is_unanswered(&error);
                    state.tunnel.handle_dial_failed(now(), id);
                }
            }
        }
    }

    /// Reads from every carrier. True: there may be more.
    fn read(&mut self, cx: &mut Context<'_>, events: &mut Vec<tunnel::Event>) -> bool {
        let mut scratch = SCRATCH.take();
        let mut more = false;
        for i in (0..self.links.len()).rev() {
            let mut ended = None;
            let link = &mut self.links[i];
            for round in 0..READS_PER_TURN {
                if link.read_ended {
                    break;
                }
                match link.carrier.poll_recv(cx, &mut scratch) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(0)) => ended = Some(CarrierEnd::Closed),
                    Poll::Ready(Ok(_)) => {
                        let mut wakers = WakeList::default();
                        let now = now();
                        let mut state = self.shared.lock();
                        scratch.packets().for_each(|packet| state.tunnel.handle_packet(now, link.id, packet));
                        state.drain_events(&mut wakers, |event| events.push(event));
                        drop(state);
                        wakers.wake(&self.shared);
                        more |= round + 1 == READS_PER_TURN;
                        continue;
                    }
                    Poll::Ready(Err(error)) => ended = Some(why(&error)),
                }
                link.read_ended = true;
            }
            if let Some(why) = ended {
                self.end_link(i, why);
            }
        }
        scratch.clear(usize::MAX);
        SCRATCH.set(scratch);
        more
    }

    /// The connection has ended for reading, or is broken. What we have half-closed already is gone with that.
    fn end_link(&mut self, at: usize, why: CarrierEnd) {
        let link = &mut self.links[at];
        let id = link.id;
        if why == CarrierEnd::Closed && !link.closed {
            // The peer closed first: close in order too, after what is still in the buffer.
            link.closing = true;
            link.close_by = Some(now() + LINGER);
        } else {
            self.links.remove(at);
        }
        self.shared.lock().tunnel.handle_ended(now(), id, why);
    }

    /// Writes packets as long as carriers take them. True: there may be more.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut more = false;
        for i in (0..self.links.len()).rev() {
            match self.write_link(cx, i) {
                Ok(unfinished) => more |= unfinished,
                Err(error) => self.end_link(i, broken(&error)),
            }
        }
        more
    }

    fn write_link(&mut self, cx: &mut Context<'_>, at: usize) -> io::Result<bool> {
        let link = &mut self.links[at];
        for _ in 0..WRITES_PER_TURN {
            if link.closing || link.closed {
                break;
            }
            match link.carrier.poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(false),
            }
            let batch = link.carrier.buffer();
            let now = now();
            let mut exhausted = false;
            {
                let mut state = self.shared.lock();
                // The next packet is mostly as long as the last one.
                let mut last = 0;
                while batch.len() + last <= WRITE_CHUNK {
                    let before = batch.len();
                    if !batch.push_with(|out| state.tunnel.poll_transmit(now, link.id, out)) {
                        exhausted = true;
                        break;
                    }
                    last = batch.len() - before;
                }
            }
            match link.carrier.poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            if exhausted {
                return Ok(false);
            }
        }
        Ok(!link.closing && !link.closed)
    }

    fn act(&mut self, cx: &mut Context<'_>) -> bool {
        let mut acted = false;
        loop {
            let Some(action) = self.shared.lock().tunnel.poll_action() else { return acted };
            acted = true;
            match action {
                Action::Dial(id) => match &mut self.dialer {
                    Some(dialer) => self.dials.push((id, dialer(id))),
                    None => self.shared.lock().tunnel.handle_dial_failed(now(), id),
                },
                Action::CloseWrite(id) => {
                    let mut state = self.shared.lock();
                    for link in self.links.iter_mut().filter(|link| link.id == id) {
                        // A last word: the goodbye of a session.
                        while link.carrier.buffer().push_with(|out| state.tunnel.poll_transmit(now(), id, out)) {}
                        link.closing = true;
                    }
                }
                Action::Drop(id) => {
                    let dials = self.dials.len();
                    self.dials.retain(|(dial, _)| *dial != id);
                    // What made an end of it may be another dial, with a reason.
                    if self.dials.len() < dials && !self.dial_failed {
                        self.shared.lock().last_dial_error = Some("no answer".to_owned());
                    }
                    self.links.retain(|link| link.id != id);
                }
            }
            cx.waker().wake_by_ref();
        }
    }

    /// Half-closes what is to be half-closed, and lets go of what has ended both ways.
    fn close_links(&mut self, cx: &mut Context<'_>) {
        let now = now();
        self.links.retain_mut(|link| {
            if link.close_by.is_some_and(|at| now >= at) {
                return false;
            }
            if link.closing && !link.closed {
                match link.carrier.poll_close_write(cx) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(())) => link.closed = true,
                    Poll::Ready(Err(_)) => return false,
                }
            }
            !(link.closed && link.read_ended)
        });
    }

    /// The client dials another in the place of one that is old or worn, and goes over to it when it is there; the server closes what is older still. Returns when to
    /// look again.
    fn retire_links(&mut self) -> Option<Instant> {
        let now = now();
        let mut next = None;
        for link in self.links.iter_mut().filter(|link| !link.closing && !link.closed) {
            let Some(lifetime) = &mut link.lifetime else { continue };
            match lifetime.poll_due(now, link.carrier.is_worn()) {
                None => {}
                Some(Due::Another) => {
                    let mut state = self.shared.lock();
                    if state.tunnel.current() == Some(link.id) {
                        state.tunnel.redial(now);
                    }
                }
                Some(Due::Close) => {
                    link.closing = true;
                    link.close_by = Some(now + LINGER);
                    self.shared.lock().tunnel.handle_ended(now, link.id, CarrierEnd::UsedUp);
                    continue;
                }
            }
            next = next.into_iter().chain([lifetime.poll_timeout()]).min();
        }
        next
    }

    fn tell(&mut self, events: Vec<tunnel::Event>) {
        for event in events {
            if event == tunnel::Event::Incoming {
                self.on_incoming.iter().for_each(|tell| tell());
                continue;
            }
            let Some(on_event) = &self.on_event else { continue };
            let addr = |id| self.links.iter().find(|link| link.id == id).and_then(|link| link.addr);
            on_event(match event {
                tunnel::Event::CarrierUp { id, gap, resent } => {
                    Event::CarrierUp { number: id.0, addr: addr(id), gap, resent }
                }
                tunnel::Event::CarrierLost { id, why, age, unacknowledged } => {
                    Event::CarrierLost { number: id.0, reason: why, age, unacknowledged }
                }
                tunnel::Event::DialFailed { id, next_in } => {
                    let state = self.shared.lock();
                    let (error, unanswered) = (state.last_dial_error.clone(), state.unanswered);
                    drop(state);
                    let error = error.unwrap_or_else(|| "no answer".to_owned());
                    Event::DialFailed { number: id.0, error, next_in, unanswered }
                }
                tunnel::Event::SpareReady { id } => Event::SpareReady { number: id.0, addr: addr(id) },
                tunnel::Event::Held { id, limit } => Event::Held { number: id.0, limit },
                tunnel::Event::Ended(_) => match self.shared.lock().ended() {
                    Some(error) => Event::SessionEnded(error),
                    None => continue,
                },
                _ => continue,
            });
        }
    }

    /// Sets the timer to `at`. True: it is due already.
    fn set_timer(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> bool {
        let Some(at) = at else {
            self.sleep = None;
            return false;
        };
        // One that is a little early stays: to move a timer costs more than to be woken once in a while for nothing.
        match &mut self.sleep {
            Some((set, _)) if *set <= at && *set + EARLY >= at && *set > now() => {}
            Some((set, sleep)) => {
                *set = at;
                sleep.as_mut().reset(at.into());
            }
            None => self.sleep = Some((at, Box::pin(tokio::time::sleep_until(at.into())))),
        }
        self.sleep.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }
}

/// The dial reached something that has not shown that it is the server.
fn is_unanswered(error: &io::Error) -> bool {
    #[cfg(feature = "secure")]
    return error.get_ref().is_some_and(|error| error.is::<crate::carrier::secure::NoValidAnswer>());
    #[cfg(not(feature = "secure"))]
    {
        let _ = error;
        false
    }
}

fn why(error: &io::Error) -> CarrierEnd {
    #[cfg(feature = "secure")]
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<crate::secure::RecordError>()) {
        return match error {
            crate::secure::RecordError::UsedUp => CarrierEnd::UsedUp,
            _ => CarrierEnd::NotAuthentic,
        };
    }
    match error.kind() {
        io::ErrorKind::InvalidData => CarrierEnd::BadPacket,
        kind => CarrierEnd::Failed(kind),
    }
}

/// A failed write tells of the peer's close what a read will tell, too; both end the carrier.
fn broken(error: &io::Error) -> CarrierEnd {
    match why(error) {
        CarrierEnd::BadPacket => CarrierEnd::Failed(error.kind()),
        why => why,
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            // Parked before looking for work: what comes after this wakes us again.
            let mut state = this.shared.lock();
            state.driver = Some(cx.waker().clone());
            state.turns += 1;
        }
        let mut events = Vec::new();
        this.dial_failed = false;
        this.take_newcomers();
        this.poll_dials(cx);
        let mut more = this.read(cx, &mut events);
        let acks_wait = {
            let mut state = this.shared.lock();
            let now = now();
            if state.tunnel.poll_timeout().is_some_and(|at| at <= now) {
                state.tunnel.handle_timeout(now);
            }
            state.tunnel.acks_may_wait(now)
        };
        if acks_wait.is_none() {
            more |= this.write(cx);
        }
        let retire_look = this.retire_links();
        more |= this.act(cx);
        this.close_links(cx);
        let scarce_look = this.settle_account();

        let mut wakers = WakeList::default();
        let (timeout, ended) = {
            let mut state = this.shared.lock();
            state.drain_events(&mut wakers, |event| events.push(event));
            (state.tunnel.poll_timeout(), state.tunnel.ended().is_some())
        };
        wakers.wake(&this.shared);
        this.tell(events);

        let timeout = if ended {
            let until = *this.linger_until.get_or_insert_with(|| now() + LINGER);
            if this.links.is_empty() || now() >= until {
                return Poll::Ready(());
            }
            Some(until)
        } else {
            timeout
        };
        let timeout = this
            .links
            .iter()
            .filter_map(|link| link.close_by)
            .chain(timeout)
            .chain(acks_wait)
            .chain(scarce_look)
            .chain(retire_look)
            .min();
        if more || this.set_timer(cx, timeout) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Also when the runtime goes down under a session that lives: nobody may wait for ever.
    fn drop(&mut self) {
        let mut wakers = WakeList::default();
        let mut state = self.shared.lock();
        state.driver_gone = true;
        state.newcomers.clear();
        state.tunnel.abort();
        state.drain_events(&mut wakers, |_| {});
        wakers.push_news();
        drop(state);
        wakers.wake(&self.shared);
    }
}
