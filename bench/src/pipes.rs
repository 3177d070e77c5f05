//! Bytes through a client program's standard input and output, as `ssh` and shells send them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use turbotunnel_cli::process::cpu_time;

/// Small enough to be on its way at once with many others, large enough not to be what is measured.
const CHUNK: usize = 64 << 10;

/// The plain client that nothing can beat: a thread and two system calls for each direction.
pub(crate) fn plain_client(addr: &str) -> io::Result<()> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let (mut to, mut from) = (stream.try_clone()?, stream);
    let sending = thread::spawn(move || {
        copy(&mut io::stdin().lock(), &mut to)?;
        to.shutdown(Shutdown::Write)
    });
    copy(&mut from, &mut io::stdout().lock())?;
    sending.join().map_err(|_| io::Error::other("the sending half has panicked"))?
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n])?,
        }
        to.flush()?;
    }
}

/// A client and a server, running.
pub(crate) struct Pair {
    server: Child,
    client: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Pair {
    /// Starts both, the client when the server listens at `port`.
    pub(crate) fn start(mut server: Command, mut client: Command, port: u16) -> io::Result<Self> {
        let quiet = |command: &mut Command| {
            command.stderr(Stdio::null());
        };
        quiet(&mut server);
        quiet(&mut client);
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(io::Error::other("the server does not listen"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (client.stdin.take(), client.stdout.take());
        Ok(Self { server, client, stdin, stdout })
    }

    /// The client's standard input and output, for somebody else to use.
    pub(crate) fn pipes(&mut self) -> io::Result<(ChildStdin, ChildStdout)> {
        self.stdin.take().zip(self.stdout.take()).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn cpu(&self) -> Duration {
        cpu_time(self.server.id()) + cpu_time(self.client.id())
    }

    /// There and back: bytes a second, and CPU seconds for a GiB of both programs.
    pub(crate) fn bulk(&mut self, size: u64) -> io::Result<(f64, f64)> {
        let mut stdin = self.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (cpu, began) = (self.cpu(), Instant::now());
        let sending = thread::spawn(move || {
            let buffer = [b'x'; CHUNK];
            let mut left = size;
            while left > 0 {
                let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
                stdin.write_all(&buffer[..part])?;
                left -= part as u64;
            }
            io::Result::Ok(stdin)
        });
        let (mut left, mut buffer) = (size, vec![0; CHUNK]);
        let stdout = self.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        while left > 0 {
            match stdout.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => left -= n as u64,
            }
        }
        let time = began.elapsed();
        self.stdin = Some(sending.join().map_err(|_| io::Error::other("the sending half has panicked"))??);
        let gib = size as f64 / f64::from(1 << 30);
        Ok((size as f64 / time.as_secs_f64(), (self.cpu() - cpu).as_secs_f64() / gib))
    }

    /// Times of 64 bytes there and back, sorted.
    pub(crate) fn pings(&mut self, count: usize) -> io::Result<Vec<Duration>> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let stdout = self.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut times = Vec::with_capacity(count);
        let mut bytes = [7; 64];
        for _ in 0..count {
            let began = Instant::now();
            stdin.write_all(&bytes)?;
            stdout.read_exact(&mut bytes)?;
            times.push(began.elapsed());
        }
        times.sort();
        Ok(times)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
