//! What is counted, once, for everybody who wants to see it.
//!
//! In: the events of sessions, and bytes as they pass. Out: a [`Snapshot`], or the text format of Prometheus. Counting costs an atomic addition; an event costs a lock for a moment.
//! A session is remembered until it ends.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Serialize};
use turbotunnel::control::ByeReason;
use turbotunnel::{CarrierEnd, Event, SessionError, SessionId};

use super::own::{self, Numbers, Own};
use crate::forward::open::Open;
use crate::forward::request::Code;

/// Sessions that a snapshot tells one by one: those that came last.
const SHOWN: usize = 50;
/// Limits of the classes of gaps, in seconds: from a redial on the same machine to a night.
const GAPS: [f64; 12] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];

/// A handle to what is counted. Clones count together.
#[derive(Clone)]
pub(crate) struct Board(Arc<Inner>);

struct Inner {
    began: Instant,
    role: &'static str,
    open: Open,
    /// Nothing new begins.
    ending: AtomicBool,
    metrics: Metrics,
    sessions: Mutex<Sessions>,
    own: Own,
    registry: Registry,
}

/// What streams do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// Into streams.
    pub sent: Counter,
    /// Out of streams.
    pub received: Counter,
    outcomes: Family<Outcome, Counter>,
}

impl Traffic {
    /// It is known what became of one that wanted to go somewhere.
    pub(crate) fn count(&self, code: Code) {
        self.count_outcome(code.label());
    }

    /// It did not get there for want of descriptors, which has no code.
    pub(crate) fn count_short_of_files(&self) {
        self.count_outcome(SHORT_OF_FILES);
    }

    fn count_outcome(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&Outcome { outcome }).inc();
    }
}

const SHORT_OF_FILES: &str = "too_many_files";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    end: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

struct Metrics {
    sessions: Family<State, Gauge>,
    started: Counter,
    ended: Family<Why, Counter>,
    streams: Gauge,
    carriers: Counter,
    lost: Family<End, Counter>,
    dial_failures: Counter,
    resent: Counter,
    gaps: Histogram,
    memory: Gauge,
    reload_failed: Gauge,
    headers_missing: Counter,
    traffic: Traffic,
}

#[derive(Default)]
struct Sessions {
    known: HashMap<SessionId, Seen>,
    /// Sums for the page, which wants them without a scrape.
    longest_gap: Duration,
    last_failure: Option<Failed>,
}

struct Failed {
    dial: u32,
    error: String,
    next_at: Instant,
}

struct Seen {
    began: Instant,
    /// Carriers in use, oldest first: their numbers and beginnings.
    carriers: Vec<(u32, Instant)>,
    /// When the last one was lost.
    waiting_since: Option<Instant>,
    cuts: u64,
    longest_gap: Duration,
}

/// What there is to see at a moment. Times are in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshot {
    pub role: String,
    pub version: String,
    pub up_s: f64,
    pub sessions_connected: u64,
    pub sessions_waiting: u64,
    pub sessions_started: u64,
    pub streams: u64,
    pub carriers: u64,
    pub cuts: u64,
    pub dial_failures: u64,
    pub packets_resent: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub memory: u64,
    pub longest_gap_s: f64,
    /// Server: connections that came, and those now that belong to no session.
    pub connections: u64,
    pub strangers: u64,
    /// Server: how many were not let in, and why.
    pub refusals: BTreeMap<String, u64>,
    /// Server: at most so many, so much; `null`: no limit.
    pub sessions_limit: Option<u64>,
    pub memory_limit: Option<u64>,
    /// Client: smoothed.
    pub round_trip_s: Option<f64>,
    /// Client: a spare carrier is ready.
    pub spare_ready: bool,
    /// Those that came last, newest first.
    pub sessions: Vec<SessionSnapshot>,
}

/// One session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SessionSnapshot {
    /// The first 8 digits of its identifier.
    pub id: String,
    pub age_s: f64,
    /// The carrier in use, counted from 1; 0: none.
    pub carrier: u32,
    pub carrier_age_s: f64,
    /// How long there has been no carrier.
    pub waiting_s: Option<f64>,
    pub cuts: u64,
    pub longest_gap_s: f64,
}

impl Board {
    pub(crate) fn new(role: &'static str, open: Open) -> Self {
        let metrics = Metrics {
            sessions: Family::default(),
            started: Counter::default(),
            ended: Family::default(),
            streams: Gauge::default(),
            carriers: Counter::default(),
            lost: Family::default(),
            dial_failures: Counter::default(),
            resent: Counter::default(),
            gaps: Histogram::new(GAPS),
            memory: Gauge::default(),
            reload_failed: Gauge::default(),
            headers_missing: Counter::default(),
            traffic: Traffic::default(),
        };
        for why in ALL_WHYS {
            let _ = metrics.ended.get_or_create(&Why { why });
        }
        for outcome in Code::ALL.into_iter().map(Code::label).chain([SHORT_OF_FILES]) {
            let _ = metrics.traffic.outcomes.get_or_create(&Outcome { outcome });
        }
        let mut registry = Registry::with_prefix("turbotunnel");
        registry.register("sessions", "Sessions now, with a carrier and without", metrics.sessions.clone());
        registry.register("sessions_started", "Sessions that began", metrics.started.clone());
        registry.register("sessions_ended", "Sessions that are over", metrics.ended.clone());
        registry.register("streams", "Streams that are open", metrics.streams.clone());
        // Not "streams": that is the gauge's, and a format in which `_total` is not a part of the name has one metric of a name.
        let help = "Streams that wanted to go somewhere, by what became of that";
        registry.register("stream_requests", help, metrics.traffic.outcomes.clone());
        registry.register("carriers", "Carriers that were used", metrics.carriers.clone());
        registry.register("carriers_lost", "Carriers that ended, and how", metrics.lost.clone());
        registry.register("dial_failures", "Dials that failed", metrics.dial_failures.clone());
        registry.register("resent_packets", "KCP segments sent again on a new carrier", metrics.resent.clone());
        registry.register_with_unit(
            "session_gap",
            "Time without contact between two carriers",
            Unit::Seconds,
            metrics.gaps.clone(),
        );
        registry.register_with_unit(
            "memory",
            "Memory of all sessions, as far as they have told",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        if role == "server" {
            let help = "1 after a reread of clients or certificate that failed, until one has succeeded";
            registry.register("reload_failed", help, metrics.reload_failed.clone());
            let help = "Connections without a PROXY header where one is wanted";
            registry.register("proxy_headers_missing", help, metrics.headers_missing.clone());
        }
        registry.register_collector(Box::new(Bytes(metrics.traffic.clone())));
        registry.register("build", "Which program this is", Info::new(Build { version: env!("CARGO_PKG_VERSION") }));
        let own = Own::default();
        registry.register_collector(Box::new(own.clone()));
        Self(Arc::new(Inner {
            began: Instant::now(),
            role,
            open,
            ending: AtomicBool::new(false),
            metrics,
            sessions: Mutex::default(),
            own,
            registry,
        }))
    }

    /// Where bytes of streams are counted.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.0.metrics.traffic
    }

    /// The program ends: it is not ready any more, whatever sessions there are.
    pub(crate) fn set_ending(&self) {
        self.0.ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }

    /// Where connections without a PROXY header are counted.
    pub(crate) fn headers_missing(&self) -> Counter {
        self.0.metrics.headers_missing.clone()
    }

    /// How the last reread of files went.
    pub(crate) fn set_reload_failed(&self, failed: bool) {
        let _ = self.0.metrics.reload_failed.set(failed.into());
    }

    /// Whose numbers they are, to be set.
    pub(crate) fn own(&self) -> &Own {
        &self.0.own
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what has happened to a session.
    pub(crate) fn handle_event(&self, id: SessionId, event: &Event) {
        let (metrics, now) = (&self.0.metrics, Instant::now());
        let mut sessions = self.sessions();
        match event {
            Event::CarrierUp { number, gap, resent, .. } => {
                metrics.carriers.inc();
                metrics.resent.inc_by(*resent as u64);
                sessions.last_failure = None;
                if let Some(gap) = gap {
                    metrics.gaps.observe(gap.as_secs_f64());
                    sessions.longest_gap = sessions.longest_gap.max(*gap);
                }
                let seen = sessions.known.entry(id).or_insert_with(|| {
                    metrics.started.inc();
                    Seen { began: now, carriers: Vec::new(), waiting_since: None, cuts: 0, longest_gap: Duration::ZERO }
                });
                seen.carriers.push((*number, now));
                seen.waiting_since = None;
                seen.longest_gap = seen.longest_gap.max(gap.unwrap_or_default());
            }
            Event::CarrierLost { number, reason, .. } => {
                metrics.lost.get_or_create(&End { end: end(*reason) }).inc();
                if let Some(seen) = sessions.known.get_mut(&id) {
                    seen.cuts += 1;
                    seen.carriers.retain(|(carrier, _)| carrier != number);
                    if seen.carriers.is_empty() {
                        seen.waiting_since = Some(now);
                    }
                }
            }
            Event::DialFailed { number, error, next_in, .. } => {
                metrics.dial_failures.inc();
                sessions.last_failure =
                    Some(Failed { dial: *number, error: crate::failure::plain(error), next_at: now + *next_in });
            }
            Event::SessionEnded(error) if sessions.known.remove(&id).is_some() => {
                metrics.ended.get_or_create(&Why { why: why(error) }).inc();
            }
            _ => {}
        }
    }

    /// What there is to see now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (inner, now) = (&self.0, Instant::now());
        let sessions = self.sessions();
        let waiting = sessions.known.values().filter(|seen| seen.carriers.is_empty()).count();
        let mut newest: Vec<_> = sessions.known.iter().collect();
        newest.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.began));
        let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        let shown = newest.iter().take(SHOWN).map(|(id, seen)| {
            let (carrier, age) = seen.carriers.last().map_or((0, 0.0), |(number, began)| (*number, since(*began)));
            SessionSnapshot {
                id: id.short(),
                age_s: since(seen.began),
                carrier,
                carrier_age_s: age,
                waiting_s: seen.waiting_since.map(since),
                cuts: seen.cuts,
                longest_gap_s: seen.longest_gap.as_secs_f64(),
            }
        });
        let mut snapshot = Snapshot {
            role: inner.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_s: since(inner.began),
            sessions_connected: (sessions.known.len() - waiting) as u64,
            sessions_waiting: waiting as u64,
            sessions_started: inner.metrics.started.get(),
            streams: inner.open.now() as u64,
            carriers: inner.metrics.carriers.get(),
            cuts: ALL_ENDS.into_iter().map(|end| inner.metrics.lost.get_or_create(&End { end }).get()).sum(),
            dial_failures: inner.metrics.dial_failures.get(),
            packets_resent: inner.metrics.resent.get(),
            bytes_sent: inner.metrics.traffic.sent.get(),
            bytes_received: inner.metrics.traffic.received.get(),
            longest_gap_s: sessions.longest_gap.as_secs_f64(),
            sessions: shown.collect(),
            ..Snapshot::default()
        };
        drop(sessions);
        snapshot.take_own(inner.own.numbers());
        snapshot
    }

    /// How the last dial failed, if none has succeeded since: its number, what was said, and how long until the next.
    pub(crate) fn last_failure(&self) -> Option<(u32, String, Duration)> {
        let sessions = self.sessions();
        let failed = sessions.last_failure.as_ref()?;
        Some((failed.dial, failed.error.clone(), failed.next_at.saturating_duration_since(Instant::now())))
    }

    /// The text format of Prometheus (OpenMetrics 1.0).
    pub(crate) fn metrics(&self) -> Result<String, fmt::Error> {
        let (snapshot, metrics) = (self.snapshot(), &self.0.metrics);
        let set = |gauge: &Gauge, value: u64| {
            let _ = gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.sessions.get_or_create(&State { state: "connected" }), snapshot.sessions_connected);
        set(&metrics.sessions.get_or_create(&State { state: "waiting" }), snapshot.sessions_waiting);
        set(&metrics.streams, snapshot.streams);
        set(&metrics.memory, snapshot.memory);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

impl Snapshot {
    fn take_own(&mut self, numbers: Option<Numbers>) {
        let limit = |limit: usize| (limit < usize::MAX).then_some(limit as u64);
        match numbers {
            Some(Numbers::Server(stats, limits, _)) => {
                self.memory = stats.memory_now as u64;
                (self.connections, self.strangers) = (stats.connections, stats.strangers_now as u64);
                self.refusals = own::refusals(&stats);
                self.sessions_limit = limit(limits.sessions);
                self.memory_limit = limits.memory.and_then(limit);
            }
            Some(Numbers::Client(stats)) => {
                self.round_trip_s = stats.srtt.map(|srtt| srtt.as_secs_f64());
                self.spare_ready = stats.spare;
            }
            None => {}
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.0.role).finish()
    }
}

/// Bytes, one counter a direction.
#[derive(Debug)]
struct Bytes(Traffic);

impl prometheus_client::collector::Collector for Bytes {
    fn encode(&self, mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>) -> fmt::Result {
        use prometheus_client::encoding::EncodeMetric;
        let kind = prometheus_client::metrics::MetricType::Counter;
        let mut family = encoder.encode_descriptor("stream_bytes", "Bytes of streams.", None, kind)?;
        for (direction, counter) in [("sent", &self.0.sent), ("received", &self.0.received)] {
            counter.encode(family.encode_family(&Direction { direction })?)?;
        }
        Ok(())
    }
}

const ALL_ENDS: [&str; 7] = ["fin", "rst", "silent", "replaced", "invalid", "forged", "other"];

/// How a carrier ended, as a label.
fn end(end: CarrierEnd) -> &'static str {
    match end {
        CarrierEnd::Closed => "fin",
        CarrierEnd::Failed(_) => "rst",
        CarrierEnd::Silent => "silent",
        CarrierEnd::Replaced | CarrierEnd::UsedUp => "replaced",
        CarrierEnd::BadPacket => "invalid",
        CarrierEnd::NotAuthentic => "forged",
        _ => "other",
    }
}

/// All that [`why`] says: what is there from the start has a rate from its first event on.
const ALL_WHYS: [&str; 9] =
    ["closed", "shutdown", "timeout", "unknown", "memory", "not_admitted", "abandoned", "protocol", "other"];

/// Why a session is over, as a label.
fn why(error: &SessionError) -> &'static str {
    match error {
        SessionError::Closed | SessionError::ClosedByPeer(ByeReason::Done) => "closed",
        // Finished or not, so it is no good end.
        SessionError::ClosedByPeer(ByeReason::Shutdown) => "shutdown",
        SessionError::GaveUp(_) | SessionError::Stalled(_) => "timeout",
        SessionError::Abandoned => "abandoned",
        SessionError::OutOfMemory | SessionError::ClosedByPeer(ByeReason::OutOfMemory) => "memory",
        SessionError::NotAdmitted | SessionError::ClosedByPeer(ByeReason::NotAdmitted) => "not_admitted",
        SessionError::Unknown => "unknown",
        SessionError::Protocol(_) | SessionError::ClosedByPeer(ByeReason::Protocol) => "protocol",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(number: u32, gap: Option<u64>) -> Event {
        Event::CarrierUp { number, addr: None, gap: gap.map(Duration::from_millis), resent: 3 }
    }

    fn lost(number: u32) -> Event {
        Event::CarrierLost { number, reason: CarrierEnd::Closed, age: Duration::from_secs(1), unacknowledged: 0 }
    }

    #[test]
    fn a_session_is_connected_waits_and_is_gone() {
        let open = Open::default();
        let board = Board::new("client", open.clone());
        let id = SessionId([7; 8]);
        let _one = open.one();
        board.handle_event(id, &up(1, None));
        let snapshot = board.snapshot();
        assert_eq!((snapshot.sessions_connected, snapshot.sessions_waiting, snapshot.streams), (1, 0, 1));
        assert_eq!((snapshot.sessions[0].carrier, snapshot.sessions[0].waiting_s), (1, None));

        board.handle_event(id, &lost(1));
        let failed = Event::DialFailed {
            number: 2,
            error: "No route".into(),
            next_in: Duration::from_secs(9),
            unanswered: false,
        };
        board.handle_event(id, &failed);
        let snapshot = board.snapshot();
        assert_eq!((snapshot.sessions_connected, snapshot.sessions_waiting, snapshot.cuts), (0, 1, 1));
        assert!(snapshot.sessions[0].waiting_s.is_some());
        assert!(
            matches!(board.last_failure(), Some((2, why, next)) if why == "no route" && next > Duration::from_secs(1))
        );

        board.handle_event(id, &up(3, Some(1500)));
        assert!(board.last_failure().is_none());
        assert_eq!(board.snapshot().longest_gap_s, 1.5);
        board.handle_event(id, &Event::SessionEnded(SessionError::Closed));
        assert_eq!(board.snapshot().sessions.len(), 0);
    }

    /// A carrier is replaced before it is cut: there is contact all the time.
    #[test]
    fn make_before_break_is_no_gap() {
        let board = Board::new("server", Open::default());
        let id = SessionId([7; 8]);
        for event in [up(1, None), up(2, Some(0)), lost(1)] {
            board.handle_event(id, &event);
        }
        let snapshot = board.snapshot();
        assert_eq!((snapshot.sessions_connected, snapshot.sessions[0].carrier), (1, 2));
    }

    /// A counter that appears with its first event has no rate before the second: each is there from the start.
    #[test]
    fn ends_of_sessions_are_counted_from_nothing_on_and_a_shutdown_is_no_good_end() {
        let board = Board::new("client", Open::default());
        let has = |line: &str| {
            let text = board.metrics().unwrap();
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        };
        for (n, (error, label)) in [
            (SessionError::Closed, "closed"),
            (SessionError::ClosedByPeer(ByeReason::Done), "closed"),
            (SessionError::ClosedByPeer(ByeReason::Shutdown), "shutdown"),
            (SessionError::GaveUp(Duration::from_secs(1)), "timeout"),
            (SessionError::Abandoned, "abandoned"),
            (SessionError::OutOfMemory, "memory"),
            (SessionError::NotAdmitted, "not_admitted"),
            (SessionError::Unknown, "unknown"),
            (SessionError::ClosedByPeer(ByeReason::Protocol), "protocol"),
            (SessionError::Aborted, "other"),
        ]
        .into_iter()
        .enumerate()
        {
            let counted = u64::from(n == 1);
            has(&format!("turbotunnel_sessions_ended_total{{why=\"{label}\"}} {counted}"));
            let id = SessionId([n as u8; 8]);
            board.handle_event(id, &up(1, None));
            board.handle_event(id, &Event::SessionEnded(error));
            has(&format!("turbotunnel_sessions_ended_total{{why=\"{label}\"}} {}", counted + 1));
        }
    }

    #[test]
    fn prometheus_gets_its_text() {
        let board = Board::new("server", Open::default());
        board.handle_event(SessionId([7; 8]), &up(1, None));
        board.handle_event(SessionId([7; 8]), &lost(1));
        board.traffic().sent.inc_by(1234);
        let text = board.metrics().unwrap();
        for line in [
            concat!("turbotunnel_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "turbotunnel_sessions{state=\"waiting\"} 1",
            "turbotunnel_sessions_started_total 1",
            "turbotunnel_carriers_lost_total{end=\"fin\"} 1",
            "turbotunnel_stream_bytes_total{direction=\"sent\"} 1234",
            "turbotunnel_resent_packets_total 3",
            "# TYPE turbotunnel_session_gap_seconds histogram",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
