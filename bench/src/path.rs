//! What a path is like, and the two network namespaces at its ends.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use turbotunnel_cli::process::cpu_time;

/// Rate, delay, buffer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Path {
    /// Bits a second; `None` is as fast as the machine is.
    pub(crate) rate: Option<u64>,
    /// One way.
    pub(crate) delay: Duration,
    /// Bytes that wait in front of the slowest part, at most.
    pub(crate) buffer: u64,
    /// Largest packet.
    pub(crate) mtu: u16,
}

impl Path {
    /// With a buffer of a round trip and 50 ms, and packets as large as keep a path of that rate smooth.
    pub(crate) fn new(rate: Option<u64>, round_trip: Duration) -> Self {
        let (delay, mtu) = (
            round_trip / 2,
            match rate {
                None => 65_000,
                Some(bits) if bits > 300_000_000 => 9_000,
                Some(_) => 1_500,
            },
        );
        let buffer = rate.map_or(1 << 30, |bits| {
            ((round_trip + Duration::from_millis(50)).as_secs_f64() * bits as f64 / 8.0) as u64
        });
        Self { rate, delay, buffer: buffer.max(64 << 10), mtu }
    }
}

/// Two namespaces with a path between them. They go when it is dropped.
pub(crate) struct Net {
    link: Child,
    told: BufReader<ChildStdout>,
    spaces: [String; 2],
}

/// The address of an end, inside its namespace.
pub(crate) const ADDRESSES: [&str; 2] = ["10.209.0.1", "10.209.0.2"];

impl Net {
    /// Needs root.
    pub(crate) fn new(path: &Path, congestion: Option<&str>) -> io::Result<Self> {
        let id = std::process::id();
        let spaces = [format!("tt{id}a"), format!("tt{id}b")];
        let names = [format!("tun{id}a"), format!("tun{id}b")];
        let mut link = Command::new(std::env::current_exe()?)
            .arg("link")
            .args(["--delay-us", &path.delay.as_micros().to_string(), "--buffer", &path.buffer.to_string()])
            .args(["--rate", &path.rate.unwrap_or(0).to_string(), "--mtu", &path.mtu.to_string()])
            .args(&names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = BufReader::new(link.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut net = Self { link, told, spaces };
        if net.line()? != "ready" {
            return Err(io::Error::other("the link does not start (TUN devices need root)"));
        }
        for side in [0, 1] {
            let space = &net.spaces[side];
            ip(&["netns", "add", space])?;
            ip(&["link", "set", &names[side], "netns", space])?;
            ip(&["-n", space, "link", "set", "lo", "up"])?;
            let (ours, theirs) = (ADDRESSES[side], ADDRESSES[1 - side]);
            ip(&["-n", space, "address", "add", ours, "peer", theirs, "dev", &names[side]])?;
            ip(&["-n", space, "link", "set", &names[side], "up"])?;
            // One round must not learn from another, and buffers must not be what is measured.
            let settings = [
                "net.ipv4.tcp_no_metrics_save=1",
                "net.ipv4.tcp_rmem=4096 131072 67108864",
                "net.ipv4.tcp_wmem=4096 65536 67108864",
            ];
            let congestion = congestion.map(|name| format!("net.ipv4.tcp_congestion_control={name}"));
            for setting in settings.into_iter().chain(congestion.as_deref()) {
                succeeds(net.command(side, "sysctl").args(["-qw", setting]))?;
            }
        }
        writeln!(net.link.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?, "go")?;
        Ok(net)
    }

    /// A program at one end.
    pub(crate) fn command(&self, side: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces[side], program]);
        command
    }

    /// CPU time that the link has used.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_time(self.link.id())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.link.stdin.take());
        let _ = self.link.wait();
        for space in &self.spaces {
            let _ = ip(&["netns", "delete", space]);
        }
    }
}

fn ip(args: &[&str]) -> io::Result<()> {
    succeeds(Command::new("ip").args(args))
}

fn succeeds(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end())))
}
