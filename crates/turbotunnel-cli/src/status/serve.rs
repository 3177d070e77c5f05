//! Numbers over HTTP, for machines and people: `/healthz`, `/readyz`, `/metrics`, `/status.json`, `/events` (server-sent events, one snapshot a second), and a page at `/`.
//!
//! It is for this machine, or a network that is trusted: no passwords, nothing can be changed by it. At most 64 connections at once, and one that does not say what it wants within 10 s is
//! closed. Bound to loopback it answers only requests for an address or `localhost`, so that no web site can have a browser read it under a name of its own.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Either;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{Interval, interval};

use super::board::Board;
use crate::text;

const CONNECTIONS: usize = 64;
const SILENCE: Duration = Duration::from_secs(10);
/// Between two snapshots of `/events`.
const PACE: Duration = Duration::from_secs(1);
/// After an accept that failed.
const PAUSE: Duration = Duration::from_millis(100);

const PAGE: &str = include_str!("page.html");

/// Listens, and answers until the task is dropped or the program ends.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) async fn start(at: &str, board: Board) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(at).await?;
    let addr = listener.local_addr()?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let Ok((connection, _)) = listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let board = board.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let answer = answer(&request, addr.ip(), &board);
                    async { Ok::<_, Infallible>(answer) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(SILENCE).max_buf_size(16 << 10);
                // Whoever went away, or spoke no HTTP, has had his answer.
                let _ = http.serve_connection(TokioIo::new(connection), service).await;
                drop(place);
            });
        }
    });
    Ok(addr)
}

type Answer = Response<Either<String, Events>>;

fn answer(request: &Request<Incoming>, bound: IpAddr, board: &Board) -> Answer {
    if bound.is_loopback() && !request.headers().get(HOST).is_some_and(is_for_this_machine) {
        return text(StatusCode::FORBIDDEN, "this is for requests to an address of this machine, not to a name\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "there is nothing to change here\n");
    }
    match request.uri().path() {
        "/" => of_type(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned()),
        // The process lives: it has answered.
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => readiness(board),
        "/metrics" => match board.metrics() {
            Ok(metrics) => {
                of_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics)
            }
            Err(fmt::Error) => text(StatusCode::INTERNAL_SERVER_ERROR, "the numbers cannot be written\n"),
        },
        "/status.json" => of_type(StatusCode::OK, "application/json", json(board)),
        "/events" => {
            let mut answer = Response::new(Either::Right(Events { board: board.clone(), pace: interval(PACE) }));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "/ /healthz /readyz /metrics /status.json /events\n"),
    }
}

/// A server is ready when it runs; a client is when its session has contact. Neither is when it is ending: it takes nothing new.
fn readiness(board: &Board) -> Answer {
    if board.is_ending() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    }
    let snapshot = board.snapshot();
    if snapshot.role == "server" || snapshot.sessions_connected > 0 {
        return text(StatusCode::OK, "ready\n");
    }
    let waits = snapshot.sessions.first().and_then(|session| session.waiting_s);
    let since = waits.map_or_else(
        || "no session yet\n".to_owned(),
        |waiting| format!("no contact for {}\n", text::age(Duration::from_secs_f64(waiting))),
    );
    text(StatusCode::SERVICE_UNAVAILABLE, &since)
}

fn json(board: &Board) -> String {
    // A struct of numbers and texts has no way to fail.
    serde_json::to_string(&board.snapshot()).unwrap_or_default()
}

fn text(status: StatusCode, said: &str) -> Answer {
    of_type(status, "text/plain; charset=utf-8", said.to_owned())
}

fn of_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Either::Left(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(
        "content-security-policy",
        HeaderValue::from_static("default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"),
    );
    answer
}

/// An address or `localhost`, with a port or not.
fn is_for_this_machine(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// A snapshot a second, for as long as somebody reads.
struct Events {
    board: Board,
    pace: Interval,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.pace.poll_tick(cx));
        let event = format!("data: {}\n\n", json(&self.board));
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::open::Open;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use turbotunnel::{Event, SessionId};

    async fn get(at: SocketAddr, request: &str) -> String {
        let mut connection = TcpStream::connect(at).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn asks(path: &str, host: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    }

    #[tokio::test]
    async fn readiness_speaks_of_the_session_and_health_of_the_process() {
        let board = Board::new("client", Open::default());
        let at = start("127.0.0.1:0", board.clone()).await.unwrap();
        let host = at.to_string();
        assert!(get(at, &asks("/healthz", &host)).await.starts_with("HTTP/1.1 200"));
        let unready = get(at, &asks("/readyz", &host)).await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("no session yet\n"), "{unready}");
        board.handle_event(SessionId([1; 8]), &Event::CarrierUp { number: 1, addr: None, gap: None, resent: 0 });
        assert!(get(at, &asks("/readyz", &host)).await.starts_with("HTTP/1.1 200"));
        let json = get(at, &asks("/status.json", "localhost")).await;
        assert!(json.contains("\"sessions_connected\":1") && json.contains("\"id\":\"01010101\""), "{json}");
        assert!(get(at, &asks("/metrics", &host)).await.contains("turbotunnel_sessions{state=\"connected\"} 1"));
        assert!(get(at, &asks("/", &host)).await.contains("<html"));
        assert!(get(at, &asks("/nothing", &host)).await.starts_with("HTTP/1.1 404"));
    }

    /// A health check is to send nobody to a program that waits for its last streams and refuses new ones.
    #[tokio::test]
    async fn whoever_is_ending_is_alive_and_not_ready() {
        for role in ["server", "client"] {
            let board = Board::new(role, Open::default());
            board.handle_event(SessionId([1; 8]), &Event::CarrierUp { number: 1, addr: None, gap: None, resent: 0 });
            let at = start("127.0.0.1:0", board.clone()).await.unwrap();
            assert!(get(at, &asks("/readyz", "localhost")).await.starts_with("HTTP/1.1 200"), "{role}");
            board.set_ending();
            let unready = get(at, &asks("/readyz", "localhost")).await;
            assert!(unready.starts_with("HTTP/1.1 503") && unready.ends_with("\r\n\r\nending\n"), "{role}: {unready}");
            assert!(get(at, &asks("/healthz", "localhost")).await.starts_with("HTTP/1.1 200"), "{role}");
        }
    }

    /// A web site has its name lead to 127.0.0.1 and lets the visitor's browser ask.
    #[tokio::test]
    async fn names_of_others_are_refused() {
        let at = start("127.0.0.1:0", Board::new("client", Open::default())).await.unwrap();
        for (host, status) in [
            ("evil.example", "403"),
            ("evil.example:9180", "403"),
            ("127.0.0.1.evil.example", "403"),
            ("127.0.0.1:9180", "200"),
            ("[::1]:9180", "200"),
            ("LOCALHOST", "200"),
        ] {
            let answer = get(at, &asks("/healthz", host)).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {answer}");
        }
        let post = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert!(get(at, post).await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn events_come_at_once() {
        let at = start("127.0.0.1:0", Board::new("server", Open::default())).await.unwrap();
        let mut connection = TcpStream::connect(at).await.unwrap();
        connection.write_all(asks("/events", "localhost").as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.windows(2).any(|end| end == b"}\n") {
            assert!(connection.read_buf(&mut heard).await.unwrap() > 0);
        }
        assert!(String::from_utf8_lossy(&heard).contains("data: {\"role\":\"server\""));
    }
}
