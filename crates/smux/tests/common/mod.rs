//! Two sessions joined back to back on a clock that only tests move.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::time::{Duration, Instant};
use turbotunnel_smux::wire::{Command, HEADER_LEN, Header, UPD_LEN, Upd};
use turbotunnel_smux::{Config, Event, Mux, Side, StreamId, Version};

pub const ROOM: usize = 1_376;

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[allow(clippy::disallowed_methods, reason = "some instant to count from")]
pub fn start() -> Instant {
    Instant::now()
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// Small and the same everywhere: xorshift.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

pub struct Pair {
    pub now: Instant,
    pub client: Mux,
    pub server: Mux,
}

impl Pair {
    pub fn new(config: Config) -> Self {
        Self::of(config.clone(), config)
    }

    pub fn of(client: Config, server: Config) -> Self {
        let now = start();
        Self { now, client: Mux::new(now, Side::Client, client), server: Mux::new(now, Side::Server, server) }
    }

    /// Moves packets both ways until neither has anything to send.
    pub fn run(&mut self) {
        loop {
            let moved = self.up() + self.down();
            if moved == 0 {
                break;
            }
        }
        assert!(!self.client.wants_transmit() && !self.server.wants_transmit());
    }

    /// Everything from the client; how many packets.
    pub fn up(&mut self) -> usize {
        Self::flow(self.now, &mut self.client, &mut self.server)
    }

    pub fn down(&mut self) -> usize {
        Self::flow(self.now, &mut self.server, &mut self.client)
    }

    fn flow(now: Instant, from: &mut Mux, to: &mut Mux) -> usize {
        let mut packets = 0;
        let mut packet = Vec::new();
        while from.poll_transmit(now, &mut packet, ROOM) {
            assert!(!packet.is_empty() && packet.len() <= ROOM);
            to.handle_bytes(now, &packet).expect("our own frames");
            packet.clear();
            packets += 1;
        }
        packets
    }

    /// Opens a stream that the server has accepted.
    pub fn open(&mut self) -> StreamId {
        let id = self.client.open().expect("a stream");
        self.up();
        assert_eq!(self.server.accept(), Some(id));
        id
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        for mux in [&mut self.client, &mut self.server] {
            mux.handle_timeout(self.now);
            assert!(mux.poll_timeout().is_none_or(|due| due > self.now), "a deadline that was handled is over");
        }
    }
}

/// Reads what is there. `true`: and then the end.
pub fn read_all(mux: &mut Mux, now: Instant, id: StreamId) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        match mux.read(now, id, &mut buf).expect("an open stream") {
            None => return (all, false),
            Some(0) => return (all, true),
            Some(n) => all.extend_from_slice(&buf[..n]),
        }
    }
}

pub fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

/// What the session wants to send, as frames.
pub fn sent(mux: &mut Mux, now: Instant) -> Vec<(Command, u32, usize)> {
    let mut out = Vec::new();
    while mux.poll_transmit(now, &mut out, 65_536) {}
    parse(&out).into_iter().map(|(header, payload)| (header.command, header.stream.value(), payload.len())).collect()
}

pub fn parse(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
        let version = if head[0] == 1 { Version::V1 } else { Version::V2 };
        let header = Header::decode(version, *head).expect("our own frames");
        let end = HEADER_LEN + usize::from(header.length);
        frames.push((header, bytes[HEADER_LEN..end].to_vec()));
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty(), "whole frames only");
    frames
}

/// A frame of a version 2 peer.
pub fn frame(command: Command, id: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { version: Version::V2, command, length: payload.len() as u16, stream: StreamId::new(id) };
    [&header.encode()[..], payload].concat()
}

pub fn update(id: u32, consumed: u32, window: u32) -> Vec<u8> {
    let payload: [u8; UPD_LEN] = Upd { consumed, window }.encode();
    frame(Command::Upd, id, &payload)
}
