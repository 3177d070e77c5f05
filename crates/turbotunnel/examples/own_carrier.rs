//! Sessions over carriers of one's own: here pipes in memory that break after 64 KiB, and a megabyte that arrives there and back all the same.
//!
//! `cargo run -p turbotunnel --example own_carrier`. Whatever is `AsyncRead + AsyncWrite` can stand in the place of the pipes.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use turbotunnel::{Event, Listener, Session};

/// A carrier breaks when so many bytes have passed in one direction.
const LIFE_BYTES: u64 = 64 << 10;

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = Arc::new(Listener::builder().detached());
    tokio::spawn(echo(listener.clone()));

    let session = Session::builder()
        .on_event(|event| match event {
            Event::CarrierLost { number, reason, .. } => println!("carrier {number} lost: {reason}"),
            Event::DialFailed { error, next_in, .. } => println!("dial failed: {error}; next in {next_in:?}"),
            _ => {}
        })
        .connect(move |_attempt| {
            let listener = listener.clone();
            async move { Ok(dial(&listener)) }
        })
        .await?;

    let sent: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 4]).collect();
    let (mut reader, mut writer) = split(session.open().await?);
    let (mut received, expected) = (Vec::new(), sent.clone());
    tokio::try_join!(reader.read_to_end(&mut received), async {
        writer.write_all(&sent).await?;
        // Returns when the peer has acknowledged every byte.
        writer.shutdown().await
    })?;
    assert_eq!(received, expected);

    let stats = session.stats().tunnel;
    println!("{} bytes there and back over {} carriers, {} cuts", received.len(), stats.carriers, stats.cuts);
    session.close().await?;
    Ok(())
}

/// One connection: the near end for the client's session, the far end for the listener, and between them somebody who cuts.
fn dial(listener: &Listener) -> DuplexStream {
    let (near, near_middle) = duplex(16 << 10);
    let (far_middle, far) = duplex(16 << 10);
    listener.attach(far, None);
    tokio::spawn(async move {
        let (from_near, mut to_near) = split(near_middle);
        let (from_far, mut to_far) = split(far_middle);
        let (mut up, mut down) = (from_near.take(LIFE_BYTES), from_far.take(LIFE_BYTES));
        // Whichever direction is used up first takes the whole connection with it.
        tokio::select! {
            _ = copy(&mut up, &mut to_far) => {}
            _ = copy(&mut down, &mut to_near) => {}
        }
    });
    near
}

/// The server: it does not know what carries its streams.
async fn echo(listener: Arc<Listener>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = split(stream);
            let _ = copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        });
    }
}
