//! Many sessions from one process: idle ones, talking ones, and ones whose carrier is gone.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use turbotunnel::Session;
use turbotunnel::secure::PublicKey;

/// Sessions that are being made at the same time.
const AT_ONCE: usize = 50;

/// Makes `count` sessions with a stream each that has echoed a byte, says `ready`, and keeps them until standard input ends.
pub(crate) async fn idle(server: &str, count: usize, key: Option<PublicKey>) -> io::Result<()> {
    let mut held = Vec::with_capacity(count);
    let mut making = JoinSet::new();
    for _ in 0..count {
        let server = server.to_owned();
        making.spawn(async move {
            let builder = Session::builder();
            let builder = match key {
                Some(key) => builder.server_key(key),
                None => builder.plain(),
            };
            let session = builder.connect_tcp(&server).await?;
            let mut stream = session.open().await?;
            if key.is_some() {
                // "The server's own target" and "done" (docs/wire.md), with which streams of the program begin where there are keys.
                stream.write_all(&[0, 0, 0]).await?;
                let mut answer = [0xff; 3];
                stream.read_exact(&mut answer).await?;
                if answer != [0, 0, 0] {
                    return Err(io::Error::other("the server refuses to echo"));
                }
            }
            stream.write_all(b"!").await?;
            stream.read_u8().await?;
            io::Result::Ok((session, stream))
        });
        if making.len() >= AT_ONCE {
            held.extend(making.join_next().await.transpose()?.transpose()?);
        }
    }
    while let Some(made) = making.join_next().await {
        held.push(made??);
    }
    println!("ready");
    until_stdin_ends().await
}

/// Makes `count` sessions and drops their connections without a word; the server keeps the sessions.
pub(crate) async fn detached(server: &str, count: usize) -> io::Result<()> {
    let mut making = JoinSet::new();
    for _ in 0..count {
        let server = server.to_owned();
        making.spawn(async move {
            let connection = Arc::new(Mutex::new(Some(TcpStream::connect(&server).await?)));
            let relay = Arc::new(Mutex::new(None));
            let handle = relay.clone();
            // One connection, through a relay that is dropped below; dials after that fail.
            let session = Session::builder().give_up_after(Duration::from_secs(5)).connect(move |_| {
                let there = connection.lock().unwrap_or_else(PoisonError::into_inner).take();
                let handle = handle.clone();
                async move {
                    let mut there = there.ok_or(io::ErrorKind::ConnectionRefused)?;
                    let (ours, mut here) = tokio::io::duplex(4096);
                    let copying =
                        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut here, &mut there).await });
                    *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(copying);
                    Ok(ours)
                }
            });
            let session = session.await?;
            let mut stream = session.open().await?;
            stream.write_all(b"!").await?;
            stream.read_u8().await?;
            let relay = relay.lock().unwrap_or_else(PoisonError::into_inner).take();
            relay.into_iter().for_each(|relay| relay.abort());
            io::Result::Ok(())
        });
        if making.len() >= AT_ONCE {
            making.join_next().await.transpose()?.transpose()?;
        }
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    println!("ready");
    until_stdin_ends().await
}

/// `count` sessions that send 64 bytes every 100 ms for a time and wait for them to come back. Prints p50 and p99, in seconds.
pub(crate) async fn talking(server: &str, count: usize, time: Duration) -> io::Result<()> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let mut all = JoinSet::new();
    let until = Instant::now() + time;
    for i in 0..count {
        let (server, times) = (server.to_owned(), times.clone());
        all.spawn(async move {
            // Not all in the same moment.
            tokio::time::sleep(Duration::from_secs(1) * u32::try_from(i % 1000).unwrap_or(0) / 1000).await;
            let session = Session::connect(&server).await?;
            let mut stream = session.open().await?;
            let (mut bytes, mut own) = ([7; 64], Vec::new());
            while Instant::now() < until {
                let sent = Instant::now();
                stream.write_all(&bytes).await?;
                stream.read_exact(&mut bytes).await?;
                own.push(sent.elapsed());
                tokio::time::sleep(Duration::from_millis(100).saturating_sub(sent.elapsed())).await;
            }
            // The first is the session's beginning.
            times.lock().unwrap_or_else(PoisonError::into_inner).extend(own.into_iter().skip(1));
            io::Result::Ok(())
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).map_or(f64::NAN, Duration::as_secs_f64);
    println!("{} {}", at(0.5), at(0.99));
    Ok(())
}

async fn until_stdin_ends() -> io::Result<()> {
    let mut nothing = [0; 1];
    tokio::io::stdin().read(&mut nothing).await.map(drop)
}
