//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use turbotunnel::secure::Route;
use turbotunnel_carriers::Proxy;

use crate::forward::allow::Rule;
use crate::forward::reverse::Lent;
use crate::lilbastard::How;
use crate::log::{Format, Level};

/// Sessions that outlive their TCP connections.
#[derive(Debug, Parser)]
#[command(name = "turbotunnel", version, arg_required_else_help = true, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Settings can also stand in a file (-c) or in the environment: [client] give-up = \"1h\", or TURBOTUNNEL_SERVER=...\n\
    Times: 500ms 10s 5m 1h, a bare number is seconds. Sizes: 64KiB 4MiB 1MB, a bare number is bytes.\n\
    The whole of it in ten seconds: turbotunnel demo"
)]
pub struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How much is told on stderr.
    pub fn level(&self) -> Level {
        match (self.verbosity.quiet, self.verbosity.verbose) {
            (true, _) => Level::Quiet,
            (false, 0) => Level::Normal,
            (false, _) => Level::Verbose,
        }
    }

    /// How it is told.
    pub fn format(&self) -> Format {
        match self.verbosity.log_format {
            FormatArg::Human => Format::Human,
            FormatArg::Json => Format::Json,
        }
    }
}

#[derive(Args, Debug)]
struct Verbosity {
    /// Tell more, with full addresses
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 900, conflicts_with = "quiet")]
    verbose: u8,
    /// Tell only errors, and what somebody has to do something about
    #[arg(short, long, global = true, display_order = 901)]
    quiet: bool,
    /// Read settings from this file; what the command line and the environment say counts more
    #[arg(short, long, global = true, display_order = 903, value_name = "FILE", env = "TURBOTUNNEL_CONFIG")]
    config: Option<PathBuf>,
    /// How log lines are written to stderr
    #[arg(
        long,
        global = true,
        display_order = 902,
        value_name = "FORMAT",
        value_enum,
        default_value = "human",
        env = "TURBOTUNNEL_LOG_FORMAT"
    )]
    log_format: FormatArg,
}

/// Formats of the log on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// For people
    Human,
    /// For machines: an object a line
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub enum Command {
    /// Take sessions, and bring their streams to where they may go
    Server(ServerArgs),
    /// Bring connections of programs here, or standard input and output, to targets at a server
    Client(ClientArgs),
    /// Send back whatever comes on any stream (the worked example's server)
    EchoServer(EchoServerArgs),
    /// Carry stdin to an echo server, and what comes back to stdout (the worked example's client)
    EchoClient(EchoClientArgs),
    /// Walk the way to a server step by step, and cut the connection on purpose
    Check(CheckArgs),
    /// Show what a running server or client counts
    Status(StatusArgs),
    /// Write completions for a shell to stdout
    Completions(CompletionsArgs),
    /// Write manual pages into a folder
    Man(ManArgs),
    /// Make a key
    Keygen(KeygenArgs),
    /// Make a link to hand on: a server's key and addresses in one string
    Share(ShareArgs),
    /// Pass TCP connections on, and cut them
    Lilbastard(LilbastardArgs),
    /// Watch a transfer survive cut after cut, beside plain TCP that does not
    Demo(DemoArgs),
    /// Measure how fast a session is, in turn with plain TCP
    Bench(BenchArgs),
}

/// `check`
#[derive(Args, Debug)]
#[command(after_help = "Each step takes ten seconds at most. 0: all well; 10: the last line says what is not.")]
pub struct CheckArgs {
    /// Which server, and how it is reached.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// A target to reach; without it, the server's own
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Option<String>,
}

/// Which server, and how it is reached.
#[derive(Args, Debug)]
pub struct ReachArgs {
    /// The server.
    #[arg(value_name = "SERVER", help = SERVER_HELP, env = "TURBOTUNNEL_SERVER")]
    pub server: String,
    /// Expect the server to have this public key (or the one in this file); a link says it already
    #[arg(
        short = 'k',
        long = "server-key",
        value_name = "KEY|FILE",
        conflicts_with = "plain",
        env = "TURBOTUNNEL_SERVER_KEY"
    )]
    pub server_key: Option<String>,
    /// Show the server the key in this file; without it, a new one each time
    #[arg(long, value_name = "FILE", conflicts_with = "plain", env = "TURBOTUNNEL_KEY")]
    pub key: Option<PathBuf>,
    /// The worked example's format, readable by everybody
    #[arg(long)]
    pub plain: bool,
    /// A proxy that carriers go through.
    #[arg(
        long,
        help = "Reach the server through a proxy: http://[USER:PASSWORD@]HOST:PORT or socks5://...",
        value_name = "URL",
        env = "TURBOTUNNEL_PROXY"
    )]
    pub proxy: Option<Proxy>,
    /// For tls:// and wss://: a file with certificates of CAs that are trusted as well
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// For tls:// and wss://: the name to ask for, and that the certificate has to be for, if it is not the address's
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
}

/// `status`
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// What it was given as --status
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:9180", env = "TURBOTUNNEL_STATUS")]
    pub address: String,
    /// The numbers as JSON
    #[arg(long)]
    pub json: bool,
}

/// `completions`
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Where to write them
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// `keygen`
#[derive(Args, Debug)]
#[command(after_help = "The public key goes to stdout.")]
pub struct KeygenArgs {
    /// Where to write the secret key; nobody else can read that file. "-": to stdout
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write over a file that is there
    #[arg(short, long)]
    pub force: bool,
}

/// `share`
#[derive(Args, Debug)]
pub struct ShareArgs {
    /// Where clients reach the server: HOST:PORT, tls://HOST:PORT, wss://HOST/PATH; several for several ways to it
    #[arg(required = true, value_name = "ADDRESS")]
    pub servers: Vec<String>,
    /// The file with the server's secret key; only its public half is shared
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// A name, for people who have several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Show it as a QR code, too
    #[arg(long)]
    pub qr: bool,
}

/// `bench`
#[derive(Args, Debug)]
#[command(after_help = "Here:        turbotunnel bench\n\
    Over a path: turbotunnel bench --serve :7000     at the far end; it also listens on the two ports above\n             \
    turbotunnel bench HOST:7000         at the near end")]
pub struct BenchArgs {
    /// The far end; without it one is started here
    #[arg(value_name = "SERVER", conflicts_with = "serve")]
    pub server: Option<String>,
    /// Be the far end
    #[arg(long, value_name = "LISTEN")]
    pub serve: Option<String>,
    /// What to measure; if nothing is named, all that plain TCP can do, too
    #[arg(long, value_name = "ROW", value_enum, value_delimiter = ',')]
    pub rows: Vec<crate::bench::Row>,
    /// Bytes that are moved each time
    #[arg(long, value_name = "SIZE", value_parser = positive_size, default_value = "256MiB")]
    pub size: u64,
    /// How often each is measured, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// A session of its own for each measurement, so that its beginning is part of it, as a connection's is for plain TCP
    #[arg(long)]
    pub fresh: bool,
    /// The same over a session with keys beside it, encrypted with this; "auto": with what is faster here
    #[arg(long, value_name = "CIPHER", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_enum)]
    pub secure: Option<crate::bench::Cipher>,
    /// How many pings
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub pings: usize,
    /// How long pings beside a transfer are counted
    #[arg(long, value_name = "TIME", value_parser = positive_time, default_value = "3s")]
    pub time: Duration,
    /// How many streams at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub streams: u16,
    /// Tell all values, as JSON
    #[arg(long)]
    pub json: bool,
}

/// `server`
#[derive(Args, Debug)]
#[command(after_help = "ssh through a path that cuts:\n  \
    server$ turbotunnel server :8000 --to 127.0.0.1:22          it says its link\n  \
    laptop$ turbotunnel client LINK -L 2222                     and then: ssh -p 2222 127.0.0.1\n\
    Nothing is reached that was not named: --allow db.lan:5432, --allow 10.0.0.0/8:22, --allow '*:443' (public addresses only), --socks (= --allow '*:*').")]
pub struct ServerArgs {
    /// Addresses to listen on.
    #[arg(required = true, help = LISTEN_HELP)]
    pub listen: Vec<String>,
    /// Where streams go that name no target
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "echo", env = "TURBOTUNNEL_TO")]
    pub to: Option<String>,
    /// Send back what comes on streams that name no target
    #[arg(long)]
    pub echo: bool,
    /// A target that clients may name: HOST:PORT, NET/LEN:PORT, *:PORT; a port can be 22, 8000-8100 or *
    #[arg(long, value_name = "TARGET", env = "TURBOTUNNEL_ALLOW", value_delimiter = ',')]
    pub allow: Vec<Rule>,
    /// Clients may name any public address, as for SOCKS
    #[arg(long)]
    pub socks: bool,
    /// Ports of this machine that clients may listen on.
    #[arg(
        long,
        help = "Ports of this machine that clients may listen on: [BIND:]PORTS, e.g. 8080 (at 127.0.0.1) or *:8000-8100 (at all addresses, and each)",
        value_name = "PORTS",
        value_delimiter = ',',
        env = "TURBOTUNNEL_REVERSE"
    )]
    pub reverse: Vec<Lent>,
    /// What all servers have.
    #[command(flatten)]
    pub serving: ServingArgs,
}

const LISTEN_HELP: &str = "Where to listen: HOST:PORT, [::1]:PORT, :PORT (all interfaces), PORT (127.0.0.1); also tls://HOST:PORT, \
    ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, unix:PATH";

/// What all servers have.
#[derive(Args, Debug)]
pub struct ServingArgs {
    /// Encrypt, with the secret key in this file; it is made if it is not there. Given again: old keys, for clients who do not have the new one yet
    #[arg(long, value_name = "FILE", conflicts_with = "plain", env = "TURBOTUNNEL_KEY", value_delimiter = ',')]
    pub key: Vec<PathBuf>,
    /// Admit only the clients with the public keys in this file, one a line; read again at SIGHUP
    #[arg(long, value_name = "FILE", conflicts_with = "plain", env = "TURBOTUNNEL_CLIENTS")]
    pub clients: Option<PathBuf>,
    /// What connections are to begin with, so that a load balancer finds this machine again: 2 to 16 hexadecimal digits
    #[arg(long, value_name = "HEX", conflicts_with = "plain", value_parser = route)]
    pub route: Option<Route>,
    /// The worked example's format, readable by everybody
    #[arg(long)]
    pub plain: bool,
    /// Connections over TCP come from a load balancer that says in front of each whose it is (PROXY protocol 1 or 2); nobody else may reach the port then. Not for tls://, ws://, wss:// and unix:
    #[arg(long)]
    pub proxy_protocol: bool,
    /// For tls:// and wss://: a file with the certificate, and those that lead to its CA's; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// For tls:// and wss://: the file with the certificate's private key
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// How long a session lives without contact [default: 10m, with --plain 120s]
    #[arg(long, value_name = "TIME", value_parser = positive_time, env = "TURBOTUNNEL_SESSION_TIMEOUT")]
    pub session_timeout: Option<Duration>,
    /// After SIGTERM, how long streams may take to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub drain: Duration,
    /// Show numbers over HTTP at this address, as a page, for Prometheus and for health checks; a lone PORT is 127.0.0.1
    #[arg(long, value_name = "ADDRESS", env = "TURBOTUNNEL_STATUS")]
    pub status: Option<String>,
    /// How many sessions there may be [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), env = "TURBOTUNNEL_MAX_SESSIONS")]
    pub max_sessions: Option<u32>,
    /// Memory of all sessions together [default: half of this machine's, 2GiB at most]
    #[arg(long, value_name = "SIZE", value_parser = positive_size, env = "TURBOTUNNEL_MAX_MEMORY")]
    pub max_memory: Option<u64>,
    /// Take whatever comes from wherever: for measuring
    #[arg(long, hide = true)]
    pub no_limits: bool,
}

/// `client`
#[derive(Args, Debug)]
#[command(after_help = "Without -L, -D, -R and -W: standard input and output to the server's own target.\n\
    A jump over it: ssh -o ProxyCommand='turbotunnel client LINK -W %h:%p' HOST\n\
    A browser's:    turbotunnel client LINK -D 1080, and socks5h://127.0.0.1:1080 in the browser")]
pub struct ClientArgs {
    /// Which server, and how it is reached.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// Connections to PORT here go to HOST:HOSTPORT as the server sees it; without that, to the server's own target
    #[arg(short = 'L', long = "local", value_name = "[BIND:]PORT[:HOST:HOSTPORT]")]
    pub local: Vec<String>,
    /// A SOCKS 5 proxy here; names are resolved at the server
    #[arg(short = 'D', long = "dynamic", value_name = "[BIND:]PORT")]
    pub dynamic: Vec<String>,
    /// Connections to PORT of the server go to HOST:HOSTPORT as seen from here; without BIND the server says at which of its addresses
    #[arg(short = 'R', long = "remote", value_name = "[BIND:]PORT:HOST:HOSTPORT")]
    pub remote: Vec<String>,
    /// Standard input and output to this target
    #[arg(short = 'W', long = "stdio", value_name = "HOST:PORT", conflicts_with_all = ["local", "dynamic", "remote"])]
    pub stdio: Option<String>,
    /// Show numbers over HTTP at this address, as a page, for Prometheus and for health checks; a lone PORT is 127.0.0.1
    #[arg(long, value_name = "ADDRESS", env = "TURBOTUNNEL_STATUS")]
    pub status: Option<String>,
    /// The longest pause between dials while the server is out of reach
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = positive_time)]
    pub max_backoff: Duration,
    /// How long a connection may be silent, though something is owed, before another takes its place (at least four round trips)
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = positive_time)]
    pub stall: Duration,
    /// Keep a second connection to the server ready, which takes over at once when the one in use is cut
    #[arg(long)]
    pub spare: bool,
    /// Give up after so long without contact; "never" is until the server has forgotten the session, and then a new one begins
    #[arg(long, value_name = "TIME|never", default_value = "never", value_parser = time_or_never)]
    pub give_up: Setting,
    /// Give up when the very first dial fails
    #[arg(long)]
    pub fail_fast: bool,
    /// Pause after which an idle session tells that it lives; "off": never
    #[arg(long, value_name = "TIME|off", default_value = "25s", value_parser = time_or_off)]
    pub keepalive: Setting,
    /// After SIGTERM, how long streams may take to end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub drain: Duration,
}

const SERVER_HELP: &str = "A turbotunnel:// link; or, with -k or --plain, [tcp://]HOST:PORT, tls://HOST:PORT, ws://HOST/PATH, wss://HOST/PATH, unix:PATH, \
    exec:COMMAND, or several with commas between them";

/// `echo-server`
#[derive(Args, Debug)]
pub struct EchoServerArgs {
    /// Addresses to listen on.
    #[arg(required = true, help = LISTEN_HELP)]
    pub listen: Vec<String>,
    /// What all servers have.
    #[command(flatten)]
    pub serving: ServingArgs,
}

/// `echo-client`
#[derive(Args, Debug)]
pub struct EchoClientArgs {
    /// The server's address.
    #[arg(help = "[tcp://]HOST:PORT, or a turbotunnel:// link")]
    pub server: String,
    /// Encrypt, and expect the server to have this public key (or the one in this file); a link says it already
    #[arg(short = 'k', long = "server-key", value_name = "KEY|FILE", conflicts_with = "plain")]
    pub server_key: Option<String>,
    /// Show the server the key in this file; without it, a new one each time
    #[arg(long, value_name = "FILE", conflicts_with = "plain")]
    pub key: Option<PathBuf>,
    /// The worked example's format, readable by everybody (as it is without a link and -k)
    #[arg(long)]
    pub plain: bool,
    /// How long the session lives without contact; the first dial is repeated for so long too
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = positive_time)]
    pub session_timeout: Duration,
    /// Pause after which an idle session tells that it lives; "off": never
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = time_or_off)]
    pub keepalive: Setting,
    /// Give up when the very first dial fails
    #[arg(long)]
    pub fail_fast: bool,
}

/// A time that can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting(pub Option<Duration>);

/// `lilbastard`
#[derive(Args, Debug)]
#[command(override_usage = "turbotunnel lilbastard [OPTIONS] UPSTREAM LISTEN\n       \
    turbotunnel lilbastard [OPTIONS] --upstream UPSTREAM --listen LISTEN")]
#[command(after_help = "The order of the two addresses is that of the program it is named after:\n  \
    turbotunnel lilbastard -w 20 127.0.0.1:7000 127.0.0.1:8000\n\
    passes what comes to 127.0.0.1:8000 on to 127.0.0.1:7000 and cuts each connection after 20 seconds.")]
pub struct LilbastardArgs {
    /// Cut each connection after this time
    #[arg(short = 'w', long = "after", value_name = "SECONDS", value_parser = time, allow_negative_numbers = true)]
    pub after: Option<Duration>,
    /// Cut each connection when exactly so many bytes have passed, both directions together
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub bytes: Option<u64>,
    /// How to cut; several are used in turn: fin,rst,stall
    #[arg(long, value_name = "HOW", value_enum, value_delimiter = ',', default_value = "fin")]
    pub how: Vec<HowArg>,
    /// After a cut, refuse new connections for this time
    #[arg(long, value_name = "SECONDS", value_parser = time, default_value = "0")]
    pub outage: Duration,
    /// Share by which times and sizes vary from connection to connection, 0 to 1
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0")]
    pub jitter: f64,
    /// Where the random numbers for --jitter start; the same seed cuts in the same way
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Bring every byte so much later, in each direction
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0")]
    pub delay: Duration,
    /// Let no more bytes pass in a second, in each direction of each connection
    #[arg(long, value_name = "SIZE", value_parser = positive_size)]
    pub rate: Option<u64>,
    /// Where connections are passed on to (the same as UPSTREAM)
    #[arg(long = "upstream", value_name = "ADDRESS", requires = "listen", conflicts_with_all = ["first", "second"])]
    pub upstream: Option<String>,
    /// Where to listen (the same as LISTEN)
    #[arg(long = "listen", value_name = "ADDRESS", requires = "upstream", conflicts_with_all = ["first", "second"])]
    pub listen: Option<String>,
    /// Where connections are passed on to
    #[arg(value_name = "UPSTREAM", required_unless_present = "upstream")]
    pub first: Option<String>,
    /// Where to listen
    #[arg(value_name = "LISTEN", required_unless_present = "listen")]
    pub second: Option<String>,
}

/// Kinds of cut on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HowArg {
    /// Both sides are closed in order
    Fin,
    /// Both sides are reset
    Rst,
    /// Nothing passes any more, and nobody is told
    Stall,
    /// One direction ends, the other goes on
    Half,
}

impl From<HowArg> for How {
    fn from(arg: HowArg) -> Self {
        match arg {
            HowArg::Fin => Self::Fin,
            HowArg::Rst => Self::Rst,
            HowArg::Stall => Self::Stall,
            HowArg::Half => Self::Half,
        }
    }
}

/// `demo`
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// How much goes there and back
    #[arg(long, value_name = "SIZE", value_parser = demo_size, default_value = "32MiB")]
    pub size: u64,
    /// About how long the transfer takes (it is paced, so that cuts fall into it)
    #[arg(long, value_name = "TIME", value_parser = positive_time, default_value = "9s")]
    pub time: Duration,
    /// Cut every connection after this time
    #[arg(short = 'w', long = "after", value_name = "SECONDS", value_parser = positive_time, default_value = "1", allow_negative_numbers = true)]
    pub after: Duration,
    /// How to cut, in turn
    #[arg(long, value_name = "HOW", value_enum, value_delimiter = ',', default_value = "fin,rst,stall")]
    pub how: Vec<HowArg>,
    /// Show plain TCP beside it (as it does anyway)
    #[arg(long, overrides_with = "no_compare")]
    pub compare: bool,
    /// Leave plain TCP out
    #[arg(long)]
    pub no_compare: bool,
    /// Draw what happened as a picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<std::path::PathBuf>,
    /// Where the random bytes start; the same seed sends the same bytes
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Lines instead of a live picture, as when stdout is no terminal
    #[arg(long)]
    pub plain: bool,
}

/// Longer than anybody waits, and short enough for the arithmetic of clocks.
const LONGEST: f64 = 100.0 * 365.0 * 86_400.0;

/// `500ms`, `10s`, `5m`, `1h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim_start() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("not a time: 500ms, 10s, 5m, 1h, or a number of seconds".into()),
    };
    let number: f64 = number.parse().map_err(|_| "not a time: 500ms, 10s, 5m, 1h, or a number of seconds")?;
    if number * seconds > LONGEST {
        return Err("longer than a hundred years".into());
    }
    Ok(Duration::from_secs_f64(number * seconds))
}

fn positive_time(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it has to be more than nothing".into()),
        duration => Ok(duration),
    }
}

fn time_or_off(text: &str) -> Result<Setting, String> {
    if text == "off" { Ok(Setting(None)) } else { positive_time(text).map(|duration| Setting(Some(duration))) }
}

fn time_or_never(text: &str) -> Result<Setting, String> {
    if text == "never" { Ok(Setting(None)) } else { positive_time(text).map(|duration| Setting(Some(duration))) }
}

/// `64KiB`, `4MiB`, `1MB`; a bare number is bytes.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size: 64KiB, 4MiB, 1MB, or a number of bytes".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(|| "too large".to_owned());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = (number * unit as f64).round();
    // 2^53: up to there every whole number is exact.
    if bytes > 9_007_199_254_740_992.0 { Err("too large".into()) } else { Ok(bytes as u64) }
}

fn positive_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("it has to be more than nothing".into()),
        bytes => Ok(bytes),
    }
}

fn demo_size(text: &str) -> Result<u64, String> {
    match positive_size(text)? {
        bytes if bytes > 1 << 40 => Err("more than 1024 GiB is no demo".into()),
        bytes => Ok(bytes),
    }
}

/// Whole bytes, one to eight.
fn route(text: &str) -> Result<Route, String> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| {
            let whole = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            whole.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        })
        .collect();
    let route = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| Route::new(&bytes));
    route.ok_or_else(|| "not a route: 2, 4, 6 ... 16 hexadecimal digits".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("not a share: a number from 0 to 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times() {
        for (text, ms) in
            [("20", 20_000), ("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0", 0)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(time("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["", "s", "-1", "1x", "1.2.3", "inf", "nan", "1e3", "99999999999999999999"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(positive_time("0").is_err());
        assert_eq!(time_or_off("off"), Ok(Setting(None)));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("64KiB", 65_536), ("4MiB", 4 << 20), ("1MB", 1_000_000), ("1.5k", 1536)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
        for text in ["", "KiB", "-1", "1x", "18446744073709551616", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn routes() {
        assert_eq!(route("07"), Ok(Route::new(&[7]).unwrap()));
        assert_eq!(route("00112233445566fF"), Ok(Route::new(&[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0xff]).unwrap()));
        for text in ["", "7", "070", "0x07", "+7", "00112233445566ff00", "ü"] {
            assert!(route(text).is_err(), "{text}");
        }
    }

    /// The worked example's page gives these words.
    #[test]
    fn the_seeds_command_lines_are_ours() {
        for line in [
            "turbotunnel echo-server 127.0.0.1:7000",
            "turbotunnel echo-client 127.0.0.1:8000",
            "turbotunnel lilbastard -w 20 127.0.0.1:7000 127.0.0.1:8000",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        let by_name = "turbotunnel lilbastard --listen 8000 --upstream 7000";
        assert!(Cli::try_parse_from(by_name.split(' ')).is_ok());
        for line in [
            "turbotunnel lilbastard 127.0.0.1:7000",
            "turbotunnel lilbastard --listen 8000",
            "turbotunnel lilbastard --listen 1 --upstream 2 3 4",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
