//! Which carrier is used, and when the next one is dialled.
//!
//! In: what happens to carriers ("4 came up", "5 ended", "something valid came on 4") and the time. Out: [`Action`]s for whoever
//! holds the connections, and [`Change`]s for the engine above. Nothing here touches a connection or a byte of data, so a
//! simulation reaches every rule of it.
//!
//! The rules, in one place:
//!
//! * Exactly one carrier sends: the newest. Older ones are read to their end, for a bounded time.
//! * The client dials whenever there is no carrier, or the one there is silent ([`crate::silence`]), after the pause of
//!   [`crate::backoff`]. Progress, and only progress, forgets the pause. A dial without an answer gets another beside it; the first to
//!   answer wins.
//! * A client that keeps a spare ([`spare`]) goes over to it at once, and dials all the same if it is not heard on that within two round trips (250 ms at least):
//!   what has ended the one may have ended the other.
//! * The server never dials. A newcomer takes over with a HELLO of a higher number, or, if the peer sends no HELLOs, with its first
//!   valid packet, or at once if there is no other. A HELLO that says so keeps it as a spare instead.
//! * Nothing here gives a session up but its time to live.

mod spare;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kcp::Sn;

use self::spare::Spares;
use crate::backoff::Backoff;
use crate::error::CarrierEnd;
use crate::silence::{Owed, Silence, Verdict};

/// A carrier of one session, counted from 1 in the order of dialling (client) or arrival (server).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CarrierId(pub u32);

/// What the holder of the connections has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Dial, and report the outcome under this number.
    Dial(CarrierId),
    /// Send no more on it once everything given to it is written, tell the peer so (half-close), and go on reading.
    CloseWrite(CarrierId),
    /// Close it, or give the dial up. No report is expected any more.
    Drop(CarrierId),
}

/// What the engine above has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This carrier sends from now on.
    Attached(CarrierId),
    /// The same of one that was there beside the last one, over the same path.
    Promoted(CarrierId),
    /// The current carrier is out of use. `in_doubt`: something was unanswered.
    Detached { id: CarrierId, why: CarrierEnd, age: Duration, in_doubt: bool },
    /// A dial failed; the next one comes after the pause.
    DialFailed { id: CarrierId, next_in: Duration },
    /// Ask for a sign of life.
    Probe(CarrierId),
    /// Client: say HELLO on this spare.
    Greet(CarrierId),
    /// Client: this spare can take over.
    SpareReady(CarrierId),
    /// Client: this spare, or the dial for it, is gone.
    SpareLost(CarrierId),
    /// The peer does not know the session: enough carriers have said so.
    Unknown,
    /// Nothing heard for the time to live.
    Expired,
}

/// A dial may take so long.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// A dial without an answer gets another one beside it after so long. The system asks anew after 1, 3 and 7 s: what is lost in a black hole
/// would make the way wait that has opened again meanwhile.
const DIAL_BESIDE: Duration = Duration::from_secs(4);
/// Dials at the same time, whoever asks for them.
const MAX_DIALS: usize = 3;
/// Server: a newcomer has to say something valid within this time.
const CANDIDATE_LIMIT: Duration = Duration::from_secs(10);
/// The client reads a replaced carrier to its end, at most for so long.
const READ_OUT_CLIENT: Duration = Duration::from_secs(10);
/// The server does the same, and leaves the first word to the client.
const READ_OUT_SERVER: Duration = Duration::from_secs(30);
/// A silent carrier is closed by the server after so long; the client has long dialled another.
const SILENT_SERVER: Duration = Duration::from_secs(60);
/// "Session unknown" is believed after so many carriers ...
const REJECTIONS: u32 = 3;
/// ... over at least so long: a load balancer may have sent one astray.
const REJECTED_FOR: Duration = Duration::from_secs(2);
/// Client: a spare that took over is heard within so long, or twice the round trip, or another is dialled.
const SPARE_PATIENCE: Duration = Duration::from_millis(250);
/// Carriers of one session at the same time, on the server.
const MAX_CARRIERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialing,
    /// Server: connected, but another one sends.
    Candidate,
    /// Greeted, to be used later.
    Spare,
    Current,
    /// Replaced: only reads.
    ReadOnly,
}

#[derive(Debug)]
struct Carrier {
    id: CarrierId,
    state: State,
    since: Instant,
    /// Client: when its dial succeeded.
    up: Instant,
    /// When it is dropped: a dial that takes too long, a replaced carrier that does not end.
    deadline: Option<Instant>,
    /// The number in its HELLO.
    number: Option<u32>,
    /// Client: what the peer had acknowledged when this carrier was dialled. Somebody who knows less is not the peer.
    floor: Sn,
    progress: bool,
    /// Client: it was a spare.
    was_spare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

#[derive(Debug)]
pub(crate) struct Path {
    role: Role,
    carriers: Vec<Carrier>,
    last_id: u32,
    backoff: Backoff,
    next_dial: Option<Instant>,
    silence: Silence,
    time_to_live: Duration,
    last_contact: Instant,
    rejections: Option<(Instant, u32)>,
    last_made_progress: bool,
    spares: Spares,
    /// Client: the carrier in use was a spare, and has not been heard since.
    doubted: bool,
    /// Client: the dial on its way was asked for.
    asked: bool,
    /// Carriers that were spares.
    spares_used: u64,
    /// Peers of ours say HELLO on each carrier; until they do, a newcomer is nobody.
    hello_required: bool,
    /// Carriers closed because newer ones came: of more than [`MAX_CARRIERS`], of more spares than one.
    dropped: u64,
    actions: VecDeque<Action>,
    changes: VecDeque<Change>,
}

impl Path {
    /// The side that dials. The first dial is due at `now`.
    pub(crate) fn client(now: Instant, time_to_live: Duration, seed: u64) -> Self {
        let mut path = Self::new(now, Role::Client, time_to_live, seed);
        // Not a redial: the first one of those is due at once, too.
        path.next_dial = Some(now);
        path
    }

    /// The side that waits for [`Path::attach`].
    pub(crate) fn server(now: Instant, time_to_live: Duration) -> Self {
        Self::new(now, Role::Server, time_to_live, 0)
    }

    fn new(now: Instant, role: Role, time_to_live: Duration, seed: u64) -> Self {
        Self {
            role,
            carriers: Vec::with_capacity(1),
            last_id: 0,
            backoff: Backoff::new(seed),
            next_dial: None,
            silence: Silence::new(now, time_to_live),
            time_to_live,
            last_contact: now,
            rejections: None,
            last_made_progress: true,
            spares: Spares::new(),
            doubted: false,
            asked: false,
            spares_used: 0,
            hello_required: false,
            dropped: 0,
            actions: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    // Facts.

    pub(crate) fn is_client(&self) -> bool {
        self.role == Role::Client
    }

    /// The one that sends.
    pub(crate) fn current(&self) -> Option<CarrierId> {
        self.carriers.iter().find(|c| c.state == State::Current).map(|c| c.id)
    }

    /// Packets that come on it are listened to.
    pub(crate) fn listens_to(&self, id: CarrierId) -> bool {
        self.get(id).is_some_and(|c| c.state != State::Dialing)
    }

    /// Packets may go out on it: it is the one that sends, or may become it.
    pub(crate) fn may_send_on(&self, id: CarrierId) -> bool {
        self.get(id).is_some_and(|c| matches!(c.state, State::Current | State::Candidate | State::Spare))
    }

    /// A newcomer that has to say HELLO before it counts.
    pub(crate) fn must_say_hello(&self, id: CarrierId) -> bool {
        self.hello_required && self.get(id).is_some_and(|c| matches!(c.state, State::Candidate | State::Spare))
    }

    /// Kept beside the one that sends.
    pub(crate) fn is_spare(&self, id: CarrierId) -> bool {
        self.get(id).is_some_and(|c| c.state == State::Spare)
    }

    /// Client: a spare is there that has answered.
    pub(crate) fn has_spare(&self) -> bool {
        self.spares.is_ready()
    }

    pub(crate) fn spares_used(&self) -> u64 {
        self.spares_used
    }

    /// The least una that the peer can have if it is the peer.
    pub(crate) fn floor(&self, id: CarrierId) -> Option<Sn> {
        self.get(id).map(|c| c.floor)
    }

    /// Whether the carrier before this one brought anything forward.
    pub(crate) fn last_made_progress(&self) -> bool {
        self.last_made_progress
    }

    pub(crate) fn time_to_live(&self) -> Duration {
        self.time_to_live
    }

    pub(crate) fn last_heard(&self) -> Instant {
        self.last_contact
    }

    fn get(&self, id: CarrierId) -> Option<&Carrier> {
        self.carriers.iter().find(|c| c.id == id)
    }

    fn get_mut(&mut self, id: CarrierId) -> Option<&mut Carrier> {
        self.carriers.iter_mut().find(|c| c.id == id)
    }

    // What has become known.

    pub(crate) fn set_time_to_live(&mut self, time_to_live: Duration) {
        self.time_to_live = time_to_live;
        self.silence.time_to_live = time_to_live;
    }

    /// Client: the longest pause between dials, and how long an answer is waited for, at least.
    pub(crate) fn set_limits(&mut self, longest_pause: Duration, patience: Duration) {
        self.backoff.longest = longest_pause;
        self.silence.patience = patience;
    }

    pub(crate) fn set_srtt(&mut self, srtt: Option<Duration>) {
        self.silence.srtt = srtt;
    }

    /// A Go program gets twice the time: its answers may have been dropped.
    pub(crate) fn set_patience(&mut self, factor: u32) {
        self.silence.factor = factor;
    }

    pub(crate) fn require_hello(&mut self) {
        self.hello_required = true;
    }

    /// Client: keep a spare, once the server has said that it does ([`Path::handle_keeps_spares`]).
    pub(crate) fn want_spare(&mut self) {
        self.spares.want();
    }

    pub(crate) fn handle_keeps_spares(&mut self) {
        self.spares.understood();
    }

    pub(crate) fn set_owed(&mut self, now: Instant, owed: Owed) {
        self.silence.owed(now, owed);
    }

    // What happens to carriers.

    /// Client: the dial succeeded. The new carrier sends from now on, or is the spare.
    pub(crate) fn handle_dialed(&mut self, now: Instant, id: CarrierId) {
        let is_good = self.current().is_some() && !self.silence.is_dead();
        let Some(carrier) = self.get_mut(id).filter(|c| c.state == State::Dialing) else { return };
        carrier.up = now;
        let took = now.saturating_duration_since(carrier.since);
        self.spares.dialed(took);
        if is_good && self.spares.is_dialing(id) {
            self.greet(now, id);
        } else {
            self.take_over(now, id);
        }
    }

    fn greet(&mut self, now: Instant, id: CarrierId) {
        if let Some(carrier) = self.get_mut(id) {
            carrier.state = State::Spare;
            carrier.deadline = Some(now + spare::ANSWER_LIMIT);
            self.spares.greeted(id);
            self.changes.push_back(Change::Greet(id));
        }
    }

    /// Client: the server has answered the HELLO on a spare.
    pub(crate) fn handle_spare_answered(&mut self, now: Instant, id: CarrierId) {
        if let Some(carrier) = self.get_mut(id).filter(|c| c.state == State::Spare) {
            carrier.deadline = None;
            if self.spares.answered(now, id) {
                self.changes.push_back(Change::SpareReady(id));
            }
        }
    }

    /// Client: the spare sends from now on. `same_path`: it is known to live where the last one was.
    fn promote(&mut self, now: Instant, id: CarrierId, same_path: bool) {
        self.spares_used += 1;
        self.get_mut(id).into_iter().for_each(|c| (c.progress, c.was_spare) = (false, true));
        self.retire_current(now);
        // A dial that is on its way already may be the better one.
        let patience = (self.silence.srtt.unwrap_or_default() * 2).clamp(SPARE_PATIENCE, DIAL_BESIDE);
        self.next_dial = Some(self.next_dial.map_or(now + patience, |at| at.min(now + patience)));
        self.doubted = true;
        self.begin(now, id, same_path);
    }

    /// Client: the dial failed.
    pub(crate) fn handle_dial_failed(&mut self, now: Instant, id: CarrierId) {
        let Some(at) = self.carriers.iter().position(|c| c.id == id && c.state == State::Dialing) else { return };
        self.carriers.remove(at);
        if self.spares.is_dialing(id) {
            if self.current().is_some() && !self.silence.is_dead() {
                self.changes.push_back(Change::SpareLost(id));
                return self.spares.wasted();
            }
            self.spares.restart();
        }
        // The word of a doubted one is no better than none.
        let wanted = self.current().is_none() || self.silence.is_dead() || self.doubted;
        self.asked = false;
        let next_in = if wanted { self.schedule_dial_after_failure(now) } else { Duration::ZERO };
        self.next_dial = self.next_dial.filter(|_| wanted);
        self.changes.push_back(Change::DialFailed { id, next_in });
    }

    /// Server: somebody came with the session's id.
    pub(crate) fn attach(&mut self, now: Instant) -> CarrierId {
        if self.carriers.len() >= MAX_CARRIERS {
            // One that is only read, else the oldest newcomer or spare; there is one, because only one sends.
            let place = |state| self.carriers.iter().position(|c| c.state == state);
            if let Some(at) = [State::ReadOnly, State::Candidate, State::Spare].into_iter().find_map(place) {
                let old = self.carriers.remove(at);
                self.actions.push_back(Action::Drop(old.id));
                self.dropped += 1;
            }
        }
        let id = self.add(now, State::Candidate, Sn::new(0));
        if self.current().is_none() && !self.hello_required {
            self.take_over(now, id);
        }
        id
    }

    fn add(&mut self, now: Instant, state: State, floor: Sn) -> CarrierId {
        self.last_id = self.last_id.wrapping_add(1);
        let id = CarrierId(self.last_id);
        let deadline = match state {
            State::Dialing => Some(now + DIAL_LIMIT),
            State::Candidate => Some(now + CANDIDATE_LIMIT),
            State::Spare | State::Current | State::ReadOnly => None,
        };
        self.carriers.push(Carrier {
            id,
            state,
            since: now,
            up: now,
            deadline,
            number: None,
            floor,
            progress: false,
            was_spare: false,
        });
        id
    }

    /// Reading or writing has ended; the connection is gone or must go.
    pub(crate) fn handle_ended(&mut self, now: Instant, id: CarrierId, why: CarrierEnd) {
        let Some(at) = self.carriers.iter().position(|c| c.id == id) else { return };
        if self.carriers[at].state == State::Dialing {
            return self.handle_dial_failed(now, id);
        }
        let carrier = self.carriers.remove(at);
        if carrier.state == State::Spare && self.is_client() {
            self.changes.push_back(Change::SpareLost(id));
            self.spares.wasted();
        }
        if carrier.state != State::Current {
            return;
        }
        self.last_made_progress = carrier.progress;
        let in_doubt = self.silence.owes();
        self.changes.push_back(Change::Detached { id, why, age: now - carrier.since, in_doubt });
        match self.role {
            Role::Client => {
                self.spares.lost(now.saturating_duration_since(carrier.up));
                if let Some(spare) = self.spares.there() {
                    let same_path = self.has_spare() && !self.silence.is_in_doubt();
                    return self.promote(now, spare, same_path);
                }
                // One that is on its way as a spare may come first; it does not keep another away.
                self.spares.not_due();
                if !self.is_dialing() {
                    self.schedule_dial(now);
                }
            }
            Role::Server if self.hello_required => {}
            Role::Server => {
                if let Some(newest) = self.carriers.iter().rev().find(|c| c.state == State::Candidate).map(|c| c.id) {
                    self.take_over(now, newest);
                }
            }
        }
    }

    /// Makes `id` the one that sends. The one before is only read from now on.
    fn take_over(&mut self, now: Instant, id: CarrierId) {
        self.retire_current(now);
        (self.next_dial, self.doubted, self.asked) = (None, false, false);
        self.drop_late(id);
        self.begin(now, id, false);
    }

    fn retire_current(&mut self, now: Instant) {
        if let Some(old) = self.current() {
            let (dead, in_doubt) = (self.silence.is_dead(), self.silence.owes());
            let (client, since, up, progress) = {
                let client = self.is_client();
                let Some(old) = self.get_mut(old) else { return };
                old.state = State::ReadOnly;
                old.deadline = Some(now + if client { READ_OUT_CLIENT } else { READ_OUT_SERVER });
                (client, old.since, old.up, old.progress)
            };
            self.last_made_progress = progress;
            if client && dead {
                self.spares.lost(self.silence.last_heard().saturating_duration_since(up));
            }
            if client {
                self.actions.push_back(Action::CloseWrite(old));
            }
            let why = if dead { CarrierEnd::Silent } else { CarrierEnd::Replaced };
            self.changes.push_back(Change::Detached { id: old, why, age: now - since, in_doubt });
        }
    }

    fn begin(&mut self, now: Instant, id: CarrierId, same_path: bool) {
        self.spares.restart();
        self.silence.restart(now);
        let same_path = same_path || !self.is_client() && self.is_spare(id);
        if let Some(carrier) = self.get_mut(id) {
            carrier.state = State::Current;
            carrier.since = now;
            carrier.deadline = None;
            self.changes.push_back(if same_path { Change::Promoted(id) } else { Change::Attached(id) });
        }
    }

    /// Client: dials and spares other than `id` are not needed.
    fn drop_late(&mut self, id: CarrierId) {
        let client = self.is_client();
        let is_late = |c: &mut Carrier| c.id != id && (c.state == State::Dialing || client && c.state == State::Spare);
        for late in self.carriers.extract_if(.., is_late) {
            self.actions.push_back(Action::Drop(late.id));
            if late.state == State::Spare {
                self.changes.push_back(Change::SpareLost(late.id));
            }
        }
    }

    /// Server: a HELLO with the client's `number` came on `id`. The highest number is the newest carrier, unless it is a `spare`.
    pub(crate) fn handle_hello(&mut self, now: Instant, id: CarrierId, number: u32, spare: bool) {
        let current = self.current();
        let newest = current.and_then(|current| self.get(current)).and_then(|current| current.number);
        let Some(carrier) = self.get_mut(id) else { return };
        carrier.number = Some(number);
        if current == Some(id) || !matches!(carrier.state, State::Candidate | State::Spare) {
            return;
        }
        if spare {
            carrier.state = State::Spare;
            carrier.deadline = Some(now + spare::KEEP);
            // One is enough.
            for older in self.carriers.extract_if(.., |c| c.state == State::Spare && c.id != id) {
                self.actions.push_back(Action::Drop(older.id));
                self.dropped += 1;
            }
            return;
        }
        if newest.is_none_or(|newest| number.wrapping_sub(newest).cast_signed() > 0) {
            self.take_over(now, id);
        } else {
            carrier.state = State::ReadOnly;
            carrier.deadline = Some(now + READ_OUT_SERVER);
        }
    }

    /// A valid packet came on `id`.
    pub(crate) fn handle_heard(&mut self, now: Instant, id: CarrierId) {
        self.last_contact = now;
        // Whoever does not know the session does not get here.
        self.rejections = None;
        let current = self.current();
        if current == Some(id) {
            self.silence.heard(now);
            // One that was found silent has to answer, too.
            if self.doubted && !self.silence.is_dead() {
                self.doubted = false;
                if !self.asked {
                    self.next_dial = None;
                    self.drop_late(id);
                }
            }
            if self.spares.is_unplanned()
                && let Some(up) = self.get(id).map(|c| c.up)
            {
                self.spares.heard(now, up);
            }
            return;
        }
        let candidate = self.get(id).is_some_and(|c| c.state == State::Candidate);
        if candidate && !self.hello_required && current.is_none_or(|current| id > current) {
            self.take_over(now, id);
        }
    }

    /// What came on `id` shows that the peer hears us there.
    pub(crate) fn handle_answered(&mut self, now: Instant, id: CarrierId) {
        if self.current() != Some(id) {
            return;
        }
        if self.silence.is_dead() {
            // It lives after all.
            self.next_dial = None;
            self.get_mut(id).into_iter().for_each(|c| c.deadline = None);
        }
        self.silence.answered(now);
    }

    /// Something was acknowledged, or new data came.
    pub(crate) fn handle_progress(&mut self, id: CarrierId) {
        self.backoff.progress();
        let Some(carrier) = self.get_mut(id) else { return };
        carrier.progress = true;
        if std::mem::take(&mut carrier.was_spare) {
            self.spares.was_of_use();
        }
    }

    /// Client: whoever answers on `id` does not know the session.
    pub(crate) fn handle_rejected(&mut self, now: Instant, id: CarrierId) {
        if self.get(id).is_none() {
            return;
        }
        let (first, count) = self.rejections.map_or((now, 1), |(first, count)| (first, count + 1));
        self.rejections = Some((first, count));
        self.actions.push_back(Action::Drop(id));
        self.handle_ended(now, id, CarrierEnd::Forgotten);
        if count >= REJECTIONS && now - first >= REJECTED_FOR {
            self.changes.push_back(Change::Unknown);
        }
    }

    /// Streams move on `id`: what comes next is expected soon. A keepalive is nothing of that kind.
    pub(crate) fn handle_data(&mut self, now: Instant, id: CarrierId) {
        if self.current() == Some(id) {
            self.silence.data(now);
        }
    }

    /// The peer was asked for a sign of life and has not given it yet: it may be the path.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.silence.is_in_doubt()
    }

    // Dialling.

    fn schedule_dial_after_failure(&mut self, now: Instant) -> Duration {
        let pause = self.backoff.next_after_failure(now);
        self.dial_within(now, pause)
    }

    fn schedule_dial(&mut self, now: Instant) {
        let pause = self.backoff.next(now);
        self.dial_within(now, pause);
    }

    /// The one that is scheduled beside a dial without answer may come first.
    fn dial_within(&mut self, now: Instant, pause: Duration) -> Duration {
        let next = self.next_dial.map_or(now + pause, |at| at.min(now + pause));
        self.next_dial = Some(next);
        next.saturating_duration_since(now)
    }

    /// Client: dial now, whatever the backoff says: the network has changed, or the user wants it.
    pub(crate) fn dial_now(&mut self, now: Instant) {
        if self.is_client() && self.dialing() < MAX_DIALS {
            self.backoff.progress();
            self.next_dial = Some(now);
            self.asked = true;
        }
    }

    /// The session is over: no more dials, and every connection is closed in order.
    pub(crate) fn stop(&mut self) {
        self.next_dial = None;
        self.spares.stop();
        for carrier in self.carriers.drain(..) {
            self.actions.push_back(match carrier.state {
                // What still comes on a replaced one is nobody's any more, and on a spare comes nothing.
                State::Dialing | State::Spare | State::ReadOnly => Action::Drop(carrier.id),
                State::Current | State::Candidate => Action::CloseWrite(carrier.id),
            });
        }
    }

    // Time.

    /// `una` is what the peer has acknowledged so far, for the carriers dialled now.
    pub(crate) fn handle_timeout(&mut self, now: Instant, una: Sn) {
        if now >= self.last_contact + self.time_to_live {
            self.changes.push_back(Change::Expired);
            return;
        }
        while let Some(late) = self.carriers.iter().find(|c| c.deadline.is_some_and(|at| now >= at)).map(|c| c.id) {
            self.actions.push_back(Action::Drop(late));
            self.handle_ended(now, late, CarrierEnd::Silent);
        }
        if let Some(current) = self.current() {
            // One who comes late may find two things due: to ask again, and to give up.
            while let Some(verdict) = self.silence.handle_timeout(now) {
                match verdict {
                    Verdict::Probe => self.changes.push_back(Change::Probe(current)),
                    Verdict::Dead if !self.is_client() => {
                        self.get_mut(current).into_iter().for_each(|c| c.deadline = Some(now + SILENT_SERVER));
                    }
                    Verdict::Dead => {
                        if let Some(spare) = self.spares.there() {
                            self.promote(now, spare, false);
                            break;
                        }
                        if !self.is_dialing() {
                            self.schedule_dial(now);
                        }
                    }
                }
            }
        }
        if let Some(spare) = self.spares.to_greet(now) {
            self.greet(now, spare);
        }
        self.dial_if_due(now, una);
    }

    /// Starts the dial whose pause is over. `una` is what the peer has acknowledged so far.
    pub(crate) fn dial_if_due(&mut self, now: Instant, una: Sn) {
        if self.next_dial.is_some_and(|at| now >= at) {
            self.next_dial = Some(now + DIAL_BESIDE);
            if self.dialing() >= MAX_DIALS {
                return;
            }
            let id = self.add(now, State::Dialing, una);
            self.actions.push_back(Action::Dial(id));
        }
        if self.spares.dial_is_due(now) {
            // Also while a question is unanswered: it may be the path, and then another is dialled soon.
            if self.dialing() > 0 || self.current().is_none() || self.silence.is_in_doubt() {
                return self.spares.put_off(now);
            }
            let id = self.add(now, State::Dialing, una);
            self.spares.dialing(id);
            self.actions.push_back(Action::Dial(id));
        }
    }

    /// For use now, not for a spare.
    fn is_dialing(&self) -> bool {
        self.carriers.iter().any(|c| c.state == State::Dialing && !self.spares.is_dialing(c.id))
    }

    fn dialing(&self) -> usize {
        self.carriers.iter().filter(|c| c.state == State::Dialing).count()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.current().and_then(|_| self.silence.poll_timeout());
        let deadlines = self.carriers.iter().filter_map(|c| c.deadline);
        let expiry = self.last_contact + self.time_to_live;
        let spares = self.spares.poll_timeout();
        self.next_dial.into_iter().chain(silence).chain(deadlines).chain(spares).chain([expiry]).min()
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        pop_rare(&mut self.actions)
    }

    pub(crate) fn poll_change(&mut self) -> Option<Change> {
        pop_rare(&mut self.changes)
    }
}

/// The next of what happens a few times in a session's life. Such a queue keeps no memory while it is empty, which is nearly always.
pub(crate) fn pop_rare<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front()?;
    if queue.is_empty() {
        queue.shrink_to_fit();
    }
    Some(next)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]
mod tests;
