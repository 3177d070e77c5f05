//! `status`: what a running server or client counts, asked over HTTP.

use std::fmt::Write;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, client};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::address;
use crate::args::StatusArgs;
use crate::failure::{Exit, Failure, plain, reason};
use crate::status::board::Snapshot;
use crate::text;

const LIMIT: Duration = Duration::from_secs(10);
/// A snapshot has some ten kilobytes.
const MAX_ANSWER: usize = 1 << 20;

pub(super) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let at = address::listen(args.address.trim_start_matches("http://").trim_end_matches('/'))?;
    let at = at[0].replace("[::]", "[::1]");
    let failed = |why: String| {
        Failure::new(Exit::NeverConnected, format!("no status from http://{at}/: {why}"))
            .tip("is it running, and was it started with --status?")
    };
    let asked = tokio::time::timeout(LIMIT, ask(&at)).await;
    let json = asked.map_err(|_| failed("timed out".into()))?.map_err(failed)?;
    if args.json {
        return super::print(&format!("{json}\n"));
    }
    let snapshot: Snapshot = serde_json::from_str(&json).map_err(|error| failed(error.to_string()))?;
    super::print(&shown(&snapshot))
}

async fn ask(at: &str) -> Result<String, String> {
    let connection = TcpStream::connect(at).await.map_err(|error| reason(&error))?;
    let words = |error: hyper::Error| plain(&error.to_string());
    let (mut sender, driving) = client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(words)?;
    tokio::spawn(driving);
    let request = Request::get("/status.json").header(HOST, at).body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(words)?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|error| error.to_string())
}

fn shown(now: &Snapshot) -> String {
    let seconds = |s: f64| text::age(Duration::try_from_secs_f64(s).unwrap_or_default());
    let mut lines = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        lines,
        "{} {}, up {}\n{} connected, {} waiting, {} so far; {}\n{}, {} survived, {} resent, longest gap {}\n{} in, {} out, {} held\n",
        now.role,
        now.version,
        seconds(now.up_s),
        text::count(now.sessions_connected, "session"),
        now.sessions_waiting,
        now.sessions_started,
        text::count(now.streams, "stream"),
        text::count(now.carriers, "carrier"),
        text::count(now.cuts, "cut"),
        text::count(now.packets_resent, "packet"),
        seconds(now.longest_gap_s),
        text::size(now.bytes_sent),
        text::size(now.bytes_received),
        text::size(now.memory),
    );
    if now.role == "server" {
        let limit = |n: Option<u64>, shown: fn(u64) -> String| {
            n.map_or("no limit".to_owned(), |n| format!("at most {}", shown(n)))
        };
        let _ = writeln!(
            lines,
            "{} so far, {} that belong to no session now; limits: {}, {}",
            text::count(now.connections, "connection"),
            now.strangers,
            limit(now.sessions_limit, |n| text::count(n, "session")),
            limit(now.memory_limit, text::binary_size),
        );
    }
    if !now.refusals.is_empty() {
        let all: Vec<_> = now.refusals.iter().map(|(why, n)| format!("{n} {}", why.replace('_', " "))).collect();
        let _ = writeln!(lines, "not let in: {}", all.join(", "));
    }
    for session in &now.sessions {
        let contact = match session.waiting_s {
            Some(waiting) => format!("no contact for {}", seconds(waiting)),
            None => format!("carrier {}, {} old", session.carrier, seconds(session.carrier_age_s)),
        };
        let (age, cuts) = (seconds(session.age_s), text::count(session.cuts, "cut"));
        let _ = writeln!(lines, "  {}  {age} old, {cuts} survived, {contact}", session.id);
    }
    lines
}
