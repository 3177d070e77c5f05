//! Keys on the command line: which mode is meant, and whose keys.
//!
//! In: options as they were given. Out: what the library wants, or a [`Failure`] that says what is missing and what to do. `-k` is a public key of somebody else's, `--key` is a
//! file with a secret key of one's own.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use turbotunnel::secure::{Link, ParseLinkError, PublicKey, StaticKey};
use turbotunnel::{Clients, KeyFileError, read_key_file, write_key_file};
use turbotunnel_carriers::{Address, DialOptions, Dialer, Kind, ParseAddressError};

use crate::args::ReachArgs;
use crate::failure::{Exit, Failure, reason};

/// A client list is a line for each client.
const MAX_LIST: u64 = 16 << 20;

/// How a client reaches its server.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// At least one; they are tried in turn.
    addresses: Vec<Address>,
    /// `None`: the worked example's format.
    pub key: Option<PublicKey>,
}

impl Way {
    /// From the arguments of a command that is plain unless a key is given.
    ///
    /// # Errors
    /// They contradict each other, or one is wrong.
    pub(crate) fn new(server: &str, key: Option<&str>, own: bool, plain: bool) -> Result<Self, Failure> {
        let server = server.trim();
        if server.is_empty() {
            return Err(usage("the server is an empty text").tip(
                "a turbotunnel:// link, or HOST:PORT; a variable of the shell may be empty, or have another name",
            ));
        }
        if let Some(quote) = quote(server) {
            return Err(usage(format!("the server has a quotation mark ({quote}) around it")).tip(
                "give it without; in the command line '...' is taken off by the shell, in files and variables it stays",
            ));
        }
        if is_link(server) {
            if plain {
                return Err(usage("--plain, and a link with a key").tip("for the plain format give HOST:PORT alone"));
            }
            let link: Link = server.parse().map_err(|error: ParseLinkError| {
                usage(error.to_string())
                    .tip("the server shows its link when it starts, and turbotunnel share makes one")
            })?;
            return match key {
                Some(key) if public_key(key)? != link.server_key() => {
                    Err(usage("the key of -k is not the one of the link").tip("a link needs no -k"))
                }
                _ => Ok(Self {
                    addresses: link.addresses().iter().map(|at| carrier(at)).collect::<Result<_, _>>()?,
                    key: Some(link.server_key()),
                }),
            };
        }
        let addresses: Vec<_> = split(server).into_iter().map(carrier).collect::<Result<_, _>>()?;
        if key.is_none() && own && !plain {
            let at = shown(&addresses[0]);
            return Err(
                usage(format!("no key for {at}")).tip("use the turbotunnel:// link the server printed, or -k KEY")
            );
        }
        Ok(Self { addresses, key: key.map(public_key).transpose()? })
    }

    /// From the arguments of a command that wants a key, and what makes carriers to each of the addresses.
    ///
    /// # Errors
    /// There is no key and `--plain` is not said, the arguments contradict each other, or one is wrong.
    pub(crate) fn reach(args: &ReachArgs) -> Result<(Self, Arc<[Dialer]>), Failure> {
        let way = Self::new(&args.server, args.server_key.as_deref(), args.key.is_some(), args.plain)?;
        if way.key.is_none() && !args.plain {
            return Err(usage(format!("no key for {}", way.address())).tip(
                "use the turbotunnel:// link the server printed, or -k KEY; --plain talks to the worked example, readable by everybody",
            ));
        }
        let mut options = DialOptions::default();
        options.ca_file.clone_from(&args.tls_ca);
        options.server_name.clone_from(&args.tls_name);
        options.proxy.clone_from(&args.proxy);
        let dialers = way.dialers(&options)?;
        Ok((way, dialers))
    }

    /// The first of the addresses, as it is told.
    pub(crate) fn address(&self) -> String {
        shown(&self.addresses[0])
    }

    /// All of them, as they are told.
    pub(crate) fn all(&self) -> String {
        self.addresses.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// Which of them the carrier goes to: they take turns. Carriers are counted from 1; 0 is the first of the addresses.
    pub(crate) fn turn(&self, carrier: u32) -> usize {
        carrier.saturating_sub(1) as usize % self.addresses.len()
    }

    /// That address, as it is told.
    pub(crate) fn address_of(&self, carrier: u32) -> String {
        shown(&self.addresses[self.turn(carrier)])
    }

    /// What makes carriers to each of them.
    ///
    /// # Errors
    /// An option is wrong.
    pub(crate) fn dialers(&self, options: &DialOptions) -> Result<Arc<[Dialer]>, Failure> {
        let dialer = |address: &Address| Dialer::new(address.clone(), options.clone());
        self.addresses.iter().map(dialer).collect::<Result<_, _>>().map_err(|error| usage(error.to_string()))
    }
}

/// It is meant to be one.
fn is_link(text: &str) -> bool {
    text.get(.."turbotunnel:".len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case("turbotunnel:"))
}

/// A quotation mark that came with what was pasted. A command may end with one of its own.
fn quote(text: &str) -> Option<char> {
    let is_quote = |c: &char| {
        matches!(
            c,
            '"' | '\'' | '`' | '<' | '>' | '\u{ab}' | '\u{bb}' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}'
        )
    };
    let end = text.chars().next_back().filter(|_| is_link(text));
    text.chars().next().filter(is_quote).or(end.filter(is_quote))
}

pub(crate) fn carrier(text: &str) -> Result<Address, Failure> {
    text.trim().parse().map_err(|error: ParseAddressError| {
        usage(format!("{:?} {}", error.text(), error.problem())).tip(error.tip().to_owned())
    })
}

/// Several addresses have commas between them. A command may have some of its own: it is the last.
fn split(servers: &str) -> Vec<&str> {
    let (mut all, mut rest) = (Vec::new(), servers);
    while let Some((first, more)) = rest.split_once(',').filter(|_| !rest.starts_with("exec:")) {
        all.push(first);
        rest = more;
    }
    all.push(rest);
    all
}

/// With its kind, also if that is the usual one.
fn shown(address: &Address) -> String {
    match address.kind() {
        Kind::Tcp => format!("tcp://{address}"),
        _ => address.to_string(),
    }
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

/// A public key, or the file that has one.
fn public_key(text: &str) -> Result<PublicKey, Failure> {
    let error = match text.trim().parse() {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
    let Ok(file) = std::fs::read_to_string(text) else {
        return Err(usage(error.to_string()).tip("-k wants the server's public key, or a file that has it"));
    };
    match &remarks_out(&file).collect::<Vec<_>>()[..] {
        [(_, key)] => key.parse().map_err(|error| usage(format!("{text}: {error}"))),
        _ => Err(usage(format!("{text} has to have one public key in it"))),
    }
}

/// The lines that count, with their numbers.
fn remarks_out(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.split('#').next().unwrap_or_default().trim()));
    lines.filter(|(_, line)| !line.is_empty())
}

/// A client's own key.
///
/// # Errors
/// The file is not there, others may read it, or it has no key.
pub(crate) fn own_key(path: &Path) -> Result<StaticKey, Failure> {
    known_key(path, &format!("turbotunnel keygen {}", path.display()))
}

/// A key that there has to be; `tip` says what to do if there is no such file. A new key in the place of one that clients know would help nobody.
///
/// # Errors
/// The file is not there, others may read it, or it has no key.
pub(crate) fn known_key(path: &Path, tip: &str) -> Result<StaticKey, Failure> {
    read_key_file(path).map_err(|error| match told(&error) {
        failure if error.is_not_found() => failure.tip(tip),
        failure => failure,
    })
}

/// The same, and a new one if there is no such file. The second value: it was made.
///
/// # Errors
/// Others may read it, it has no key, or it cannot be written.
pub(crate) fn own_key_or_new(path: &Path) -> Result<(StaticKey, bool), Failure> {
    match read_key_file(path) {
        Ok(key) => Ok((key, false)),
        Err(error) if error.is_not_found() => {
            let key = generate()?;
            write_new(path, &key, false)?;
            Ok((key, true))
        }
        Err(error) => Err(told(&error)),
    }
}

/// A new key.
///
/// # Errors
/// The system has no randomness to give.
pub(crate) fn generate() -> Result<StaticKey, Failure> {
    StaticKey::generate().map_err(|error| Failure::new(Exit::Unexpected, format!("cannot make a key: {error}")))
}

/// Writes a key, and makes the folders for it that are not there.
///
/// # Errors
/// The file is there and is not to be written over, or it cannot be written.
pub(crate) fn write_new(path: &Path, key: &StaticKey, overwrite: bool) -> Result<(), Failure> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_folder(folder).map_err(|error| {
            usage(format!("cannot make the folder {} for a key: {}", folder.display(), reason(&error)))
        })?;
    }
    write_key_file(path, key, overwrite).map_err(|error| told(&error))
}

/// Folders that only their owner can look into, as many as are missing. One that is there stays as it is.
///
/// # Errors
/// One cannot be made.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// What is wrong with a key file, and what to do.
fn told(error: &KeyFileError) -> Failure {
    match error {
        KeyFileError::Io { path, error } => {
            let path = path.display();
            let failure = usage(format!("cannot use the key file {path}: {}", reason(error)));
            match error.kind() {
                io::ErrorKind::AlreadyExists => failure.tip("-f writes over it; the old key is lost then"),
                _ => failure,
            }
        }
        KeyFileError::Permissions { path, .. } => usage(error.to_string()).tip(format!(
            "chmod 600 {path}; if somebody may have read it, make a new one: turbotunnel keygen -f {path}",
            path = path.display()
        )),
        other => usage(other.to_string()).tip("a key file is made by turbotunnel keygen"),
    }
}

/// The clients in a file: a public key a line, remarks behind `#`.
///
/// # Errors
/// The file cannot be read, or a line is no key.
pub(crate) fn clients(path: &Path) -> Result<Clients, Failure> {
    let shown = path.display();
    let cannot = |error: &io::Error| usage(format!("cannot read the clients in {shown}: {}", reason(error)));
    if std::fs::metadata(path).map_err(|error| cannot(&error))?.len() > MAX_LIST {
        return Err(usage(format!("{shown} is too long for a list of clients")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    let keys = remarks_out(&text).map(|(at, key)| {
        key.parse().map_err(|error| {
            usage(format!("{shown}, line {at}: {error}")).tip("a public key a line, what is behind # is a remark")
        })
    });
    keys.collect::<Result<HashSet<PublicKey>, _>>().map(Clients::from_iter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        StaticKey::from_bytes(&[7; 32]).public()
    }

    #[test]
    fn the_mode_follows_from_what_is_given() {
        let link = format!("turbotunnel://{}@h:1", key());
        for (server, plain) in [("h:1", false), ("tcp://h:1", true)] {
            let way = Way::new(server, None, false, plain).unwrap();
            assert_eq!((way.key, way.address()), (None, "tcp://h:1".to_owned()));
        }
        for (server, k) in [(&link[..], None), ("h:1", Some(key().to_string())), (&link, Some(key().to_string()))] {
            let way = Way::new(server, k.as_deref(), true, false).unwrap();
            assert_eq!((way.key, way.address()), (Some(key()), "tcp://h:1".to_owned()));
        }
    }

    #[test]
    fn carriers_of_several_kinds_have_commas_between_them() {
        let way = Way::new("tcp://a:1,wss://b/x,unix:/run/s,exec:nc -N a,b 1", None, false, true).unwrap();
        let all: Vec<_> = way.addresses.iter().map(shown).collect();
        assert_eq!(all, ["tcp://a:1", "wss://b/x", "unix:/run/s", "exec:nc -N a,b 1"]);
        assert!(Way::new("a:1,", None, false, true).is_err());
        for (carrier, turn) in [(0, 0), (1, 0), (2, 1), (4, 3), (5, 0)] {
            assert_eq!(way.address_of(carrier), all[turn], "{carrier}");
        }
        assert_eq!(way.all(), "tcp://a:1, wss://b/x, unix:/run/s, exec:nc -N a,b 1");
    }

    /// Out of a mail, a chat or a file with settings.
    #[test]
    fn what_was_pasted_may_have_blanks_with_it_and_no_quotation_marks() {
        let link = format!("turbotunnel://{}@h:1", key());
        for pasted in [format!(" {link}\r\n"), format!("\t{link} "), link.replace("turbo", "Turbo"), link.clone()] {
            let way = Way::new(&pasted, None, false, false).unwrap();
            assert_eq!((way.key, way.all()), (Some(key()), "tcp://h:1".to_owned()), "{pasted:?}");
        }
        let pasted = Way::new(" h:1 , [::1]:2\n", Some(&format!("{}\n", key())), false, false).unwrap();
        assert_eq!(pasted.all(), "tcp://h:1, tcp://[::1]:2");
        for (open, close) in
            [("\"", "\""), ("'", "'"), ("<", ">"), ("\u{201c}", "\u{201d}"), ("\u{201e}", "\u{201c}"), ("", "\u{201d}")]
        {
            let failure = Way::new(&format!("{open}{link}{close}"), None, false, false).unwrap_err();
            let mark = if open.is_empty() { close } else { open };
            assert_eq!(failure.error, format!("the server has a quotation mark ({mark}) around it"));
            assert!(failure.tip.is_some());
        }
        assert!(Way::new("exec:sh -c 'nc h 1'", None, false, true).is_ok(), "a command may have some");
        for empty in ["", " \n"] {
            assert_eq!(Way::new(empty, None, false, false).unwrap_err().error, "the server is an empty text");
        }
    }

    #[test]
    fn contradictions_are_told() {
        let link = format!("turbotunnel://{}@h:1", key());
        let other = StaticKey::from_bytes(&[8; 32]).public().to_string();
        for (outcome, told) in [
            (Way::new(&link, None, false, true), "--plain, and a link"),
            (Way::new(&link, Some(&other), false, false), "not the one of the link"),
            (Way::new("h:1", None, true, false), "no key for tcp://h:1"),
            (Way::new("h:1", Some("nonsense"), false, false), "not a key"),
            (Way::new("turbotunnel://h:1", None, false, false), "a link without a key"),
        ] {
            let failure = outcome.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.error.contains(told) && failure.tip.is_some(), "{failure}");
        }
    }

    #[test]
    fn lists_of_clients_have_remarks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients");
        std::fs::write(&path, format!("# friends\n\n{} # Ann\n", key())).unwrap();
        assert_eq!(clients(&path).unwrap(), [key()].into_iter().collect());
        std::fs::write(&path, "# friends\nAnn\n").unwrap();
        assert!(clients(&path).unwrap_err().error.contains("line 2: not a key"));
        assert!(clients(&folder.path().join("none")).is_err());
        assert_eq!(public_key(&key().to_string()), Ok(key()));
        std::fs::write(&path, key().to_string()).unwrap();
        assert_eq!(public_key(path.to_str().unwrap()), Ok(key()));
    }
}
