//! `bench`: how fast a session is, in turn with plain TCP over the same path.
//!
//! Both do the same work between the same two processes, A B A B ..., so that whatever the machine or the path does meanwhile, it does to
//! both; what is told are medians, and how far the values lie apart. With `--secure` a session with keys takes its turn, too.

mod far;
mod rows;
mod trouble;

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use turbotunnel::Session;
use turbotunnel::secure::{PublicKey, Suite};

use crate::args::BenchArgs;
use crate::failure::{Exit, Failure, reason};
use crate::log::Log;
use crate::{address, text};
pub use rows::Row;
use rows::{Load, Value, Way};

/// Runs the bench, or the far end of one.
///
/// # Errors
/// The far end cannot be reached or started, or does not do its part.
pub(crate) async fn run(args: &BenchArgs, log: &Log) -> Result<(), Failure> {
    if let Some(at) = &args.serve {
        return far::serve(at, log).await;
    }
    let far;
    let server = match &args.server {
        Some(server) => address::server(server)?,
        None => {
            far = Far::start().map_err(|error| failed("cannot start the far end", &error))?;
            far.address.clone()
        }
    };
    let mut sessions = vec![connect(&server).await?];
    let plain = resolved(&server, 1).await.map_err(|error| failed(&format!("cannot reach {server}"), &error))?;
    let secure = match args.secure {
        Some(cipher) => Some(Secure::find(&server, plain, cipher).await?),
        None => None,
    };
    if let Some(secure) = &secure {
        sessions.push(secure.connect().await?);
    }
    let (streams, server) = (usize::from(args.streams), server.clone());
    let load = Load { server, size: args.size, pings: args.pings, time: args.time, streams };
    let rows: Vec<Row> = if args.rows.is_empty() { Row::USUAL.to_vec() } else { args.rows.clone() };
    let mut report = Report::new(args);
    for row in rows {
        for round in 0..args.rounds {
            for column in Column::ALL {
                let at = match column {
                    Column::Plain => {
                        if row.is_for_plain() {
                            let values = row.measure(&Way::Plain(plain), &load).await;
                            report.take(row, column, round, values, log)?;
                        }
                        continue;
                    }
                    Column::Turbotunnel => 0,
                    Column::Secure if secure.is_some() && row.is_for_plain() => 1,
                    Column::Secure => continue,
                };
                if args.fresh {
                    report.resent += sessions[at].stats().tunnel.segments_resent;
                    let _ = sessions[at].close().await;
                    sessions[at] = match &secure {
                        Some(secure) if at == 1 => secure.connect().await?,
                        _ => connect(&load.server).await?,
                    };
                }
                let values = row.measure(&Way::Session(sessions[at].clone()), &load).await;
                report.take(row, column, round, values, log)?;
            }
        }
        if !args.json {
            print(&report.text(row))?;
        }
    }
    report.resent += sessions.iter().map(|session| session.stats().tunnel.segments_resent).sum::<u64>();
    if args.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| failed("no JSON", &error.into()))?;
        print(&(json + "\n"))?;
    } else {
        print(&format!("{} resent\n", text::count(report.resent, "packet")))?;
    }
    for session in sessions {
        let _ = session.close().await;
    }
    Ok(())
}

async fn connect(server: &str) -> Result<Session, Failure> {
    let session = Session::builder().config(far::generous()).fail_fast(true).connect_tcp(server).await;
    session.map_err(|error| crate::commands::session_failure(&error, &format!("tcp://{server}"), "bench --serve", None))
}

/// What a session with keys is encrypted with. Key exchange with ML-KEM, as a client has it if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cipher {
    /// What this processor is faster with
    Auto,
    /// AES-256-GCM
    Aes,
    /// ChaCha20-Poly1305
    Chacha,
}

impl Cipher {
    fn suite(self) -> Suite {
        match self {
            Self::Auto => Suite::for_this_machine(),
            Self::Aes => Suite::AesGcmMlKem,
            Self::Chacha => Suite::ChaChaPolyMlKem,
        }
    }
}

/// How to reach the far end with keys.
struct Secure {
    address: String,
    key: PublicKey,
    suite: Suite,
}

impl Secure {
    /// `plain` is where its key is asked for.
    async fn find(server: &str, plain: SocketAddr, cipher: Cipher) -> Result<Self, Failure> {
        let finding = async {
            let key = PublicKey::from_bytes(Way::Plain(plain).key().await?);
            io::Result::Ok(Self { address: resolved(server, 2).await?.to_string(), key, suite: cipher.suite() })
        };
        finding.await.map_err(|error| failed(&format!("cannot ask {server} for its key"), &error))
    }

    async fn connect(&self) -> Result<Session, Failure> {
        let builder = Session::builder().config(far::generous()).fail_fast(true);
        let session = builder.server_key(self.key).suite(self.suite).connect_tcp(&self.address).await;
        session.map_err(|error| crate::commands::session_failure(&error, &self.address, "bench --serve", None))
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("{what}: {}", reason(error)))
}

fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    io::stdout().write_all(text.as_bytes()).map_err(|error| failed("cannot write standard output", &error))
}

/// Where the far end listens so many ports above the sessions.
async fn resolved(server: &str, above: u16) -> io::Result<SocketAddr> {
    let addr = tokio::net::lookup_host(server).await?.next().ok_or(io::ErrorKind::NotFound)?;
    far::above(addr, above)
}

/// The far end, as a process of its own.
struct Far {
    child: Child,
    address: String,
}

impl Far {
    fn start() -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--serve", "127.0.0.1:0"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut far = Self { child: command.spawn()?, address: String::new() };
        let mut lines = BufReader::new(far.child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
        let address = line.split_once("tcp://").and_then(|(_, rest)| rest.split(',').next());
        far.address = address.ok_or_else(|| io::Error::other(line.clone()))?.to_owned();
        // Somebody has to read what it says, or it would wait.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(far)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All values of all rounds.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    size: u64,
    rounds: u32,
    streams: usize,
    rows: Vec<Measured>,
    resent: u64,
}

/// What is compared, in the order of its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Plain,
    Turbotunnel,
    Secure,
}

impl Column {
    const ALL: [Self; 3] = [Self::Plain, Self::Turbotunnel, Self::Secure];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain TCP",
            Self::Turbotunnel => "turbotunnel",
            Self::Secure => "with keys",
        }
    }
}

/// One value of a row, in all columns.
#[derive(Serialize)]
struct Measured {
    row: String,
    value: &'static str,
    plain: Vec<f64>,
    turbotunnel: Vec<f64>,
    /// Over a session with keys; empty if that was not asked for.
    secure: Vec<f64>,
    /// Of the medians: ours to plain's, if there are both.
    ratio: Option<f64>,
    /// Of the medians: with keys to ours without.
    secure_ratio: Option<f64>,
}

impl Report {
    fn new(args: &BenchArgs) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            size: args.size,
            rounds: args.rounds,
            streams: usize::from(args.streams),
            rows: Vec::new(),
            resent: 0,
        }
    }

    /// What a measurement has brought.
    fn take(
        &mut self,
        row: Row,
        column: Column,
        round: u32,
        values: io::Result<Vec<Value>>,
        log: &Log,
    ) -> Result<(), Failure> {
        let values = values.map_err(|error| failed(&format!("{row:?} over {}", column.name()), &error))?;
        log.detail(format_args!("{row:?} {}, round {}: {values:?}", column.name(), round + 1));
        self.add(row, column, &values);
        Ok(())
    }

    fn add(&mut self, row: Row, column: Column, values: &[Value]) {
        let name = name(row);
        for value in values {
            let at = self.rows.iter().position(|m| m.row == name && m.value == value.name).unwrap_or_else(|| {
                let (plain, turbotunnel, secure) = (Vec::new(), Vec::new(), Vec::new());
                let (row, value) = (name.clone(), value.name);
                self.rows.push(Measured { row, value, plain, turbotunnel, secure, ratio: None, secure_ratio: None });
                self.rows.len() - 1
            });
            let measured = &mut self.rows[at];
            let values = match column {
                Column::Plain => &mut measured.plain,
                Column::Turbotunnel => &mut measured.turbotunnel,
                Column::Secure => &mut measured.secure,
            };
            values.push(value.value);
            let ratio = |one: &[f64], to: &[f64]| Some(median(one)? / median(to).filter(|to| *to > 0.0)?);
            measured.ratio = ratio(&measured.turbotunnel, &measured.plain);
            measured.secure_ratio = ratio(&measured.secure, &measured.turbotunnel);
        }
    }

    /// The lines of a row, with a heading before the first.
    fn text(&self, row: Row) -> String {
        let name = name(row);
        let mut lines = String::new();
        let secure = self.rows.iter().any(|measured| !measured.secure.is_empty());
        if self.rows.first().is_some_and(|first| first.row == name) {
            lines += &format!("{:22} {:>20} {:>20} {:>7}", "", "plain TCP", "turbotunnel", "ratio");
            lines += &if secure { format!(" {:>20} {:>8}\n", "with keys", "to that") } else { "\n".to_owned() };
        }
        let told = |ratio: &Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        for measured in self.rows.iter().filter(|measured| measured.row == name) {
            let Measured { value, plain, turbotunnel, ratio, .. } = measured;
            let label = format!("{name} {value}");
            let (plain, ours, ratio) = (shown(value, plain), shown(value, turbotunnel), told(ratio));
            lines += &format!("{label:22} {plain:>20} {ours:>20} {ratio:>7}");
            if secure {
                let ratio = told(&measured.secure_ratio);
                lines += &format!(" {:>20} {ratio:>8}", shown(value, &measured.secure));
            }
            lines.push('\n');
        }
        lines
    }
}

fn name(row: Row) -> String {
    format!("{row:?}").to_lowercase()
}

/// The median, and half of what lies between the extremes.
fn shown(name: &str, values: &[f64]) -> String {
    let Some(median) = median(values) else { return "-".to_owned() };
    let (least, most) = values.iter().fold((f64::MAX, 0.0_f64), |(a, b), &v| (a.min(v), b.max(v)));
    let spread = if median > 0.0 { (most - least) / median * 50.0 } else { 0.0 };
    let value = match name {
        "rate" | "uncut rate" | "spare rate" | "spare uncut rate" => format!("{}/s", text::binary_size(median as u64)),
        "p50" | "p95" | "p99" if median < 0.01 => format!("{:.0} us", median * 1e6),
        "p50" | "p95" | "p99" | "first 5 %" => format!("{:.1} ms", median * 1e3),
        _ => format!("{median:.2}"),
    };
    format!("{value} ±{spread:2.0} %")
}

/// The one in the middle, or between the two in the middle. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(shown("rate", &[100.0 * 1048576.0, 90.0 * 1048576.0, 110.0 * 1048576.0]), "100 MiB/s ±10 %");
        assert_eq!(shown("p50", &[0.000_020]), "20 us ± 0 %");
    }
}
