//! The far end: does on each stream what its first nine bytes ask for, over TCP and over sessions alike.
//!
//! ```text
//! u8 what, u64 n (little-endian)
//!   'e'  send back whatever comes
//!   'u'  take n bytes, then answer with one
//!   'd'  send n bytes
//!   'm'  the same as one of many, from a small buffer
//!   'c'  answer with the CPU time this process has used, u64 microseconds
//!   'k'  answer with the public key of this process, 32 bytes: for measuring, so over plain TCP will do
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use turbotunnel::secure::{PublicKey, StaticKey};
use turbotunnel::{Config, Listener};

use crate::address;
use crate::failure::{Exit, Failure};
use crate::log::Log;
use crate::process::cpu_time;

/// Moved at once.
pub(super) const CHUNK: usize = 128 << 10;
/// The same by one of many: of a thousand buffers of 128 KiB each byte would come from memory, whatever lies between the two ends.
pub(super) const SMALL_CHUNK: usize = 16 << 10;

/// What is asked of the far end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    Echo,
    Up(u64),
    Down(u64),
    DownAmongMany(u64),
    Cpu,
    Key,
}

impl Request {
    pub(super) fn encode(self) -> [u8; 9] {
        let (what, n) = match self {
            Self::Echo => (b'e', 0),
            Self::Up(n) => (b'u', n),
            Self::Down(n) => (b'd', n),
            Self::DownAmongMany(n) => (b'm', n),
            Self::Cpu => (b'c', 0),
            Self::Key => (b'k', 0),
        };
        let mut bytes = [what; 9];
        bytes[1..].copy_from_slice(&n.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; 9]) -> Option<Self> {
        let [what, n @ ..] = bytes;
        let n = u64::from_le_bytes(n);
        Some(match what {
            b'e' => Self::Echo,
            b'u' => Self::Up(n),
            b'd' => Self::Down(n),
            b'm' => Self::DownAmongMany(n),
            b'c' => Self::Cpu,
            b'k' => Self::Key,
            _ => return None,
        })
    }
}

/// Serves until it is dropped. TCP listens one port above the sessions, sessions with keys one above that.
pub(super) async fn serve(at: &str, log: &Log) -> Result<(), Failure> {
    let tries = address::listen(at)?;
    let at = tries.first().ok_or_else(|| Failure::new(Exit::Usage, "no address to listen on"))?;
    let key = StaticKey::generate().map_err(|error| Failure::cannot_listen(at, &error))?;
    let public = key.public();
    let (listener, tcp, secure) = bind(at, &key).await.map_err(|error| Failure::cannot_listen(at, &error))?;
    let shown = listener.local_addr().map_or_else(|_| at.clone(), |addr| addr.to_string());
    log.info(format_args!(
        "listening on tcp://{shown}, for turbotunnel bench; plain TCP one port above, sessions with keys two"
    ));
    let plain = async {
        loop {
            match tcp.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    tokio::spawn(answer(stream, public));
                }
                // Too many open files do not go away sooner.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let sessions = |listener: Listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, public));
        }
    };
    tokio::join!(plain, sessions(listener), sessions(secure));
    Ok(())
}

/// All three ports. One that was given is taken, of free ones three in a row are looked for.
async fn bind(at: &str, key: &StaticKey) -> io::Result<(Listener, TcpListener, Listener)> {
    let mut tries = if at.ends_with(":0") { 100 } else { 1 };
    loop {
        tries -= 1;
        let listener = Listener::builder().config(generous()).bind(at).await?;
        let above = above(listener.local_addr()?, 1)?;
        let secure = self::above(above, 1)?;
        let others = async {
            let tcp = TcpListener::bind(above).await?;
            let secure = Listener::builder().config(generous()).server_keys([key.clone()]).bind(secure).await?;
            io::Result::Ok((tcp, secure))
        };
        match others.await {
            Err(_) if tries > 0 => {}
            others => {
                let (tcp, secure) = others?;
                return Ok((listener, tcp, secure));
            }
        }
    }
}

/// Where something else listens, so many ports above the sessions.
pub(super) fn above(addr: SocketAddr, ports: u16) -> io::Result<SocketAddr> {
    let port = addr.port().checked_add(ports).ok_or_else(|| io::Error::other("there is no port above"))?;
    Ok(SocketAddr::new(addr.ip(), port))
}

/// As the default, for thousands of streams at once.
pub(super) fn generous() -> Config {
    let mut config = Config::default();
    (config.max_buffered, config.max_streams) = (64 << 20, 16 << 10);
    config
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, key: PublicKey) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        match Request::decode(head).ok_or(io::ErrorKind::InvalidData)? {
            Request::Echo => {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let n = stream.read(&mut buffer).await?;
                    if n == 0 {
                        return stream.shutdown().await;
                    }
                    stream.write_all(&buffer[..n]).await?;
                }
            }
            Request::Up(n) => {
                take(&mut stream, n).await?;
                stream.write_all(b"!").await?;
            }
            Request::Down(n) => give(&mut stream, n, CHUNK).await?,
            Request::DownAmongMany(n) => give(&mut stream, n, SMALL_CHUNK).await?,
            Request::Key => stream.write_all(key.as_bytes()).await?,
            Request::Cpu => {
                let used = u64::try_from(cpu_time(std::process::id()).as_micros()).unwrap_or(u64::MAX);
                stream.write_all(&used.to_le_bytes()).await?;
            }
        }
    }
}

/// Reads `n` bytes.
pub(super) async fn take(stream: &mut (impl AsyncRead + Unpin), n: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut left = n;
    while left > 0 {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(read as u64);
    }
    Ok(())
}

/// Writes `n` bytes, `chunk` at once.
pub(super) async fn give(stream: &mut (impl AsyncWrite + Unpin), n: u64, chunk: usize) -> io::Result<()> {
    let buffer = vec![b'x'; chunk];
    let mut left = n;
    while left > 0 {
        let part = left.min(chunk as u64) as usize;
        stream.write_all(&buffer[..part]).await?;
        left -= part as u64;
    }
    stream.flush().await
}
