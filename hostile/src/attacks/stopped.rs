//! Ends that stand still, go away, or have forgotten everything.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::{Attack, Ceiling, Figures, INTACT, When, at_least, at_most};
use crate::honest::Honest;
use crate::stage::{Running, Setup, Stage, Whose, source, wait_until};
use crate::transfer::Transfer;

const PATIENCE: Duration = Duration::from_secs(10);
/// How long somebody stands still.
const STOPPED: Duration = Duration::from_secs(3);
const BYTES: u64 = 16 << 20;

const GROWTH: Ceiling = at_most("memory grows by", 6.0, "MiB");
const CODE: Ceiling = at_least("exit code", 1.0, "");
const ENDED: Ceiling = at_most("ended after", 10.0, "s");
const ENDED_AFTER_THAT: Ceiling = at_most("ended after", 5.0, "s");
const REDIALS: Ceiling = at_most("redials in 10 s", 1.0, "redials");

pub(crate) const SERVER_STOPPED: Attack = Attack {
    name: "server-stopped",
    what: "the server stands still for 3 s (SIGSTOP) in the middle of a transfer",
    go: "harmless",
    ceilings: &[INTACT],
    when: When::Quick,
    play: |stage| server_stopped(stage, STOPPED),
};

pub(crate) const SERVER_STOPPED_LONG: Attack = Attack {
    name: "server-stopped-long",
    what: "the server stands still for 100 s, of the 120 that a session lives without contact",
    go: "not tried",
    ceilings: &[INTACT],
    when: When::Long,
    play: |stage| server_stopped(stage, Duration::from_secs(100)),
};

pub(crate) const STOPPED_AT_FIRST: Attack = Attack {
    name: "stopped-at-first",
    what: "a Go client begins while the server stands still: 3 s later its first segments are there many times over",
    go: "harmless",
    ceilings: &[INTACT, ENDED_AFTER_THAT],
    when: When::Quick,
    play: stopped_at_first,
};

pub(crate) const CLIENT_STOPPED: Attack = Attack {
    name: "client-stopped",
    what: "a client stands still for 3 s (SIGSTOP) in the middle of 16 MiB",
    go: "the server grows by 4 MiB",
    ceilings: &[INTACT, GROWTH],
    when: When::Quick,
    play: client_stopped,
};

pub(crate) const SLOW_READER: Attack = Attack {
    name: "slow-reader",
    what: "a client's output is taken at 1 MB/s for 3 s, and then as fast as it comes",
    go: "harmless",
    ceilings: &[INTACT, GROWTH],
    when: When::Quick,
    play: slow_reader,
};

pub(crate) const SERVER_RESTARTED: Attack = Attack {
    name: "server-restarted",
    what: "the server is killed and started anew at once: it knows the client's session no more",
    go: "the client hangs for 119 s and says that all is well",
    ceilings: &[CODE, ENDED],
    when: When::Quick,
    play: server_restarted,
};

pub(crate) const SERVER_GONE: Attack = Attack {
    name: "server-gone",
    what: "the server is killed for good; the client was told to try for 3 s",
    go: "the client ends at once and says that all is well",
    ceilings: &[CODE, ENDED],
    when: When::Quick,
    play: |stage| abandoned(stage, "3s", Running::kill),
};

pub(crate) const SERVER_SILENT: Attack = Attack {
    name: "server-silent",
    what: "the server stands still for good; the client was told to try for 5 s",
    go: "the client ends after 119 s and says that all is well",
    ceilings: &[CODE, ENDED],
    when: When::Quick,
    play: |stage| abandoned(stage, "5s", |server| drop(server.signal("STOP"))),
};

pub(crate) const REFUSED_GO_CLIENT: Attack = Attack {
    name: "refused-go-client",
    what: "a Go client whose session the server does not know, because it was restarted",
    go: "9,992 dials a second at a server that hangs up",
    ceilings: &[REDIALS],
    when: When::Quick,
    play: refused_go_client,
};

fn server_stopped(stage: &Stage, time: Duration) -> io::Result<Figures> {
    let server = stage.server()?;
    let mut honest = Honest::connect(server.addr, source(20), PATIENCE)?;
    honest.goodput(Duration::from_millis(200))?;
    let stopping = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        server.signal("STOP")?;
        thread::sleep(time);
        server.signal("CONT")?;
        io::Result::Ok(server)
    });
    honest.goodput(Duration::from_secs(1))?;
    let mut figures = Figures::default();
    figures.measured(INTACT, honest.intact(BYTES, time + PATIENCE));
    let _server = stopping.join();
    Ok(figures)
}

fn stopped_at_first(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    server.signal("STOP")?;
    let mut client = stage.client_of(Whose::Go, server.addr, &[])?;
    let transfer = Transfer::begin(&mut client, 1 << 20, Duration::ZERO)?;
    thread::sleep(STOPPED);
    server.signal("CONT")?;
    let began = Instant::now();
    let mut figures = Figures::default();
    figures.measured(INTACT, transfer.end(&mut client));
    figures.measured(ENDED_AFTER_THAT, began.elapsed().as_secs_f64());
    Ok(figures)
}

fn client_stopped(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let before = server.memory();
    let mut client = stage.client(server.addr, &[])?;
    let transfer = Transfer::begin(&mut client, BYTES, Duration::ZERO)?;
    thread::sleep(Duration::from_millis(30));
    client.signal("STOP")?;
    thread::sleep(STOPPED);
    client.signal("CONT")?;
    let mut figures = Figures::default();
    figures.measured(INTACT, transfer.end(&mut client));
    figures.measured(GROWTH, server.peak() - before);
    Ok(figures)
}

fn slow_reader(stage: &Stage) -> io::Result<Figures> {
    let server = stage.server()?;
    let before = server.memory();
    let mut client = stage.client(server.addr, &[])?;
    let transfer = Transfer::begin(&mut client, BYTES, Duration::from_secs(3))?;
    let mut figures = Figures::default();
    figures.measured(INTACT, transfer.end(&mut client));
    figures.measured(GROWTH, server.peak() - before);
    Ok(figures)
}

fn server_restarted(stage: &Stage) -> io::Result<Figures> {
    let mut server = stage.server()?;
    let mut client = talking(stage, stage.whose, server.addr, &[])?;
    let at = server.addr;
    server.kill();
    let _server = stage.server_with(&Setup { at: Some(at), ..Setup::default() })?;
    Ok(its_end(&mut client))
}

fn abandoned(stage: &Stage, patience: &str, deed: fn(&mut Running)) -> io::Result<Figures> {
    let mut server = stage.server()?;
    let options: &[&str] = if stage.whose == Whose::Ours { &["--session-timeout", patience] } else { &[] };
    let mut client = talking(stage, stage.whose, server.addr, options)?;
    deed(&mut server);
    let stdin = client.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    // Something that is owed.
    stdin.write_all(b"are you there?\n")?;
    Ok(its_end(&mut client))
}

fn refused_go_client(stage: &Stage) -> io::Result<Figures> {
    let mut server = stage.server()?;
    let client = talking(stage, Whose::Go, server.addr, &["--retry"])?;
    let at = server.addr;
    let dials = || client.log.count(&["session", ": connection "]);
    server.kill();
    // The old server's last breath may have taken one.
    thread::sleep(Duration::from_millis(300));
    let old = dials();
    let _server = stage.server_with(&Setup { at: Some(at), ..Setup::default() })?;
    wait_until(PATIENCE, || dials() > old).ok_or_else(|| io::Error::other("the Go client does not come back"))?;
    let before = dials();
    thread::sleep(Duration::from_millis(10_500));
    let mut figures = Figures::default();
    figures.measured(REDIALS, (dials() - before) as f64);
    Ok(figures)
}

/// A client that has had its first line echoed.
fn talking(stage: &Stage, whose: Whose, addr: SocketAddr, options: &[&str]) -> io::Result<Running> {
    let mut client = stage.client_of(whose, addr, options)?;
    let (stdin, stdout) = pipes(&mut client)?;
    stdin.write_all(b"hello\n")?;
    stdout.read_exact(&mut [0; 6])?;
    Ok(client)
}

fn pipes(client: &mut Running) -> io::Result<(&mut impl Write, &mut impl Read)> {
    let stdin = client.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok((stdin, client.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?))
}

fn its_end(client: &mut Running) -> Figures {
    let began = Instant::now();
    let code = client.end(Duration::from_secs(15));
    let mut figures = Figures::default();
    figures.measured(ENDED, code.map_or(f64::INFINITY, |_| began.elapsed().as_secs_f64()));
    figures.measured(CODE, code.map_or(f64::NAN, f64::from));
    figures
}
