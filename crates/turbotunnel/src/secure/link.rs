//! `turbotunnel://` links: all that a client needs, in one string to hand on.
//!
//! ```text
//! turbotunnel://PUBLICKEY@HOST:PORT[,HOST:PORT...][/][?via=tcp][#NAME]
//! ```
//!
//! Several addresses are several ways to one server, whose key it is. What a link of a later version may say besides is an error here, because it may be what its
//! maker counts on. Not here: resolving names, and which address is tried when.

use std::fmt;
use std::str::FromStr;

use super::keys::{ParseKeyError, PublicKey};

const SCHEME: &str = "turbotunnel://";
/// More than anybody has, and little enough for one screen.
const MAX_ADDRESSES: usize = 16;
const MAX_NAME: usize = 100;

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
    /// A path, as for carriers that this version does not have.
    #[error("a link with the path {0:?}, which this version has no use for")]
    Path(String),
    /// A carrier that this version does not have.
    #[error("a link for carriers of kind {0:?}; this version has tcp only")]
    Via(String),
    /// Something that this version does not know.
    #[error("a link with {0:?}, which this version does not know")]
    Unknown(String),
    /// The name cannot be shown.
    #[error("a link with a name that is too long, or has bytes that cannot be shown")]
    Name,
}

impl Link {
    /// A link to the server with this key at one or more addresses, each `HOST:PORT`, with brackets round an IPv6 address.
    ///
    /// # Errors
    ///
    /// An address is none, there is none, or there are too many.
    pub fn new<A: ToString>(
        server_key: PublicKey,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Self, ParseLinkError> {
        let addresses: Vec<_> = addresses.into_iter().map(|address| address.to_string()).collect();
        if addresses.is_empty() {
            return Err(ParseLinkError::Address(String::new()));
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(ParseLinkError::TooManyAddresses);
        }
        match addresses.iter().find(|address| !is_address(address)) {
            Some(wrong) => Err(ParseLinkError::Address(wrong.clone())),
            None => Ok(Self { server_key, addresses, name: None }),
        }
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

    /// Where: at least one `HOST:PORT`.
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
        write!(f, "{SCHEME}{}@{}", self.server_key, self.addresses.join(","))?;
        match &self.name {
            Some(name) => write!(f, "#{}", Escaped(name)),
            None => Ok(()),
        }
    }
}

impl FromStr for Link {
    type Err = ParseLinkError;

    fn from_str(text: &str) -> Result<Self, ParseLinkError> {
        let rest = text.strip_prefix(SCHEME).ok_or(ParseLinkError::NoLink)?;
        let (rest, name) = split_off(rest, '#');
        let (rest, query) = split_off(rest, '?');
        let (authority, path) = split_off(rest, '/');
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            return Err(ParseLinkError::Path(shown(path)));
        }
        let (key, addresses) = authority.split_once('@').ok_or(ParseLinkError::NoKey)?;
        let key = key.parse()?;
        for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("via", "tcp")) => {}
                Some(("via", other)) => return Err(ParseLinkError::Via(shown(other))),
                _ => return Err(ParseLinkError::Unknown(shown(parameter))),
            }
        }
        let link = Self::new(key, addresses.split(',').take(MAX_ADDRESSES + 1))?;
        match name {
            Some(name) => link.with_name(&unescape(name).ok_or(ParseLinkError::Name)?),
            None => Ok(link),
        }
    }
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
            (format!("turbotunnel://{k}@host:1?via=wss"), "kind \"wss\""),
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
    fn any_beginning_of_a_link_is_an_error_or_a_link() {
        let text = Link::new(key(), ["tunnel.example:443", "h:8"]).unwrap().with_name("a b").unwrap().to_string();
        for end in 0..text.len() {
            let _ = text[..end].parse::<Link>();
        }
    }
}
