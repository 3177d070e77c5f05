//! The Go programs, as children of a test. A child is killed when its handle is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Where Go programs are, and of which kind.
#[derive(Clone, Debug)]
pub struct Peers {
    directory: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// `peer`, built by `interop/build`.
    Peer,
    /// `turbotunnel-client` and `turbotunnel-server`: the worked example's own, with an address and no options.
    Example,
}

/// There are no Go programs here; displayed, it tells how to get them.
#[derive(Clone, Debug)]
pub struct Missing(PathBuf);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no Go programs in {}. To get them:", self.0.display())?;
        writeln!(f, "  apt-get install golang-go golang-github-xtaci-kcp-dev golang-github-xtaci-smux-dev")?;
        write!(f, "  interop/build")
    }
}

/// What a received FIN does to the writing half of a Go program's stream. smux changed its mind twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fin {
    /// smux up to 1.5.27: writing goes on while there is window, and ends where it would have to wait.
    Old,
    /// smux 1.5.28 to 1.5.53: every later write fails.
    Mid,
    /// smux from 1.5.54 on: a true half-close.
    New,
}

impl Fin {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Old, Self::Mid, Self::New];

    fn flag(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Mid => "mid",
            Self::New => "new",
        }
    }
}

impl Peers {
    /// The programs in `TURBOTUNNEL_GO_PEERS`, else those of `interop/build`.
    ///
    /// # Errors
    ///
    /// There are none.
    pub fn find() -> Result<Self, Missing> {
        let directory = match std::env::var_os("TURBOTUNNEL_GO_PEERS") {
            Some(given) => PathBuf::from(given),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("go/bin"),
        };
        let has = |name: &str| directory.join(name).is_file();
        let kind = if has("peer") {
            Kind::Peer
        } else if has("turbotunnel-client") && has("turbotunnel-server") {
            Kind::Example
        } else {
            return Err(Missing(directory));
        };
        Ok(Self { directory, kind })
    }

    /// Whether the programs take options and count: those of `interop/build` do.
    pub fn take_options(&self) -> bool {
        self.kind == Kind::Peer
    }

    /// An echo server on a free port, with options that [`Peers::take_options`] must allow.
    pub async fn server(&self, options: &[&str]) -> GoServer {
        let mut last = None;
        for _ in 0..10 {
            // The port of one that is let go may be taken by somebody else before the child has it: then another.
            let port = match self.kind {
                Kind::Peer => 0,
                Kind::Example => free_port(),
            };
            match self.server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), options).await {
                Ok(server) => return server,
                Err(error) => last = Some(error),
            }
        }
        panic!("no Go server in ten attempts: {}", last.expect("set by each attempt that fails"));
    }

    /// An echo server whose streams treat a FIN in one of three ways.
    pub async fn server_with_fin(&self, fin: Fin) -> GoServer {
        self.server(&["--fin", fin.flag()]).await
    }

    /// An echo server at `addr`.
    ///
    /// # Errors
    ///
    /// It ended before it listened.
    pub async fn server_at(&self, addr: SocketAddr, options: &[&str]) -> io::Result<GoServer> {
        let command = match self.kind {
            Kind::Peer => self.peer("echo-server", options),
            Kind::Example => {
                assert!(options.is_empty(), "the example's server takes no options");
                Command::new(self.directory.join("turbotunnel-server"))
            }
        };
        self.listening(command, addr).await
    }

    /// A server that plays scripts, which programs that [`Peers::take_options`] can.
    pub async fn script_server(&self, fin: Fin, options: &[&str]) -> GoServer {
        let command = self.peer("script-server", &[&["--fin", fin.flag()], options].concat());
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        self.listening(command, any_port).await.expect("loopback has a free port")
    }

    fn peer(&self, role: &str, options: &[&str]) -> Command {
        let mut command = Command::new(self.directory.join("peer"));
        command.arg(role).args(options);
        if role.ends_with("server") {
            command.arg("--while-stdin");
        }
        command
    }

    async fn listening(&self, mut command: Command, addr: SocketAddr) -> io::Result<GoServer> {
        let mut process = Process::spawn(command.arg(addr.to_string()));
        let addr = match self.kind {
            Kind::Peer => {
                let mut line = String::new();
                let stdout = process.stdout.take().expect("nobody took it");
                BufReader::new(stdout).read_line(&mut line).await?;
                line.trim().strip_prefix("listening ").and_then(|text| text.parse().ok())
            }
            Kind::Example => process.until_it_listens(addr).await.then_some(addr),
        };
        match addr {
            Some(addr) => Ok(GoServer { addr, process }),
            None => Err(io::Error::other(format!("it did not listen: {}", process.log()))),
        }
    }

    /// An echo client of the server at `addr`. Our program closes its stream when stdin has ended and everything is back;
    /// the example's does when stdin ends, and loses what is under way: keep stdin open.
    pub fn client(&self, addr: SocketAddr, options: &[&str]) -> GoClient {
        let command = match self.kind {
            Kind::Peer => self.peer("echo-client", options),
            Kind::Example => {
                assert!(options.is_empty(), "the example's client takes no options");
                Command::new(self.directory.join("turbotunnel-client"))
            }
        };
        self.connecting(command, addr)
    }

    /// A client that plays the script given to its stdin.
    pub fn script_client(&self, addr: SocketAddr, fin: Fin, options: &[&str]) -> GoClient {
        self.connecting(self.peer("script-client", &[&["--fin", fin.flag()], options].concat()), addr)
    }

    fn connecting(&self, mut command: Command, addr: SocketAddr) -> GoClient {
        let mut process = Process::spawn(command.arg(addr.to_string()));
        GoClient {
            stdin: process.stdin.take(),
            stdout: process.stdout.take().expect("nobody took it"),
            counts: self.kind == Kind::Peer,
            process,
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A running echo server.
#[derive(Debug)]
pub struct GoServer {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Process,
}

impl GoServer {
    /// Kills it, and waits until it is gone and its port free.
    pub async fn kill(mut self) {
        self.process.child.kill().await.expect("it is our child");
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it wrote `text` to stderr, or does within a second: a log comes later than the bytes it tells of.
    pub async fn logs(&self, text: &str) -> bool {
        for _ in 0..100 {
            if self.log().contains(text) {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Ends a server that takes options and gives what it counted.
    pub async fn stop(mut self) -> Counters {
        drop(self.process.stdin.take());
        self.process.end().await;
        self.process.counters()
    }
}

/// A running echo client.
#[derive(Debug)]
pub struct GoClient {
    /// Open until taken.
    pub stdin: Option<ChildStdin>,
    /// What came back.
    pub stdout: ChildStdout,
    counts: bool,
    process: Process,
}

impl GoClient {
    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Closes stdin, waits for the end, asserts that the exit code is 0 and gives what it counted (nothing, if it is the
    /// example's).
    pub async fn finish(mut self) -> Counters {
        drop(self.stdin.take());
        let status = self.process.end().await;
        assert!(status.success(), "the Go client ended with {status}:\n{}", self.process.log());
        if self.counts { self.process.counters() } else { Counters::default() }
    }

    /// Waits until it ends by itself.
    pub async fn end(&mut self) -> ExitStatus {
        self.process.end().await
    }
}

/// What a program counted, by name. See `counters` in `interop/go/peer/framing.go` for the names.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// # Panics
    ///
    /// If the program has no such counter.
    pub fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name} in {:?}", self.0))
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    log: Arc<Mutex<String>>,
    logger: Option<JoinHandle<()>>,
}

/// A child that logs without end must not fill memory: beyond so many bytes of stderr the rest is dropped.
const LOG_LIMIT: usize = 1 << 20;

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("it was asked for");
        let logger = tokio::spawn({
            let log = Arc::clone(&log);
            async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let mut log = log.lock().expect("nobody panics with this lock");
                    if log.len() < LOG_LIMIT || line.starts_with("counters:") {
                        log.push_str(&line);
                        log.push('\n');
                    }
                }
            }
        });
        Self { stdin: child.stdin.take(), stdout: child.stdout.take(), child, log, logger: Some(logger) }
    }

    fn log(&self) -> String {
        self.log.lock().expect("nobody panics with this lock").clone()
    }

    async fn end(&mut self) -> ExitStatus {
        let status = timeout(Duration::from_secs(30), self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("a Go program does not end:\n{}", self.log()))
            .expect("it is our child");
        if let Some(logger) = self.logger.take() {
            logger.await.expect("it does not panic");
        }
        status
    }

    /// False if it ended before.
    async fn until_it_listens(&mut self, addr: SocketAddr) -> bool {
        for _ in 0..500 {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if TcpStream::connect(addr).await.is_ok() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn counters(&self) -> Counters {
        let log = self.log();
        let line = log
            .lines()
            .find_map(|line| line.strip_prefix("counters: "))
            .unwrap_or_else(|| panic!("the Go program did not say what it counted:\n{log}"));
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        Counters(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}
