//! How carriers are named: `[tcp://]HOST:PORT`, `tls://HOST:PORT`, `ws://HOST[:PORT]/PATH`, `wss://HOST[:PORT]/PATH`, `unix:PATH`, `exec:COMMAND`.
//!
//! ```text
//! dial      as above
//! listen    as above without exec:, and also :PORT (all interfaces), a lone PORT (this machine only), and port 0 (any free one)
//! ```
//!
//! A name is what it is until it is dialled: nothing is resolved and no file is looked at here. What is wrong is said together with what was probably meant.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// More than any web server takes in a request line.
const MAX_PATH: usize = 2048;
/// Of a name in the DNS (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// What a carrier is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A TCP connection.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// A WebSocket over TCP.
    Ws,
    /// A WebSocket over TLS over TCP.
    Wss,
    /// A Unix domain socket.
    Unix,
    /// Standard input and output of a command.
    Exec,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Unix, Self::Exec];

    /// As in an address: `tcp`, `tls`, `ws`, `wss`, `unix`, `exec`.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Unix => "unix",
            Self::Exec => "exec",
        }
    }

    /// It is TLS, or inside TLS.
    #[must_use]
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }

    /// It is a WebSocket.
    #[must_use]
    pub fn has_ws(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    /// It goes over TCP, and so can go through a proxy.
    #[must_use]
    pub fn has_tcp(self) -> bool {
        !matches!(self, Self::Unix | Self::Exec)
    }

    /// Whether this version has carriers of the kind: `tls`, `ws` and `wss` with the cargo features of their names, `unix` on Unix, `exec` on Unix and Windows.
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Tcp => true,
            Self::Tls => cfg!(feature = "tls"),
            Self::Ws => cfg!(feature = "ws"),
            Self::Wss => cfg!(all(feature = "tls", feature = "ws")),
            Self::Unix => cfg!(unix),
            Self::Exec => cfg!(any(unix, windows)),
        }
    }

    fn default_port(self) -> Option<u16> {
        match self {
            Self::Ws => Some(80),
            Self::Wss => Some(443),
            _ => None,
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| scheme.eq_ignore_ascii_case(kind.scheme()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// Where a carrier goes. Made from text, and shown as the same text: without `tcp://` and the port that is meant anyhow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(Parts);

/// Where carriers are taken. Made from text, and shown as the same text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress(Parts);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Parts {
    kind: Kind,
    /// Without brackets. Empty: all interfaces, or a kind without hosts.
    host: String,
    port: u16,
    /// Of a WebSocket, beginning with a slash; the file of a Unix socket; a command.
    rest: String,
}

impl Address {
    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Name or IP address of the host, without brackets. `None`: a kind without hosts.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.kind.has_tcp().then_some(&self.0.host)
    }

    /// Port, also if it was not written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.kind.has_tcp().then_some(self.0.port)
    }

    /// Path and query of a WebSocket, beginning with a slash.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.0.kind.has_ws().then_some(&self.0.rest)
    }

    /// The file of a Unix domain socket.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        (self.0.kind == Kind::Unix).then_some(&self.0.rest)
    }

    /// The command of `exec:`.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        (self.0.kind == Kind::Exec).then_some(&self.0.rest)
    }

    /// `host:port`, with brackets where they are needed.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", bracketed(&self.0.host), self.0.port)
    }

    /// The same for a resolver, which knows zones without brackets only.
    pub(crate) fn for_resolver(&self) -> String {
        if self.0.host.contains('%') { format!("{}:{}", self.0.host, self.0.port) } else { self.authority() }
    }

    /// The host as HTTP names it: without the port that is meant anyhow.
    #[cfg(feature = "ws")]
    pub(crate) fn http_host(&self) -> String {
        if self.0.kind.default_port() == Some(self.0.port) { bracketed(&self.0.host) } else { self.authority() }
    }
}

impl ListenAddress {
    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Name or IP address, without brackets. Empty: all interfaces. `None`: a kind without hosts.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.0.kind.has_tcp().then_some(&self.0.host)
    }

    /// Port, also if it was not written. 0: any that is free.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.0.kind.has_tcp().then_some(self.0.port)
    }

    /// Path of a WebSocket, beginning with a slash.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.0.kind.has_ws().then_some(&self.0.rest)
    }

    /// The file of a Unix domain socket.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        (self.0.kind == Kind::Unix).then_some(&self.0.rest)
    }

    /// The same with the port that was given.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self(Parts { port, ..self.0.clone() })
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text, Use::Dial).map(Self)
    }
}

impl FromStr for ListenAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text, Use::Listen).map(Self)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, host, port, rest } = self;
        if !kind.has_tcp() {
            return write!(f, "{kind}:{rest}");
        }
        if *kind != Kind::Tcp {
            write!(f, "{kind}://")?;
        }
        f.write_str(&bracketed(host))?;
        // Without host and port nothing would be left.
        if kind.default_port() != Some(*port) || host.is_empty() {
            write!(f, ":{port}")?;
        }
        f.write_str(rest)
    }
}

/// A host as it stands before a port.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Why a text is no address, and what was probably meant. In one line: `"::1" is ambiguous (try [::1]:8000)`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {problem} (try {tip})")]
pub struct ParseAddressError {
    text: String,
    problem: AddressProblem,
    tip: String,
}

impl ParseAddressError {
    /// What was given, without a password that may have been in it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it. Reads on from the text: `has no port`.
    #[must_use]
    pub fn problem(&self) -> &AddressProblem {
        &self.problem
    }

    /// What was probably meant, or how it has to look.
    #[must_use]
    pub fn tip(&self) -> &str {
        &self.tip
    }
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// Nothing before the port, or a number for a name.
    #[error("has no host")]
    NoHost,
    /// Nothing says where, on the host.
    #[error("has no port")]
    NoPort,
    /// Not a number from 1 to 65535 (to listen on, from 0).
    #[error("has port {0:?}")]
    Port(String),
    /// Only listeners have it, and it means any free one.
    #[error("has port 0, where nobody can listen")]
    PortZero,
    /// Several colons and no brackets.
    #[error("is ambiguous")]
    Ambiguous,
    /// An IPv6 address that does not end.
    #[error("has no closing bracket")]
    NoBracket,
    /// In brackets is something else.
    #[error("has no IPv6 address in its brackets")]
    NotIpv6,
    /// Letters that no host's name has.
    #[error("has a host with {0:?} in it")]
    Host(char),
    /// Longer than a name may be.
    #[error("has a host of more than {MAX_HOST} bytes")]
    LongHost,
    /// Whitespace where it means nothing.
    #[error("has whitespace in it")]
    Whitespace,
    /// A user's name before an `@`.
    #[error("has a user's name in it, which carriers do not have")]
    UserInfo,
    /// A `#` and what follows, which browsers keep for themselves.
    #[error("has a fragment (#) in it, which is never sent")]
    Fragment,
    /// Something follows the port of a kind that has no paths.
    #[error("has a path, which {0} has not")]
    NoPathHere(Kind),
    /// A path for a listener with `?`: it answers to every query.
    #[error("has a query (?) in it")]
    Query,
    /// A path with something that would have to be written as %XX.
    #[error("has a path with {0:?} in it")]
    Path(char),
    /// More than any web server takes.
    #[error("has a path of more than {MAX_PATH} bytes")]
    LongPath,
    /// `unix:` or `exec:` and nothing behind it, or a NUL.
    #[error("names no {0}")]
    Empty(&'static str),
    /// `wss:host` for `wss://host`.
    #[error("has no // after the kind of carrier")]
    NoSlashes,
    /// Nobody listens on a command.
    #[error("is not for listening")]
    NotForListening,
    /// What comes before `://` is not one of ours.
    #[error("is for carriers of kind {0:?}, which there are not")]
    UnknownKind(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Dial,
    Listen,
}

type Problem<T> = Result<T, (AddressProblem, String)>;

fn parse(text: &str, usage: Use) -> Result<Parts, ParseAddressError> {
    parts(text, usage).map_err(|(problem, tip)| ParseAddressError { text: shown(text), problem, tip })
}

/// What may be shown of it: what stands before an `@` may be a password, and there is no end to what may be given.
fn shown(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let local = ["unix:", "exec:"].iter().any(|prefix| text.starts_with(prefix));
    let text = match rest.rsplit_once('@') {
        Some((_, rest)) if scheme.is_empty() && !local => format!("...@{rest}"),
        Some((_, rest)) if !local => format!("{scheme}://...@{rest}"),
        _ => text.to_owned(),
    };
    text.chars().take(200).collect()
}

fn parts(text: &str, usage: Use) -> Problem<Parts> {
    if let Some((scheme, rest)) = text.split_once(':') {
        match Kind::of_scheme(scheme) {
            Some(Kind::Unix) => return local(Kind::Unix, rest, "file", "unix:/run/turbotunnel.sock"),
            Some(Kind::Exec) if usage == Use::Listen => {
                return Err((AddressProblem::NotForListening, "tcp://, tls://, ws://, wss:// or unix:".into()));
            }
            Some(Kind::Exec) => return local(Kind::Exec, rest, "command", "exec:ssh HOST nc -N 127.0.0.1 8000"),
            Some(kind) if !rest.starts_with("//") && !is_number(rest) => {
                return Err((AddressProblem::NoSlashes, format!("{kind}://{}", rest.trim_start_matches('/'))));
            }
            _ => {}
        }
    }
    let (kind, rest) = match text.split_once("://") {
        None => (Kind::Tcp, text),
        Some((scheme, rest)) => (Kind::of_scheme(scheme).ok_or_else(|| unknown_kind(scheme, rest))?, rest),
    };
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    if text.contains(char::is_whitespace) {
        return Err((AddressProblem::Whitespace, example(kind)));
    }
    if let Some((_, after)) = authority.rsplit_once('@') {
        return Err((AddressProblem::UserInfo, with_scheme(kind, &format!("{after}{path}"))));
    }
    if let Some((before, _)) = path.split_once('#') {
        return Err((AddressProblem::Fragment, with_scheme(kind, &format!("{authority}{before}"))));
    }
    let rest = match path {
        _ if kind.has_ws() => checked_path(kind, authority, path, usage)?,
        "" | "/" => String::new(),
        _ => return Err((AddressProblem::NoPathHere(kind), with_scheme(kind, authority))),
    };
    let (host, port) = host_port(kind, authority, usage).map_err(|(problem, tip)| (problem, tip + &rest))?;
    Ok(Parts { kind, host, port, rest })
}

fn local(kind: Kind, rest: &str, what: &'static str, tip: &str) -> Problem<Parts> {
    if rest.trim().is_empty() || rest.contains('\0') {
        return Err((AddressProblem::Empty(what), tip.to_owned()));
    }
    Ok(Parts { kind, host: String::new(), port: 0, rest: rest.to_owned() })
}

fn unknown_kind(scheme: &str, rest: &str) -> (AddressProblem, String) {
    let tip = match scheme.to_ascii_lowercase().as_str() {
        "https" => format!("wss://{rest}"),
        "http" => format!("ws://{rest}"),
        "ssl" => format!("tls://{rest}"),
        _ => "HOST:PORT, tls://, ws://, wss://, unix: or exec:".to_owned(),
    };
    (AddressProblem::UnknownKind(scheme.chars().take(40).collect()), tip)
}

fn checked_path(kind: Kind, authority: &str, path: &str, usage: Use) -> Problem<String> {
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if path.len() > MAX_PATH {
        return Err((AddressProblem::LongPath, with_scheme(kind, &format!("{authority}/PATH"))));
    }
    if let Some(wrong) = path.chars().find(|&c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(c)) {
        let mut buffer = [0; 4];
        let escaped: String = wrong.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err((AddressProblem::Path(wrong), format!("{escaped} in its place")));
    }
    match path.split_once('?') {
        Some((before, _)) if usage == Use::Listen => {
            Err((AddressProblem::Query, with_scheme(kind, &format!("{authority}{before}"))))
        }
        _ => Ok(path),
    }
}

/// Host without brackets, and port.
fn host_port(kind: Kind, text: &str, usage: Use) -> Problem<(String, u16)> {
    let no_port = || (AddressProblem::NoPort, with_scheme(kind, &format!("{}:8000", example_host(text))));
    if is_number(text) {
        if usage == Use::Listen {
            return Ok(("127.0.0.1".into(), port_number(text, usage)?));
        }
        return Err((AddressProblem::NoHost, with_scheme(kind, &format!("127.0.0.1:{text}"))));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else {
            return Err((AddressProblem::NoBracket, example_ipv6(kind)));
        };
        // A zone ("fe80::1%eth0") is for the resolver to judge.
        let (ip, zone) = inside.split_once('%').unwrap_or((inside, "eth0"));
        if ip.parse::<Ipv6Addr>().is_err() || zone.is_empty() || !zone.bytes().all(|byte| is_of_host(byte.into())) {
            return Err((AddressProblem::NotIpv6, example_ipv6(kind)));
        }
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or_else(no_port)?),
        };
        (inside, port)
    } else {
        match text.bytes().filter(|&byte| byte == b':').count() {
            0 => (text, None),
            1 => text.split_once(':').map(|(host, port)| (host, Some(port))).ok_or_else(no_port)?,
            _ => return Err(ambiguous(kind, text)),
        }
    };
    let port = match port.filter(|port| !port.is_empty()) {
        Some(port) => port_number(port, usage)?,
        None => kind.default_port().ok_or_else(no_port)?,
    };
    if host.is_empty() && usage == Use::Dial {
        return Err((AddressProblem::NoHost, with_scheme(kind, &format!("127.0.0.1:{port}"))));
    }
    if !text.starts_with('[') {
        check_name(kind, host)?;
    }
    if port == 0 && usage == Use::Dial {
        return Err((AddressProblem::PortZero, "a port from 1 to 65535".into()));
    }
    Ok((host.to_owned(), port))
}

fn check_name(kind: Kind, host: &str) -> Problem<()> {
    if host.len() > MAX_HOST {
        return Err((AddressProblem::LongHost, example(kind)));
    }
    match host.chars().find(|&c| !is_of_host(c)) {
        Some(c) if c.is_ascii() => Err((AddressProblem::Host(c), example(kind))),
        Some(c) => Err((AddressProblem::Host(c), "the name in its ASCII form, xn--...".into())),
        None => Ok(()),
    }
}

fn is_of_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~".contains(c)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn port_number(text: &str, usage: Use) -> Problem<u16> {
    let tip = match usage {
        Use::Dial => "a port from 1 to 65535",
        Use::Listen => "a port from 1 to 65535, or 0 for any that is free",
    };
    match text.parse() {
        Ok(port) if is_number(text) => Ok(port),
        _ => Err((AddressProblem::Port(text.chars().take(40).collect()), tip.to_owned())),
    }
}

/// Several colons and no brackets: an IPv6 address, but which part is the port?
fn ambiguous(kind: Kind, text: &str) -> (AddressProblem, String) {
    let with_port =
        text.rsplit_once(':').filter(|(ip, port)| ip.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok());
    let tip = match (with_port, text.parse::<Ipv6Addr>()) {
        (Some((ip, port)), _) => with_scheme(kind, &format!("[{ip}]:{port}")),
        (None, Ok(ip)) => with_scheme(kind, &format!("[{ip}]:8000")),
        (None, Err(_)) => "brackets round an IPv6 address: [::1]:8000".into(),
    };
    (AddressProblem::Ambiguous, tip)
}

fn example_host(text: &str) -> &str {
    let host = match text.find(']') {
        Some(end) => &text[..=end],
        None => text.strip_suffix(':').unwrap_or(text),
    };
    let fits = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.[]:%".contains(&byte));
    if fits && !is_number(host) { host } else { "127.0.0.1" }
}

fn with_scheme(kind: Kind, rest: &str) -> String {
    match kind {
        Kind::Tcp => rest.to_owned(),
        _ => format!("{kind}://{rest}"),
    }
}

fn example(kind: Kind) -> String {
    with_scheme(kind, if kind.has_ws() { "example.org/path" } else { "127.0.0.1:8000" })
}

fn example_ipv6(kind: Kind) -> String {
    with_scheme(kind, "[::1]:8000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, kind, host, port, rest, shown) in [
            ("127.0.0.1:8000", Kind::Tcp, "127.0.0.1", 8000, "", "127.0.0.1:8000"),
            ("tcp://example.org:443", Kind::Tcp, "example.org", 443, "", "example.org:443"),
            ("tcp://example.org:443/", Kind::Tcp, "example.org", 443, "", "example.org:443"),
            ("TLS://a_b.example:1", Kind::Tls, "a_b.example", 1, "", "tls://a_b.example:1"),
            ("[::1]:8000", Kind::Tcp, "::1", 8000, "", "[::1]:8000"),
            ("tls://[fe80::1%eth0]:8000", Kind::Tls, "fe80::1%eth0", 8000, "", "tls://[fe80::1%eth0]:8000"),
            ("ws://h", Kind::Ws, "h", 80, "/", "ws://h/"),
            ("ws://h:8080/a/b?c=d&e", Kind::Ws, "h", 8080, "/a/b?c=d&e", "ws://h:8080/a/b?c=d&e"),
            ("ws://h?c", Kind::Ws, "h", 80, "/?c", "ws://h/?c"),
            ("wss://h:443/t", Kind::Wss, "h", 443, "/t", "wss://h/t"),
            ("wss://[2001:db8::1]/%C3%A4", Kind::Wss, "2001:db8::1", 443, "/%C3%A4", "wss://[2001:db8::1]/%C3%A4"),
            ("wss://[2001:db8::1]:80/a@b", Kind::Wss, "2001:db8::1", 80, "/a@b", "wss://[2001:db8::1]:80/a@b"),
            ("unix:/run/a b.sock", Kind::Unix, "", 0, "/run/a b.sock", "unix:/run/a b.sock"),
            ("unix:relative@x", Kind::Unix, "", 0, "relative@x", "unix:relative@x"),
            ("exec:ssh -p 22 a@b 'nc x 1'", Kind::Exec, "", 0, "ssh -p 22 a@b 'nc x 1'", "exec:ssh -p 22 a@b 'nc x 1'"),
            ("exec:curl https://x#y", Kind::Exec, "", 0, "curl https://x#y", "exec:curl https://x#y"),
            ("ws:80", Kind::Tcp, "ws", 80, "", "ws:80"),
        ] {
            let address: Address = text.parse().unwrap_or_else(|error| panic!("{error}"));
            let parts = Parts { kind, host: host.into(), port, rest: rest.into() };
            assert_eq!(address, Address(parts), "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address), "{shown}");
        }
    }

    #[test]
    fn addresses_to_listen_on_are_read_and_shown() {
        for (text, host, port, shown) in [
            ("8000", "127.0.0.1", 8000, "127.0.0.1:8000"),
            ("tcp://8000", "127.0.0.1", 8000, "127.0.0.1:8000"),
            (":8000", "", 8000, ":8000"),
            ("[::1]:0", "::1", 0, "[::1]:0"),
            ("tls://:443", "", 443, "tls://:443"),
            ("wss://:443/t", "", 443, "wss://:443/t"),
            ("wss:///t", "", 443, "wss://:443/t"),
            ("ws://8080/t", "127.0.0.1", 8080, "ws://127.0.0.1:8080/t"),
            ("ws://localhost/", "localhost", 80, "ws://localhost/"),
        ] {
            let address: ListenAddress = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((address.host(), address.port()), (Some(host), Some(port)), "{text}");
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
        assert_eq!("unix:/a".parse::<ListenAddress>().unwrap().file(), Some("/a"));
    }

    #[test]
    fn what_is_wrong_and_what_was_meant() {
        let long = format!("{}:1", "a".repeat(254));
        let long_path = format!("ws://h/{}", "a".repeat(2048));
        for (text, problem, tip) in [
            ("127.0.0.1", "has no port", "127.0.0.1:8000"),
            ("example.org:", "has no port", "example.org:8000"),
            ("tls://example.org", "has no port", "tls://example.org:8000"),
            ("[::1]", "has no port", "[::1]:8000"),
            ("[::1]8000", "has no port", "[::1]:8000"),
            ("", "has no port", "127.0.0.1:8000"),
            ("8000", "has no host", "127.0.0.1:8000"),
            (":8000", "has no host", "127.0.0.1:8000"),
            ("wss:///t", "has no host", "wss://127.0.0.1:443/t"),
            ("ws://8080/t", "has no host", "ws://127.0.0.1:8080/t"),
            ("::1:8000", "is ambiguous", "[::1]:8000"),
            ("::1", "is ambiguous", "[::1]:8000"),
            ("wss://::1:443/t", "is ambiguous", "wss://[::1]:443/t"),
            ("a:b:c", "is ambiguous", "brackets round an IPv6 address: [::1]:8000"),
            ("[::1:8000", "has no closing bracket", "[::1]:8000"),
            ("[localhost]:80", "has no IPv6 address in its brackets", "[::1]:8000"),
            ("[::1%]:80", "has no IPv6 address in its brackets", "[::1]:8000"),
            ("localhost:http", "has port \"http\"", "a port from 1 to 65535"),
            ("localhost:65536", "has port \"65536\"", "a port from 1 to 65535"),
            ("localhost:+80", "has port \"+80\"", "a port from 1 to 65535"),
            ("localhost:0", "has port 0, where nobody can listen", "a port from 1 to 65535"),
            ("a b:80", "has whitespace in it", "127.0.0.1:8000"),
            (" localhost:80", "has whitespace in it", "127.0.0.1:8000"),
            ("wss://h/a\nb", "has whitespace in it", "wss://example.org/path"),
            ("a,b:80", "has a host with ',' in it", "127.0.0.1:8000"),
            ("müller.example:80", "has a host with 'ü' in it", "the name in its ASCII form, xn--..."),
            ("tcp://h:80/path", "has a path, which tcp has not", "h:80"),
            ("h:80?x", "has a path, which tcp has not", "h:80"),
            ("ws://h/a#b", "has a fragment (#) in it, which is never sent", "ws://h/a"),
            ("ws://h/ä", "has a path with 'ä' in it", "%C3%A4 in its place"),
            ("ws://h/{x}", "has a path with '{' in it", "%7B in its place"),
            ("wss://u:p@h/a", "has a user's name in it, which carriers do not have", "wss://h/a"),
            ("u@h:80", "has a user's name in it, which carriers do not have", "h:80"),
            ("unix:", "names no file", "unix:/run/turbotunnel.sock"),
            ("exec: ", "names no command", "exec:ssh HOST nc -N 127.0.0.1 8000"),
            ("wss:h/a", "has no // after the kind of carrier", "wss://h/a"),
            ("tcp:/h:1", "has no // after the kind of carrier", "tcp://h:1"),
            ("https://h/a", "is for carriers of kind \"https\", which there are not", "wss://h/a"),
            ("http://h/a", "is for carriers of kind \"http\", which there are not", "ws://h/a"),
            (
                "quic://h:1",
                "is for carriers of kind \"quic\", which there are not",
                "HOST:PORT, tls://, ws://, wss://, unix: or exec:",
            ),
            (&long, "has a host of more than 253 bytes", "127.0.0.1:8000"),
            (&long_path, "has a path of more than 2048 bytes", "ws://h/PATH"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!((error.problem().to_string().as_str(), error.tip()), (problem, tip), "{text}");
        }
        for (text, problem, tip) in [
            ("exec:cat", "is not for listening", "tcp://, tls://, ws://, wss:// or unix:"),
            ("99999", "has port \"99999\"", "a port from 1 to 65535, or 0 for any that is free"),
            ("ws://:80/a?b", "has a query (?) in it", "ws://:80/a"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert_eq!((error.problem().to_string().as_str(), error.tip()), (problem, tip), "{text}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        for text in ["wss://user:secret@h/a", "user:secret@h:80", "gopher://user:secret@h"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!("::1".parse::<Address>().unwrap_err().to_string(), "\"::1\" is ambiguous (try [::1]:8000)");
    }
}
