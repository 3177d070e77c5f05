//! Through a proxy: `http://[USER:PASSWORD@]HOST:PORT` by CONNECT (RFC 9110, section 9.3.6), `socks5://[USER:PASSWORD@]HOST:PORT` (RFC 1928 and 1929).
//!
//! The name of the server is resolved at the proxy. Between here and the proxy everything is readable, the password too. Not here: dialling the proxy.

mod connect;
mod socks5;

use std::fmt;
use std::io;
use std::str::FromStr;

use tokio::net::TcpStream;

use crate::address::{Address, AddressProblem, ParseAddressError, bracketed};
use crate::connection::Prefixed;
use crate::words;

/// Of a user's name or a password, in SOCKS5 (RFC 1929).
const MAX_CREDENTIAL: usize = 255;

/// A proxy that carriers over TCP go through. Made from text, and shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    speaks: Speaks,
    host: String,
    port: u16,
    credentials: Option<Credentials>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http,
    Socks5,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

/// Why a text is no proxy. It does not repeat the text, in which there may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseProxyError {
    /// It begins with something else.
    #[error("a proxy is http://[USER:PASSWORD@]HOST:PORT or socks5://[USER:PASSWORD@]HOST:PORT")]
    Scheme,
    /// Host or port is wrong.
    #[error("the proxy's address {0}")]
    Address(#[from] ParseAddressError),
    /// A path, a query or a fragment follows.
    #[error("the proxy's address ends behind the port")]
    Path,
    /// Empty, more than 255 bytes, a user with a colon, a `%` without two digits, or control characters.
    #[error("the proxy's user or password is empty, too long, or has what should be written as %XX")]
    Credentials,
}

impl Proxy {
    /// `host:port`.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// Has the proxy connect this connection with the server.
    pub(crate) async fn pass(&self, stream: TcpStream, to: &Address) -> io::Result<Prefixed<TcpStream>> {
        let host = to.host().unwrap_or_default();
        let port = to.port().unwrap_or_default();
        let passed = match self.speaks {
            Speaks::Http => connect::pass(stream, &to.authority(), self.credentials.as_ref()).await,
            Speaks::Socks5 => socks5::pass(stream, host, port, self.credentials.as_ref()).await,
        };
        passed.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => words::other(format!("the proxy {self} hung up instead of answering")),
            _ => error,
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.speaks {
            Speaks::Http => "http",
            Speaks::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, ParseProxyError> {
        let (scheme, rest) = text.split_once("://").ok_or(ParseProxyError::Scheme)?;
        let speaks = match scheme.to_ascii_lowercase().as_str() {
            "http" => Speaks::Http,
            // The "h" is curl's, and says what is so here in any case.
            "socks5" | "socks5h" => Speaks::Socks5,
            _ => return Err(ParseProxyError::Scheme),
        };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(Credentials::parse(credentials)?), rest),
            None => (None, rest),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let address: Address = match format!("tcp://{authority}").parse() {
            Ok(address) => address,
            Err(error) => {
                let error: ParseAddressError = error;
                return Err(match error.problem() {
                    AddressProblem::NoPathHere(_) | AddressProblem::Fragment => ParseProxyError::Path,
                    _ => ParseProxyError::Address(error),
                });
            }
        };
        let (Some(host), Some(port)) = (address.host(), address.port()) else { return Err(ParseProxyError::Scheme) };
        Ok(Self { speaks, host: host.to_owned(), port, credentials })
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, ParseProxyError> {
        let (user, password) = text.split_once(':').ok_or(ParseProxyError::Credentials)?;
        let credentials = Self { user: decoded(user)?, password: decoded(password)? };
        // HTTP separates the two with a colon.
        if credentials.user.contains(':') { Err(ParseProxyError::Credentials) } else { Ok(credentials) }
    }
}

/// With `%XX` in its place.
fn decoded(text: &str) -> Result<String, ParseProxyError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let Some((&[high, low], after)) = rest.split_first_chunk() else { return Err(ParseProxyError::Credentials) };
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(ParseProxyError::Credentials) };
        bytes.push((high * 16 + low) as u8);
        rest = after;
    }
    let text = String::from_utf8(bytes).map_err(|_| ParseProxyError::Credentials)?;
    if text.is_empty() || text.len() > MAX_CREDENTIAL || text.chars().any(char::is_control) {
        return Err(ParseProxyError::Credentials);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_shown_without_their_passwords() {
        for (text, shown, credentials) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("HTTP://[::1]:3128/", "http://[::1]:3128", None),
            ("socks5://127.0.0.1:1080", "socks5://127.0.0.1:1080", None),
            ("socks5h://u:p@h:1", "socks5://h:1", Some(("u", "p"))),
            ("http://u%40corp:%3a%C3%A4@x@h:1", "http://h:1", Some(("u@corp", ":ä@x"))),
        ] {
            let proxy: Proxy = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(proxy.to_string(), shown);
            assert_eq!(format!("{proxy:?}"), format!("Proxy({shown})"));
            let found = proxy.credentials.as_ref().map(|found| (found.user.as_str(), found.password.as_str()));
            assert_eq!(found, credentials, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_proxy_is_told_without_its_password() {
        for (text, told) in [
            ("proxy:3128", "a proxy is"),
            ("https://u:secret@proxy:3128", "a proxy is"),
            ("http://proxy", "\"tcp://proxy\" has no port"),
            ("http://u:secret@proxy", "\"tcp://proxy\" has no port"),
            ("http://u:secret@proxy:1/path", "ends behind the port"),
            ("http://u:secret@", "has no port"),
            ("http://secret@proxy:1", "the proxy's user or password"),
            ("http://u:@proxy:1", "the proxy's user or password"),
            ("http://u:secret%4@proxy:1", "the proxy's user or password"),
            ("http://u:secret%00@proxy:1", "the proxy's user or password"),
            ("http://u:secret%ff@proxy:1", "the proxy's user or password"),
            ("http://u%3a:secret@proxy:1", "the proxy's user or password"),
        ] {
            let error = text.parse::<Proxy>().unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
