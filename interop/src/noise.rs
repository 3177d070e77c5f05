//! A TCP relay that knows the framing and slips random packets of 0 to 23 bytes in between, both ways.
//!
//! KCP drops packets shorter than its header of 24 bytes. Our control packets live there, so Go programs must not mind
//! them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::random::Random;

/// A running relay; dropped, it takes no more connections.
#[derive(Debug)]
pub struct Noise {
    /// Where it listens.
    pub addr: SocketAddr,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Noise {
    /// Relays to `upstream` and slips in `packets` each way, one before every genuine packet until they are used up.
    ///
    /// # Errors
    ///
    /// Those of binding a port.
    pub async fn start(upstream: SocketAddr, packets: u64, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn({
            let (up, down) = (Arc::clone(&up), Arc::clone(&down));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(upstream).await else { continue };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let quota = Quota { used: Arc::clone(&up), packets };
                    tokio::spawn(pump(from_client, to_server, quota, Random(seed), 8));
                    let quota = Quota { used: Arc::clone(&down), packets };
                    tokio::spawn(pump(from_server, to_client, quota, Random(!seed), 0));
                }
            }
        });
        Ok(Self { addr, up, down, task })
    }

    /// Packets slipped in so far, to the server and to the client.
    pub fn slipped_in(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Quota {
    used: Arc<AtomicU64>,
    packets: u64,
}

impl Quota {
    fn take(&self) -> bool {
        let more = |used| (used < self.packets).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Moves packets until either side ends. The first `preamble` bytes, the session id, pass as they are.
async fn pump(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    quota: Quota,
    mut random: Random,
    preamble: usize,
) -> io::Result<()> {
    let (mut from, mut to) = (BufReader::new(from), BufWriter::new(to));
    let mut packet = vec![0; preamble];
    from.read_exact(&mut packet).await?;
    to.write_all(&packet).await?;
    loop {
        let length = from.read_u16().await?;
        packet.resize(usize::from(length), 0);
        from.read_exact(&mut packet).await?;
        if quota.take() {
            let bytes: Vec<u8> = (0..random.number() % 24).map(|_| random.number() as u8).collect();
            to.write_u16(bytes.len() as u16).await?;
            to.write_all(&bytes).await?;
        }
        to.write_u16(length).await?;
        to.write_all(&packet).await?;
        if from.buffer().is_empty() {
            to.flush().await?;
        }
    }
}
