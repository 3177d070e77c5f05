//! `turbotunnel://` links: all that a client needs, in one string to hand on.
//!
//! ```text
//! turbotunnel://PUBLICKEY@HOST:PORT[,HOST:PORT...][/?via=KIND[,KIND...]&path=PATH][#NAME]
//! ```
//!
//! Several addresses are several ways to one server, whose key it is. `via` says what carriers they are for, `tcp` (as without it), `tls`, `ws` or `wss`: one kind for all, or one
//! for each in their order. `path` is that of the WebSockets among them. What a link of a later version may say besides is an error here, because it may be what its
//! maker counts on. Not here: resolving names, and which address is tried when.

use std::fmt;
use std::str::FromStr;

use super::keys::{ParseKeyError, PublicKey};

const SCHEME: &str = "turbotunnel://";
/// More than anybody has, and little enough for one screen.
const MAX_ADDRESSES: usize = 16;
const MAX_NAME: usize = 100;
const MAX_PATH: usize = 200;
/// What carriers may be for which a link has addresses, and the port where theirs are if none is said.
const KINDS: [(&str, Option<u16>); 4] = [("tcp", None), ("tls", None), ("ws", Some(80)), ("wss", Some(443))];

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    server_key: PublicKey,
    addresses: Vec<String>,
    name: Option<String>,
}

/// Why a text is no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseLinkError {
    /// It begins with something else.
    #[error("not a link: a link begins with {SCHEME}")]
    NoLink,
    /// No `@`: the key or the address is missing.
    #[error("a link without a key: {SCHEME}KEY@HOST:PORT")]
    NoKey,
    /// The key is none.
    #[error("a link with {0}")]
    Key(#[from] ParseKeyError),
    /// An address is none.
    #[error("a link with the address {0:?}, which is not HOST:PORT")]
    Address(String),
    /// More addresses than a link may have.
    #[error("a link with more than {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
    /// A path before the parameters, or one that nobody has a use for, or that a link cannot say.
    #[error(
        "a link with the path {0:?}; a WebSocket's stands behind path=, and has letters, digits and -._~/=+:@ only"
    )]
    Path(String),
    /// WebSockets at several paths.
    #[error("a link with several paths; the WebSockets of one link have one path")]
    Paths,
    /// Carriers that this version does not have, or more kinds than addresses.
    #[error("a link for carriers of kind {0:?}; there are tcp, tls, ws and wss, one for all addresses or one for each")]
    Via(String),
    /// Something that this version does not know.
    #[error("a link with {0:?}, which this version does not know")]
    Unknown(String),
    /// The name cannot be shown.
    #[error("a link with a name that is too long, or has bytes that cannot be shown")]
    Name,
}

impl Link {
    /// A link to the server with this key at one or more addresses: `HOST:PORT`, with brackets round an IPv6 address, `tls://HOST:PORT`, or `ws://HOST[:PORT]/PATH` and
    /// `wss://HOST[:PORT]/PATH`.
    ///
    /// # Errors
    ///
    /// An address is none, there is none, there are too many, or they are WebSockets at several paths.
    pub fn new<A: ToString>(
        server_key: PublicKey,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, ParseLinkError> {
        let addresses: Vec<_> = addresses.into_iter().map(|address| address.to_string()).collect();
        let places = addresses.iter().map(|address| Place::of(address)).collect::<Result<Vec<_>, _>>()?;
        Self::of_places(server_key, &places)
    }

    fn of_places(server_key: PublicKey, places: &[Place]) -> Result<Self, ParseLinkError> {
        if places.is_empty() {
            return Err(ParseLinkError::Address(String::new()));
        }
        if places.len() > MAX_ADDRESSES {
            return Err(ParseLinkError::TooManyAddresses);
        }
        let mut paths = places.iter().filter_map(|place| place.path.as_ref());
        let first = paths.next();
        if paths.any(|path| Some(path) != first) {
            return Err(ParseLinkError::Paths);
        }
        Ok(Self { server_key, addresses: places.iter().map(Place::to_string).collect(), name: None })
    }

    /// The same with a name for the user, to tell links apart.
    ///
    /// # Errors
    ///
    /// The name has more than 100 bytes, or control characters.
    pub fn with_name(mut self, name: &str) -> Result<Self, ParseLinkError> {
        if name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(ParseLinkError::Name);
        }
        self.name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Ok(self)
    }

    /// Whom to expect there.
    #[must_use]
    pub fn server_key(&self) -> PublicKey {
        self.server_key
    }

    /// Where: at least one. `HOST:PORT` is TCP; others have their kind in front, and the port always: `wss://HOST:443/PATH`.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// What its maker calls it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}@", self.server_key)?;
        let (mut kinds, mut path) = (Vec::new(), None);
        for (n, address) in self.addresses.iter().enumerate() {
            let (kind, rest) = address.split_once("://").unwrap_or(("tcp", address));
            let (at, of_ws) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
            write!(f, "{}{at}", if n > 0 { "," } else { "" })?;
            kinds.push(kind);
            path = path.or(Some(of_ws).filter(|path| path.len() > 1));
        }
        if kinds.iter().any(|kind| *kind != "tcp") {
            kinds.dedup();
            let one_each =
                self.addresses.iter().map(|address| address.split_once("://").map_or("tcp", |(kind, _)| kind));
            let kinds: Vec<_> = if kinds.len() == 1 { kinds } else { one_each.collect() };
            write!(f, "/?via={}", kinds.join(","))?;
        }
        if let Some(path) = path {
            write!(f, "&path={path}")?;
        }
        match &self.name {
            Some(name) => write!(f, "#{}", Escaped(name)),
            None => Ok(()),
        }
    }
}

impl FromStr for Link {
    type Err = ParseLinkError;

    fn from_str(text: &str) -> Result<Self, ParseLinkError> {
        // Phones write a first letter large, and what was pasted may have blanks and the end of a line with it.
        let rest = match text.trim().split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(ParseLinkError::NoLink),
        };
        let (rest, name) = split_off(rest, '#');
        let (rest, query) = split_off(rest, '?');
        let (authority, path) = split_off(rest, '/');
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            return Err(ParseLinkError::Path(shown(path)));
        }
        let (key, addresses) = authority.split_once('@').ok_or(ParseLinkError::NoKey)?;
        let key = key.parse()?;
        let (mut via, mut path) = ("tcp", None);
        for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("via", kinds)) => via = kinds,
                Some(("path", of_ws)) if is_path(of_ws) => path = Some(of_ws),
                Some(("path", other)) => return Err(ParseLinkError::Path(shown(other))),
                _ => return Err(ParseLinkError::Unknown(shown(parameter))),
            }
        }
        let addresses: Vec<_> = addresses.split(',').take(MAX_ADDRESSES + 1).collect();
        let kinds: Vec<_> = via.split(',').take(MAX_ADDRESSES + 1).collect();
        if kinds.len() != 1 && kinds.len() != addresses.len() {
            return Err(ParseLinkError::Via(shown(via)));
        }
        let place = |(n, at): (usize, &&str)| Place::new(kinds[if kinds.len() == 1 { 0 } else { n }], at, path);
        let places = addresses.iter().enumerate().map(place).collect::<Result<Vec<_>, _>>()?;
        if let Some(path) = path.filter(|_| places.iter().all(|place| place.path.is_none())) {
            return Err(ParseLinkError::Path(shown(path)));
        }
        let link = Self::of_places(key, &places)?;
        match name {
            Some(name) => link.with_name(&unescape(name).ok_or(ParseLinkError::Name)?),
            None => Ok(link),
        }
    }
}

/// An address with its kind.
struct Place {
    kind: &'static str,
    /// `HOST:PORT`.
    at: String,
    /// Of a WebSocket.
    path: Option<String>,
}

impl Place {
    /// `path`: that of WebSockets, the root if there is none.
    fn new(kind: &str, at: &str, path: Option<&str>) -> Result<Self, ParseLinkError> {
        let known = KINDS.iter().find(|(known, _)| *known == kind);
        let &(kind, port) = known.ok_or_else(|| ParseLinkError::Via(shown(kind)))?;
        let with_port =
            port.map(|port| format!("{at}:{port}")).filter(|with_port| !is_address(at) && is_address(with_port));
        let at = with_port.unwrap_or_else(|| at.to_owned());
        if !is_address(&at) {
            return Err(ParseLinkError::Address(shown(&at)));
        }
        Ok(Self { kind, at, path: port.map(|_| path.unwrap_or("/").to_owned()) })
    }

    fn of(address: &str) -> Result<Self, ParseLinkError> {
        let Some((kind, rest)) = address.split_once("://") else { return Self::new("tcp", address, None) };
        let (at, path) = rest.find('/').map_or((rest, None), |slash| (&rest[..slash], Some(&rest[slash..])));
        let place = Self::new(kind, at, path)?;
        match path {
            Some(path) if !is_path(path) || place.path.is_none() => Err(ParseLinkError::Path(shown(path))),
            _ => Ok(place),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != "tcp" {
            write!(f, "{}://", self.kind)?;
        }
        write!(f, "{}{}", self.at, self.path.as_deref().unwrap_or_default())
    }
}

/// A path that needs no escapes in a link.
fn is_path(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/=+:@".contains(&byte);
    text.starts_with('/') && text.len() <= MAX_PATH && text.bytes().all(legal)
}

fn split_off(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// What is shown of a wrong part.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `HOST:PORT`, as far as can be told without a resolver.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let legal =
                |char: char| char.is_ascii_alphanumeric() || "-._".contains(char) || !(char.is_ascii() || hides(char));
            (1..=253).contains(&host.len()) && host.chars().all(legal)
        }
    };
    port && host
}

/// Not to be seen, or makes others be seen in another order: a terminal would do as it says.
fn hides(char: char) -> bool {
    char.is_control()
        || char.is_whitespace()
        || matches!(char, '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A name as it may stand in a link: letters, digits and a few others as they are, `%XX` for the rest.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.bytes().try_for_each(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))
            } else {
                write!(f, "%{byte:02X}")
            }
        })
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secure::StaticKey;

    fn key() -> PublicKey {
        StaticKey::from_bytes(&[7; 32]).public()
    }

    #[test]
    fn links_are_written_and_read() {
        let one = Link::new(key(), ["203.0.113.9:8000"]).unwrap();
        assert_eq!(one.to_string(), format!("turbotunnel://{}@203.0.113.9:8000", key()));
        let many = Link::new(key(), ["tunnel.example:443", "[2001:db8::1]:8000"]).unwrap();
        let many = many.with_name("Zuhause, 2. Stock").unwrap();
        let text = many.to_string();
        assert!(text.ends_with("@tunnel.example:443,[2001:db8::1]:8000#Zuhause%2C%202.%20Stock"), "{text}");
        for link in [one, many] {
            assert_eq!(link.to_string().parse(), Ok(link.clone()));
            let with_slash = link.to_string().replacen(":8000", ":8000/?via=tcp", 1);
            assert_eq!(with_slash.parse(), Ok(link));
        }
    }

    /// Typed on a phone, and pasted with the end of the line.
    #[test]
    fn a_link_is_the_same_in_capital_letters_and_between_blanks() {
        let link = Link::new(key(), ["203.0.113.9:8000"]).unwrap();
        for scheme in ["turbotunnel", "Turbotunnel", "TURBOTUNNEL"] {
            assert_eq!(format!(" {scheme}://{}@203.0.113.9:8000\r\n", key()).parse(), Ok(link.clone()));
        }
    }

    #[test]
    fn what_is_wrong_with_a_link_is_told() {
        let k = key();
        for (text, told) in [
            (String::new(), "not a link"),
            ("https://example.org".into(), "not a link"),
            ("turbotunnel://203.0.113.9:8000".into(), "without a key"),
            ("turbotunnel://kABC@203.0.113.9:8000".into(), "cut short"),
            (
                format!("turbotunnel://{}@h:1", StaticKey::from_bytes(&[7; 32]).to_secret_text().as_str()),
                "a secret key",
            ),
            (format!("turbotunnel://{}@h:1", k.to_string().replace('A', "B") + "A"), "too long"),
            (format!("turbotunnel://{k}@"), "the address \"\""),
            (format!("turbotunnel://{k}@host"), "the address \"host\""),
            (format!("turbotunnel://{k}@host:0"), "the address \"host:0\""),
            (format!("turbotunnel://{k}@host:65536"), "the address"),
            (format!("turbotunnel://{k}@host:+1"), "the address"),
            (format!("turbotunnel://{k}@::1:8000"), "the address"),
            (format!("turbotunnel://{k}@[::x]:8000"), "the address"),
            (format!("turbotunnel://{k}@a b:8000"), "the address"),
            (format!("turbotunnel://{k}@h\u{9e}:1"), "the address"),
            (format!("turbotunnel://{k}@h\u{2028}:1"), "the address"),
            (format!("turbotunnel://{k}@h\u{202e}:1"), "the address"),
            (format!("turbotunnel://{k}@host:1,"), "the address \"\""),
            (format!("turbotunnel://{k}@{}", vec!["h:1"; 17].join(",")), "more than 16"),
            (format!("turbotunnel://{k}@host:1/path"), "the path \"path\""),
            (format!("turbotunnel://{k}@host:1?via=udp"), "kind \"udp\""),
            (format!("turbotunnel://{k}@host:1?via="), "kind \"\""),
            (format!("turbotunnel://{k}@host:1?via=tcp,wss"), "kind \"tcp,wss\""),
            (format!("turbotunnel://{k}@host:1?path=/x"), "the path \"/x\""),
            (format!("turbotunnel://{k}@host:1?via=ws&path=x"), "the path \"x\""),
            (format!("turbotunnel://{k}@host:1?via=ws&path=/%0a"), "the path \"/%0a\""),
            (format!("turbotunnel://{k}@host?via=tls"), "the address \"host\""),
            (format!("turbotunnel://{k}@host:1?psk=1"), "\"psk=1\""),
            (format!("turbotunnel://{k}@host:1#%0A"), "a name"),
            (format!("turbotunnel://{k}@host:1#%zz"), "a name"),
            (format!("turbotunnel://{k}@host:1#%f"), "a name"),
            (format!("turbotunnel://{k}@host:1#%ff"), "a name"),
            (format!("turbotunnel://{k}@host:1#{}", "n".repeat(101)), "a name"),
        ] {
            let error = text.parse::<Link>().unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn other_carriers_than_tcp_stand_behind_the_addresses() {
        let k = key();
        for (addresses, behind) in [
            (&["wss://www.example.net/tunnel"][..], "www.example.net:443/?via=wss&path=/tunnel"),
            (&["h:1", "wss://[2001:db8::1]/x/y", "ws://h/x/y"], "h:1,[2001:db8::1]:443,h:80/?via=tcp,wss,ws&path=/x/y"),
            (&["ws://h"], "h:80/?via=ws"),
            (&["tls://h:1", "tls://i:2"], "h:1,i:2/?via=tls"),
            (&["tcp://h:1"], "h:1"),
        ] {
            let link = Link::new(k, addresses).unwrap();
            assert_eq!(link.to_string(), format!("turbotunnel://{k}@{behind}"));
            assert_eq!(link.to_string().parse(), Ok(link));
        }
        assert_eq!(Link::new(k, ["wss://h/x", "wss://h"]), Err(ParseLinkError::Paths), "none is the root's");
        let link: Link = format!("turbotunnel://{k}@h:1,i/?via=tcp,wss&path=/t#home").parse().unwrap();
        assert_eq!(
            (link.addresses(), link.name()),
            (&["h:1".to_owned(), "wss://i:443/t".to_owned()][..], Some("home"))
        );
        for (address, told) in [
            ("unix:/run/x", "the address"),
            ("exec://x", "kind \"exec\""),
            ("wss://h/x?y", "the path \"/x?y\""),
            ("tls://h:1/x", "the path \"/x\""),
            ("wss://h:x/", "the address \"h:x\""),
        ] {
            let error = Link::new(k, [address]).unwrap_err().to_string();
            assert!(error.contains(told), "{address}: {error}");
        }
    }

    #[test]
    fn any_beginning_of_a_link_is_an_error_or_a_link() {
        let text =
            Link::new(key(), ["tunnel.example:443", "wss://h:8/p"]).unwrap().with_name("a b").unwrap().to_string();
        for end in 0..text.len() {
            let _ = text[..end].parse::<Link>();
        }
    }
}
