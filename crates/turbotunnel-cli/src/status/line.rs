//! One line on the client's terminal that is rewritten in place, below the log.
//!
//! ```text
//! up 3 h 12 min | carrier 41, 12.0 s old | 40 cuts survived | 2 streams | 1.2 MB/s down 40 kB/s up | rtt 23 ms | spare ready
//! no contact for 9.0 s | 2 streams waiting | dial 5 failed: no route to host | next in 1.6 s (SIGHUP: now)
//! ```

use std::time::Duration;

use super::board::{Board, Snapshot};
use crate::log::Log;
use crate::text;

/// Between two looks.
const PACE: Duration = Duration::from_millis(500);

/// Keeps the line, until dropped; it is taken away with the log's end.
pub(crate) async fn keep(board: Board, log: Log) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut sent, mut received) = (0, 0);
    loop {
        pace.tick().await;
        let now = board.snapshot();
        let rate = |now: u64, then: u64| ((now.saturating_sub(then)) as f64 / PACE.as_secs_f64()) as u64;
        let rates = (rate(now.bytes_received, received), rate(now.bytes_sent, sent));
        (sent, received) = (now.bytes_sent, now.bytes_received);
        log.set_footer(told(&now, rates, board.last_failure()));
    }
}

fn told(now: &Snapshot, (down, up): (u64, u64), failed: Option<(u32, String, Duration)>) -> String {
    let seconds = |s: f64| text::age(Duration::try_from_secs_f64(s).unwrap_or_default());
    let streams = text::count(now.streams, "stream");
    let session = now.sessions.first();
    let mut parts = Vec::new();
    match session {
        Some(session) if session.carrier > 0 => {
            parts.push(format!("up {}", seconds(session.age_s)));
            parts.push(format!("carrier {}, {} old", session.carrier, seconds(session.carrier_age_s)));
            parts.push(format!("{} survived", text::count(session.cuts, "cut")));
            parts.push(streams);
            parts.push(format!("{}/s down {}/s up", text::size(down), text::size(up)));
            parts.extend(now.round_trip_s.map(|rtt| format!("rtt {}", seconds(rtt))));
            parts.extend(now.spare_ready.then(|| "spare ready".to_owned()));
        }
        other => {
            parts.push(match other.and_then(|session| session.waiting_s) {
                Some(waiting) => format!("no contact for {}", seconds(waiting)),
                None => "no session yet".to_owned(),
            });
            parts.push(format!("{streams} waiting"));
            if let Some((dial, why, next_in)) = failed {
                parts.push(format!("dial {dial} failed: {why}"));
                if !next_in.is_zero() {
                    parts.push(format!("next in {} (SIGHUP: now)", text::age(next_in)));
                }
            }
        }
    }
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::board::SessionSnapshot;

    #[test]
    fn contact_and_none() {
        let session = SessionSnapshot {
            id: "x".into(),
            age_s: 11_520.0,
            carrier: 41,
            carrier_age_s: 12.0,
            cuts: 40,
            ..Default::default()
        };
        let mut now =
            Snapshot { streams: 2, round_trip_s: Some(0.023), sessions: vec![session], ..Snapshot::default() };
        assert_eq!(
            told(&now, (1_200_000, 40_000), None),
            "up 3 h 12 min | carrier 41, 12.0 s old | 40 cuts survived | 2 streams | 1.2 MB/s down 40 kB/s up | rtt 23 ms"
        );
        now.spare_ready = true;
        assert!(told(&now, (0, 0), None).ends_with("| rtt 23 ms | spare ready"));
        now.sessions[0].carrier = 0;
        now.sessions[0].waiting_s = Some(9.0);
        let failed = Some((5, "no route to host".to_owned(), Duration::from_millis(1600)));
        assert_eq!(
            told(&now, (0, 0), failed),
            "no contact for 9.0 s | 2 streams waiting | dial 5 failed: no route to host | next in 1.6 s (SIGHUP: now)"
        );
        now.sessions.clear();
        assert_eq!(told(&now, (0, 0), None), "no session yet | 2 streams waiting");
    }
}
