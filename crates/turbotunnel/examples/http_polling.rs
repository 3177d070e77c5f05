//! Sessions over HTTP requests and answers, with a middle-man who breaks both: some megabytes that arrive there and back all the same.
//!
//! `cargo run -p turbotunnel --example http_polling`. Every request is a POST with a small body, the answer likewise, so proxies between may be of any kind. Two are on their way at a
//! time: one brings what the session writes, one waits at the server for what comes back. Whichever is lost, or whose answer is, is made again.
//!
//! ```text
//! POST /CARRIER/push/POSITION     the body is what the client's session wrote from there on     200
//! POST /CARRIER/pull/POSITION     what has the server's session written from there on?          200 with up to 64 KiB, after 25 s with nothing; 204 it will write no more
//! POST /CARRIER/finish/POSITION   the client's session will write no more                       204
//! ```
//!
//! A number that the client has made up at random names the carrier. Anything but these answers ends it, and the session dials the next one.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::header::{CACHE_CONTROL, HOST, HeaderValue};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use turbotunnel::carrier::Queue;
use turbotunnel::{Event, Listener, Session, tcp};

/// Bytes in the body of a request or an answer, and room in a queue.
const BODY: usize = 64 << 10;
/// How long a request may wait at the server: less than proxies do, which often give up after 30 or 60 s.
const WAIT: Duration = Duration::from_secs(25);
/// The server forgets a carrier that nobody has asked about for so long.
const IDLE: Duration = Duration::from_secs(60);
/// The server keeps so many carriers, each up to five times `BODY`, and so many connections, each up to 16 KiB and a request and an answer.
const CARRIERS: usize = 256;
const CONNECTIONS: usize = 1024;
/// The client makes a request so many times before it gives the carrier up.
const TRIES: u32 = 5;

#[tokio::main]
async fn main() -> io::Result<()> {
    echo_megabytes(4).await
}

/// Sends megabytes there and back, and says what happened to them.
pub async fn echo_megabytes(megabytes: u32) -> io::Result<()> {
    let listener = Arc::new(Listener::builder().detached());
    tokio::spawn(echo(listener.clone()));
    let at_server = TcpListener::bind("127.0.0.1:0").await?;
    let server_addr = at_server.local_addr()?;
    tokio::spawn(serve(at_server, Arc::new(Server { listener, carriers: Mutex::default() })));

    let between = TcpListener::bind("127.0.0.1:0").await?;
    let middle_man_addr = between.local_addr()?;
    let harm = Arc::new(Harm::default());
    tokio::spawn(meddle(between, server_addr, harm.clone()));

    let session = Session::builder()
        .on_event(|event| {
            if let Event::CarrierLost { number, reason, .. } = event {
                println!("carrier {number} lost: {reason}");
            }
        })
        .connect(move |_attempt| async move { dial(middle_man_addr) })
        .await?;
    let sent: Vec<u8> = (0..megabytes << 20).map(|at| at.to_le_bytes()[at as usize % 4]).collect();
    let (mut reader, mut writer) = split(session.open().await?);
    let mut received = Vec::new();
    tokio::try_join!(reader.read_to_end(&mut received), async {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    })?;
    assert!(received == sent, "{} bytes came back of {}", received.len(), sent.len());
    let (carriers, [requests, answers]) = (session.stats().tunnel.carriers, harm.counts());
    println!("{} bytes there and back over {carriers} carriers", received.len());
    println!("the middle-man broke {requests} connections in a request, {answers} in an answer");
    assert!(requests > 0 && answers > 0, "an example of nothing");
    session.close().await?;
    Ok(())
}

// The client.

/// A carrier: it is there at once, and its requests go out by themselves from now on.
fn dial(server: SocketAddr) -> io::Result<DuplexStream> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let http = |_| Http { server, carrier: u128::from_ne_bytes(id), connection: None };
    let [for_up, for_down] = [(); 2].map(http);
    let (session, queue) = Queue::pair(BODY);
    tokio::spawn(async move {
        // Over when both directions have ended, or one of them in any other way. With the queue the session's half ends.
        let _ = tokio::try_join!(up(&queue, for_up), down(&queue, for_down));
    });
    Ok(session)
}

async fn up(queue: &Queue, mut http: Http) -> io::Result<()> {
    let mut at = 0;
    while let Some(bytes) = queue.pull(at, BODY, WAIT).await? {
        if !bytes.is_empty() {
            let len = bytes.len() as u64;
            http.ask("push", at, bytes.into()).await?;
            at += len;
        }
    }
    http.ask("finish", at, Bytes::new()).await?;
    Ok(())
}

async fn down(queue: &Queue, mut http: Http) -> io::Result<()> {
    let mut at = 0;
    while let Some(bytes) = http.ask("pull", at, Bytes::new()).await? {
        queue.push(at, &bytes).await?;
        at += bytes.len() as u64;
    }
    queue.finish().await
}

/// Makes requests about one carrier, one at a time, over a connection that is kept as long as it lasts.
struct Http {
    server: SocketAddr,
    carrier: u128,
    connection: Option<client::SendRequest<Full<Bytes>>>,
}

impl Http {
    /// Asks until there is an answer. `None`: there will be no more.
    async fn ask(&mut self, verb: &str, at: u64, body: Bytes) -> io::Result<Option<Bytes>> {
        for _ in 0..TRIES {
            match timeout(WAIT + WAIT / 2, self.ask_once(verb, at, body.clone())).await {
                Ok(Ok((StatusCode::OK, answer))) => return Ok(Some(answer)),
                Ok(Ok((StatusCode::NO_CONTENT, _))) => return Ok(None),
                // No room at the server for what we brought: that is no fault.
                Ok(Ok((StatusCode::SERVICE_UNAVAILABLE, _))) => {}
                Ok(Ok((status, _))) => return Err(io::Error::other(format!("the server answers {status}"))),
                // It may have been carried out or not; asking again is right in both cases.
                Ok(Err(_)) | Err(_) => self.connection = None,
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn ask_once(&mut self, verb: &str, at: u64, body: Bytes) -> Result<(StatusCode, Bytes), BoxError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let tcp = TcpStream::connect(self.server).await?;
                tcp::configure(&tcp);
                let (sender, connection) = client::handshake(TokioIo::new(tcp)).await?;
                tokio::spawn(connection);
                none.insert(sender)
            }
        };
        connection.ready().await?;
        let request = Request::post(format!("/{:x}/{verb}/{at}", self.carrier))
            .header(HOST, self.server.to_string())
            .body(Full::new(body))?;
        let answer = connection.send_request(request).await?;
        let status = answer.status();
        Ok((status, Limited::new(answer.into_body(), BODY).collect().await?.to_bytes()))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

// The server.

struct Server {
    listener: Arc<Listener>,
    carriers: Mutex<HashMap<u128, Arc<Queue>>>,
}

async fn serve(accepting: TcpListener, server: Arc<Server>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = room.clone().acquire_owned().await {
        let Ok((connection, from)) = accepting.accept().await else {
            // No descriptors left, mostly.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        tcp::configure(&connection);
        let server = server.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| async {
                let (status, body) = match timeout(WAIT, server.handle(request, from)).await {
                    Ok(Ok(Some(bytes))) => (StatusCode::OK, bytes),
                    Ok(Ok(None)) => (StatusCode::NO_CONTENT, Vec::new()),
                    Ok(Err(status)) => (status, Vec::new()),
                    // What was brought is not all taken: the session does not read, for now.
                    Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Vec::new()),
                };
                let mut answer = Response::new(Full::new(Bytes::from(body)));
                *answer.status_mut() = status;
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok::<_, Infallible>(answer)
            });
            let mut http = server::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(16 << 10);
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
            drop(place);
        });
    }
}

impl Server {
    /// Carries out a request. If the client goes away meanwhile, this is dropped: it can be done again.
    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        from: SocketAddr,
    ) -> Result<Option<Vec<u8>>, StatusCode> {
        let (head, body) = request.into_parts();
        let (carrier, verb, at) = parse(head.uri.path()).ok_or(StatusCode::NOT_FOUND)?;
        let queue = self.queue(carrier, at, from)?;
        let done = match verb {
            "push" => {
                let body = Limited::new(body, BODY).collect().await.map_err(|_| StatusCode::BAD_REQUEST)?;
                queue.push(at, &body.to_bytes()).await.map(|()| Some(Vec::new()))
            }
            // A little earlier than the time limit of all requests.
            "pull" => queue.pull(at, BODY, WAIT - WAIT / 10).await,
            "finish" => queue.finish().await.map(|()| None),
            _ => return Err(StatusCode::NOT_FOUND),
        };
        done.map_err(|_| StatusCode::GONE)
    }

    /// The carrier of that name. The first request about it, at position 0 of either direction, makes it.
    fn queue(self: &Arc<Self>, carrier: u128, at: u64, from: SocketAddr) -> Result<Arc<Queue>, StatusCode> {
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = carriers.get(&carrier) {
            return Ok(queue.clone());
        }
        if at > 0 {
            return Err(StatusCode::NOT_FOUND);
        }
        if carriers.len() >= CARRIERS {
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        let (session, queue) = Queue::pair(BODY);
        let queue = Arc::new(queue);
        carriers.insert(carrier, queue.clone());
        // Behind a web server this would be its address: `None` then, and limits for each client there.
        self.listener.attach(session, Some(from));
        let (server, watched) = (self.clone(), queue.clone());
        tokio::spawn(async move {
            watched.closed(IDLE).await;
            server.carriers.lock().unwrap_or_else(PoisonError::into_inner).remove(&carrier);
        });
        Ok(queue)
    }
}

/// `/CARRIER/verb/POSITION`
fn parse(path: &str) -> Option<(u128, &str, u64)> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let parsed = (u128::from_str_radix(parts.next()?, 16).ok()?, parts.next()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

/// It does not know what carries its streams.
async fn echo(listener: Arc<Listener>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = split(stream);
            let _ = copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
}

// The middle-man.

/// Connections broken while something of a request, or of an answer, was on its way.
#[derive(Default)]
struct Harm([AtomicU32; 2]);

impl Harm {
    fn counts(&self) -> [u32; 2] {
        [0, 1].map(|direction: usize| self.0[direction].load(Ordering::Relaxed))
    }
}

/// Breaks each connection after some bytes: in a request, in a long answer, or in a short one, which would have said that something was carried out.
async fn meddle(accepting: TcpListener, server: SocketAddr, harm: Arc<Harm>) {
    let mut number = 0_u64;
    while let Ok((mut near, _)) = accepting.accept().await {
        number += 1;
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (up, down) =
            ((random >> 32) % 300_000, (random >> 40) % if number.is_multiple_of(2) { 300_000 } else { 1_000 });
        let harm = harm.clone();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            tcp::configure(&near);
            tcp::configure(&far);
            let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
            // Whichever direction is used up first takes the whole connection with it.
            let (direction, broken) = tokio::select! {
                broken = pass(from_near, to_far, up) => (0, broken),
                broken = pass(from_far, to_near, down) => (1, broken),
            };
            harm.0[direction].fetch_add(broken.into(), Ordering::Relaxed);
        });
    }
}

/// True: more than `most` bytes were to pass. The others have arrived where they come from, and nowhere else.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, most: u64) -> bool {
    let passed = copy(&mut (&mut from).take(most), &mut to).await;
    passed.is_ok_and(|passed| passed == most) && from.read_u8().await.is_ok()
}
