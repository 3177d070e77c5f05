//! Servers that mean their clients ill.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use smux::Version;
use smux::wire::Header;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::tunnel::opening_conv;

use crate::attack::{Attack, Ceiling, Figures, When, at_least, at_most};
use crate::speaker::Speaker;
use crate::stage::{self, Running, Stage, Whose};
use crate::wire::{Kcp, Smux, frame, framed, packet};

const DONE: Ceiling = at_most("client done after", 10.0, "s");
const GROWTH: Ceiling = at_most("memory grows by", 2.0, "MiB");
const GROWTH_BY_PACKETS: Ceiling = at_most("memory grows by", 6.0, "MiB");
const CODE: Ceiling = at_least("exit code", 1.0, "");
/// How long dials are counted.
const WATCHED: Duration = Duration::from_secs(6);

const AT_FIRST: Ceiling = at_most("dials in the first second", 10.0, "dials");
/// Somebody on the path who cuts after every few kilobytes has to be met with a dial each time: dials are 10 ms apart, no more.
const WITH_PROGRESS: Ceiling = at_most("dials a second", 110.0, "dials");
const LATER: Ceiling = at_most("dials a second after that", 1.0, "dials");

pub(crate) const UNSOLICITED_SYNS: Attack = Attack {
    name: "unsolicited-syns",
    what: "the server opens 1,100 streams that nobody asked for, and then does its work",
    go: "the client stands still, and ends after 112 s",
    ceilings: &[DONE, GROWTH],
    when: When::Control,
    play: unsolicited_syns,
};

pub(crate) const ACCEPT_AND_CLOSE: Attack = Attack {
    name: "accept-and-close",
    what: "the server accepts, and hangs up",
    go: "9,096 dials a second",
    ceilings: &[AT_FIRST, LATER],
    when: When::Control,
    play: accept_and_close,
};

pub(crate) const PROGRESS_AND_CLOSE: Attack = Attack {
    name: "progress-and-close",
    what: "the server says one more segment on each connection, so that there is progress, and hangs up",
    go: "not tried; it dials again at once in any case",
    ceilings: &[WITH_PROGRESS, GROWTH],
    when: When::Quick,
    play: progress_and_close,
};

pub(crate) const ENDLESS_PACKETS: Attack = Attack {
    name: "endless-packets",
    what: "the server sends empty packets, and segments of somebody else's conv, without end; the client was told to try for 3 s",
    go: "not tried",
    ceilings: &[GROWTH_BY_PACKETS, CODE, DONE],
    when: When::Quick,
    play: endless_packets,
};

fn unsolicited_syns(stage: &Stage) -> io::Result<Figures> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = stage.client(listener.local_addr()?, &[])?;
    let (asked, begin) = channel();
    let process = client.id();
    thread::spawn(move || serve_after_syns(&listener, move || asked.send(stage::memory(process))));
    let mut stdin = client.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let sent = vec![7; 64 << 10];
    stdin.write_all(&sent)?;
    let (before, peak) = (first(&begin)?, Peak::of(&client));
    // A client may call it a day, with a code that says so, or do its work; both is well.
    thread::sleep(Duration::from_secs(1));
    drop(stdin);
    let began = Instant::now();
    let code = client.end(Duration::from_secs(15));
    let done = code.map_or(f64::INFINITY, |_| began.elapsed().as_secs_f64());
    client.kill();
    let mut figures = Figures::default();
    figures.measured(DONE, done);
    figures.measured(GROWTH, (peak.end() - before).max(0.0));
    figures.tell("exit code", code.map_or(f64::NAN, f64::from));
    Ok(figures)
}

/// Takes connections, each with its flood of SYNs, and echoes then.
fn serve_after_syns<E>(listener: &TcpListener, mut on_first: impl FnMut() -> Result<(), E>) -> io::Result<()> {
    loop {
        let (tcp, _) = listener.accept()?;
        let mut server = Speaker::server(tcp)?;
        let _ = on_first();
        let syns: Vec<u8> = (0..1_100).flat_map(|n| frame(Smux::Syn, 2 * n + 2, &[])).collect();
        server.say(&syns, Duration::from_secs(5))?;
        while !server.is_over {
            server.turn(Duration::from_millis(20))?;
            let answer = echo(&mut server.heard);
            server.say(&answer, Duration::from_secs(5))?;
        }
    }
}

/// Takes the whole frames, and gives what an echo server would say to them.
fn echo(heard: &mut Vec<u8>) -> Vec<u8> {
    let (mut answer, mut at) = (Vec::new(), 0);
    while let Some((header, rest)) = heard[at..].split_first_chunk::<{ smux::wire::HEADER_LEN }>() {
        let Ok(header) = Header::decode(Version::V2, *header) else { break };
        let Some(payload) = rest.get(..usize::from(header.length)) else { break };
        if matches!(header.command, Smux::Psh | Smux::Fin) {
            answer.extend(frame(header.command, header.stream.value(), payload));
        }
        at += smux::wire::HEADER_LEN + payload.len();
    }
    heard.drain(..at);
    answer
}

fn accept_and_close(stage: &Stage) -> io::Result<Figures> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = stage.client(listener.local_addr()?, &[])?;
    let (dialled, dials) = channel();
    thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.read_exact(&mut [0; 8]);
            if dialled.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    client.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"hello\n")?;
    let began = first(&dials)?;
    thread::sleep(WATCHED);
    client.kill();
    let (at_first, later): (Vec<Instant>, Vec<Instant>) =
        dials.try_iter().partition(|dial| dial.duration_since(began) < Duration::from_secs(1));
    let mut figures = Figures::default();
    figures.measured(AT_FIRST, 1.0 + at_first.len() as f64);
    figures.measured(LATER, later.len() as f64 / (WATCHED.as_secs_f64() - 1.0));
    Ok(figures)
}

fn progress_and_close(stage: &Stage) -> io::Result<Figures> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = stage.client(listener.local_addr()?, &[])?;
    let (dialled, dials) = channel();
    thread::spawn(move || {
        let (mut conv, mut buffer) = (None, vec![0; 64 << 10]);
        for (sn, mut connection) in (0..).zip(listener.incoming().map_while(Result::ok)) {
            let _ = dialled.send(());
            let _ = connection.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = connection.read_exact(&mut [0; 8]);
            let mut batch = PacketBatch::new();
            while let Ok(n @ 1..) = connection.read(&mut buffer) {
                batch.bytes_mut().extend_from_slice(&buffer[..n]);
                conv = conv.or_else(|| batch.packets().find_map(|packet| opening_conv(packet, 0)));
                if conv.is_some() {
                    break;
                }
            }
            if let Some(conv) = conv {
                let nop = packet(conv, Kcp::Push, sn, 0, &frame(Smux::Nop, 0, &[]));
                let _ = connection.write_all(&framed(&[&nop]));
                // Closed with something unread it would be a reset, which overtakes what was said.
                let _ = connection.shutdown(Shutdown::Write);
                let _ = connection.set_read_timeout(Some(Duration::from_millis(20)));
                while let Ok(1..) = connection.read(&mut buffer) {}
            }
        }
    });
    client.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"hello\n")?;
    first(&dials)?;
    let before = client.memory();
    thread::sleep(WATCHED);
    let mut figures = Figures::default();
    figures.measured(WITH_PROGRESS, dials.try_iter().count() as f64 / WATCHED.as_secs_f64());
    figures.measured(GROWTH, client.peak() - before);
    Ok(figures)
}

fn endless_packets(stage: &Stage) -> io::Result<Figures> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let options: &[&str] = if stage.whose == Whose::Ours { &["--session-timeout", "3s"] } else { &[] };
    let mut client = stage.client(listener.local_addr()?, options)?;
    let (dialled, dials) = channel();
    thread::spawn(move || {
        let foreign = packet(0xbad, Kcp::Push, 0, 0, &[0; 1376]);
        let flood = [vec![0; 32 << 10], framed(&vec![foreign.as_slice(); 24])].concat();
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = dialled.send(());
            let flood = flood.clone();
            thread::spawn(move || while connection.write_all(&flood).is_ok() {});
        }
    });
    client.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(b"hello\n")?;
    first(&dials)?;
    let (began, before, peak) = (Instant::now(), client.memory(), Peak::of(&client));
    let code = client.end(Duration::from_secs(15));
    let done = code.map_or(f64::INFINITY, |_| began.elapsed().as_secs_f64());
    client.kill();
    let mut figures = Figures::default();
    figures.measured(GROWTH_BY_PACKETS, peak.end() - before);
    figures.measured(CODE, code.map_or(f64::NAN, f64::from));
    figures.measured(DONE, done);
    Ok(figures)
}

fn first<T>(events: &Receiver<T>) -> io::Result<T> {
    events.recv_timeout(Duration::from_secs(10)).map_err(|_| io::Error::other("the client does not come"))
}

/// The most memory that a process had until it ended, in MiB; nobody can be asked for it after that.
struct Peak(thread::JoinHandle<f64>);

impl Peak {
    fn of(client: &Running) -> Self {
        let process = client.id();
        Self(thread::spawn(move || {
            let mut most = 0.0_f64;
            loop {
                let now = stage::peak(process);
                if now.is_nan() {
                    return most;
                }
                most = most.max(now);
                thread::sleep(Duration::from_millis(20));
            }
        }))
    }

    fn end(self) -> f64 {
        // A child that has ended but was not waited for has no memory either.
        self.0.join().unwrap_or(f64::NAN)
    }
}
