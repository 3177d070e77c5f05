//! A server that admits one client, a client that expects one server, and a stranger.
//!
//! `cargo run -p turbotunnel --features secure --example with_keys`

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turbotunnel::secure::{Link, StaticKey};
use turbotunnel::{Clients, Listener, Session, SessionError};

#[tokio::main]
async fn main() -> io::Result<()> {
    // In a file of its own: read_key_file, write_key_file.
    let (server, client) = (StaticKey::generate()?, StaticKey::generate()?);

    let listener = Listener::builder()
        .server_keys([server.clone()])
        .clients(Clients::from_iter([client.public()]))
        .bind("127.0.0.1:0")
        .await?;
    let link = Link::new(server.public(), [listener.local_addr()?]).map_err(io::Error::other)?;
    println!("{link}");
    tokio::spawn(async move {
        while let Ok((mut stream, _peer)) = listener.accept().await {
            let who = stream.session().client_key().map_or_else(String::new, |key| key.short());
            // A stream is a greeting here, so there is nothing to wait for but its end.
            let _ = stream.write_all(format!("welcome, {who}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });

    let session = Session::builder().client_key(client).connect_link(&link).await?;
    let mut welcome = String::new();
    session.open().await?.read_to_string(&mut welcome).await?;
    println!("{welcome}");
    session.close().await?;

    // Whoever has the link and is not on the list.
    match Session::builder().connect_link(&link).await {
        Err(SessionError::NotAdmitted) => println!("a stranger is not admitted"),
        other => println!("unexpected: {other:?}"),
    }
    Ok(())
}
