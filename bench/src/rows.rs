//! The rows of the table, in groups that can be run alone.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use turbotunnel_cli::process::{cpu_time, descriptors, resident};

use crate::engine::{self, Size};
use crate::path::{ADDRESSES, Net, Path};
use crate::pipes::Pair;
use crate::report::{Row, Unit, Wanted};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Where the programs are, and how thorough to be.
pub(crate) struct Setup {
    /// The folder of release builds.
    pub(crate) programs: PathBuf,
    /// The Go program of `interop/`, if it was built.
    pub(crate) go: Option<PathBuf>,
    /// How often each is measured.
    pub(crate) rounds: u32,
    /// The kernel's on paths of our own, if it is to be another than it uses here.
    pub(crate) congestion: Option<String>,
}

/// Rows that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Through the client's standard input and output, on loopback
    Pipes,
    /// From process to process, on loopback
    Loopback,
    /// Long paths
    Long,
    /// A slow path, and small messages beside a transfer
    Slow,
    /// Cuts and outages
    Trouble,
    /// Many streams
    Streams,
    /// Many sessions
    Sessions,
    /// The engines alone
    Engine,
}

impl Group {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 8] = [
        Self::Pipes,
        Self::Loopback,
        Self::Long,
        Self::Slow,
        Self::Trouble,
        Self::Streams,
        Self::Sessions,
        Self::Engine,
    ];

    /// Measures all of it.
    pub(crate) fn measure(self, setup: &Setup) -> io::Result<Vec<Row>> {
        match self {
            Self::Pipes => pipes(setup),
            Self::Loopback => loopback(setup),
            Self::Long => long(setup),
            Self::Slow => slow(setup),
            Self::Trouble => trouble(setup),
            Self::Streams => streams(setup),
            Self::Sessions => sessions(setup),
            Self::Engine => engine(setup),
        }
    }
}

impl Setup {
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }

    fn path(&self, name: &str) -> String {
        self.programs.join(name).to_string_lossy().into_owned()
    }
}

/// What `turbotunnel bench --json` prints.
#[derive(Deserialize)]
pub(crate) struct Report {
    rows: Vec<Measured>,
    resent: u64,
}

#[derive(Deserialize)]
struct Measured {
    row: String,
    value: String,
    plain: Vec<f64>,
    turbotunnel: Vec<f64>,
}

impl Report {
    pub(crate) fn row(&self, row: &str, value: &str, what: impl Into<String>, unit: Unit) -> io::Result<Row> {
        let measured = self.rows.iter().find(|m| m.row == row && m.value == value);
        let measured = measured.ok_or_else(|| io::Error::other(format!("the bench told no {value} of {row}")))?;
        let mut figures = Row::new(what, unit);
        figures.plain.clone_from(&measured.plain);
        figures.ours.clone_from(&measured.turbotunnel);
        Ok(figures)
    }
}

/// A process that ends with its handle.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json(command: &mut Command) -> io::Result<Report> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

/// `turbotunnel bench` on loopback.
pub(crate) fn here(setup: &Setup, args: &[&str]) -> io::Result<Report> {
    json(setup.program("turbotunnel").args(["bench", "--json", "--rounds", &setup.rounds.to_string()]).args(args))
}

/// `turbotunnel bench --serve` at the far end of a path, listening.
pub(crate) fn far(net: &Net, program: &str) -> io::Result<Running> {
    let mut far = net.command(1, program);
    let far = far.args(["bench", "--serve", &far_address()]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut far = Running(far.spawn()?);
    // It tells when it listens.
    let mut said = BufReader::new(far.0.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
    said.next().transpose()?;
    thread::spawn(move || said.for_each(drop));
    Ok(far)
}

/// Where that is.
pub(crate) fn far_address() -> String {
    format!("{}:7000", ADDRESSES[1])
}

/// The same over a path. Also gives the cores that the path used.
pub(crate) fn over(setup: &Setup, path: &Path, rounds: u32, args: &[&str]) -> io::Result<(Report, f64)> {
    let net = Net::new(path, setup.congestion.as_deref())?;
    let (program, server) = (setup.path("turbotunnel"), far_address());
    let _far = far(&net, &program)?;
    let (cpu, began) = (net.cpu(), Instant::now());
    let mut near = net.command(0, &program);
    let report = json(near.args(["bench", "--json", "--rounds", &rounds.to_string(), &server]).args(args))?;
    let cores = (net.cpu() - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    Ok((report, cores))
}

fn pipes(setup: &Setup) -> io::Result<Vec<Row>> {
    const PORT: u16 = 7300;
    let at = format!("127.0.0.1:{PORT}");
    let command = |name: &str, args: &[&str]| {
        let mut command = setup.program(name);
        command.args(args).arg(&at);
        command
    };
    let mut bulk = Row::new("bulk echo through the client's pipes; plain: our example's twin", Unit::Rate);
    bulk = bulk.wanted(Wanted::RatioAtLeast(1.0));
    let mut cpu = Row::new("the same, CPU of client and server", Unit::CpuPerGib).wanted(Wanted::RatioAtMost(1.2));
    let mut fast = Row::new("the same; plain: a client of two threads and nothing else", Unit::Rate);
    let mut fast_cpu = Row::new("the same, CPU of client and server", Unit::CpuPerGib);
    let mut p50 = Row::new("64 bytes there and back through pipes, p50", Unit::Time);
    p50 = p50.wanted(Wanted::RatioAtMost(1.2));
    let mut p99 = Row::new("the same, p99", Unit::Time).wanted(Wanted::RatioAtMost(1.5));
    let quantile = |times: &[Duration], share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64();
    for _ in 0..setup.rounds {
        let server = || command("examples/plain_server", &[]);
        let mut pair = Pair::start(server(), command("examples/plain_client", &[]), PORT)?;
        let (rate, seconds) = pair.bulk(GIB / 2)?;
        bulk.plain.push(rate);
        cpu.plain.push(seconds);
        drop(pair);

        let mut plain = Command::new(std::env::current_exe()?);
        plain.args(["plain-client", &at]);
        let mut pair = Pair::start(server(), plain, PORT)?;
        let times = pair.pings(10_000)?;
        p50.plain.push(quantile(&times, 0.5));
        p99.plain.push(quantile(&times, 0.99));
        let (rate, seconds) = pair.bulk(GIB / 2)?;
        fast.plain.push(rate);
        fast_cpu.plain.push(seconds);
        drop(pair);

        let server = command("turbotunnel", &["echo-server"]);
        let mut pair = Pair::start(server, command("turbotunnel", &["echo-client"]), PORT)?;
        let times = pair.pings(10_000)?;
        p50.ours.push(quantile(&times, 0.5));
        p99.ours.push(quantile(&times, 0.99));
        let (rate, seconds) = pair.bulk(GIB / 2)?;
        bulk.ours.push(rate);
        cpu.ours.push(seconds);
        drop(pair);

        if let Some(go) = &setup.go {
            let program = |what: &str| {
                let mut program = Command::new(go);
                program.args([what, &at]);
                program
            };
            let mut pair = Pair::start(program("echo-server"), program("echo-client"), PORT)?;
            let times = pair.pings(1_000)?;
            p50.go.push(quantile(&times, 0.5));
            p99.go.push(quantile(&times, 0.99));
            let (rate, seconds) = pair.bulk(16 * MIB)?;
            bulk.go.push(rate);
            cpu.go.push(seconds);
        }
    }
    fast.ours.clone_from(&bulk.ours);
    fast_cpu.ours.clone_from(&cpu.ours);
    Ok(vec![bulk, cpu, fast, fast_cpu, p50, p99])
}

fn loopback(setup: &Setup) -> io::Result<Vec<Row>> {
    let report = here(setup, &["--rows", "up,down,echo,ping", "--size", "1GiB", "--pings", "20000"])?;
    let ratio = Wanted::RatioAtLeast;
    Ok(vec![
        report.row("up", "rate", "one direction, client to server, loopback", Unit::Rate)?.wanted(ratio(0.9)),
        report.row("up", "CPU s/GiB", "the same, CPU of both", Unit::CpuPerGib)?,
        report.row("down", "rate", "one direction, server to client, loopback", Unit::Rate)?.wanted(ratio(0.9)),
        report.row("echo", "rate", "there and back, loopback", Unit::Rate)?,
        report.row("echo", "CPU s/GiB", "the same, CPU of both", Unit::CpuPerGib)?.wanted(Wanted::RatioAtMost(1.2)),
        report.row("ping", "p50", "64 bytes there and back, p50", Unit::Time)?.wanted(Wanted::RatioAtMost(1.2)),
        report.row("ping", "p99", "the same, p99", Unit::Time)?.wanted(Wanted::RatioAtMost(1.5)),
    ])
}

fn long(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let path = Path::new(None, Duration::from_millis(20));
    let (report, cores) = over(setup, &path, setup.rounds, &["--rows", "echo", "--size", "1GiB"])?;
    let mut row = report.row("echo", "rate", "there and back at 20 ms, 1 GiB", Unit::Rate)?;
    row.link = Some(cores);
    rows.push(row.wanted(Wanted::RatioAtLeast(0.9)));
    for round_trip in [100, 300] {
        let path = Path::new(Some(500_000_000), Duration::from_millis(round_trip));
        let rounds = setup.rounds.div_ceil(2);
        let (report, cores) = over(setup, &path, rounds, &["--rows", "down", "--size", "1GiB", "--fresh"])?;
        let what = format!("500 Mbit/s at {round_trip} ms, 1 GiB, beginning included");
        let mut rate = report.row("down", "rate", what, Unit::Rate)?.wanted(Wanted::RatioAtLeast(0.95));
        rate.link = Some(cores);
        let first = report.row("down", "first 5 %", "the same, until the first 50 MiB have come", Unit::Time)?;
        rows.extend([rate, first.wanted(Wanted::RatioAtMost(1.5))]);
    }
    Ok(rows)
}

fn slow(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let path = Path::new(Some(20_000_000), Duration::from_millis(40));
    let (report, cores) = over(setup, &path, 1, &["--rows", "down", "--size", "100MiB"])?;
    let mut rate = report.row("down", "rate", "20 Mbit/s at 40 ms", Unit::Rate)?;
    rate = rate.wanted(Wanted::AtLeast(0.95 * 20e6 / 8.0));
    rate.link = Some(cores);
    let mut resent = Row::new("the same, packets resent", Unit::Count).wanted(Wanted::AtMost(0.0));
    resent.ours.push(report.resent as f64);
    rows.extend([rate, resent]);
    for megabits in [2, 20, 200] {
        for round_trip in [5, 40, 150] {
            let bits = megabits * 1_000_000;
            let path = Path::new(Some(bits), Duration::from_millis(round_trip));
            let (report, _) = over(setup, &path, 1, &["--rows", "beside", "--time", "15s"])?;
            let what = format!("64 bytes beside a transfer, {megabits} Mbit/s at {round_trip} ms, p95");
            let p95 = report.row("beside", "p95", what, Unit::Time)?;
            let rate = report.row("beside", "rate", "the same, what is left to the transfer", Unit::Rate)?;
            rows.push(p95.wanted(Wanted::AtMost(round_trip as f64 / 1e3 + 0.06)));
            rows.push(rate.wanted(Wanted::AtLeast(0.9 * bits as f64 / 8.0)));
        }
    }
    Ok(rows)
}

fn trouble(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    // Behind a relay, which has the connections' buffers near: what the session itself costs.
    let relay = |name: &str, upstream: u16, listen: u16| {
        let mut relay = setup.program("turbotunnel");
        let (upstream, listen) = (format!("127.0.0.1:{upstream}"), format!("127.0.0.1:{listen}"));
        relay.args(["lilbastard", &upstream, &listen, "--delay", "50ms", "--rate", "25MB"]);
        relay.stderr(Stdio::null()).spawn().map(Running).map_err(|error| io::Error::other(format!("{name}: {error}")))
    };
    let mut far = setup.program("turbotunnel");
    let _far = Running(far.args(["bench", "--serve", "127.0.0.1:7400"]).stderr(Stdio::null()).spawn()?);
    let _relays = [relay("relay", 7400, 7500)?, relay("relay", 7401, 7501)?];
    thread::sleep(Duration::from_millis(500));
    let report = here(setup, &["127.0.0.1:7500", "--rows", "cuts,outages", "--time", "10s"])?;
    let share =
        report.row("cuts", "share", "cut each second, 200 Mbit/s at 100 ms (a relay): share of uncut", Unit::Share)?;
    rows.push(share.wanted(Wanted::AtLeast(0.65)));
    let spare = report.row("cuts", "spare share", "the same with a spare connection kept ready", Unit::Share)?;
    rows.push(spare.wanted(Wanted::AtLeast(0.85)));
    let most = Wanted::AtMost(2.0 * 0.1 + 0.02);
    let outages = "first byte after an outage of 0.05 to 2.5 s, from the beginning of the dial that succeeds, 100 ms";
    rows.push(report.row("outages", "p50", format!("{outages} (a relay), p50"), Unit::Time)?.wanted(most));
    // Through a kernel's slow start.
    let path = Path::new(Some(200_000_000), Duration::from_millis(100));
    let (report, cores) = over(setup, &path, setup.rounds.div_ceil(2), &["--rows", "cuts,outages", "--time", "10s"])?;
    let what = "cut each second, 200 Mbit/s at 100 ms: share of uncut (each connection begins slowly)";
    let mut share = report.row("cuts", "share", what, Unit::Share)?;
    share.link = Some(cores);
    rows.push(share);
    rows.push(report.row("cuts", "spare share", "the same with a spare connection kept ready", Unit::Share)?);
    rows.push(report.row("outages", "p50", format!("{outages}, p50"), Unit::Time)?.wanted(most));
    Ok(rows)
}

fn streams(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for count in [8, 64, 1000, 4000] {
        let mut rate = Row::new(format!("{count} streams at once; beside: one stream of ours"), Unit::Rate);
        let mut share = Row::new("the same, what the last has when the first is done", Unit::Share);
        let mut beside = Row::new("the same, all together; beside: as many connections of plain TCP", Unit::Rate);
        // In turn, as a machine may have another speed a minute later.
        for _ in 0..setup.rounds {
            let measure = |streams: &str| {
                let args = ["--rows", "streams", "--size", "4GiB", "--rounds", "1", "--streams", streams];
                json(setup.program("turbotunnel").args(["bench", "--json"]).args(args))
            };
            let (one, many) = (measure("1")?, measure(&count.to_string())?);
            rate.plain.extend(one.row("streams", "rate", "", Unit::Rate)?.ours);
            let many_rate = many.row("streams", "rate", "", Unit::Rate)?;
            rate.ours.extend(&many_rate.ours);
            beside.ours.extend(many_rate.ours);
            beside.plain.extend(many_rate.plain);
            let least = many.row("streams", "least share", "", Unit::Share)?;
            share.ours.extend(least.ours);
            share.plain.extend(least.plain);
        }
        if count <= 1000 {
            rate = rate.wanted(Wanted::RatioAtLeast(0.8));
        }
        rows.extend([rate, beside, share.wanted(Wanted::AtLeast(0.5))]);
    }
    Ok(rows)
}

fn sessions(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let (server, at) = echo_server(setup)?;
    let before = resident(server.id());
    let holding = hold(&["idle", &at, "2000"])?;
    let mut attached =
        Row::new("an idle session with a stream, at the server", Unit::Memory).wanted(Wanted::AtMost(8.0));
    attached.ours.push((resident(server.id()) - before) / 2000.0);
    rows.push(attached);
    drop(holding);
    drop(server);

    let (server, at) = echo_server(setup)?;
    let before = resident(server.id());
    let holding = hold(&["detached", &at, "2000"])?;
    thread::sleep(Duration::from_secs(2));
    let mut detached = Row::new("the same without a carrier", Unit::Memory).wanted(Wanted::AtMost(6.0));
    detached.ours.push((resident(server.id()) - before) / 2000.0);
    rows.push(detached);
    drop(holding);
    drop(server);

    let (server, at) = echo_server(setup)?;
    let holding = hold(&["idle", &at, "10000"])?;
    // Half a minute after the last word the clients have stopped asking whether more will come.
    thread::sleep(Duration::from_secs(35));
    let cpu = cpu_time(server.id());
    thread::sleep(Duration::from_secs(60));
    let mut idle = Row::new("10,000 idle sessions: the server's CPU", Unit::Cores).wanted(Wanted::AtMost(0.02));
    idle.ours.push((cpu_time(server.id()) - cpu).as_secs_f64() / 60.0);
    rows.push(idle);
    drop(holding);
    drop(server);

    let (server, at) = echo_server(setup)?;
    let mut p99 =
        Row::new("2,000 sessions with 10 messages a second each, p99", Unit::Time).wanted(Wanted::AtMost(0.1));
    let output = Command::new(std::env::current_exe()?).args(["hold", "talking", &at, "2000"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let times: Vec<f64> = said.split_ascii_whitespace().filter_map(|time| time.parse().ok()).collect();
    p99.ours.push(*times.get(1).ok_or_else(|| io::Error::other("talking sessions failed"))?);
    rows.push(p99);
    drop(server);

    let (server, at) = echo_server(setup)?;
    let before = descriptors(server.id())?;
    let holding = [hold(&["idle", &at, "9000"])?, hold(&["idle", &at, "9000"])?];
    let mut held = Row::new("sessions held with their carriers", Unit::Count).wanted(Wanted::AtLeast(18_000.0));
    held.ours.push((descriptors(server.id())? - before) as f64);
    let mut memory = Row::new("the same, the server's memory", Unit::Memory);
    memory.ours.push(resident(server.id()));
    rows.extend([held, memory]);
    drop(holding);
    drop(server);

    let (server, at) = echo_server(setup)?;
    let mut holding = Vec::new();
    for _ in 0..10 {
        holding.push(hold(&["detached", &at, "10000"])?);
    }
    let mut many = Row::new("100,000 sessions without carriers, the server's memory", Unit::Memory);
    many = many.wanted(Wanted::AtMost(1024.0 * 1024.0));
    many.ours.push(resident(server.id()));
    rows.push(many);
    Ok(rows)
}

fn engine(setup: &Setup) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (window, wanted) in [(1_024, 3e9), (8_192, 2e9)] {
        let what = format!("KCP and smux, both ends, one thread, a flush per packet, window {window}");
        let mut rate = Row::new(what, Unit::Rate).wanted(Wanted::AtLeast(wanted));
        rate.ours = (0..setup.rounds).map(|_| engine::rate(window, Size::Usual)).collect();
        rows.push(rate);
    }
    let costs = engine::costs(1_024)?;
    rows.extend(cost(costs.usual, Some(1_200.0)));
    let mut rate = Row::new("the same with large packets, window 1024", Unit::Rate);
    rate.ours = (0..setup.rounds).map(|_| engine::rate(1_024, Size::Large)).collect();
    rows.push(rate);
    rows.extend(cost(costs.large, None));
    Ok(rows)
}

fn cost(cost: engine::Cost, most: Option<f64>) -> [Row; 2] {
    let mut instructions = Row::new("the same, instructions for a packet without memcpy", Unit::Count);
    if let Some(most) = most {
        instructions = instructions.wanted(Wanted::AtMost(most));
    }
    instructions.ours.push(cost.instructions);
    let mut allocations = Row::new("the same, allocations for a packet", Unit::Share).wanted(Wanted::AtMost(0.0));
    allocations.ours.push(cost.allocations);
    [instructions, allocations]
}

pub(crate) fn echo_server(setup: &Setup) -> io::Result<(Running, String)> {
    let at = "127.0.0.1:7600".to_owned();
    let mut server = setup.program("turbotunnel");
    let server = server
        .args(["echo-server", &at, "--session-timeout", "30m", "--no-limits"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let server = Running(server.spawn()?);
    while std::net::TcpStream::connect(&at).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    // Whatever it takes for a first session, it has by now.
    drop(hold(&["idle", &at, "20"])?);
    thread::sleep(Duration::from_secs(1));
    Ok((server, at))
}

pub(crate) fn hold(args: &[&str]) -> io::Result<Running> {
    let mut holding = Command::new(std::env::current_exe()?);
    let holding = holding.arg("hold").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holding = Running(holding.spawn()?);
    let mut line = String::new();
    BufReader::new(holding.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
    if line.trim_end() == "ready" { Ok(holding) } else { Err(io::Error::other(format!("hold {args:?} failed"))) }
}
