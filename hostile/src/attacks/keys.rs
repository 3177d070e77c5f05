//! Attacks on a server with a key, by those who know its public half and by those who do not. The session below is another matter: that is attacked in plain mode.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use turbotunnel::SessionId;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{HEADER_LEN, Initiator, InitiatorRandom, PublicKey, Route, StaticKey, Suite};
use turbotunnel_cli::process;
use turbotunnel_sim::Way;
use turbotunnel_sim::pattern::Pattern;

use crate::attack::{ADMITTED, Attack, Ceiling, Figures, INTACT, When, at_most};
use crate::honest::Honest;
use crate::stage::{Running, Stage, one_of_many, source, wait_until};
use crate::wire;

const PATIENCE: Duration = Duration::from_secs(8);
/// As many strangers as one address may have.
const PER_SOURCE: usize = 64;

/// A stranger in a handshake has keys, and the state of Noise.
/// glibc grows its heap by 132 KiB at a time, which is 0.13 KiB for each of a thousand.
const EACH: Ceiling = at_most("memory for each", 4.25, "KiB");
const LEFT: Ceiling = at_most("left after 11 s", 0.0, "connections");
const GROWTH: Ceiling = at_most("memory grows by", 6.0, "MiB");
const FLOODED: Ceiling = at_most("memory grows by", 40.0, "MiB");
const HEARD: Ceiling = at_most("heard by strangers", 0.0, "bytes");
const DIED: Ceiling = at_most("servers that died", 0.0, "");
/// Two thousand handshakes at a third of a millisecond, and all connections.
const CPU: Ceiling = at_most("CPU during the flood", 100.0, "% of a core");

pub(crate) const HALF_OPEN: Attack = Attack {
    name: "secure-half-open",
    what: "1,500 connections from 24 addresses that have begun a handshake, were answered, and say no more",
    go: "",
    ceilings: &[EACH, LEFT, ADMITTED],
    when: When::Quick,
    play: half_open,
};

pub(crate) const DRIP: Attack = Attack {
    name: "secure-drip",
    what: "64 connections that say a valid first message, a byte each second",
    go: "",
    ceilings: &[LEFT, HEARD, ADMITTED],
    when: When::Quick,
    play: drip,
};

pub(crate) const GARBAGE: Attack = Attack {
    name: "secure-garbage",
    what: "600 connections with random bytes, valid headers with random messages, and first messages with a bit flipped",
    go: "",
    ceilings: &[INTACT, ADMITTED, GROWTH, HEARD, DIED],
    when: When::Quick,
    play: garbage,
};

pub(crate) const REPLAYS: Attack = Attack {
    name: "secure-replays",
    what: "a recorded first message, played again from one address as fast as it goes for 5 s",
    go: "",
    ceilings: &[INTACT, ADMITTED, GROWTH, CPU],
    when: When::Quick,
    play: replays,
};

pub(crate) const SESSIONS: Attack = Attack {
    name: "secure-session-flood",
    what: "5 s of clients from one address, each with a key of his own and a valid handshake: one PUSH of 32 bytes, close",
    go: "",
    ceilings: &[ADMITTED, FLOODED],
    when: When::Quick,
    play: sessions,
};

fn key_of(server: &Running) -> io::Result<PublicKey> {
    server.key.ok_or_else(|| io::Error::other("a server without a key"))
}

/// Without ML-KEM: it is cheaper for whoever floods.
fn first_message(server: &PublicKey, suite: Suite) -> io::Result<(Initiator, Vec<u8>)> {
    let mut first = Vec::new();
    let random = InitiatorRandom::generate()?;
    let initiator = Initiator::start(server, &StaticKey::generate()?, suite, Route::ANY, &random, &mut first);
    Ok((initiator, first))
}

/// A connection whose handshake the server has answered.
fn answered(
    addr: SocketAddr,
    key: &PublicKey,
    from: Ipv4Addr,
    suite: Suite,
) -> io::Result<(TcpStream, Initiator, Vec<u8>)> {
    let (initiator, first) = first_message(key, suite)?;
    let mut stream = wire::dial(addr, from)?;
    stream.write_all(&first)?;
    let mut answer = vec![0; initiator.answer_len()];
    stream.read_exact(&mut answer)?;
    Ok((stream, initiator, answer))
}

fn half_open(stage: &Stage) -> io::Result<Figures> {
    const CONNECTIONS: usize = 1_500;
    const FIRST: usize = 100;
    let server = stage.secure_server()?;
    let key = key_of(&server)?;
    let descriptors = server.descriptors();
    let (mut before, mut first, mut most) = (server.memory(), descriptors, 0);
    let mut held = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        held.push(answered(server.addr, &key, one_of_many(n / PER_SOURCE), Suite::ChaChaPolyMlKem)?.0);
        if n == FIRST {
            // What the first of them cost once is not each one's.
            thread::sleep(Duration::from_millis(100));
            (before, first) = (server.memory(), server.descriptors());
        }
        if n % 25 == 0 {
            most = most.max(server.descriptors());
        }
    }
    most = most.max(server.descriptors()).saturating_sub(first);
    let growth = server.peak() - before;
    let admitted = Honest::admission_to(server.addr, server.key, source(20), PATIENCE);
    let mut left = 0;
    wait_until(Duration::from_secs(11), || {
        // The honest one's connection may still be open.
        left = server.descriptors().saturating_sub(descriptors + 1);
        left == 0
    });
    let mut figures = Figures::default();
    figures.measured(EACH, growth * 1024.0 / most.max(1) as f64);
    figures.measured(LEFT, left as f64);
    figures.measured(ADMITTED, admitted);
    figures.tell("held at most", (most + first - descriptors) as f64);
    Ok(figures)
}

fn drip(stage: &Stage) -> io::Result<Figures> {
    let server = stage.secure_server()?;
    let key = key_of(&server)?;
    let descriptors = server.descriptors();
    let mut held = Vec::new();
    for _ in 0..PER_SOURCE {
        let (_, first) = first_message(&key, Suite::AesGcm)?;
        let mut stream = wire::dial(server.addr, source(2))?;
        stream.write_all(&first[..HEADER_LEN])?;
        held.push((stream, first));
    }
    let admitted = Honest::admission_to(server.addr, server.key, source(20), PATIENCE);
    let mut heard = 0;
    for at in HEADER_LEN..HEADER_LEN + 11 {
        for (stream, first) in &mut held {
            let _ = stream.write_all(&first[at..=at]);
        }
        thread::sleep(Duration::from_secs(1));
    }
    for (stream, _) in &mut held {
        heard += heard_from(stream)?;
    }
    let mut figures = Figures::default();
    // The honest one's session ended with him.
    figures.measured(LEFT, server.descriptors().saturating_sub(descriptors + 1) as f64);
    figures.measured(HEARD, heard as f64);
    figures.measured(ADMITTED, admitted);
    Ok(figures)
}

/// Bytes that have come within a millisecond.
fn heard_from(stream: &mut TcpStream) -> io::Result<usize> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(stream.read(&mut [0; 4096]).unwrap_or(0))
}

fn garbage(stage: &Stage) -> io::Result<Figures> {
    let mut server = stage.secure_server()?;
    let key = key_of(&server)?;
    let mut honest = Honest::connect_to(server.addr, server.key, source(20), PATIENCE)?;
    let before = server.memory();
    let noise = Pattern::new(13, 1, Way::Up);
    let mut heard = 0;
    for n in 0..600_usize {
        let (_, mut bytes) = first_message(&key, Suite::ALL[n % 4])?;
        match n % 3 {
            0 => noise.fill((n as u64) << 13, &mut bytes),
            1 => noise.fill((n as u64) << 13, &mut bytes[HEADER_LEN..]),
            _ => {
                let bit = n * 7 % (bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let mut attacker = wire::dial(server.addr, source(2))?;
        let _ = attacker.write_all(&bytes);
        heard += heard_from(&mut attacker)?;
    }
    let mut figures = Figures::default();
    figures.measured(INTACT, honest.intact(1 << 20, PATIENCE));
    figures.measured(ADMITTED, Honest::admission_to(server.addr, server.key, source(21), PATIENCE));
    figures.measured(GROWTH, server.peak() - before);
    figures.measured(HEARD, heard as f64);
    figures.measured(DIED, f64::from(u8::from(!server.is_alive())));
    Ok(figures)
}

fn replays(stage: &Stage) -> io::Result<Figures> {
    const TIME: Duration = Duration::from_secs(5);
    let server = stage.secure_server()?;
    let key = key_of(&server)?;
    let mut honest = Honest::connect_to(server.addr, server.key, source(20), PATIENCE)?;
    let (_, recorded) = first_message(&key, Suite::ChaChaPolyMlKem)?;
    let (before, cpu, began) = (server.memory(), process::cpu_time(server.id()), Instant::now());
    let addr = server.addr;
    let newcomer = thread::spawn(move || {
        thread::sleep(TIME / 2);
        Honest::admission_to(addr, Some(key), source(21), PATIENCE)
    });
    let mut played = 0_u32;
    while began.elapsed() < TIME {
        // So many at once that those who are held do not hold up the next.
        let mut round = Vec::new();
        for _ in 0..32 {
            let mut stream = wire::dial(server.addr, source(2))?;
            let _ = stream.write_all(&recorded);
            round.push(stream);
        }
        played += 32;
        thread::sleep(Duration::from_millis(5));
    }
    let cpu = (process::cpu_time(server.id()) - cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let mut figures = Figures::default();
    figures.measured(CPU, cpu);
    figures.measured(ADMITTED, newcomer.join().unwrap_or(f64::NAN));
    figures.measured(INTACT, honest.intact(1 << 20, PATIENCE));
    figures.measured(GROWTH, server.peak() - before);
    figures.tell("played a second", f64::from(played) / TIME.as_secs_f64());
    Ok(figures)
}

fn sessions(stage: &Stage) -> io::Result<Figures> {
    const TIME: Duration = Duration::from_secs(5);
    let server = stage.secure_server()?;
    let key = key_of(&server)?;
    let (addr, before, began) = (server.addr, server.memory(), Instant::now());
    let newcomers: Vec<_> = (0..5)
        .map(|n| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(500 + 1_000 * u64::from(n)));
                Honest::admission_to(addr, Some(key), source(20 + n), PATIENCE)
            })
        })
        .collect();
    let floods: Vec<_> = (0..8_u8)
        .map(|thread| {
            thread::spawn(move || {
                let mut begun = 0;
                while began.elapsed() < TIME {
                    // Whoever is held would wait here, so the burst and then the rate is what this gets.
                    begun += u32::from(begin(addr, &key, [thread; 8]).is_ok());
                }
                begun
            })
        })
        .collect();
    let begun: u32 = floods.into_iter().map(|flood| flood.join().unwrap_or(0)).sum();
    let admitted = newcomers.into_iter().map(|newcomer| newcomer.join().unwrap_or(f64::NAN)).fold(0.0, f64::max);
    thread::sleep(Duration::from_secs(1));
    let mut figures = Figures::default();
    figures.measured(FLOODED, server.peak() - before);
    figures.measured(ADMITTED, admitted);
    figures.tell("sessions a second", f64::from(begun) / TIME.as_secs_f64());
    Ok(figures)
}

/// A session that begins, and is left.
fn begin(addr: SocketAddr, key: &PublicKey, id: [u8; 8]) -> io::Result<()> {
    let (mut stream, initiator, answer) = answered(addr, key, source(2), Suite::AesGcm)?;
    let mut out = Vec::new();
    let mut established = initiator.handle_answer(&answer, SessionId(id), &mut out).map_err(io::Error::other)?;
    let mut packets = PacketBatch::new();
    packets.push(&wire::opening(7));
    established.records.seal(packets.as_bytes(), &mut out).map_err(io::Error::other)?;
    stream.write_all(&out)
}
