//! Addresses as users write them: `HOST:PORT`, `[::1]:PORT`; to listen also `:PORT` (all interfaces) and a lone `PORT` (this machine only).
//!
//! Names are not resolved here, and what is wrong is said together with what was probably meant.

use std::net::Ipv6Addr;

use crate::failure::{Exit, Failure};

/// The address of a server, `[tcp://]HOST:PORT`, checked and without the scheme.
///
/// # Errors
/// A [`Failure`] with exit code 2 that says what is wrong with it.
pub fn server(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let bare = match text.split_once("://") {
        Some(("tcp", rest)) => rest,
        Some((scheme, _)) => {
            return Err(Failure::new(Exit::Usage, format!("{text:?}: no carrier of kind {scheme:?} in this version"))
                .tip("tcp://HOST:PORT, or just HOST:PORT"));
        }
        None => text,
    };
    let (host, port) = split(bare)?;
    if host.is_empty() {
        return Err(wrong(bare, "has no host").tip(format!("HOST:PORT, e.g. 127.0.0.1:{port}")));
    }
    if port == 0 {
        return Err(wrong(bare, "has port 0, where nobody can listen").tip("a port is a number from 1 to 65535"));
    }
    Ok(format!("{host}:{port}"))
}

/// Addresses to listen on, best first: the next one is for systems that do not have the first.
///
/// # Errors
/// A [`Failure`] with exit code 2 that says what is wrong with it.
pub fn listen(text: &str) -> Result<Vec<String>, Failure> {
    let text = text.trim();
    let text = text.strip_prefix("tcp://").unwrap_or(text);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let (_, port) = split(&format!(":{text}"))?;
        return Ok(vec![format!("127.0.0.1:{port}")]);
    }
    let (host, port) = split(text)?;
    // "[::]" takes IPv4 as well, on systems with IPv6.
    Ok(if host.is_empty() {
        vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")]
    } else {
        vec![format!("{host}:{port}")]
    })
}

/// Host and port. The host keeps its brackets.
fn split(text: &str) -> Result<(&str, u16), Failure> {
    let no_port = || wrong(text, "has no port").tip(format!("HOST:PORT, e.g. {}:8000", example_host(text)));
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else {
            return Err(wrong(text, "has no closing bracket").tip("[::1]:8000"));
        };
        // A zone ("fe80::1%eth0") is for the resolver to judge.
        if inside.split('%').next().is_none_or(|ip| ip.parse::<Ipv6Addr>().is_err()) {
            return Err(wrong(text, "has no IPv6 address in its brackets").tip("[::1]:8000"));
        }
        (&text[..inside.len() + 2], after.strip_prefix(':').ok_or_else(no_port)?)
    } else {
        match text.bytes().filter(|&b| b == b':').count() {
            0 => return Err(no_port()),
            1 => text.split_once(':').ok_or_else(no_port)?,
            _ => return Err(ambiguous(text)),
        }
    };
    if port.is_empty() {
        return Err(no_port());
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
        return Err(wrong(text, "is not an address").tip("HOST:PORT, e.g. 127.0.0.1:8000"));
    }
    match port.parse() {
        Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, number)),
        _ => Err(wrong(text, &format!("has port {port:?}")).tip("a port is a number from 1 to 65535")),
    }
}

/// Several colons and no brackets: an IPv6 address, but which part is the port?
fn ambiguous(text: &str) -> Failure {
    let failure = wrong(text, "is ambiguous");
    let with_port =
        text.rsplit_once(':').filter(|(ip, port)| ip.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok());
    match (with_port, text.parse::<Ipv6Addr>()) {
        (Some((ip, port)), _) => failure.tip(format!("[{ip}]:{port}")),
        (None, Ok(ip)) => failure.tip(format!("[{ip}]:8000")),
        (None, Err(_)) => failure.tip("HOST:PORT, with brackets round an IPv6 address: [::1]:8000"),
    }
}

fn example_host(text: &str) -> &str {
    let host = text.strip_suffix(':').unwrap_or(text);
    let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.[]:%".contains(&b));
    if fits && !host.bytes().all(|b| b.is_ascii_digit()) { host } else { "127.0.0.1" }
}

fn wrong(text: &str, what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{text:?} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        for (text, expected) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("tcp://example.org:443", "example.org:443"),
            ("[::1]:8000", "[::1]:8000"),
            (" pasted.example:1\r\n", "pasted.example:1"),
            ("[fe80::1%eth0]:8000", "[fe80::1%eth0]:8000"),
        ] {
            assert_eq!(server(text).unwrap(), expected);
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(listen("8000").unwrap(), ["127.0.0.1:8000"]);
        assert_eq!(listen(" 8000\n").unwrap(), ["127.0.0.1:8000"]);
        assert_eq!(listen(":8000").unwrap(), ["[::]:8000", "0.0.0.0:8000"]);
        assert_eq!(listen("[::1]:0").unwrap(), ["[::1]:0"]);
        assert_eq!(listen("0.0.0.0:8000").unwrap(), ["0.0.0.0:8000"]);
    }

    #[test]
    fn what_is_wrong_and_what_was_meant() {
        for (text, error, tip) in [
            ("127.0.0.1", "\"127.0.0.1\" has no port", "HOST:PORT, e.g. 127.0.0.1:8000"),
            ("example.org:", "\"example.org:\" has no port", "HOST:PORT, e.g. example.org:8000"),
            ("8000", "\"8000\" has no port", "HOST:PORT, e.g. 127.0.0.1:8000"),
            ("", "\"\" has no port", "HOST:PORT, e.g. 127.0.0.1:8000"),
            ("::1:8000", "\"::1:8000\" is ambiguous", "[::1]:8000"),
            ("::1", "\"::1\" is ambiguous", "[::1]:8000"),
            ("[::1]", "\"[::1]\" has no port", "HOST:PORT, e.g. [::1]:8000"),
            ("[::1:8000", "\"[::1:8000\" has no closing bracket", "[::1]:8000"),
            ("[localhost]:80", "\"[localhost]:80\" has no IPv6 address in its brackets", "[::1]:8000"),
            (":8000", "\":8000\" has no host", "HOST:PORT, e.g. 127.0.0.1:8000"),
            ("localhost:http", "\"localhost:http\" has port \"http\"", "a port is a number from 1 to 65535"),
            ("localhost:65536", "\"localhost:65536\" has port \"65536\"", "a port is a number from 1 to 65535"),
            ("localhost:+80", "\"localhost:+80\" has port \"+80\"", "a port is a number from 1 to 65535"),
            (
                "localhost:0",
                "\"localhost:0\" has port 0, where nobody can listen",
                "a port is a number from 1 to 65535",
            ),
            ("a b:80", "\"a b:80\" is not an address", "HOST:PORT, e.g. 127.0.0.1:8000"),
            (
                "wss://host/path",
                "\"wss://host/path\": no carrier of kind \"wss\" in this version",
                "tcp://HOST:PORT, or just HOST:PORT",
            ),
        ] {
            let failure = server(text).unwrap_err();
            assert_eq!((failure.error.as_str(), failure.tip.as_deref()), (error, Some(tip)));
            assert_eq!(failure.exit, Exit::Usage);
        }
        assert_eq!(listen("99999").unwrap_err().error, "\":99999\" has port \"99999\"");
    }
}
