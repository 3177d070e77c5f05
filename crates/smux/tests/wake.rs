//! Many writers have more than there is room for: which of them is woken, and when.

mod common;

use common::{Pair, events, parse, pattern, read_all};
use std::collections::HashMap;
use std::time::Duration;
use turbotunnel_smux::{Config, Event, StreamId};

/// What goes at once: a large packet.
const PACKET: usize = 15_000;
/// What it takes at 3 GB/s.
const LOOPBACK: Duration = Duration::from_micros(5);
/// The same at 150 MB/s.
const SLOW: Duration = Duration::from_micros(100);

/// Streams whose writers never have enough.
struct Writers {
    pair: Pair,
    bytes: Vec<u8>,
    /// Written and not sent.
    waiting: HashMap<StreamId, usize>,
    all_waiting: usize,
    received: HashMap<StreamId, usize>,
}

impl Writers {
    /// Each has written until it was turned away, and is read from.
    fn new(streams: usize) -> Self {
        let mut writers = Self::open(streams);
        for id in writers.received.keys().copied().collect::<Vec<_>>() {
            writers.write(id);
            writers.read(id);
        }
        writers
    }

    fn open(streams: usize) -> Self {
        let config =
            Config { first_unsent: 48 << 20, first_buffered: 1 << 30, max_buffered: 1 << 30, ..Config::default() };
        let mut pair = Pair::new(config);
        let ids: Vec<StreamId> = (0..streams).map(|_| pair.open()).collect();
        events(&mut pair.server);
        let waiting = ids.iter().map(|id| (*id, 0)).collect();
        let received = ids.iter().map(|id| (*id, 0)).collect();
        Self { pair, bytes: pattern(200_000), waiting, all_waiting: 0, received }
    }

    /// Until it is turned away.
    fn write(&mut self, id: StreamId) {
        while let taken @ 1.. = self.pair.client.write(id, &self.bytes).expect("an open stream") {
            *self.waiting.get_mut(&id).expect("one of ours") += taken;
            self.all_waiting += taken;
        }
    }

    fn read(&mut self, id: StreamId) {
        let read = read_all(&mut self.pair.server, self.pair.now, id).0.len();
        *self.received.get_mut(&id).expect("one of ours") += read;
    }

    /// A packet goes and is read, and that takes so long. Of which streams something went, and whose writers are woken.
    fn packet(&mut self, time: Duration) -> (Vec<StreamId>, Vec<StreamId>) {
        self.pair.now += time;
        let mut packet = Vec::new();
        self.pair.client.poll_transmit(self.pair.now, &mut packet, PACKET);
        let mut sent = Vec::new();
        for (header, payload) in parse(&packet) {
            *self.waiting.get_mut(&header.stream).expect("one of ours") -= payload.len();
            self.all_waiting -= payload.len();
            sent.push(header.stream);
        }
        self.pair.server.handle_bytes(self.pair.now, &packet).expect("our own frames");
        for event in events(&mut self.pair.server) {
            if let Event::Readable(id) = event {
                self.read(id);
            }
        }
        let told = events(&mut self.pair.client).into_iter();
        let woken = told.filter_map(|event| if let Event::Writable(id) = event { Some(id) } else { None }).collect();
        self.pair.down();
        (sent, woken)
    }
}

/// A thousand streams may have 48 KiB each, and what all have then is out of any cache when it goes. Once that is out, it is as much as fewer than 64 streams may have,
/// and each moves as much as the others.
#[test]
fn few_of_a_thousand_writers_have_something_waiting() {
    let mut writers = Writers::new(1_000);
    assert!(writers.all_waiting > 40 << 20, "{} bytes", writers.all_waiting);
    let (beginning, rounds) = (10_000, 60_000);
    let mut most = 0;
    for round in 0..rounds {
        for id in writers.packet(LOOPBACK).1 {
            writers.write(id);
        }
        if round == beginning {
            writers.received.values_mut().for_each(|received| *received = 0);
        }
        if round > beginning {
            most = writers.all_waiting.max(most);
        }
    }
    assert!(most <= 4 << 20, "{most} bytes waited");
    let (least, most) = (writers.received.values().min(), writers.received.values().max());
    assert!(least >= most.map(|most| most / 3 * 2).as_ref(), "{least:?} to {most:?} bytes");
}

/// A program that has given its transfers up, or has nothing left to write, does not come when it is called.
#[test]
fn nobody_waits_for_writers_who_do_not_come() {
    let mut writers = Writers::new(300);
    let comes = |id: StreamId| id.value() % 8 == 1;
    for round in 0..20_000 {
        for id in writers.packet(LOOPBACK).1 {
            if round < 5_000 || comes(id) {
                writers.write(id);
            }
        }
        assert!(round < 8_000 || writers.all_waiting > PACKET, "all was out before those who come were woken");
    }
    let received = writers.received.iter().filter(|(id, _)| comes(**id)).map(|(_, received)| *received);
    assert!(received.clone().min() > Some(1 << 20), "{received:?}");
}

/// While some sleep, those that have much waiting have more turns. Where memory is not what bounds them nobody sleeps, also when the path was fast before.
#[test]
fn on_a_slower_path_nobody_sleeps() {
    let mut writers = Writers::new(300);
    let mut slept = [0, 0];
    for round in 0..20_000 {
        let (slow, settled) = (round >= 10_000, round % 10_000 > 5_000);
        let (sent, woken) = writers.packet(if slow { SLOW } else { LOOPBACK });
        for id in woken {
            // Who does not sleep is woken as something of his goes.
            slept[usize::from(slow)] += usize::from(settled && !sent.contains(&id));
            writers.write(id);
        }
    }
    assert!(slept[0] > 500 && slept[1] == 0, "{slept:?} slept");
}

/// Three hundred programs that ask and are answered, of which none is ever turned away, always have more than enough waiting. A transfer beside them goes on all the
/// same.
#[test]
fn who_sleeps_has_his_turn_beside_streams_that_never_do() {
    let mut writers = Writers::open(301);
    let mut others: Vec<StreamId> = writers.received.keys().copied().collect();
    let transfer = others.pop().expect("one");
    let answer = pattern(16_000);
    writers.write(transfer);
    for id in writers.received.keys().copied().collect::<Vec<_>>() {
        writers.read(id);
    }
    let mut due = others;
    let mut woken = 0;
    for _ in 0..60_000 {
        for id in due.drain(..) {
            let taken = writers.pair.client.write(id, &answer).expect("an open stream");
            assert_eq!(taken, answer.len(), "nobody is turned away");
            *writers.waiting.get_mut(&id).expect("one of them") += taken;
            writers.all_waiting += taken;
        }
        let (sent, told) = writers.packet(LOOPBACK);
        due.extend(sent.into_iter().filter(|id| *id != transfer && writers.waiting[id] == 0));
        for id in told {
            assert_eq!(id, transfer);
            writers.write(id);
            woken += 1;
        }
    }
    assert!(woken > 50, "{woken} times");
}

/// Whoever has nothing waiting, and writes whenever he is told to, sleeps.
#[test]
fn who_ends_in_his_sleep_is_not_woken() {
    let mut writers = Writers::new(300);
    for _ in 0..10_000 {
        for id in writers.packet(LOOPBACK).1 {
            writers.write(id);
        }
    }
    let asleep: Vec<StreamId> =
        writers.waiting.iter().filter(|(_, waiting)| **waiting == 0).map(|(id, _)| *id).collect();
    assert!(asleep.len() > 100, "{} sleep", asleep.len());
    for (n, &id) in asleep.iter().enumerate() {
        match n % 3 {
            0 => writers.pair.client.finish(id).expect("an open stream"),
            1 => writers.pair.client.close(id),
            _ => writers.pair.client.abort(id),
        }
    }
    for _ in 0..10_000 {
        for id in writers.packet(LOOPBACK).1 {
            assert!(!asleep.contains(&id), "told that there is room after the end");
            writers.write(id);
        }
    }
}
