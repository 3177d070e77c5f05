//! An echo server. `diff examples/plain_server.rs examples/turbotunnel_server.rs` shows the two lines that make it survive cuts.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).expect("usage: server IP:PORT");
    let listener = TcpListener::bind(&addr).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        eprintln!("{peer}: begin");
        tokio::spawn(async move {
            let (mut from_client, mut to_client) = tokio::io::split(stream);
            match tokio::io::copy(&mut from_client, &mut to_client).await {
                Ok(n) => eprintln!("{peer}: echoed {n} bytes"),
                Err(error) => eprintln!("{peer}: {error}"),
            }
            let _ = to_client.shutdown().await;
            eprintln!("{peer}: end");
        });
    }
}
