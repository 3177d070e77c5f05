//! One end of a session, whole and without I/O: the engine, the path below it, and the control packets between the two.
//!
//! [`Tunnel`] is what the tokio half drives and what the simulator drives; there is no third thing. In: packets with the carrier they
//! came on, the fate of carriers, what the application does, and the time. Out: packets for carriers, [`Action`]s on
//! connections, [`Event`]s for the application.
//!
//! The promises of its verbs are in the crate's documentation ([`crate`]).

mod bounds;
mod end;
mod told;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kcp::{Resume, Sn};
use smux::{Side, StreamId};

use crate::config::Config;
use crate::control::{ByeReason, Control, Hello, Limit, MIN_KCP_PACKET, Settings, Token, VERSION};
use crate::encapsulation::MAX_PACKET;
use crate::engine::{Engine, EngineEvent, PeerKind};
use crate::error::{CarrierEnd, SessionError};
pub use crate::path::{Action, CarrierId};
use crate::path::{Change, Path, pop_rare};
use crate::silence::Owed;

use self::end::Closing;
pub use self::told::{Event, Stats, StreamFailure};

/// Control packets waiting for one carrier; a peer that asks faster than its carrier takes the answers gets no more.
const MAX_CONTROL: usize = 8;

/// So long a bare acknowledgement waits for company.
const ACK_DELAY: Duration = Duration::from_millis(1);
/// That so many segments have arrived is not put off: fewer than the smallest flight has on its way, which is 46.
const ACKS_AT_ONCE: usize = 40;

/// Streams that we open a second, and at once: a little fewer than the peer's smux takes (`stream_rate`, `stream_burst` there), because what waited for a
/// carrier comes at once.
const OPEN_RATE: u32 = 1_000;
const OPEN_BURST: u32 = 4_000;

const NO_TOKEN: Token = [0; 8];

/// One end of a session. See the [module](self).
pub struct Tunnel {
    config: Arc<Config>,
    conv: u32,
    engine: Engine,
    path: Path,
    token: Option<Token>,
    token_confirmed: bool,
    heard: bool,
    control: VecDeque<(CarrierId, Control)>,
    hello_answered: Option<CarrierId>,
    ping: Option<(u32, Instant)>,
    /// When the peer was last reachable, while it is not.
    contact_lost: Option<Instant>,
    /// Attached, but not heard on yet.
    coming_up: Option<CarrierId>,
    /// A carrier was told to be up.
    announced: bool,
    /// Before anything was heard, something else than packets came.
    stranger: bool,
    /// Client: on which carrier the server has said that it has no room, and why.
    held: Option<(CarrierId, Limit)>,
    /// What streams had said by the last progress.
    talk: [u64; 3],
    closing: Option<Closing>,
    /// How long the peer has been heard without acknowledging anything beyond `stalled_at`, although something was on its way.
    stalled: Duration,
    stalled_at: Sn,
    /// When bytes last moved, either way.
    moved_at: Instant,
    /// When the allowance for new streams is whole again.
    open_pace: Option<Instant>,
    /// Carriers prove who sends on them.
    authenticated: bool,
    ended: Option<SessionError>,
    events: VecDeque<Event>,
    stats: Stats,
    /// When bare acknowledgements have waited long enough.
    acks_by: Option<Instant>,
}

impl Tunnel {
    /// The side that dials. `conv` and `seed` are random; the seed only spreads the pauses between dials.
    #[must_use]
    pub fn client(now: Instant, config: impl Into<Arc<Config>>, conv: u32, seed: u64) -> Self {
        let config = Config::shared(config);
        let mut path = Path::client(now, config.time_to_live, seed);
        // It is asked after a second of silence, and the rest is for the answer.
        path.set_limits(config.max_backoff, config.stall.saturating_sub(crate::silence::PATIENCE));
        if config.spare {
            path.want_spare();
        }
        let mut tunnel = Self::new(now, Side::Client, config, conv, path);
        tunnel.advance(now);
        tunnel
    }

    /// The side that is dialled. A server gives all its sessions one `config`. `conv` is what the client's first packet says ([`opening_conv`]), `token` is random and secret.
    #[must_use]
    pub fn server(now: Instant, config: impl Into<Arc<Config>>, conv: u32, token: Token) -> Self {
        let config = Config::shared(config);
        let path = Path::server(now, config.time_to_live);
        let mut tunnel = Self::new(now, Side::Server, config, conv, path);
        // Zeros mean "no token" on the wire.
        tunnel.token = Some(if token == NO_TOKEN { [1; 8] } else { token });
        tunnel
    }

    fn new(now: Instant, side: Side, config: Arc<Config>, conv: u32, mut path: Path) -> Self {
        path.set_patience(2);
        let first_sn = Sn::new(config.counters.sn);
        Self {
            engine: Engine::new(now, side, conv, &config),
            config,
            conv,
            path,
            token: None,
            token_confirmed: false,
            heard: false,
            control: VecDeque::new(),
            hello_answered: None,
            ping: None,
            contact_lost: None,
            coming_up: None,
            announced: false,
            stranger: false,
            held: None,
            talk: [0; 3],
            closing: None,
            stalled: Duration::ZERO,
            stalled_at: first_sn,
            moved_at: now,
            open_pace: None,
            authenticated: false,
            ended: None,
            events: VecDeque::new(),
            stats: Stats::default(),
            acks_by: None,
        }
    }

    // Carriers.

    /// All carriers of this session prove who sends on them (a mode with keys): what would end a session at the word of anybody is believed then.
    pub fn set_authenticated(&mut self) {
        self.authenticated = true;
    }

    /// The KCP conversation, which packets say.
    #[cfg(feature = "tokio")]
    pub(crate) fn conv(&self) -> u32 {
        self.conv
    }

    /// Client: the dial asked for by [`Action::Dial`] succeeded, and the session id is the first thing written on the connection.
    pub fn handle_dialed(&mut self, now: Instant, id: CarrierId) {
        self.path.handle_dialed(now, id);
        self.advance(now);
    }

    /// Client: the dial asked for by [`Action::Dial`] failed.
    pub fn handle_dial_failed(&mut self, now: Instant, id: CarrierId) {
        self.path.handle_dial_failed(now, id);
        self.advance(now);
    }

    /// Server: a connection came with this session's id. Returns the number under which it goes from now on.
    pub fn attach(&mut self, now: Instant) -> CarrierId {
        let id = self.path.attach(now);
        self.advance(now);
        id
    }

    /// The connection has ended, for reading or for writing, or has to.
    pub fn handle_ended(&mut self, now: Instant, id: CarrierId, why: CarrierEnd) {
        self.stranger |= why == CarrierEnd::BadPacket && !self.heard;
        self.stats.carriers_forged += u64::from(why == CarrierEnd::NotAuthentic);
        self.path.handle_ended(now, id, why);
        self.advance(now);
    }

    /// Client: dial now, beside the carrier in use if there is one: the network has changed, or the user asks for it.
    pub fn redial(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.path.dial_now(now);
            self.advance(now);
        }
    }

    /// The carrier on which data is sent.
    #[must_use]
    pub fn current(&self) -> Option<CarrierId> {
        self.path.current()
    }

    // Packets.

    /// Takes in one packet that came on carrier `id`. What is not for this session, or does not parse, has no effect but a count.
    pub fn handle_packet(&mut self, now: Instant, id: CarrierId, packet: &[u8]) {
        if packet.is_empty() {
            return;
        }
        self.stats.packets_received += 1;
        if self.ended.is_some() || !self.path.listens_to(id) {
            self.stats.packets_dropped += 1;
            return;
        }
        let good = if packet.len() < MIN_KCP_PACKET {
            self.handle_control(now, id, packet)
        } else {
            self.handle_kcp(now, id, packet)
        };
        if !good {
            self.stats.packets_dropped += 1;
        }
        self.advance(now);
    }

    fn handle_kcp(&mut self, now: Instant, id: CarrierId, packet: &[u8]) -> bool {
        if kcp::conv_of(packet) != Some(self.conv) || self.path.must_say_hello(id) {
            return false;
        }
        if self.is_forgotten(now, id, una_of(packet)) {
            return false;
        }
        match self.engine.handle_packet(now, packet) {
            Ok(Some(received)) => {
                self.engine_heard(now, id);
                if received.answer {
                    self.path.handle_answered(now, id);
                }
                if received.progress() {
                    self.moved_at = now;
                    self.progress(now, id);
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.fail(now, error);
                false
            }
        }
    }

    /// A KCP packet was valid: the peer is there, and if it has said nothing else so far it is a Go program.
    fn engine_heard(&mut self, now: Instant, id: CarrierId) {
        if self.engine.peer() == PeerKind::Unknown {
            self.set_peer(now, PeerKind::Go);
        }
        self.note_heard(now, id);
    }

    fn note_heard(&mut self, now: Instant, id: CarrierId) {
        self.heard = true;
        self.note_stalled(now);
        self.path.handle_heard(now, id);
        self.path.set_srtt(self.engine.srtt());
        if self.coming_up == Some(id) {
            self.coming_up = None;
            self.announce(now, id);
        }
    }

    fn announce(&mut self, now: Instant, id: CarrierId) {
        let lost = self.contact_lost.take().filter(|_| self.announced);
        self.announced = true;
        let gap = lost.map(|lost| now.saturating_duration_since(lost));
        let resent = if gap.is_some() { self.engine.kcp().in_flight() } else { 0 };
        self.events.push_back(Event::CarrierUp { id, gap, resent });
    }

    fn set_peer(&mut self, now: Instant, peer: PeerKind) {
        self.engine.set_peer(now, peer);
        if peer == PeerKind::Ours {
            self.path.set_patience(1);
            self.path.require_hello();
        }
    }

    /// Client: a `una` below what the peer had acknowledged when the carrier was dialled comes from somebody who is not the peer
    /// (any more): a restarted server, or another one behind a load balancer. Nothing of it must be delivered.
    fn is_forgotten(&mut self, now: Instant, id: CarrierId, una: Option<Sn>) -> bool {
        let forgotten = self.path.is_client()
            && una.zip(self.path.floor(id)).is_some_and(|(una, floor)| una.distance_from(floor) < 0);
        if forgotten {
            self.path.handle_rejected(now, id);
        }
        forgotten
    }

    fn handle_control(&mut self, now: Instant, id: CarrierId, packet: &[u8]) -> bool {
        let Some(control) = Control::decode(packet) else { return false };
        if control.conv() != self.conv {
            return false;
        }
        match control {
            Control::Hello(hello) if self.path.is_client() => self.handle_answer(now, id, &hello),
            Control::Hello(hello) => self.handle_hello(now, id, &hello),
            Control::Bye { token, reason, una, .. } => {
                if self.token != Some(token) || self.is_forgotten(now, id, Some(una)) {
                    return false;
                }
                self.learn(now, id, una);
                self.end(now, SessionError::ClosedByPeer(reason));
                true
            }
            Control::Unknown { .. } if self.path.is_client() => {
                self.path.handle_rejected(now, id);
                true
            }
            Control::NotAdmitted { .. } if self.path.is_client() && self.authenticated => {
                self.end(now, SessionError::NotAdmitted);
                true
            }
            Control::Held { limit, .. } if self.path.is_client() && self.authenticated => {
                self.handle_held(now, id, limit);
                true
            }
            _ if self.path.must_say_hello(id) => false,
            Control::Settings(settings) => {
                self.handle_settings(&settings);
                true
            }
            Control::Ping { nonce, una, .. } => {
                if self.is_forgotten(now, id, Some(una)) {
                    return false;
                }
                self.learn(now, id, una);
                let answer = Control::Pong { conv: self.conv, nonce, una: self.engine.kcp().rcv_nxt() };
                let answered = self.send_control(id, answer);
                if answered && self.path.current() == Some(id) {
                    self.engine.stand_for_keepalive(now);
                }
                answered
            }
            Control::Pong { nonce, una, .. } => {
                if self.is_forgotten(now, id, Some(una)) {
                    return false;
                }
                self.path.handle_answered(now, id);
                if self.path.current() == Some(id) {
                    self.engine.stand_for_keepalive(now);
                }
                if let Some((_, asked)) = self.ping.take_if(|(asked, _)| *asked == nonce) {
                    self.engine.handle_rtt(now.saturating_duration_since(asked));
                }
                self.learn(now, id, una);
                true
            }
            _ => false,
        }
    }

    fn progress(&mut self, now: Instant, id: CarrierId) {
        self.path.handle_progress(id);
        let smux = self.engine.mux().stats();
        let talk = [smux.bytes_received, smux.bytes_sent, smux.streams_opened];
        if self.talk != talk {
            self.talk = talk;
            self.path.handle_data(now, id);
        }
    }

    /// The peer said beside KCP what it has.
    fn learn(&mut self, now: Instant, id: CarrierId, una: Sn) {
        if self.engine.handle_una(now, una) {
            self.path.handle_answered(now, id);
            self.progress(now, id);
        }
        self.note_heard(now, id);
    }

    /// Server: the client's first word on a carrier, or its repeating the token.
    fn handle_hello(&mut self, now: Instant, id: CarrierId, hello: &Hello) -> bool {
        let knows_token = Some(hello.token) == self.token;
        if self.token_confirmed && !knows_token {
            return false;
        }
        if hello.spare && !self.token_confirmed && !knows_token {
            // Who is a stranger still gets no answer but by taking over, which the client notices.
            return false;
        }
        self.token_confirmed |= knows_token;
        self.set_peer(now, PeerKind::Ours);
        self.path.handle_hello(now, id, hello.carrier, hello.spare);
        self.learn(now, id, hello.una);
        if self.path.is_spare(id) {
            self.send_hello(id, hello.carrier);
        } else if self.hello_answered != Some(id) && self.path.current() == Some(id) {
            self.hello_answered = Some(id);
            self.send_hello(id, hello.carrier);
        }
        true
    }

    /// Client: the server's answer to our HELLO.
    fn handle_answer(&mut self, now: Instant, id: CarrierId, answer: &Hello) -> bool {
        if answer.carrier != id.0 {
            return false;
        }
        if self.is_forgotten(now, id, Some(answer.una)) {
            return false;
        }
        self.set_peer(now, PeerKind::Ours);
        if answer.spare {
            self.path.handle_keeps_spares();
        }
        self.learn(now, id, answer.una);
        self.path.handle_spare_answered(now, id);
        if answer.token != NO_TOKEN && self.token.is_none() {
            self.token = Some(answer.token);
            self.send_hello(id, id.0);
        }
        true
    }

    /// Client: not heard from the session, which knows nothing of this.
    fn handle_held(&mut self, now: Instant, id: CarrierId, limit: Limit) {
        if self.path.is_spare(id) {
            return;
        }
        if self.held.replace((id, limit)).is_none_or(|(before, _)| before != id) {
            self.events.push_back(Event::Held { id, limit });
        }
        if self.config.fail_fast && !self.heard {
            self.end(now, SessionError::Full(limit));
        }
    }

    fn handle_settings(&mut self, settings: &Settings) {
        self.engine.set_peer_window(settings.stream_window);
        self.engine.set_largest_packet(usize::from(settings.max_packet).min(MAX_PACKET));
        if self.path.is_client() && settings.time_to_live_s > 0 {
            let theirs = Duration::from_secs(settings.time_to_live_s.into());
            self.path.set_time_to_live(self.config.time_to_live.min(theirs));
        }
    }

    fn send_hello(&mut self, id: CarrierId, carrier: u32) {
        let token = if self.path.is_client() || !self.token_confirmed { self.token } else { None };
        let hello = Hello {
            version: VERSION,
            heard: self.heard,
            spare: !self.path.is_client() || self.path.is_spare(id),
            conv: self.conv,
            carrier,
            una: self.engine.kcp().rcv_nxt(),
            token: token.unwrap_or(NO_TOKEN),
        };
        let seconds = self.config.time_to_live.as_secs().max(1);
        let settings = Settings {
            conv: self.conv,
            time_to_live_s: u32::try_from(seconds).unwrap_or(u32::MAX),
            stream_window: self.config.stream_window,
            max_packet: MAX_PACKET as u16,
        };
        self.send_control(id, Control::Hello(hello));
        // A spare has nothing to say: its SETTINGS come when it is used.
        if !self.path.is_spare(id) {
            self.send_control(id, Control::Settings(settings));
        }
    }

    /// False: not on a carrier that was replaced, nor on one that does not take what waits for it.
    fn send_control(&mut self, id: CarrierId, control: Control) -> bool {
        if !self.path.may_send_on(id) || self.control.iter().filter(|(to, _)| *to == id).count() >= MAX_CONTROL {
            return false;
        }
        self.control.push_back((id, control));
        true
    }

    fn say_bye(&mut self, reason: ByeReason) {
        if let (PeerKind::Ours, Some(id), Some(token)) = (self.engine.peer(), self.path.current(), self.token) {
            // It overtakes the acknowledgements that wait for company.
            let una = self.engine.kcp().rcv_nxt();
            self.send_control(id, Control::Bye { conv: self.conv, token, reason, una });
        }
    }

    /// Appends the next packet for carrier `id` to `out`, at most [`MAX_PACKET`] bytes. False: nothing for it at `now`.
    pub fn poll_transmit(&mut self, now: Instant, id: CarrierId, out: &mut Vec<u8>) -> bool {
        if !self.control.is_empty()
            && let Some(at) = self.control.iter().position(|(to, _)| *to == id)
            && let Some((_, control)) = self.control.remove(at)
        {
            if self.control.is_empty() {
                self.control.shrink_to_fit();
            }
            control.encode(out);
            self.stats.packets_sent += 1;
            return true;
        }
        if self.ended.is_some() || self.path.current() != Some(id) || !self.engine.poll_transmit(now, out) {
            return false;
        }
        self.stats.packets_sent += 1;
        // It may have been the last word.
        self.advance(now);
        true
    }

    /// There is something to send, were there a carrier with room, or something to tell. After a call of the application's this says whether
    /// whoever drives the tunnel has to look at it.
    #[must_use]
    pub fn has_work(&self, now: Instant) -> bool {
        self.ended.is_some() || !self.events.is_empty() || !self.control.is_empty() || self.engine.has_work(now)
    }

    /// Until when the driver need not send, because a few bare acknowledgements are all that waits: what the application answers carries them, and more
    /// may come that is acknowledged together. `None`: now. Ask once a turn, after the packets have been handled.
    pub fn acks_may_wait(&mut self, now: Instant) -> Option<Instant> {
        let waiting = if self.control.is_empty() { self.engine.only_acks_waiting(now) } else { None };
        if waiting.is_none_or(|count| count >= ACKS_AT_ONCE) {
            self.acks_by = None;
            return None;
        }
        let by = *self.acks_by.get_or_insert(now + ACK_DELAY);
        if now < by {
            return Some(by);
        }
        self.acks_by = None;
        None
    }

    // Time.

    /// Fires what is due at `now`. Afterwards [`Tunnel::poll_timeout`] is later than `now`, or `None`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ended.is_some() || self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        self.stats.timeouts += 1;
        self.engine.handle_timeout(now);
        self.path.handle_timeout(now, self.engine.kcp().una());
        if self.close_deadline().is_some_and(|at| now >= at) {
            let (una, end) = (self.engine.kcp().una(), self.engine.kcp().end());
            let unacknowledged = usize::try_from(end.distance_from(una)).unwrap_or_default();
            let unsent = self.engine.mux().unsent();
            // Otherwise the peer would wait for a carrier for as long as it keeps sessions.
            self.say_bye(ByeReason::Shutdown);
            self.end(now, SessionError::ClosedUnacknowledged { unacknowledged, unsent });
        }
        self.advance(now);
        // Asked last: a carrier that is found silent takes with it what has been due since its last word.
        if self.embryonic_deadline().is_some_and(|at| now >= at) {
            self.abandon(now);
        }
    }

    /// When to call [`Tunnel::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended.is_some() {
            return None;
        }
        let limits = [self.close_deadline(), self.embryonic_deadline()];
        [self.path.poll_timeout(), self.engine.poll_timeout()].into_iter().chain(limits).flatten().min()
    }

    /// Draws the consequences of what happened: for the engine, for the next dial, for a session that waits for its end.
    fn advance(&mut self, now: Instant) {
        while self.ended.is_none() {
            while let Some(change) = self.path.poll_change() {
                self.apply(now, change);
            }
            self.path.dial_if_due(now, self.engine.kcp().una());
            if !self.control.is_empty() {
                // Nobody asks any more for what was to be said on a carrier that has gone.
                self.control.retain(|(to, _)| self.path.may_send_on(*to));
            }
            self.update_owed(now);
            if !self.finish_closing(now) {
                break;
            }
        }
    }

    fn update_owed(&mut self, now: Instant) {
        let kcp = self.engine.kcp();
        let owed = Owed {
            in_flight: !kcp.all_acknowledged() || kcp.owes_window() || self.engine.waits_for_carrier(now),
            expecting: self.path.is_client() && self.engine.mux().has_unfinished_reads(),
        };
        self.path.set_owed(now, owed);
    }

    fn apply(&mut self, now: Instant, change: Change) {
        match change {
            Change::Attached(id) => self.attached(now, id, false),
            Change::Promoted(id) => self.attached(now, id, true),
            Change::Detached { why: CarrierEnd::BadPacket, .. } if self.config.fail_fast && !self.heard => {
                self.end(now, SessionError::NotAPeer);
            }
            Change::Detached { id, why, age, in_doubt } => {
                self.stats.cuts += 1;
                let last_contact = if why == CarrierEnd::Silent { self.path.last_heard() } else { now };
                self.contact_lost.get_or_insert(last_contact);
                self.coming_up = None;
                self.ping = None;
                let unacknowledged = self.engine.kcp().in_flight();
                self.engine.suspend(now, in_doubt);
                self.events.push_back(Event::CarrierLost { id, why, age, unacknowledged });
            }
            Change::DialFailed { id, next_in } => {
                self.stats.dial_failures += 1;
                self.contact_lost.get_or_insert(now);
                self.events.push_back(Event::DialFailed { id, next_in });
                if self.config.fail_fast && self.stats.carriers == 0 {
                    self.end(now, SessionError::NeverConnected("the dial failed".to_owned()));
                }
            }
            Change::Probe(id) => self.probe(now, id),
            Change::Greet(id) => self.send_hello(id, id.0),
            Change::SpareReady(id) => self.events.push_back(Event::SpareReady { id }),
            Change::SpareLost(_) => self.stats.spares_lost += 1,
            Change::Unknown => self.end(now, SessionError::Unknown),
            Change::Expired if self.heard => self.end(now, SessionError::GaveUp(self.path.time_to_live())),
            Change::Expired if self.stranger => self.end(now, SessionError::NotAPeer),
            Change::Expired => self.end(
                now,
                match self.held {
                    Some((_, limit)) => SessionError::Full(limit),
                    None => SessionError::NeverConnected("no answer within the time to live".to_owned()),
                },
            ),
        }
    }

    fn attached(&mut self, now: Instant, id: CarrierId, was_spare: bool) {
        self.stats.carriers += 1;
        let bulk_may_be_lost = !self.path.last_made_progress();
        let how = match self.engine.peer() {
            // Both sides tell each other what they have, in HELLO: the client first.
            PeerKind::Ours if self.path.is_client() => Resume::AfterUna,
            // Nobody has answered yet. Whoever it is, it knows nothing of the session before its first segment.
            PeerKind::Unknown if self.path.is_client() && bulk_may_be_lost => Resume::AfterFirst,
            PeerKind::Ours | PeerKind::Unknown => Resume::Now,
            // A Go program tells when it is asked. While carriers die before any answer nothing bulky goes out first.
            PeerKind::Go if bulk_may_be_lost => Resume::AfterUna,
            PeerKind::Go => Resume::Now,
        };
        // What has ended the last carrier has not ended the path if one lives that was there with it.
        self.engine.resume(now, how, was_spare);
        if self.heard && self.engine.peer() != PeerKind::Ours {
            self.engine.ask_window(now);
        }
        if self.path.is_client() {
            self.send_hello(id, id.0);
        }
        if self.path.is_client() {
            // Connected is not answered: it may be anybody's door.
            self.coming_up = Some(id);
        } else {
            self.announce(now, id);
        }
    }

    fn probe(&mut self, now: Instant, id: CarrierId) {
        self.stats.probes += 1;
        if self.engine.peer() != PeerKind::Ours {
            self.engine.ask_window(now);
        }
        if self.engine.peer() != PeerKind::Go {
            let nonce = self.stats.probes as u32;
            self.ping = Some((nonce, now));
            self.send_control(id, Control::Ping { conv: self.conv, nonce, una: self.engine.kcp().rcv_nxt() });
        }
    }

    // Streams.

    /// Opens a stream. The peer hears of it with its first data, or at the next packet.
    ///
    /// # Errors
    ///
    /// The session is over or closing, or has too many streams. [`StreamFailure::NotBefore`]: a peer of ours would refuse it, because 4,000 were opened at
    /// once, or 1,000 a second since then.
    pub fn open(&mut self, now: Instant) -> Result<StreamId, StreamFailure> {
        self.alive()?;
        if self.closing.is_some() {
            return Err(SessionError::Closed.into());
        }
        let step = Duration::from_secs(1) / OPEN_RATE;
        let earliest = self.open_pace.and_then(|pace| pace.checked_sub(step * OPEN_BURST)).filter(|at| now < *at);
        if let (Some(at), PeerKind::Ours) = (earliest, self.engine.peer()) {
            return Err(StreamFailure::NotBefore(at));
        }
        let id = self.engine.open()?;
        self.open_pace = Some(self.open_pace.map_or(now, |pace| pace.max(now)) + step);
        self.advance(now);
        Ok(id)
    }

    /// The next stream that the peer has opened.
    pub fn accept(&mut self) -> Option<StreamId> {
        self.engine.accept()
    }

    /// Takes bytes to be sent; fewer than given, or none, when the stream's buffer is full. After none, [`Event::Writable`] follows.
    ///
    /// # Errors
    ///
    /// The session is over, or the stream was finished by us or closed by the peer.
    pub fn write(&mut self, now: Instant, id: StreamId, bytes: &[u8]) -> Result<usize, StreamFailure> {
        self.alive()?;
        let taken = self.engine.write(id, bytes)?;
        self.advance(now);
        Ok(taken)
    }

    /// How much [`Tunnel::write`] would take now, at least one byte. `None`: less than `enough`, and more than half of what the stream may have waits; [`Event::Writable`] follows.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::write`].
    pub fn room(&mut self, id: StreamId, enough: usize) -> Result<Option<usize>, StreamFailure> {
        self.alive()?;
        Ok(self.engine.room(id, enough)?)
    }

    /// Bytes that were written to a stream and have not begun their way, and one for an end that has not: what [`Tunnel::reset_stream`] would drop. What has
    /// begun it arrives if the session lives; 0 once that has ended.
    #[must_use]
    pub fn unsent(&mut self, id: StreamId) -> usize {
        if self.ended.is_some() { 0 } else { self.engine.unsent(id) }
    }

    /// Reads received bytes. `None`: nothing now, [`Event::Readable`] follows. `Some(0)`: the peer has finished.
    ///
    /// # Errors
    ///
    /// The session is over and everything that had arrived is read, or the stream is closed.
    pub fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, StreamFailure> {
        if self.ended == Some(SessionError::OutOfMemory) {
            return Err(SessionError::OutOfMemory.into());
        }
        let (read, session) = self.engine.read(now, id, buf);
        if let Err(error) = session {
            self.fail(now, error);
        }
        let read = read?;
        if read.is_none() {
            self.alive()?;
        }
        self.advance(now);
        Ok(read)
    }

    /// Half-close: the peer reads to the end of what was written; reading goes on. [`Event::Delivered`] follows.
    ///
    /// # Errors
    ///
    /// The session is over, or the stream was closed: by us, or by the peer before all that was written had been sent.
    pub fn finish(&mut self, now: Instant, id: StreamId) -> Result<(), StreamFailure> {
        self.alive()?;
        self.engine.finish(id)?;
        self.advance(now);
        Ok(())
    }

    /// The application lets go of the stream: what was written is still sent, what comes is thrown away.
    pub fn close_stream(&mut self, now: Instant, id: StreamId) {
        if let Err(error) = self.engine.close_stream(now, id) {
            self.fail(now, error);
        }
        self.advance(now);
    }

    /// As [`Tunnel::close_stream`], but what was written and is not sent is dropped, and a peer of ours hears that this is no orderly end: when it has read what came, its calls
    /// on the stream fail. A Go peer takes it for an end.
    pub fn reset_stream(&mut self, now: Instant, id: StreamId) {
        if let Err(error) = self.engine.reset_stream(now, id) {
            self.fail(now, error);
        }
        self.advance(now);
    }

    // What is to be told.

    /// What has to be done to connections.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.path.poll_action()
    }

    /// What the application should hear of.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.engine.poll_event().map(|event| match event {
            EngineEvent::Incoming => Event::Incoming,
            EngineEvent::Readable(id) => Event::Readable(id),
            EngineEvent::Writable(id) => Event::Writable(id),
            EngineEvent::Delivered(id) => Event::Delivered(id),
            EngineEvent::ClosedByPeer { id, lost } => Event::ClosedByPeer { id, lost },
            EngineEvent::Refused(id) => Event::Refused(id),
            EngineEvent::Reset(id) => Event::Reset(id),
        });
        event.or_else(|| pop_rare(&mut self.events))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            carriers_dropped: self.path.dropped(),
            spare: self.path.has_spare(),
            spares_used: self.path.spares_used(),
            segments_resent: self.engine.kcp().stats().resent(),
            streams: self.engine.mux().streams(),
            srtt: self.engine.srtt(),
            peer: self.engine.peer(),
            ..self.stats.clone()
        }
    }

    /// The engines' own counters, for tests and the curious.
    #[must_use]
    pub fn engine_stats(&self) -> (&kcp::Stats, &smux::Stats) {
        (self.engine.kcp().stats(), self.engine.mux().stats())
    }
}

/// `una` of the first segment of a KCP packet.
fn una_of(packet: &[u8]) -> Option<Sn> {
    let una = packet.get(16..20)?.first_chunk()?;
    Some(Sn::new(u32::from_le_bytes(*una)))
}

/// The conv of a packet that may open a session: it has a PUSH numbered `first_sn`, maybe behind a question for the window. Everything else
/// from an unknown session is somebody who has missed its end.
#[must_use]
pub fn opening_conv(packet: &[u8], first_sn: u32) -> Option<u32> {
    let mut segments = kcp::segments(packet).ok()?;
    let opens = segments.any(|segment| {
        segment.cmd == kcp::wire::Command::Push && segment.sn.value() == first_sn && !segment.payload.is_empty()
    });
    if opens { kcp::conv_of(packet) } else { None }
}
