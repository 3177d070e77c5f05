//! The programs under attack, as children. A child is killed when its handle is dropped.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use turbotunnel::secure::{PublicKey, StaticKey};
use turbotunnel::write_key_file;
use turbotunnel_cli::process;

use crate::honest::Honest;

/// A program that does not listen, or does not end when it should, within this time is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose programs are attacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whose {
    /// `turbotunnel`, of this workspace.
    Ours,
    /// `interop/go/bin/peer`, on kcp-go and smux.
    Go,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) whose: Whose,
    ours: PathBuf,
    go: PathBuf,
}

/// What becomes of a server's log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Stderr {
    /// It is read and counted.
    #[default]
    Read,
    /// It is a pipe that nobody reads once the server listens.
    Stuck,
    /// It is a pipe whose reader is gone once the server listens.
    Closed,
    /// It is `/dev/full`.
    Full,
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// Where it listens; if not given, anywhere.
    pub(crate) at: Option<SocketAddr>,
    /// How many descriptors it may have.
    pub(crate) descriptors: Option<u32>,
    pub(crate) stderr: Stderr,
    /// It takes sessions with a key only. Ours can.
    pub(crate) secure: bool,
    /// Options that only our server has.
    pub(crate) options: &'static [&'static str],
}

impl Stage {
    /// Programs built before: ours beside this one, the Go ones where `interop/build` puts them.
    pub(crate) fn new(whose: Whose) -> io::Result<Self> {
        let here = std::env::current_exe()?;
        let ours = here.with_file_name("turbotunnel");
        let go = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/go/bin/peer");
        Ok(Self { whose, ours, go })
    }

    /// An echo server that has served somebody already, so that what any server needs once is there.
    pub(crate) fn server(&self) -> io::Result<Running> {
        self.server_with(&Setup::default())
    }

    /// The same, started otherwise.
    pub(crate) fn server_with(&self, setup: &Setup) -> io::Result<Running> {
        let server = self.cold_server(setup)?;
        let mut first = Honest::connect_to(server.addr, server.key, source(250), PATIENCE)?;
        first.echo(256 << 10, PATIENCE)?;
        drop(first);
        process::forget_peak(server.id())?;
        Ok(server)
    }

    /// As [`Stage::server`], with a key.
    pub(crate) fn secure_server(&self) -> io::Result<Running> {
        self.server_with(&Setup { secure: true, ..Setup::default() })
    }

    fn cold_server(&self, setup: &Setup) -> io::Result<Running> {
        let key = if setup.secure { Some(KeyFile::new()?) } else { None };
        // Only a server that cannot tell its port is given one.
        let blind = setup.stderr == Stderr::Full && self.whose == Whose::Ours;
        let at = match setup.at {
            Some(at) => at,
            None if blind => free_port()?,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        let mut command = match setup.descriptors {
            // The limit is the shell's to set; the program takes its place.
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(self.program(self.whose)?);
                shell
            }
            None => Command::new(self.program(self.whose)?),
        };
        match self.whose {
            Whose::Ours => {
                command.arg("echo-server").args(setup.options);
                if let Some(key) = &key {
                    command.arg("--key").arg(&key.path);
                }
                command.arg(at.to_string())
            }
            Whose::Go => command.args(["echo-server", "--while-stdin", &at.to_string()]),
        };
        let stderr = match setup.stderr {
            Stderr::Full => Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full")?),
            _ => Stdio::piped(),
        };
        let mut running = Running::spawn(&mut command, stderr, at)?;
        running.key = key.as_ref().map(|key| key.public);
        let mut stderr = running.child.stderr.take();
        running.addr = match (self.whose, &mut stderr) {
            (Whose::Ours, Some(stderr)) => address_in(&first_line(stderr)?),
            (Whose::Ours, None) => listens(at).then_some(at),
            (Whose::Go, _) => {
                let mut stdout = running.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                address_in(&first_line(&mut stdout)?)
            }
        }
        .ok_or_else(|| io::Error::other(format!("{command:?} does not listen")))?;
        match (setup.stderr, stderr) {
            (Stderr::Read, Some(stderr)) => running.log.read(stderr),
            (Stderr::Stuck, stderr) => running.unread = stderr,
            _ => {}
        }
        Ok(running)
    }

    /// An echo client of the server at `addr`.
    pub(crate) fn client(&self, addr: SocketAddr, options: &[&str]) -> io::Result<Running> {
        self.client_of(self.whose, addr, options)
    }

    /// The same, of one's choice.
    pub(crate) fn client_of(&self, whose: Whose, addr: SocketAddr, options: &[&str]) -> io::Result<Running> {
        let mut command = Command::new(self.program(whose)?);
        command.arg("echo-client").args(options).arg(addr.to_string());
        let mut running = Running::spawn(&mut command, Stdio::piped(), addr)?;
        if let Some(stderr) = running.child.stderr.take() {
            running.log.read(stderr);
        }
        Ok(running)
    }

    fn program(&self, whose: Whose) -> io::Result<&Path> {
        let (program, how) = match whose {
            Whose::Ours => (&self.ours, "cargo build --release -p turbotunnel-cli"),
            Whose::Go => (&self.go, "interop/build"),
        };
        if program.is_file() {
            return Ok(program);
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no {}; to get it: {how}", program.display())))
    }
}

/// A server's secret key, in a file for as long as the server reads it.
struct KeyFile {
    path: PathBuf,
    public: PublicKey,
}

impl KeyFile {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("turbotunnel-hostile-{}.key", std::process::id()));
        let key = StaticKey::generate()?;
        write_key_file(&path, &key, true).map_err(io::Error::other)?;
        Ok(Self { path, public: key.public() })
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// 127.0.0.`n`: an address to attack from, or to be honest at.
pub(crate) fn source(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, n)
}

/// 127.1.x.y: an address of the `n`th of many.
pub(crate) fn one_of_many(n: usize) -> Ipv4Addr {
    let [high, low] = (n as u16 + 1).to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

/// A port that nobody has at this moment.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Looks every 10 ms until `done`, and gives the time that took. `None`: it was not so within `limit`.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
    let began = Instant::now();
    loop {
        if done() {
            return Some(began.elapsed());
        }
        if began.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn listens(at: SocketAddr) -> bool {
    wait_until(PATIENCE, || TcpStream::connect(at).is_ok()).is_some()
}

/// Byte by byte, so that nothing behind it is taken.
fn first_line(from: &mut impl Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while from.read(&mut byte)? > 0 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// `... listening on tcp://ADDRESS, ...` or `listening ADDRESS`
fn address_in(line: &str) -> Option<SocketAddr> {
    let words = line.split([' ', ',']).map(|word| word.trim_start_matches("tcp://"));
    words.filter_map(|word| word.parse().ok()).next()
}

/// What a child says, counted; the beginning is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    lines: usize,
    bytes: usize,
    beginning: Vec<String>,
}

impl Log {
    /// Lines that are kept to be looked at.
    const KEPT: usize = 20_000;

    fn read(&self, stderr: ChildStderr) {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = log.0.lock().unwrap_or_else(PoisonError::into_inner);
                said.lines += 1;
                said.bytes += line.len() + 1;
                if said.lines <= Self::KEPT {
                    said.beginning.push(line);
                }
            }
        });
    }

    pub(crate) fn lines(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Lines with all of `words` in them.
    pub(crate) fn count(&self, words: &[&str]) -> usize {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.beginning.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }
}

/// MiB in RAM that a process has made itself. Pages of its program that are read while it is attacked are no growth: every server has them in the end. Not a number if it is
/// gone.
pub(crate) fn memory(process: u32) -> f64 {
    (process::resident(process) - process::resident_of_files(process)) / 1024.0
}

/// The most that it was, MiB.
pub(crate) fn peak(process: u32) -> f64 {
    (process::peak(process) - process::resident_of_files(process)) / 1024.0
}

/// A program that runs until dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// Where it listens, or what it was told to dial.
    pub(crate) addr: SocketAddr,
    /// The public key that its clients have to know.
    pub(crate) key: Option<PublicKey>,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) log: Log,
    /// Held, and not read.
    unread: Option<ChildStderr>,
    child: Child,
}

impl Running {
    fn spawn(command: &mut Command, stderr: Stdio, addr: SocketAddr) -> io::Result<Self> {
        let child = command.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn();
        let mut child = child.map_err(|error| io::Error::other(format!("cannot start {command:?}: {error}")))?;
        Ok(Self {
            addr,
            key: None,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            log: Log::default(),
            unread: None,
            child,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// See [`memory`].
    pub(crate) fn memory(&self) -> f64 {
        memory(self.id())
    }

    /// See [`peak`].
    pub(crate) fn peak(&self) -> f64 {
        peak(self.id())
    }

    pub(crate) fn descriptors(&self) -> usize {
        process::descriptors(self.id()).unwrap_or(0)
    }

    /// Percent of a core that it uses during `time`.
    pub(crate) fn cpu_during(&self, time: Duration) -> f64 {
        let before = process::cpu_time(self.id());
        thread::sleep(time);
        (process::cpu_time(self.id()) - before).as_secs_f64() / time.as_secs_f64() * 100.0
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its exit code, or `None` if it does not end in time. A child that a signal has ended has code 255.
    pub(crate) fn end(&mut self, limit: Duration) -> Option<i32> {
        let mut status = None::<ExitStatus>;
        wait_until(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.map(|status| status.code().unwrap_or(255))
    }

    /// Sends a signal (`STOP`, `CONT`, `TERM`).
    pub(crate) fn signal(&self, name: &str) -> io::Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -s {name}: {status}"))) }
    }

    /// Ends it as the system does when memory is short, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_tell_where_they_listen() {
        let ours = "12:00:00 listening on tcp://127.0.0.1:4242, plain (worked example), echo";
        assert_eq!(address_in(ours), Some(SocketAddr::from(([127, 0, 0, 1], 4242))));
        assert_eq!(address_in("listening 127.0.0.1:7"), Some(SocketAddr::from(([127, 0, 0, 1], 7))));
        assert_eq!(address_in("error: cannot listen"), None);
    }
}
