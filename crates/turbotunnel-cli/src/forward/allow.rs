//! What a server reaches for its clients, and what not: nothing, unless it was started with it.
//!
//! ```text
//! --allow db.lan:5432         this name, wherever it leads
//! --allow 10.0.0.0/8:22       these addresses, also when a name leads there
//! --allow 127.0.0.1:8000-8100
//! --allow *:443               this port of every public address
//! --socks                     is --allow *:*
//! ```
//!
//! `*` never reaches an address of this machine, nor a private, link-local or otherwise special one: those stand behind the server's firewall, and whoever may use the server is not
//! on that side of it. They have to be named. A name is resolved once, and what was allowed is what is connected to, so that a name cannot lead elsewhere the second time.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;

use ipnet::IpNet;

use super::request::Target;

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    host: Host,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Every public address.
    Public,
    Net(IpNet),
    /// In lower case, without a dot at its end.
    Name(String),
}

/// From, to, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports(u16, u16);

impl Ports {
    /// Whether it is one of them.
    pub(crate) fn contains(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }

    /// All of them.
    pub(crate) fn iter(self) -> impl Iterator<Item = u16> {
        self.0..=self.1
    }
}

impl FromStr for Ports {
    type Err = String;

    /// `22`, `8000-8100`, `*`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let ports = match text.split_once('-') {
            _ if text == "*" => Some((1, u16::MAX)),
            Some((from, to)) => number(from).zip(number(to)),
            None => number(text).map(|port| (port, port)),
        };
        let ports = ports.filter(|(from, to)| (1..=*to).contains(from));
        ports.map(|(from, to)| Self(from, to)).ok_or_else(|| format!("{text:?} is not a port: 22, 8000-8100, *"))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(1, u16::MAX) => f.write_str("*"),
            Self(from, to) if from == to => write!(f, "{from}"),
            Self(from, to) => write!(f, "{from}-{to}"),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "not a target: HOST:PORT, 10.0.0.0/8:PORT or *:PORT, with a port such as 22, 8000-8100 or *".to_owned();
        let (host, ports) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').map_or(Some(host), |inside| inside.strip_suffix(']'));
        // "[fd00::]/8" reads as well as "[fd00::/8]".
        let joined =
            host.strip_prefix('[').and_then(|inside| inside.split_once("]/")).map(|(ip, len)| format!("{ip}/{len}"));
        let bare = joined.as_deref().or(bare).ok_or_else(wrong)?;
        let host = if bare == "*" {
            Host::Public
        } else if let Ok(net) = bare.parse::<IpNet>() {
            Host::Net(net.trunc())
        } else if let Ok(ip) = bare.parse::<IpAddr>() {
            Host::Net(ip.into())
        } else if bare.is_empty() || bare.contains(|c: char| !(c.is_ascii_alphanumeric() || "-._".contains(c))) {
            return Err(wrong());
        } else {
            Host::Name(folded(bare))
        };
        Ok(Self { host, ports: ports.parse()? })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Public => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Net(net) => {
                let text =
                    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
                if text.contains(':') { write!(f, "[{text}]")? } else { f.write_str(&text)? }
            }
        }
        write!(f, ":{}", self.ports)
    }
}

/// However it is written, it is one name.
pub(super) fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// All that is allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed(Vec<Rule>);

impl Allowed {
    /// What these rules allow together.
    pub(crate) fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// `--socks`
    pub(crate) fn public() -> Rule {
        Rule { host: Host::Public, ports: Ports(1, u16::MAX) }
    }

    /// Nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is worth resolving: some rule may allow it.
    pub(crate) fn may(&self, target: &Target) -> bool {
        let ip = target.host.parse::<IpAddr>().ok();
        self.0.iter().filter(|rule| rule.ports.contains(target.port)).any(|rule| match &rule.host {
            Host::Name(name) => *name == folded(&target.host),
            Host::Net(net) => ip.is_none_or(|ip| net.contains(&ip.to_canonical())),
            Host::Public => true,
        })
    }

    /// Whether a rule names it, or its address. What else `*` and networks allow is the clients' choice, and nobody's business.
    pub(crate) fn names(&self, target: &Target) -> bool {
        let ip = target.host.parse::<IpAddr>().ok();
        self.0.iter().filter(|rule| rule.ports.contains(target.port)).any(|rule| match &rule.host {
            Host::Name(name) => *name == folded(&target.host),
            Host::Net(net) => ip.is_some_and(|ip| net.contains(&ip.to_canonical())),
            Host::Public => false,
        })
    }

    /// Of the addresses that the target's name has led to, those that may be connected to.
    pub(crate) fn addresses(&self, target: &Target, found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        self.addresses_from(is_own, target, found)
    }

    /// The same on a machine that has the addresses that `is_own` says.
    fn addresses_from(
        &self,
        is_own: impl Fn(IpAddr) -> bool,
        target: &Target,
        found: impl IntoIterator<Item = SocketAddr>,
    ) -> Vec<SocketAddr> {
        let rules: Vec<_> = self.0.iter().filter(|rule| rule.ports.contains(target.port)).collect();
        let allowed = |addr: &SocketAddr| {
            let ip = addr.ip().to_canonical();
            rules.iter().any(|rule| match &rule.host {
                Host::Name(name) => *name == folded(&target.host),
                Host::Net(net) => net.contains(&ip),
                Host::Public => is_public(ip) && !is_own(ip),
            })
        };
        found.into_iter().filter(allowed).collect()
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Rule::to_string).collect::<Vec<_>>().join(" "))
    }
}

/// It is this machine's: a public address of a machine reaches, from inside, what its firewall keeps from others.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// What is not special in IANA's registries of special-purpose addresses (RFC 6890 and its followers, as of 2025), and no IPv4 address that is special in the clothes of an IPv6 one.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            let embedded = |at: usize| {
                let octets = ip.octets();
                Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3])
            };
            match (a, b) {
                // NAT64, whose translator may stand on the inside.
                (0x64, 0xff9b) => c == 0 && is_public_v4(embedded(12)),
                // 6to4 leads to the IPv4 address within.
                (0x2002, _) => is_public_v4(embedded(2)),
                // Teredo, benchmarks, ORCHID ... and documentation.
                (0x2001, 0..0x200 | 0xdb8) | (0x3fff, 0..0x1000) => false,
                // The rest of what is given out.
                (0x2000..0x4000, _) => true,
                _ => false,
            }
        }
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        || (a, b) == (100, b & 0x3f | 64)
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a, b & 0xfe) == (198, 18))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        let (host, port) = text.rsplit_once(':').unwrap();
        Target { host: host.trim_matches(['[', ']']).into(), port: port.parse().unwrap() }
    }

    fn allows(rules: &[&str], wanted: &str, leads_to: &str) -> bool {
        let allowed = Allowed::new(rules.iter().map(|rule| rule.parse().unwrap()));
        let target = target(wanted);
        let found = SocketAddr::new(leads_to.parse().unwrap(), target.port);
        let addresses = allowed.addresses(&target, [found]);
        assert!(addresses.is_empty() || allowed.may(&target), "{rules:?} {wanted}");
        !addresses.is_empty()
    }

    /// The operator knows what he has named; where else clients go is not for his log.
    #[test]
    fn only_what_a_rule_names_is_named() {
        let rules = ["db.lan:5432", "10.0.0.0/8:22", "*:443"].map(|text| text.parse().unwrap());
        let allowed = Allowed::new(rules);
        for (host, port, named) in [
            ("DB.lan.", 5432, true),
            ("db.lan", 22, false),
            ("10.1.2.3", 22, true),
            ("example.org", 22, false),
            ("example.org", 443, false),
            ("203.0.113.7", 443, false),
        ] {
            assert_eq!(allowed.names(&Target { host: host.into(), port }), named, "{host}:{port}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_was_not_said() {
        assert!(!allows(&[], "example.org:443", "93.184.216.34"));
        assert!(!allows(&["example.org:443"], "example.org:22", "93.184.216.34"));
        assert!(!allows(&["example.org:443"], "93.184.216.34:443", "93.184.216.34"));
        assert!(allows(&["Example.org:443"], "example.ORG.:443", "93.184.216.34"));
        assert!(allows(&["db.lan:*"], "db.lan:5432", "10.0.0.5"));
        assert!(allows(&["10.0.0.0/8:20-30"], "10.1.2.3:22", "10.1.2.3"));
        assert!(allows(&["10.0.0.0/8:20-30"], "some.name:22", "10.1.2.3"));
        assert!(!allows(&["10.0.0.0/8:20-30"], "10.1.2.3:31", "10.1.2.3"));
        assert!(allows(&["127.0.0.1:80"], "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"));
        assert!(allows(&["[fd00::/8]:80"], "[fd12::1]:80", "fd12::1"));
        assert!(allows(&["1.2.3.4:1", "*:443"], "example.org:443", "93.184.216.34"));
    }

    /// The server is on the inside of a firewall, its clients are not.
    #[test]
    fn stars_reach_public_addresses_only() {
        for ip in [
            "93.184.216.34",
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "198.17.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "::7f00:1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
            assert!(!allows(&["*:*"], "rebound.example:80", ip), "{ip}");
        }
        assert!(!allows(&["*:*"], "[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1"));
        assert!(is_own(Ipv4Addr::LOCALHOST.into()) && !is_own("2001:db8::1".parse().unwrap()));
    }

    /// A port that the firewall keeps from others is open from inside, at the public address, too.
    #[test]
    fn stars_do_not_reach_this_machine_at_its_public_address() {
        let found: SocketAddr = "93.184.216.34:5432".parse().unwrap();
        let target = target("93.184.216.34:5432");
        let own = |ip: IpAddr| ip == found.ip();
        let reached = |rule: &str| Allowed::new([rule.parse().unwrap()]).addresses_from(own, &target, [found]);
        assert_eq!(reached("*:*"), []);
        assert_eq!(reached("93.184.216.34:5432"), [found], "but it can be named");
        assert_eq!(Allowed::new([Allowed::public()]).addresses_from(|_| false, &target, [found]), [found]);
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in ["db.lan:5432", "*:443", "*:*", "10.0.0.0/8:22", "[::1]:80", "[fd00::/8]:1-2", "10.0.0.1:22"] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        assert_eq!("[fd00::]/8:80".parse::<Rule>(), "[fd00::/8]:80".parse());
        for text in [
            "",
            "db.lan",
            "db.lan:",
            "db.lan:0",
            "db.lan:x",
            "db.lan:2-1",
            ":22",
            "a b:22",
            "*.lan:22",
            "[x:22",
            "db.lan:+1",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
