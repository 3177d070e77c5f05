//! WebSockets (RFC 6455): the upgrade, at both ends.
//!
//! Whoever comes without the right path, or with something else than an upgrade, gets what a web server says to a path it does not have: 404. No extension and no subprotocol is
//! offered or taken.

mod stream;

use std::io;
use std::time::Duration;

use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(crate) use self::stream::WebSocket;
use crate::address::Address;
use crate::connection::Io;
use crate::http::{self, Head, MAX_HEADERS, has_token, header};
use crate::words;

/// Somebody who has been refused may go on talking for so long: closing on him could lose him the answer.
const LINGER: Duration = Duration::from_secs(2);
/// And so many bytes.
const LINGER_BYTES: u64 = 64 << 10;

/// Asks for an upgrade.
pub(crate) async fn connect<IO: Io>(mut io: IO, to: &Address) -> io::Result<WebSocket<IO>> {
    let key = generate_key();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
        to.path().unwrap_or("/"),
        to.http_host(),
    );
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let Head { head, rest } = http::read_head(&mut io, b"HTTP/1.").await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => words::invalid("what answers is no web server"),
        io::ErrorKind::UnexpectedEof => {
            words::other("closed by peer in the place of an answer to the request for a WebSocket")
        }
        _ => error,
    })?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(&head);
    let upgraded = parsed.is_ok_and(|status| status.is_complete())
        && response.code == Some(101)
        && has_token(response.headers, "upgrade", "websocket")
        && header(response.headers, "sec-websocket-accept") == Some(derive_accept_key(key.as_bytes()).as_bytes());
    if !upgraded {
        return Err(words::invalid(format!("answered {}, not a WebSocket", http::first_line(&head))));
    }
    Ok(WebSocket::new(io, rest, Role::Client).await)
}

/// Waits for a request for an upgrade at `path`, and grants it. Other requests are answered, and are an error here.
pub(crate) async fn accept<IO: Io>(mut io: IO, path: &str) -> io::Result<WebSocket<IO>> {
    let Head { head, rest } = match http::read_head(&mut io, b"").await {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return refuse(io, BAD_REQUEST).await,
        Err(error) => return Err(error),
    };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !request.parse(&head).is_ok_and(|status| status.is_complete()) {
        return refuse(io, BAD_REQUEST).await;
    }
    let Some(key) = key_of_upgrade(&request, path) else { return refuse(io, NOT_FOUND).await };
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key),
    );
    io.write_all(response.as_bytes()).await?;
    io.flush().await?;
    Ok(WebSocket::new(io, rest, Role::Server).await)
}

/// What is to be proved, if it is an upgrade as it should be.
fn key_of_upgrade<'a>(request: &httparse::Request<'_, 'a>, path: &str) -> Option<&'a [u8]> {
    let asked = request.path.and_then(|asked| asked.split('?').next());
    let headers = &*request.headers;
    let key = header(headers, "sec-websocket-key")?;
    let upgrade = request.method == Some("GET")
        && request.version == Some(1)
        && asked == Some(path)
        && has_token(headers, "upgrade", "websocket")
        && has_token(headers, "connection", "upgrade")
        && header(headers, "sec-websocket-version") == Some(b"13")
        && BASE64.decode(key).is_ok_and(|key| key.len() == 16);
    upgrade.then_some(key)
}

const BAD_REQUEST: &str = "400 Bad Request";
const NOT_FOUND: &str = "404 Not Found";

async fn refuse<T>(mut io: impl Io, status: &str) -> io::Result<T> {
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len(),
    );
    io.write_all(answer.as_bytes()).await?;
    io.shutdown().await?;
    let rest = async { tokio::io::copy(&mut (&mut io).take(LINGER_BYTES), &mut tokio::io::sink()).await };
    let _ = tokio::time::timeout(LINGER, rest).await;
    Err(words::invalid(format!("answered with {status}")))
}
