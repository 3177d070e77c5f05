//! HTTP's CONNECT.

use std::io;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::Credentials;
use crate::connection::Prefixed;
use crate::http::{self, Head};
use crate::words;

/// Asks the proxy for a connection with `authority`. What the server says at once is not lost.
pub(super) async fn pass<IO: AsyncRead + AsyncWrite + Unpin>(
    mut io: IO,
    authority: &str,
    credentials: Option<&Credentials>,
) -> io::Result<Prefixed<IO>> {
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let encoded = BASE64.encode(format!("{user}:{password}").as_bytes());
        request += &format!("Proxy-Authorization: Basic {encoded}\r\n");
    }
    request += "\r\n";
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let Head { head, rest } = http::read_head(&mut io, b"HTTP/1.").await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => words::other("what answers at the proxy's address is no HTTP proxy"),
        _ => error,
    })?;
    let line = http::first_line(&head);
    let status = line.split(' ').nth(1).unwrap_or_default();
    match (status.as_bytes(), credentials) {
        ([b'2', _, _], _) => Ok(Prefixed::new(rest, io)),
        (b"407", None) => Err(words::other("the proxy answered 407: it wants a user and a password")),
        (b"407", Some(_)) => Err(words::other("the proxy answered 407: it does not accept the user and password")),
        _ => Err(words::other(format!("the proxy answered {line:?}"))),
    }
}
