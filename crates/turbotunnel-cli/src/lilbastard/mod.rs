//! A TCP proxy that cuts the connections that go through it, after the little program of that name which the Turbo Tunnel worked
//! example is tried with. It stands in for a censor, a NAT or a train: see how a session takes it.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use std::time::Duration;
//! use turbotunnel_cli::lilbastard::{How, Lilbastard, Plan};
//!
//! let plan = Plan { after: Some(Duration::from_secs(20)), how: How::Rst, ..Plan::default() };
//! let cutter = Lilbastard::bind("127.0.0.1:0", "127.0.0.1:7000", plan).await?;
//! println!("connect to {} instead", cutter.local_addr());
//! cutter.wait_for(|counters| counters.cuts >= 3).await;
//! # Ok(())
//! # }
//! ```
//!
//! It connects to the upstream before it reads a byte from the client, passes bytes on as they come (`TCP_NODELAY` on both sides), passes
//! a FIN on as a FIN and a reset as a reset, and tells apart what the ends did from what it did itself: only the latter is a cut.

mod link;
mod plan;

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use link::{Link, Passed, Traffic, Way};
pub use plan::{How, Limits, Plan};

/// How long a connection that was cut with FIN is still read, so that closing it does not reset it.
const LINGER: Duration = Duration::from_secs(5);
/// Pause after a failed accept or a failed listen: too many open files do not go away sooner.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections accepted that could not be passed on, because the upstream did not answer. They are reset.
    pub unreachable: u64,
    /// Connections cut.
    pub cuts: u64,
    /// Connections that are up now. Those that were cut are not among them, stalled or not.
    pub live: u64,
    /// Bytes passed from clients to the server.
    pub bytes_up: u64,
    /// Bytes passed from the server to clients.
    pub bytes_down: u64,
    /// Bytes sent into a direction after it was ended with [`How::Half`]: they vanished.
    pub bytes_swallowed: u64,
}

/// A connection was cut.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Cut {
    /// Which cut it was, counted from 1.
    pub number: u64,
    /// Which connection it was, counted from 1 as they were accepted.
    pub connection: u64,
    /// The client's end of it.
    pub client: SocketAddr,
    /// How it was cut.
    pub how: How,
    /// How long it had lived.
    pub age: Duration,
    /// Bytes that had passed from the client to the server.
    pub up: u64,
    /// Bytes that had passed from the server to the client.
    pub down: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, client, up, down, .. } = self;
        let age = crate::text::age(self.age);
        write!(
            f,
            "cut #{number} {client} after {age}, {} up, {} down",
            crate::text::size(*up),
            crate::text::size(*down)
        )
    }
}

/// Something to tell the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection was cut.
    Cut(Cut),
    /// The upstream did not take a connection. The client's was reset.
    Unreachable {
        /// The client's end.
        client: SocketAddr,
        /// What the dial gave.
        error: io::Error,
    },
    /// Accepting, or listening again after an outage, failed. It is tried again every 100 ms; this is told once in a row.
    NotListening(io::Error),
}

/// A running proxy. Dropping it closes everything it holds.
#[derive(Debug)]
pub struct Lilbastard {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Lilbastard {
    /// Listens on `listen` and passes each connection on to `upstream`, which is resolved anew for each of them. Port 0 lets the system choose.
    ///
    /// # Errors
    /// The plan makes no sense (`InvalidInput`), the address does not resolve, or one cannot listen there.
    pub async fn bind(listen: impl ToSocketAddrs, upstream: impl ToString, plan: Plan) -> io::Result<Self> {
        Self::bind_with_events(listen, upstream, plan, |_| {}).await
    }

    /// As [`bind`](Self::bind), and tells what happens. `on_event` runs in the proxy's tasks and must not block.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with_events(
        listen: impl ToSocketAddrs,
        upstream: impl ToString,
        plan: Plan,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        plan.check()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in lookup_host(listen).await? {
            match Port::bind(addr) {
                Ok((port, listener)) => {
                    return Ok(Self::start(port, listener, upstream.to_string(), plan, Box::new(on_event)));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn start(
        port: Port,
        listener: TcpListener,
        upstream: String,
        plan: Plan,
        on_event: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        let local_addr = port.addr;
        // Each sender waits for its answer, so the queue is as long as there are cuts at the same moment.
        let (outages, outage_requests) = mpsc::channel(16);
        let shared = Arc::new(Shared {
            plan,
            upstream,
            on_event,
            outages,
            counters: watch::Sender::new(Counters::default()),
            traffic: Traffic::default(),
            orders: watch::Sender::new(None),
        });
        let task = tokio::spawn(accept(shared.clone(), port, listener, outage_requests)).abort_handle();
        Self { local_addr, shared, task }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What has happened so far. A cut is counted before the ends can notice it.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Waits until the counters are as wanted, and gives them. Only connections, cuts and their like wake it up, bytes do not.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Counters) -> bool) -> Counters {
        let mut changes = self.shared.counters.subscribe();
        loop {
            changes.mark_unchanged();
            let now = self.counters();
            if wanted(&now) {
                return now;
            }
            // Never an error: the sender lives in `self`.
            let _ = changes.changed().await;
        }
    }

    /// Cuts all connections that are up, whatever the plan says about limits. Returns at once; [`Plan::outage`] follows as for other cuts.
    pub fn cut_now(&self, how: How) {
        self.shared.orders.send_replace(Some(how));
    }
}

impl Drop for Lilbastard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    plan: Plan,
    upstream: String,
    on_event: Box<dyn Fn(Event) + Send + Sync>,
    /// Asks the accepting task to stop listening; it answers when the port refuses.
    outages: mpsc::Sender<oneshot::Sender<()>>,
    counters: watch::Sender<Counters>,
    traffic: Traffic,
    orders: watch::Sender<Option<How>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, upstream, .. } = self;
        f.debug_struct("Shared").field("plan", plan).field("upstream", upstream).finish_non_exhaustive()
    }
}

impl Shared {
    fn counters(&self) -> Counters {
        Counters {
            bytes_up: self.traffic.up.load(Ordering::Relaxed),
            bytes_down: self.traffic.down.load(Ordering::Relaxed),
            bytes_swallowed: self.traffic.swallowed.load(Ordering::Relaxed),
            ..*self.counters.borrow()
        }
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(change);
    }
}

/// The listening port. It can be left and taken again without anybody else getting hold of it in between.
struct Port {
    addr: SocketAddr,
    /// Bound but not listening: the kernel refuses connections while nobody listens, and gives the port to no one else.
    _reservation: Option<Socket>,
}

impl Port {
    fn bind(addr: SocketAddr) -> io::Result<(Self, TcpListener)> {
        // Elsewhere than on Linux two sockets cannot be bound to one port so. Then an outage leaves the port free for its time.
        let reservation = if cfg!(target_os = "linux") { Some(bound(addr)?) } else { None };
        let addr = match &reservation {
            Some(socket) => socket.local_addr()?.as_socket().unwrap_or(addr),
            None => addr,
        };
        let listener = listen(addr)?;
        let addr = listener.local_addr()?;
        Ok((Self { addr, _reservation: reservation }, listener))
    }
}

fn bound(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows the option would let others take the port away.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(addr)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    shared: Arc<Shared>,
    port: Port,
    mut listener: TcpListener,
    mut outages: mpsc::Receiver<oneshot::Sender<()>>,
) {
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    let mut number = 0;
    let mut failed_before = false;
    loop {
        tokio::select! {
            biased;
            Some(done) = outages.recv() => {
                drop(listener);
                listener = outage(&shared, &port, &mut outages, done).await;
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    failed_before = false;
                    number += 1;
                    shared.count(|c| { c.connections += 1; c.live += 1; });
                    connections.spawn(connection(shared.clone(), client, from, number));
                }
                Err(e) => {
                    if !std::mem::replace(&mut failed_before, true) {
                        (shared.on_event)(Event::NotListening(e));
                    }
                    sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Refuses connections for the plan's time after the last cut, then listens again.
async fn outage(
    shared: &Shared,
    port: &Port,
    requests: &mut mpsc::Receiver<oneshot::Sender<()>>,
    done: oneshot::Sender<()>,
) -> TcpListener {
    // The one who asked may have been aborted meanwhile; nothing depends on the answer then.
    let _ = done.send(());
    let mut until = Instant::now() + shared.plan.outage;
    loop {
        tokio::select! {
            biased;
            Some(done) = requests.recv() => {
                until = Instant::now() + shared.plan.outage;
                let _ = done.send(());
            }
            () = sleep_until(until) => break,
        }
    }
    let mut failed_before = false;
    loop {
        match listen(port.addr) {
            Ok(listener) => return listener,
            Err(e) => {
                if !std::mem::replace(&mut failed_before, true) {
                    (shared.on_event)(Event::NotListening(e));
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Takes the connection out of `live` when it ends, however it ends.
struct Live<'a>(&'a Shared);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.count(|c| c.live -= 1);
    }
}

async fn connection(shared: Arc<Shared>, client: TcpStream, from: SocketAddr, number: u64) {
    let plan = &shared.plan;
    let born = Instant::now();
    let live = Live(&shared);
    let mut orders = shared.orders.subscribe();
    let server = match TcpStream::connect(&shared.upstream).await {
        Ok(server) => server,
        Err(error) => {
            shared.count(|c| c.unreachable += 1);
            reset(client);
            (shared.on_event)(Event::Unreachable { client: from, error });
            return;
        }
    };
    // Fails only on a connection that is gone already, which passing bytes will notice.
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);

    let limits = plan.limits(number);
    let mut deadline = limits.after.and_then(|after| born.checked_add(after));
    let mut link = Link::new(client, server, limits, plan.delay, plan.rate);
    let mut live = Some(live);
    loop {
        let (how, way) = tokio::select! {
            biased;
            Ok(()) = orders.changed() => (*orders.borrow_and_update(), None),
            () = sleep_until(deadline.unwrap_or(born)), if deadline.is_some() => (None, None),
            passed = link.pass(&shared.traffic) => match passed {
                Passed::Done => return,
                Passed::Broken => {
                    reset(link.client);
                    reset(link.server);
                    return;
                }
                Passed::Limit(way) => (None, way),
            },
        };
        deadline = None;
        if !plan.outage.is_zero() {
            // First the port refuses, then the ends learn that they are cut: nobody slips in between.
            let (done, refusing) = oneshot::channel();
            if shared.outages.send(done).await.is_ok() {
                let _ = refusing.await;
            }
        }
        let mut cut_number = 0;
        shared.count(|c| {
            c.cuts += 1;
            cut_number = c.cuts;
        });
        let how = how.unwrap_or_else(|| plan.how(cut_number));
        let cut = Cut {
            number: cut_number,
            connection: number,
            client: from,
            how,
            age: born.elapsed(),
            up: link.passed(Way::Up),
            down: link.passed(Way::Down),
        };
        if how != How::Half {
            live = None;
        }
        (shared.on_event)(Event::Cut(cut));
        match how {
            How::Fin => {
                let _ = SockRef::from(&link.client).shutdown(Shutdown::Write);
                let _ = SockRef::from(&link.server).shutdown(Shutdown::Write);
                // Told in order even if one end goes on sending: closing with unread input would be a reset.
                let _ = timeout(LINGER, async { tokio::join!(drain(&link.client), drain(&link.server)) }).await;
                return;
            }
            How::Rst => {
                reset(link.client);
                reset(link.server);
                return;
            }
            How::Stall => {
                tokio::join!(hung_up(&link.client), hung_up(&link.server));
                return;
            }
            How::Half => {
                let by_turns = if cut_number % 2 == 1 { Way::Down } else { Way::Up };
                link.end_one_way(way.unwrap_or(by_turns));
            }
        }
        debug_assert!(live.is_some(), "a connection cut by half is still up");
    }
}

/// Closes with a reset: whoever reads there gets "connection reset by peer".
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// Reads until the end, and keeps nothing.
async fn drain(stream: &TcpStream) {
    let mut nowhere = [0; 4096];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut nowhere) {
            Ok(1..) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Waits until the other end has closed or reset the connection, without taking a byte from it.
async fn hung_up(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() || ready.is_error() {
            return;
        }
        // What came is left where it is. "Would block" makes tokio wait for the next change.
        let _ = stream.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}
