//! Our ends of the tests, and the proxy that cuts.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use turbotunnel::{Config, Limits, Listener, Session, Stats};
use turbotunnel_cli::lilbastard::{How, Lilbastard, Plan};
use turbotunnel_interop::pattern::Pattern;

/// Our echo server, on a runtime of its own so that it can be killed as a process is: at once, with all its sessions.
pub(crate) struct OurServer {
    pub(crate) addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl OurServer {
    pub(crate) async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn start_at(addr: SocketAddr) -> Self {
        Self::start_as(addr, Config::default(), Limits::default()).await
    }

    pub(crate) async fn start_with(config: Config, limits: Limits) -> Self {
        Self::start_as(SocketAddr::from(([127, 0, 0, 1], 0)), config, limits).await
    }

    async fn start_as(addr: SocketAddr, config: Config, limits: Limits) -> Self {
        let runtime = Runtime::new().expect("a runtime needs two descriptors and a thread");
        let listening = runtime.spawn(async move {
            // The port of a server just killed is free a moment later, when its tasks are gone.
            let mut attempts = 0;
            let listener = loop {
                match Listener::builder().config(config.clone()).limits(limits).bind(addr).await {
                    Err(_) if attempts < 100 => attempts += 1,
                    result => break result?,
                }
                sleep(Duration::from_millis(10)).await;
            };
            let addr = listener.local_addr()?;
            tokio::spawn(async move {
                while let Ok((stream, _peer)) = listener.accept().await {
                    tokio::spawn(async move {
                        let (mut from, mut to) = tokio::io::split(stream);
                        if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                            let _ = to.shutdown().await;
                        }
                    });
                }
            });
            io::Result::Ok(addr)
        });
        let addr = listening.await.expect("it does not panic").expect("the address is free");
        Self { addr, runtime: Some(runtime) }
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for OurServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends `bytes` of a pattern through a session of ours to the echo server at `addr`, at most so many a second, finishes,
/// and asserts that exactly these come back, then the end.
pub(crate) async fn echo_by_our_client(addr: SocketAddr, bytes: u64, bytes_per_second: f64) -> Stats {
    let session = Session::builder().connect_tcp(addr).await.expect("there is a server");
    let stream = session.open().await.expect("the session is young");
    let (mut from, mut to) = tokio::io::split(stream);
    let pattern = Pattern(bytes);
    let sending = async {
        pattern.send(&mut to, bytes, bytes_per_second).await?;
        to.shutdown().await
    };
    let receiving = async {
        pattern.receive(&mut from, bytes).await?;
        match from.read(&mut [0; 16]).await? {
            0 => Ok(()),
            n => Err(io::Error::other(format!("{n} bytes too many"))),
        }
    };
    if let Err(error) = tokio::try_join!(sending, receiving) {
        panic!("{error}; {:?}", session.stats());
    }
    session.close().await.expect("the server is there and has everything");
    session.stats()
}

/// A rate at which a transfer takes so long that something done every second is done several times: four and a half
/// seconds, or longer at 2 MB/s, which Go programs reach.
pub(crate) fn several_seconds(bytes: u64) -> f64 {
    (bytes as f64 / Duration::from_millis(4500).as_secs_f64()).min(2e6)
}

/// When a [`Cutter`] cuts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cuts {
    EverySecond,
    /// After 0.7 to 1.3 s, by a seed: closed and reset in turn. Much shorter ones keep a FIN towards a Go program waiting for long.
    EverySecondOrSo(u64),
    /// Both directions together.
    Every20To60Kilobytes,
}

/// A path to a server that does not last.
pub(crate) struct Cutter {
    pub(crate) addr: SocketAddr,
    proxy: Lilbastard,
}

impl Cutter {
    pub(crate) async fn start(server: SocketAddr, cuts: Cuts) -> Self {
        let plan = match cuts {
            Cuts::EverySecond => Plan { after: Some(Duration::from_secs(1)), ..Plan::default() },
            Cuts::EverySecondOrSo(seed) => {
                Plan { after: Some(Duration::from_secs(1)), jitter: 0.3, then: vec![How::Rst], seed, ..Plan::default() }
            }
            Cuts::Every20To60Kilobytes => Plan { bytes: Some(40_000), jitter: 0.5, seed: 1, ..Plan::default() },
        };
        let proxy = Lilbastard::bind("127.0.0.1:0", server, plan).await.expect("loopback has a free port");
        Self { addr: proxy.local_addr(), proxy }
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.proxy.counters().cuts
    }

    /// Asserts that the transfer was really cut, at least three times, and says how often.
    pub(crate) fn enough(&self) -> String {
        let counters = self.proxy.counters();
        assert!(counters.cuts >= 3, "too few cuts to show anything: {counters:?}");
        format!("{} cuts", counters.cuts)
    }
}
