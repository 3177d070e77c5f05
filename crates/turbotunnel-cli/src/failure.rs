//! How the program ends when it does not end well: one line that says what is wrong, one that says what to do, and an exit code that scripts
//! and service managers can tell apart.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// Exit codes. They are part of the interface: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Exit {
    /// Done, and every byte is accounted for.
    Done = 0,
    /// Unexpected: I/O on stdin or stdout, missing bytes, a broken protocol.
    Unexpected = 1,
    /// Wrong usage: an unknown option, a bad address.
    Usage = 2,
    /// Cannot listen: the port is in use, or not allowed.
    CannotListen = 3,
    /// The server was never reached.
    NeverConnected = 4,
    /// What answers has not shown that it has the server's key, or the server does not accept ours.
    WrongKey = 5,
    /// What answers is not a server of this kind.
    OtherProtocol = 6,
    /// The server does not allow the target, or the port that was asked for.
    NotAllowed = 7,
    /// The server does not know the session any more, or has shut down. Bytes may be missing.
    SessionLost = 8,
    /// Gave up: no contact for too long, after the session had worked.
    GaveUp = 9,
    /// `demo` ran, and its verdict is bad; `check` found something that is not well.
    BadVerdict = 10,
    /// The server could not reach the target.
    TargetUnreachable = 11,
    /// Ended by Ctrl-C (128 + SIGINT).
    Interrupted = 130,
    /// Ended at once by a second SIGTERM (128 + SIGTERM).
    Terminated = 143,
}

impl Exit {
    /// All of them, with what the manual pages and docs/operate.md say of each.
    pub const ALL: [(Self, &str); 14] = [
        (Self::Done, "done, every byte accounted for; or ended by SIGTERM with nothing cut"),
        (
            Self::Unexpected,
            "unexpected: standard input or output, a broken protocol; SIGTERM, and streams were cut before their end",
        ),
        (Self::Usage, "wrong usage: an unknown option, a bad address, a key file that cannot be used"),
        (Self::CannotListen, "cannot listen: the port is in use, or not allowed"),
        (Self::NeverConnected, "the server was never reached, or has no room (only with --fail-fast, --give-up)"),
        (Self::WrongKey, "what answers has not shown that it has the server's key, or the server does not accept ours"),
        (Self::OtherProtocol, "what answers is not a server of this kind"),
        (Self::NotAllowed, "the server does not allow the target, or does not lend the port"),
        (Self::SessionLost, "the server does not know the session any more, or has shut down; bytes may be missing"),
        (Self::GaveUp, "gave up: no contact for too long, after it had worked"),
        (Self::BadVerdict, "demo ran, and its verdict is bad; check found something that is not well"),
        (Self::TargetUnreachable, "the server could not reach the target"),
        (Self::Interrupted, "ended by Ctrl-C"),
        (Self::Terminated, "ended at once by a second SIGTERM"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program ends, and what the user can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the program ends with.
    pub exit: Exit,
    /// What is wrong, in one line, and what that means here, in a second one if it needs saying. Empty: nothing is said (Ctrl-C).
    pub error: String,
    /// What the user can do.
    pub tip: Option<String>,
}

impl Failure {
    /// A failure without a tip.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), tip: None }
    }

    /// The same with a tip.
    #[must_use]
    pub fn tip(mut self, tip: impl Into<String>) -> Self {
        self.tip = Some(tip.into());
        self
    }

    /// The user pressed Ctrl-C and knows it.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "")
    }

    /// Whoever ends us does not want to wait.
    pub fn terminated() -> Self {
        Self::new(Exit::Terminated, "")
    }

    /// One cannot listen there.
    pub fn cannot_listen(addr: &str, error: &io::Error) -> Self {
        let failure = Self::new(Exit::CannotListen, format!("cannot listen on {addr}: {}", reason(error)));
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        match (error.kind(), port) {
            (io::ErrorKind::AddrInUse, Some(port)) => match who_listens(port) {
                Some((pid, name)) => failure.tip(format!("pid {pid} ({name}) has it; another port works too")),
                None => failure.tip("another program has it; another port works too"),
            },
            (io::ErrorKind::PermissionDenied, Some(1..1024)) => {
                failure.tip("setcap cap_net_bind_service=+ep $(command -v turbotunnel), or a port above 1023")
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                failure.tip("this machine does not have that address; :PORT listens on all it has")
            }
            _ => failure,
        }
    }
}

impl fmt::Display for Failure {
    /// The lines for stderr, each with its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tip = self.tip.as_deref().unwrap_or_default();
        for (label, text) in [("error: ", self.error.as_str()), ("  tip: ", tip)] {
            for (i, line) in text.lines().enumerate() {
                writeln!(f, "{}{line}", if i == 0 { label } else { "       " })?;
            }
        }
        Ok(())
    }
}

/// An I/O error in the words of a person: lower case, without the system's number.
pub fn reason(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use",
        io::ErrorKind::AddrNotAvailable => "no such address on this machine",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset by peer",
        io::ErrorKind::BrokenPipe => "nobody reads it any more (broken pipe)",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::TimedOut => "timed out",
        io::ErrorKind::StorageFull => "no space left on device",
        _ => return plain(&error.to_string()),
    };
    text.to_owned()
}

/// The text of an I/O error as it would be in a sentence: without the system's number, in lower case.
pub fn plain(text: &str) -> String {
    lower_first(text.rfind(" (os error ").map_or(text, |at| &text[..at]))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "I/O error" and "TLS ..." stay as they are.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// The process that listens on a TCP port of this machine, as far as we may see it.
#[cfg(target_os = "linux")]
fn who_listens(port: u16) -> Option<(u32, String)> {
    use std::fs;

    const LISTEN: &str = "0A";
    let inode_in = |table: &str| -> Option<String> {
        fs::read_to_string(table).ok()?.lines().skip(1).find_map(|line| {
            // proc(5): sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let ours = *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
            ours.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    };
    let inode = inode_in("/proc/self/net/tcp").or_else(|| inode_in("/proc/self/net/tcp6"))?;
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let has_it = fs::read_dir(process.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()));
        has_it.then(|| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            (pid, name.trim().to_owned())
        })
    })
}

#[cfg(not(target_os = "linux"))]
fn who_listens(_port: u16) -> Option<(u32, String)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_and_a_tip_of_two_lines() {
        let failure = Failure::new(Exit::Usage, "no").tip("one\ntwo");
        assert_eq!(failure.to_string(), "error: no\n  tip: one\n       two\n");
        assert_eq!(Failure::interrupted().to_string(), "");
    }

    /// What operators read is what the program has.
    #[test]
    fn the_documents_have_all_exit_codes() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate.md")).unwrap();
        let text = text.split("## Exit codes").nth(1).unwrap().split("##").next().unwrap();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code")).collect();
        assert_eq!(rows.len(), Exit::ALL.len());
        for ((exit, meaning), row) in Exit::ALL.into_iter().zip(rows) {
            let expected = format!("| {} | {meaning} |", exit as u8);
            assert!(row.replace('`', "").starts_with(&expected), "{row}, and not {expected}");
        }
    }

    #[test]
    fn system_errors_are_told_in_plain_words() {
        assert_eq!(reason(&io::ErrorKind::AddrInUse.into()), "address already in use");
        assert_eq!(reason(&io::Error::from_raw_os_error(24)), "too many open files");
        assert_eq!(reason(&io::Error::other("I/O error")), "I/O error");
    }

    #[test]
    fn a_port_that_only_root_may_have_comes_with_the_way_to_get_it() {
        let failure = Failure::cannot_listen("[::]:443", &io::ErrorKind::PermissionDenied.into());
        let tip = "setcap cap_net_bind_service=+ep $(command -v turbotunnel), or a port above 1023";
        assert_eq!(failure.to_string(), format!("error: cannot listen on [::]:443: permission denied\n  tip: {tip}\n"));
        assert_eq!(failure.exit, Exit::CannotListen);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_one_who_has_the_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (pid, name) = who_listens(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
    }
}
