//! The program as a user runs it: spawned, watched through its output, ended by its id.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod programs;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Longer than anything here takes; a test that gets there has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with arguments as one would type them.
pub fn turbotunnel(args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turbotunnel"));
    command.args(args.split_whitespace()).env("NO_COLOR", "1");
    command
}

/// Runs it to its end, with nothing on stdin.
pub fn run(args: &str) -> Output {
    turbotunnel(args).stdin(Stdio::null()).output().unwrap()
}

/// A program that runs until dropped.
pub struct Running {
    pub child: Child,
    pub lines: Receiver<String>,
}

impl Running {
    pub fn start(args: &str) -> Self {
        Self::of(&mut turbotunnel(args))
    }

    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// The next line of its log that contains `text`.
    pub fn line(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no line with {text:?}: {e}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address in its first line, `... listening on [tcp://]ADDRESS, ...`.
    pub fn address(&self) -> String {
        let line = self.line("listening on");
        let rest = line.split_once("listening on ").unwrap().1;
        rest.split(',').next().unwrap().trim_start_matches("tcp://").to_owned()
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Sends a signal (`TERM`, `INT`, `HUP`).
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with keys, the folder that they are in, and its link.
pub struct Keyed {
    pub server: Running,
    pub link: String,
    folder: tempfile::TempDir,
}

impl Keyed {
    pub fn start(options: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "127.0.0.1:0", options)
    }

    fn start_in(folder: tempfile::TempDir, at: &str, options: &str) -> Self {
        let key = folder.path().join("server.key");
        let server = Running::start(&format!("server {at} --key {} {options}", key.display()));
        let line = server.line("clients: turbotunnel client");
        Self { server, link: line.split('\'').nth(1).unwrap().to_owned(), folder }
    }

    /// Kills it, and starts it again at the same place with the same key.
    pub fn restart(mut self, options: &str) -> Self {
        self.server.child.kill().unwrap();
        self.server.wait();
        let at = self.address().to_owned();
        Self::start_in(self.folder, &at, options)
    }

    pub fn address(&self) -> &str {
        self.link.split_once('@').unwrap().1
    }

    /// The same link with another address, as of something in between.
    pub fn link_at(&self, address: &str) -> String {
        self.link.replace(self.address(), address)
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

pub fn echo_server() -> (Running, String) {
    let server = Running::start("echo-server 127.0.0.1:0");
    let address = server.address();
    (server, address)
}

/// The lines of a stream as they come. The end of the channel is the end of the stream.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Waits for the end of a child, but not for ever.
pub fn wait(child: &mut Child) -> ExitStatus {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if std::time::Instant::now() > end {
            let _ = child.kill();
            panic!("process {} has not ended after {PATIENCE:?}", child.id());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Feeds `input` through pipes, and gives the output.
pub fn through_pipes(mut command: Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // An error means that the program has ended early; its exit code and output tell.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What is shown over HTTP, head and all. `at` as the log has it: `ADDRESS/`.
pub fn fetch(at: &str, path: &str) -> String {
    let address = at.trim_end_matches('/');
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
