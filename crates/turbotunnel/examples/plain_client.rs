//! An echo client: standard input to the server, its answer to standard output. `diff examples/plain_client.rs
//! examples/turbotunnel_client.rs` shows the two lines that make it survive cuts.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let addr = std::env::args().nth(1).expect("usage: client IP:PORT");
    let stream = TcpStream::connect(&addr).await?;
    eprintln!("{addr}: begin");
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    tokio::try_join!(
        async {
            tokio::io::copy(&mut stdin, &mut to_server).await?;
            to_server.shutdown().await
        },
        async {
            tokio::io::copy(&mut from_server, &mut stdout).await?;
            stdout.flush().await
        },
    )?;
    eprintln!("{addr}: end");
    Ok(())
}
