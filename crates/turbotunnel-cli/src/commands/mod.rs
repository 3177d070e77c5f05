//! What each subcommand does.

mod check;
mod client;
mod echo_client;
mod keygen;
mod lilbastard;
mod manual;
mod server;
mod share;
mod status;

use std::io::{self, Write};
use std::num::NonZero;

use turbotunnel::SessionError;
use turbotunnel::control::{ByeReason, Limit};

use crate::args::{Cli, Command};
use crate::failure::{Exit, Failure};
use crate::log::Log;
use crate::status::board::Board;

/// Runs one command to its end.
///
/// # Errors
/// How it failed, with the exit code.
pub fn run(cli: &Cli, log: &Log) -> Result<(), Failure> {
    match &cli.command {
        Command::Server(args) => leave(many_threads()?, server::run(args, log)),
        // One session: with a thread more each wake-up may be a change of processors.
        Command::Client(args) => leave(one_thread()?, client::run(args, log)),
        Command::EchoServer(args) => many_threads()?.block_on(server::run_echo(args, log)),
        // One thread: another core would cost each small message 10 to 20 us.
        Command::EchoClient(args) => leave(one_thread()?, echo_client::run(args, log)),
        Command::Check(args) => leave(one_thread()?, check::run(args)),
        Command::Status(args) => leave(one_thread()?, status::run(args)),
        Command::Completions(args) => manual::completions(args),
        Command::Man(args) => manual::pages(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Share(args) => share::run(args),
        Command::Lilbastard(args) => many_threads()?.block_on(lilbastard::run(args, log)),
        Command::Bench(args) if args.serve.is_some() => many_threads()?.block_on(crate::bench::run(args, log)),
        Command::Bench(args) => leave(one_thread()?, crate::bench::run(args, log)),
        Command::Demo(args) => leave(many_threads()?, crate::demo::run(args, log, random_seed()?)),
    }
}

/// `--status`: shows numbers there, and says where.
async fn serve_status(at: &str, board: Board, log: &Log) -> Result<(), Failure> {
    let addresses = crate::address::listen(at)?;
    let addr = listen(&addresses, async |at| crate::status::serve::start(at, board.clone()).await).await?;
    log.info(format_args!("status on http://{addr}/"));
    Ok(())
}

/// Has `bind` listen at the first of the addresses that this system has, best first.
async fn listen<T>(addresses: &[String], bind: impl AsyncFn(&str) -> io::Result<T>) -> Result<T, Failure> {
    let mut last = Failure::cannot_listen("", &io::ErrorKind::InvalidInput.into());
    for at in addresses {
        match bind(at).await {
            Ok(bound) => return Ok(bound),
            Err(error) => {
                last = Failure::cannot_listen(at, &error);
                if !try_next_address(&error) {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// An answer, on stdout.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| {
        Failure::new(Exit::Unexpected, format!("cannot write standard output: {}", crate::failure::reason(&e)))
    })
}

fn one_thread() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| no_runtime(&e))
}

/// As many workers as `TOKIO_WORKER_THREADS` says, or one for each processor, but on two processors one: a session and its streams wake each other, and
/// across processors that costs more than the second brings, unless many sessions keep it busy (DESIGN.md has the figures).
fn many_threads() -> Result<tokio::runtime::Runtime, Failure> {
    let workers: usize = match std::env::var("TOKIO_WORKER_THREADS") {
        Ok(text) => match text.parse::<NonZero<u8>>() {
            Ok(number) => number.get().into(),
            Err(_) => {
                let error = format!("TOKIO_WORKER_THREADS={text} is no number of threads");
                return Err(Failure::new(Exit::Usage, error).tip("1 to 255"));
            }
        },
        Err(_) => match std::thread::available_parallelism().map_or(1, NonZero::get) {
            2 => 1,
            processors => processors,
        },
    };
    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().map_err(|e| no_runtime(&e))
}

/// Runs the future, and does not wait for what the runtime still has on its threads (a name that does not resolve).
fn leave<T>(runtime: tokio::runtime::Runtime, future: impl Future<Output = T>) -> T {
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

fn no_runtime(error: &io::Error) -> Failure {
    Failure::new(Exit::Unexpected, format!("cannot start: {}", crate::failure::reason(error)))
}

/// The one place where the end of a session becomes an exit code. `serving` is the command that serves it, `consequence` is what it means here, one line.
pub(crate) fn session_failure(error: &SessionError, server: &str, serving: &str, consequence: Option<&str>) -> Failure {
    let with = |exit, text: String| {
        let text = match consequence {
            Some(consequence) => format!("{text}\n{consequence}"),
            None => text,
        };
        Failure::new(exit, text)
    };
    match error {
        SessionError::NeverConnected(reason) => {
            let reason = crate::failure::plain(reason);
            let unresolved = reason.contains("lookup address") || reason.contains("no address");
            match server.rsplit_once(':') {
                Some((host, _)) if unresolved => {
                    let host = host.rsplit_once("://").map_or(host, |(_, host)| host);
                    Failure::new(Exit::NeverConnected, format!("cannot resolve {host:?}: {reason}"))
                        .tip("it may be a typing error, or your network's resolver lies; an address works too")
                }
                // Connected: the last dial has left no error.
                _ if reason.starts_with("no answer") => {
                    Failure::new(Exit::NeverConnected, format!("{server} takes connections, but there was {reason}"))
                        .tip("a server that has a key is silent without it: use its link. Or something else listens there")
                }
                _ => {
                    // `check` needs what the user gave, key and all; the others begin with what the server would be started with.
                    let tip = match serving {
                        "server" => "is the server running? turbotunnel check, with what you gave here, walks the way there".to_owned(),
                        _ => format!("is the server running? turbotunnel {serving} {}", server.trim_start_matches("tcp://")),
                    };
                    Failure::new(Exit::NeverConnected, format!("cannot reach {server}: {reason}")).tip(tip)
                }
            }
        }
        SessionError::Unknown => with(Exit::SessionLost, "the server does not know this session any more".into())
            .tip("it was restarted, or there was no contact for too long; start again"),
        SessionError::GaveUp(after) => {
            with(Exit::GaveUp, format!("gave up: no contact for {}", crate::text::setting(*after)))
                .tip(match serving {
                    "server" => "--give-up is how long it goes on trying; the server may forget a session sooner",
                    _ => "--session-timeout is how long it goes on trying",
                })
        }
        SessionError::NotAPeer => {
            Failure::new(Exit::OtherProtocol, format!("what answers at {server} is not a turbotunnel server"))
                .tip("is the port right? The server's first line says where it listens")
        }
        SessionError::NoValidAnswer => with(Exit::WrongKey, format!("no valid answer from {server}")).tip(
            "the key (is the link old?), the version, or the address may be wrong: a server with another key, a plain one, and\n\
             whatever else listens there all look alike from here. Or somebody in between changes what is sent",
        ),
        SessionError::NotAdmitted | SessionError::ClosedByPeer(ByeReason::NotAdmitted) => {
            with(Exit::WrongKey, "the server does not accept this client's key".into())
                .tip("its operator adds the public key to the file given with --clients")
        }
        SessionError::Full(limit) => {
            with(Exit::NeverConnected, format!("{server} has no room for this session: {limit}")).tip(match limit {
                Limit::SessionsOfClient | Limit::CarriersOfClient => {
                    "clients that were killed are remembered for a while; wait, or end others that use the same key"
                }
                _ => "wait and start again, or tell its operator",
            })
        }
        SessionError::ClosedByPeer(ByeReason::Shutdown) => {
            with(Exit::SessionLost, "the server has shut down".into()).tip("start again when it is back")
        }
        SessionError::ClosedByPeer(_) => with(Exit::Unexpected, error.to_string()),
        other => with(Exit::Unexpected, other.to_string()),
    }
}

/// Whether the next form of a listen address is worth a try: this one is not there on a system without IPv6.
fn try_next_address(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own; it differs between systems, and "in use" or "not allowed" is never what it is.
    !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|e| Failure::new(Exit::Unexpected, format!("the system gives no random numbers: {e}")))?;
    // 32 bits are enough, and easier to type again.
    Ok(u64::from_le_bytes(bytes) >> 32)
}
