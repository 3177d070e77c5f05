//! What a server's listener or a client's session counts itself, asked for whenever somebody looks.
//!
//! Of a listener: who came, who was kept out and why, and the limits. Of a session: its round trip, and its spare carriers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use turbotunnel::tunnel::Stats as SessionStats;
use turbotunnel::{Limits, Listener, ListenerStats};
use turbotunnel_carriers::Acceptor;

use crate::forward::inlet::Uplink;

/// Counters, and what stands in their labels.
type Counters<S> = [(&'static str, fn(&S) -> u64)];

/// Why a connection or a session is not let in (yet), as a label, and its counter. Whoever is refused is counted once, by the first that he meets, and held until his
/// ten seconds are over.
const REFUSALS: &Counters<ListenerStats> = &[
    ("not_understood", |stats| stats.strangers_not_understood),
    ("session_over", |stats| stats.strangers_too_late),
    ("client_unknown", |stats| stats.clients_refused),
    ("handshake_failed", |stats| stats.handshakes_failed),
    ("handshake_rate", |stats| stats.handshakes_refused_by_rate),
    ("handshake_rate_of_source", |stats| stats.handshakes_refused_by_rate_of_source),
    ("carriers", |stats| stats.carriers_refused),
    ("carriers_of_source", |stats| stats.carriers_refused_of_source),
    ("carriers_of_client", |stats| stats.carriers_refused_of_client),
    ("sessions", |stats| stats.sessions_refused),
    ("sessions_of_client", |stats| stats.sessions_refused_of_client),
    ("session_rate", |stats| stats.sessions_refused_by_rate),
    ("session_rate_of_source", |stats| stats.sessions_refused_by_rate_of_source),
    ("memory", |stats| stats.sessions_refused_by_memory),
];

/// How a connection that belonged to no session was closed.
const CLOSED: &Counters<ListenerStats> = &[
    ("time", |stats| stats.strangers_timed_out),
    ("strangers", |stats| stats.strangers_dropped),
    ("strangers_of_source", |stats| stats.strangers_dropped_of_source),
];

const SPARES: &Counters<SessionStats> = &[("used", |stats| stats.spares_used), ("lost", |stats| stats.spares_lost)];

/// Whose numbers they are, once it is known. Clones know together.
#[derive(Clone, Default)]
pub(crate) struct Own(Arc<OnceLock<Owner>>);

/// What takes connections in the place of the listener, and hands them on.
#[derive(Clone, Default)]
pub(crate) struct Doors {
    /// Not held: the file of a Unix socket goes with the last that holds its.
    pub acceptors: Vec<Weak<Acceptor>>,
    /// Pauses at the ports of balancers.
    pub balanced: Counter,
}

impl Doors {
    /// Pauses because nothing could be accepted.
    pub(crate) fn accept_pauses(&self) -> u64 {
        self.living().map(|acceptor| acceptor.stats().accept_pauses).sum::<u64>() + self.balanced.get()
    }

    /// Of TLS and WebSockets.
    fn handshakes_failed(&self) -> u64 {
        self.living().map(|acceptor| acceptor.stats().handshakes_failed).sum()
    }

    fn living(&self) -> impl Iterator<Item = Arc<Acceptor>> {
        self.acceptors.iter().filter_map(Weak::upgrade)
    }
}

enum Owner {
    Server(Weak<Listener>, Doors),
    /// The session at hand: a client whose session has ended begins another, and its numbers begin anew.
    Client(Uplink),
}

/// The numbers at a moment.
#[expect(clippy::large_enum_variant, reason = "one at a time, and read at once")]
pub(crate) enum Numbers {
    /// Handshakes of carriers that failed, too.
    Server(ListenerStats, Limits, u64),
    Client(SessionStats),
}

impl Own {
    /// Without effect if there is an owner.
    pub(crate) fn set_listener(&self, listener: &Arc<Listener>, doors: Doors) {
        let _ = self.0.set(Owner::Server(Arc::downgrade(listener), doors));
    }

    /// Without effect if there is an owner.
    pub(crate) fn set_session(&self, session: Uplink) {
        let _ = self.0.set(Owner::Client(session));
    }

    /// `None`: nobody, or no session yet.
    pub(crate) fn numbers(&self) -> Option<Numbers> {
        match self.0.get()? {
            Owner::Server(listener, doors) => {
                let listener = listener.upgrade()?;
                let mut stats = listener.stats();
                stats.accept_pauses += doors.accept_pauses();
                Some(Numbers::Server(stats, listener.limits(), doors.handshakes_failed()))
            }
            Owner::Client(session) => Some(Numbers::Client(session.borrow().as_ref()?.stats().tunnel)),
        }
    }
}

/// Those that there were, by their labels.
pub(crate) fn refusals(stats: &ListenerStats) -> BTreeMap<String, u64> {
    let all = REFUSALS.iter().map(|(why, count)| ((*why).to_owned(), count(stats)));
    all.filter(|(_, count)| *count > 0).collect()
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    fate: &'static str,
}

impl Collector for Own {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        match self.numbers() {
            Some(Numbers::Server(stats, limits, failed)) => {
                counter(&mut to, "connections", "Connections that came.", stats.connections)?;
                gauge(
                    &mut to,
                    "strangers",
                    "Connections now that belong to no session.",
                    None,
                    whole(stats.strangers_now),
                )?;
                let help = "Strangers closed, because their 10 s were over or others came.";
                family(&mut to, "strangers_closed", help, CLOSED, &stats, |why| Why { why })?;
                let help = "Connections and sessions that were not let in.";
                family(&mut to, "refusals", help, REFUSALS, &stats, |why| Why { why })?;
                counter(&mut to, "handshakes", "Handshakes of clients that are admitted.", stats.handshakes)?;
                let help = "Handshakes of TLS and WebSockets that came to nothing.";
                counter(&mut to, "carrier_handshakes_failed", help, failed)?;
                let help = "Pauses because nothing could be accepted, for want of descriptors mostly.";
                counter(&mut to, "accept_pauses", help, stats.accept_pauses)?;
                for (name, help, unit, limit) in [
                    ("strangers_limit", "Strangers at most.", None, limits.strangers),
                    ("carriers_limit", "Carriers at once, at most.", None, limits.carriers),
                    ("sessions_limit", "Sessions at most.", None, limits.sessions),
                    (
                        "memory_limit",
                        "Memory of all sessions at most.",
                        Some(&Unit::Bytes),
                        limits.memory.unwrap_or(usize::MAX),
                    ),
                ] {
                    if limit < usize::MAX {
                        gauge(&mut to, name, help, unit, whole(limit))?;
                    }
                }
                Ok(())
            }
            Some(Numbers::Client(stats)) => {
                if let Some(srtt) = stats.srtt {
                    gauge(
                        &mut to,
                        "round_trip",
                        "Smoothed round trip of the session.",
                        Some(&Unit::Seconds),
                        srtt.as_secs_f64(),
                    )?;
                }
                gauge(&mut to, "spare_ready", "1 while a spare carrier is ready.", None, i64::from(stats.spare))?;
                family(&mut to, "spares", "Spare carriers that are none any more.", SPARES, &stats, |fate| Fate {
                    fate,
                })
            }
            None => Ok(()),
        }
    }
}

fn whole(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn counter(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(to.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge<N>(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>, value: N) -> fmt::Result
where
    N: EncodeGaugeValue,
    ConstGauge<N>: EncodeMetric,
{
    ConstGauge::new(value).encode(to.encode_descriptor(name, help, unit, MetricType::Gauge)?)
}

fn family<S, L: EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counters: &Counters<S>,
    stats: &S,
    label: fn(&'static str) -> L,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, count) in counters {
        ConstCounter::new(count(stats)).encode(family.encode_family(&label(name))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::open::Open;
    use crate::status::board::Board;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::watch;
    use turbotunnel::Session;

    fn has(board: &Board, lines: &[&str]) {
        let text = board.metrics().unwrap();
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn a_server_tells_who_was_kept_out_and_the_limits() {
        let mut limits = Limits::default();
        (limits.sessions, limits.strangers, limits.memory) = (7, 3, Some(1 << 20));
        let listener = Arc::new(Listener::builder().plain().limits(limits).bind("127.0.0.1:0").await.unwrap());
        let board = Board::new("server", Open::default());
        board.own().set_listener(&listener, Doors::default());
        has(&board, &["turbotunnel_strangers 0", "turbotunnel_refusals_total{why=\"memory\"} 0"]);
        assert!(board.snapshot().refusals.is_empty());

        let mut browser = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let told = async {
            while board.snapshot().refusals.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("it is told");
        has(
            &board,
            &[
                "turbotunnel_connections_total 1",
                "turbotunnel_strangers 1",
                "turbotunnel_refusals_total{why=\"not_understood\"} 1",
                "turbotunnel_strangers_closed_total{why=\"time\"} 0",
                "turbotunnel_strangers_limit 3",
                "turbotunnel_sessions_limit 7",
                "turbotunnel_memory_limit_bytes 1048576",
            ],
        );
        let snapshot = board.snapshot();
        assert_eq!((snapshot.connections, snapshot.strangers), (1, 1));
        assert_eq!((snapshot.sessions_limit, snapshot.memory_limit), (Some(7), Some(1 << 20)));
        assert_eq!(snapshot.refusals, BTreeMap::from([("not_understood".to_owned(), 1)]));
        // Whoever read a status of before has no fields for all this, and the other way round.
        let older: crate::status::board::Snapshot = serde_json::from_str("{\"role\":\"server\"}").unwrap();
        assert_eq!(older.connections, 0);
    }

    #[tokio::test]
    async fn a_client_tells_of_its_session_once_there_is_one() {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let board = Board::new("client", Open::default());
        let (up, uplink) = watch::channel(None);
        board.own().set_session(uplink);
        assert!(!board.metrics().unwrap().contains("spare"), "no session, no numbers of it");
        up.send_replace(Some(Session::connect(listener.local_addr().unwrap()).await.unwrap()));
        has(&board, &["turbotunnel_spare_ready 0", "turbotunnel_spares_total{fate=\"used\"} 0"]);
    }
}
