//! Forwards as users write them: `-L [BIND:]PORT[:HOST:HOSTPORT]`, `-D [BIND:]PORT`, `-R [BIND:]PORT:HOST:HOSTPORT`, as ssh has them.
//!
//! Without BIND it is 127.0.0.1; `*` or nothing before the colon is every interface. IPv6 addresses are in brackets.

use std::fmt;

use super::request::Target;
use crate::failure::{Exit, Failure};

/// One side of a forward: where connections are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// Addresses to listen on, best first: the next one is for systems that do not have the first.
    pub bind: Vec<String>,
}

/// A port here, and where its connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub local: Local,
    /// `None`: to where the server sends everybody.
    pub target: Option<Target>,
}

/// A port at the server, and where its connections go from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reverse {
    /// An empty host: the server's choice.
    pub listen: Target,
    pub target: Target,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Some(target) => write!(f, "{target}"),
            None => f.write_str("the server's target"),
        }
    }
}

/// `-L`
pub(crate) fn forward(text: &str) -> Result<Forward, Failure> {
    let wrong = |tip: &str| wrong("-L", text).tip(tip.to_owned());
    let tip = "-L [BIND:]PORT[:HOST:HOSTPORT], e.g. -L 5432:db.lan:5432, or -L 2222 for the server's own target";
    match &parts(text).ok_or_else(|| wrong(tip))?[..] {
        [port] => Ok(Forward { local: local("127.0.0.1", port).ok_or_else(|| wrong(tip))?, target: None }),
        [bind, port] => match target(bind, port) {
            // Somebody who forgot the port here: "db.lan:5432".
            Some(target) if !is_bind(bind) => Err(wrong(&format!("which port here? -L {port}:{target}"))),
            _ => Ok(Forward { local: local(bind, port).ok_or_else(|| wrong(tip))?, target: None }),
        },
        [port, host, host_port] => both("127.0.0.1", port, host, host_port).ok_or_else(|| wrong(tip)),
        [bind, port, host, host_port] => both(bind, port, host, host_port).ok_or_else(|| wrong(tip)),
        _ => Err(wrong(tip)),
    }
}

/// `-D`
pub(crate) fn dynamic(text: &str) -> Result<Local, Failure> {
    let local = match &parts(text).unwrap_or_default()[..] {
        [port] => local("127.0.0.1", port),
        [bind, port] => local(bind, port),
        _ => None,
    };
    local.ok_or_else(|| wrong("-D", text).tip("-D [BIND:]PORT, e.g. -D 1080"))
}

/// `-R`
pub(crate) fn reverse(text: &str) -> Result<Reverse, Failure> {
    let listen = |bind: &str, port: &str| {
        let host = if is_all(bind) { "*" } else { unbracketed(bind)? };
        Some(Target { host: host.to_owned(), port: port.parse().ok()? })
    };
    let reverse = match &parts(text).unwrap_or_default()[..] {
        [port, host, host_port] => port
            .parse()
            .ok()
            .zip(target(host, host_port))
            .map(|(port, target)| Reverse { listen: Target { host: String::new(), port }, target }),
        [bind, port, host, host_port] => {
            listen(bind, port).zip(target(host, host_port)).map(|(listen, target)| Reverse { listen, target })
        }
        _ => None,
    };
    reverse.ok_or_else(|| wrong("-R", text).tip("-R [BIND:]PORT:HOST:HOSTPORT, e.g. -R 8080:127.0.0.1:80"))
}

/// `HOST:PORT` of `-W`, `--to`.
pub(crate) fn one_target(option: &str, text: &str) -> Result<Target, Failure> {
    let target = match &parts(text).unwrap_or_default()[..] {
        [host, port] => target(host, port),
        _ => bare_ipv6(text),
    };
    let wrong = || Failure::new(Exit::Usage, format!("{option} {text:?} is not a target"));
    target.ok_or_else(|| wrong().tip(format!("{option} HOST:PORT, e.g. {option} 127.0.0.1:22")))
}

/// An IPv6 address without brackets before its port, which there has to be: what ssh makes of `-W %h:%p`.
fn bare_ipv6(text: &str) -> Option<Target> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let ip = host.split('%').next().unwrap_or(host);
    ip.parse::<std::net::Ipv6Addr>().ok().and_then(|_| target(host, port))
}

fn both(bind: &str, port: &str, host: &str, host_port: &str) -> Option<Forward> {
    Some(Forward { local: local(bind, port)?, target: Some(target(host, host_port)?) })
}

fn is_all(bind: &str) -> bool {
    bind.is_empty() || bind == "*"
}

/// It looks like something to listen on.
fn is_bind(text: &str) -> bool {
    is_all(text) || text == "localhost" || unbracketed(text).is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_ok())
}

fn local(bind: &str, port: &str) -> Option<Local> {
    let port: u16 = number(port)?;
    if is_all(bind) {
        return Some(Local { bind: vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")] });
    }
    unbracketed(bind)?;
    Some(Local { bind: vec![format!("{bind}:{port}")] })
}

pub(crate) fn target(host: &str, port: &str) -> Option<Target> {
    let host = unbracketed(host)?;
    let fits = !host.is_empty() && host.len() <= 255 && !host.contains(|c: char| c.is_whitespace() || c.is_control());
    let port = number(port).filter(|port| *port > 0)?;
    fits.then(|| Target { host: host.to_owned(), port })
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// What is in the brackets, which only an IPv6 address has.
fn unbracketed(host: &str) -> Option<&str> {
    match host.strip_prefix('[') {
        Some(inside) => inside.strip_suffix(']').filter(|ip| ip.contains(':')),
        None => Some(host),
    }
}

/// Cut at the colons that are in no brackets; at most four parts.
pub(crate) fn parts(text: &str) -> Option<Vec<&str>> {
    let text = text.trim();
    let (mut parts, mut from, mut inside) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => inside = true,
            b']' => inside = false,
            b':' if !inside => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    (!inside && parts.len() <= 4 && !text.is_empty()).then_some(parts)
}

fn wrong(option: &str, text: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{option} {text:?} is not a forward"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(host: &str, port: u16) -> Target {
        Target { host: host.into(), port }
    }

    #[test]
    fn as_ssh_has_them() {
        for (text, bind, target) in [
            ("2222", "127.0.0.1:2222", None),
            ("127.0.0.1:2222", "127.0.0.1:2222", None),
            ("5432:db.lan:5432", "127.0.0.1:5432", Some(to("db.lan", 5432))),
            ("0:db.lan:5432", "127.0.0.1:0", Some(to("db.lan", 5432))),
            ("localhost:1:[::1]:22", "localhost:1", Some(to("::1", 22))),
            ("[::1]:1:10.0.0.1:22", "[::1]:1", Some(to("10.0.0.1", 22))),
            (":2222", "[::]:2222", None),
            ("*:80:web:80", "[::]:80", Some(to("web", 80))),
        ] {
            let forward = forward(text).unwrap();
            assert_eq!((forward.local.bind[0].as_str(), forward.target), (bind, target), "{text}");
        }
        assert_eq!(dynamic("1080").unwrap().bind, ["127.0.0.1:1080"]);
        assert_eq!(dynamic("[::1]:1080").unwrap().bind, ["[::1]:1080"]);
        for (text, listen) in [("80:a:1", to("", 80)), ("*:80:a:1", to("*", 80)), ("[::1]:80:a:1", to("::1", 80))] {
            assert_eq!(reverse(text).unwrap(), Reverse { listen, target: to("a", 1) }, "{text}");
        }
        assert_eq!(one_target("-W", "[fe80::1%eth0]:22").unwrap(), to("fe80::1%eth0", 22));
        assert_eq!(one_target("-W", " db.lan:22\r\n").unwrap(), to("db.lan", 22));
        assert_eq!(forward("2222 ").unwrap().local.bind, ["127.0.0.1:2222"]);
    }

    /// `ProxyCommand turbotunnel client -W %h:%p` for a host whose name is an IPv6 address.
    #[test]
    fn an_ipv6_address_of_ssh_has_no_brackets() {
        for (text, host) in [("::1:22", "::1"), ("2001:db8::7:22", "2001:db8::7"), ("fe80::1%eth0:22", "fe80::1%eth0")]
        {
            assert_eq!(one_target("-W", text).unwrap(), to(host, 22), "{text}");
        }
        assert_eq!(one_target("-W", "1:2:3:4:5:6:7:8:22").unwrap(), to("1:2:3:4:5:6:7:8", 22));
        for text in ["::1", "::1:", "::1:0", "a:b:22", "1:2:3:22", "::1:x"] {
            assert!(one_target("-W", text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_was_probably_meant() {
        for text in ["", "x", "65536", "1:2:3:4:5", "1:a", "1:a:0", "1:a:x", "[::1:2", "1:[a]:2", "1: :2", "+1"] {
            let failure = forward(text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{text}");
            assert!(failure.tip.is_some_and(|tip| tip.starts_with("-L [BIND:]PORT")), "{text}");
        }
        let forgotten = forward("db.lan:5432").unwrap_err();
        assert_eq!(forgotten.tip.as_deref(), Some("which port here? -L 5432:db.lan:5432"));
        assert!(dynamic("a:b").is_err() && reverse("80").is_err() && one_target("-W", "host").is_err());
    }
}
