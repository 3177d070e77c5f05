//! Measures Turbo Tunnel against plain TCP over paths with delay, rate, cuts and outages.
//!
//! `bench/run` builds everything and makes `bench/RESULTS.md`; this program also runs single commands inside such a path.

mod chart;
mod engine;
mod growth;
mod hold;
mod link;
mod path;
mod pipes;
mod report;
mod rows;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use path::{Net, Path};
use rows::{Group, Setup};
use turbotunnel::secure::PublicKey;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Be the path between two TUN devices
    Link(LinkArgs),
    /// Run `turbotunnel bench` over a path
    Over(OverArgs),
    /// Measure the rows of the table
    Table(TableArgs),
    /// Draw plain TCP, the Go example and ours, with and without cuts
    Chart(ChartArgs),
    /// Draw how cost grows with windows, round trips, streams and sessions
    Growth(GrowthArgs),
    /// Be a client without a session
    PlainClient {
        /// `host:port`
        addr: String,
    },
    /// Move packets between two engines
    Engine {
        /// Segments
        window: u16,
        /// How many
        packets: u64,
        /// Of 15,160 bytes
        #[arg(long)]
        large: bool,
    },
    /// Count what a packet costs the engines, and hold it to what is recorded
    Cost {
        /// Where it is recorded
        #[arg(long, default_value = "bench/engine.json")]
        file: PathBuf,
        /// Record it anew
        #[arg(long)]
        record: bool,
    },
    /// Be many clients
    Hold(HoldArgs),
}

#[derive(Args)]
struct LinkArgs {
    #[arg(long)]
    delay_us: u64,
    #[arg(long)]
    rate: u64,
    #[arg(long)]
    buffer: u64,
    #[arg(long)]
    mtu: u16,
    names: Vec<String>,
}

#[derive(Args)]
struct OverArgs {
    /// Megabits a second; none for as fast as it goes
    #[arg(long)]
    rate: Option<f64>,
    /// Round trip, ms
    #[arg(long, default_value_t = 0.0)]
    rtt: f64,
    /// The kernel's congestion control, at both ends; without it, what it uses here
    #[arg(long)]
    congestion: Option<String>,
    /// The program
    #[arg(long, default_value = "target/release/turbotunnel")]
    program: String,
    /// What `turbotunnel bench` is told
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Args)]
struct TableArgs {
    /// Which; all of them if none is named
    #[arg(value_enum)]
    groups: Vec<Group>,
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// The Go program
    #[arg(long, default_value = "interop/go/bin/peer")]
    go: PathBuf,
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// The kernel's congestion control on long and slow paths; without it, what it uses here
    #[arg(long)]
    congestion: Option<String>,
    /// All values, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct ChartArgs {
    /// Where the picture goes
    #[arg(default_value = "docs/speed.svg")]
    svg: PathBuf,
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// The Go program
    #[arg(long, default_value = "interop/go/bin/peer")]
    go: PathBuf,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

#[derive(Args)]
struct GrowthArgs {
    /// Where the pictures go
    #[arg(default_value = "docs/growth.svg")]
    svg: PathBuf,
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

#[derive(Args)]
struct HoldArgs {
    what: Held,
    server: String,
    count: usize,
    /// The server's public key: sessions are encrypted. Idle ones only.
    #[arg(long)]
    server_key: Option<PublicKey>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Held {
    Idle,
    Detached,
    Talking,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Cmd::Link(args) => link(&args),
        Cmd::Over(args) => over(&args),
        Cmd::Table(args) => table(&args),
        Cmd::Chart(args) => draw(&args),
        Cmd::Growth(args) => grow(&args),
        Cmd::PlainClient { addr } => pipes::plain_client(&addr),
        Cmd::Engine { window, packets, large } => {
            engine::run(window, packets, if large { engine::Size::Large } else { engine::Size::Usual });
            Ok(())
        }
        Cmd::Cost { file, record } => cost(&file, record),
        Cmd::Hold(args) => hold(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn link(args: &LinkArgs) -> io::Result<()> {
    let [a, b] = args.names.as_slice() else { return Err(io::Error::other("two names of devices")) };
    let rate = (args.rate > 0).then_some(args.rate);
    let path = Path { rate, delay: Duration::from_micros(args.delay_us), buffer: args.buffer, mtu: args.mtu };
    link::run(&path, [a, b])
}

fn over(args: &OverArgs) -> io::Result<()> {
    let rate = args.rate.map(|megabits| (megabits * 1e6) as u64);
    let net = Net::new(&Path::new(rate, Duration::from_secs_f64(args.rtt / 1e3)), args.congestion.as_deref())?;
    let (_far, server) = (rows::far(&net, &args.program)?, rows::far_address());
    let before = net.cpu();
    let began = std::time::Instant::now();
    let status = net.command(0, &args.program).args(["bench", &server]).args(&args.args).status()?;
    println!("the link used {:.2} cores", (net.cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{status}"))) }
}

fn table(args: &TableArgs) -> io::Result<()> {
    let groups = if args.groups.is_empty() { &Group::ALL[..] } else { &args.groups };
    let go = fs::exists(&args.go)?.then(|| args.go.clone());
    let setup = Setup { programs: args.programs.clone(), go, rounds: args.rounds, congestion: args.congestion.clone() };
    println!("| what | plain TCP | Go example | ours | ours / plain | wanted | reached | path's cores |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut all = Vec::new();
    for group in groups {
        let rows = group.measure(&setup)?;
        for row in &rows {
            println!("{}", row.line());
        }
        io::stdout().flush()?;
        all.extend(rows);
        if let Some(path) = &args.json {
            fs::write(path, serde_json::to_string_pretty(&all).map_err(io::Error::other)?)?;
        }
    }
    Ok(())
}

fn draw(args: &ChartArgs) -> io::Result<()> {
    let go = fs::exists(&args.go)?.then(|| args.go.clone());
    let setup = Setup { programs: args.programs.clone(), go, rounds: args.rounds, congestion: None };
    fs::write(&args.svg, chart::chart(&setup)?)
}

fn grow(args: &GrowthArgs) -> io::Result<()> {
    let setup = Setup { programs: args.programs.clone(), go: None, rounds: args.rounds, congestion: None };
    fs::write(&args.svg, growth::growth(&setup)?)
}

fn hold(args: &HoldArgs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.what {
            Held::Idle => hold::idle(&args.server, args.count, args.server_key).await,
            Held::Detached => hold::detached(&args.server, args.count).await,
            Held::Talking => hold::talking(&args.server, args.count, Duration::from_secs(20)).await,
        }
    })
}

/// What is recorded may be passed by so much: compilers change, too.
const TOLERANCE: f64 = 1.08;

fn cost(file: &std::path::Path, record: bool) -> io::Result<()> {
    let costs = engine::costs(1_024)?;
    let recorded = if record {
        fs::write(file, serde_json::to_string_pretty(&costs).map_err(io::Error::other)? + "\n")?;
        costs
    } else {
        serde_json::from_slice(&fs::read(file)?).map_err(io::Error::other)?
    };
    for (what, cost, recorded) in [("data", costs.usual, recorded.usual), ("large data", costs.large, recorded.large)] {
        println!(
            "a {what} packet, both ends: {:.0} instructions without memcpy, {:.4} allocations; recorded {:.0}, {:.4}",
            cost.instructions, cost.allocations, recorded.instructions, recorded.allocations
        );
        if cost.instructions > recorded.instructions * TOLERANCE || cost.allocations > recorded.allocations + 0.01 {
            return Err(io::Error::other(
                "the engines have become more expensive; if that is worth it, record it with --record",
            ));
        }
    }
    Ok(())
}
