//! What the secure carrier costs on one core: handshakes, what is refused, and records of several sizes.
//!
//! `cargo run --release -p turbotunnel --features secure --example secure_cost`. Times on a machine that does other things too are indications.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::LazyLock;
use std::time::Instant;

use turbotunnel::SessionId;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{
    Initiator, InitiatorRandom, MAX_RECORD, Recognised, Records, Responder, ResponderRandom, Route, StaticKey, Suite,
};

const ID: SessionId = SessionId([7; 8]);

struct Keys {
    server: StaticKey,
    client: StaticKey,
}

/// Seconds that this thread has computed, where the system says so; else the time.
fn clock() -> f64 {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let computed = schedstat.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    computed.map_or_else(|| BEGAN.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds of one of `times` things that `work` does.
fn time<T>(times: u32, work: impl FnOnce() -> T) -> (f64, T) {
    let began = clock();
    let made = work();
    ((clock() - began) * 1e6 / f64::from(times), made)
}

fn first(keys: &Keys, suite: Suite) -> (Initiator, Vec<u8>) {
    let mut out = Vec::new();
    let random = InitiatorRandom::generate().expect("random bytes");
    (Initiator::start(&keys.server.public(), &keys.client, suite, Route::ANY, &random, &mut out), out)
}

fn answer(own: &[StaticKey], first: &[u8]) -> Option<(Responder, Vec<u8>)> {
    let (header, message) = first.split_first_chunk().expect("a header");
    let mut second = Vec::new();
    let random = ResponderRandom::generate().expect("random bytes");
    let responder = Recognised::new(own, header)?.handle_message(message, Route::ANY, &random, &mut second);
    Some((responder.ok()?, second))
}

fn finish(initiator: Initiator, second: &[u8]) -> (Records, Vec<u8>) {
    let mut third = Vec::new();
    let established = initiator.handle_answer(second, ID, &mut third).expect("honest");
    (established.records, third)
}

fn whole(keys: &Keys, suite: Suite) -> (Records, Records) {
    let (initiator, first) = first(keys, suite);
    let (responder, second) = answer(std::slice::from_ref(&keys.server), &first).expect("honest");
    let (records, third) = finish(initiator, &second);
    (records, responder.handle_message(&third).expect("honest").records)
}

fn main() {
    const TIMES: u32 = 200;
    let generate = || StaticKey::generate().expect("random bytes");
    let keys = Keys { server: generate(), client: generate() };
    let own = [keys.server.clone()];
    println!("{:<18} {:>10} {:>10} {:>12} {:>14}", "handshake", "client us", "server us", "server 1/s", "message 1 us");
    for suite in Suite::ALL {
        let round = |_| {
            let (begin, firsts) = time(TIMES, || (0..TIMES).map(|_| first(&keys, suite)).collect::<Vec<_>>());
            let answer = |(_, first): &(Initiator, Vec<u8>)| answer(&own, first).expect("honest");
            let (answering, answers) = time(TIMES, || firsts.iter().map(answer).collect::<Vec<_>>());
            let both: Vec<_> = firsts.into_iter().zip(answers).collect();
            let (finishing, thirds) = time(TIMES, || {
                let each = both.into_iter();
                each.map(|((initiator, _), (responder, second))| (finish(initiator, &second), responder))
                    .collect::<Vec<_>>()
            });
            let (accepting, _) = time(TIMES, || {
                let each = thirds.into_iter();
                each.map(|((_, third), responder)| responder.handle_message(&third).expect("honest"))
                    .collect::<Vec<_>>()
            });
            (begin + finishing, answering + accepting, answering)
        };
        let rounds: Vec<_> = (0..10).map(round).collect();
        let least = |pick: fn(&(f64, f64, f64)) -> f64| rounds.iter().map(pick).fold(f64::INFINITY, f64::min);
        let (client, server, message_1) = (least(|r| r.0), least(|r| r.1), least(|r| r.2));
        println!("{:<18} {client:>10.0} {server:>10.0} {:>12.0} {message_1:>14.0}", format!("{suite:?}"), 1e6 / server);
    }
    let (_, mut bad) = first(&keys, Suite::ChaChaPolyMlKem);
    bad[60] ^= 1;
    let least = |times: u32, work: &dyn Fn() -> bool| {
        let round = |_| time(times, || assert!((0..times).all(|_| work()))).0;
        (0..10).map(round).fold(f64::INFINITY, f64::min)
    };
    println!("garbage, not recognised     {:>8.2} us", least(20_000, &|| Recognised::new(&own, &[0x55; 16]).is_none()));
    println!("recognised, does not verify {:>8.2} us", least(200, &|| answer(&own, &bad).is_none()));

    println!(
        "\n{:<12} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "records", "bytes", "seal us", "open us", "seal MB/s", "open MB/s"
    );
    for suite in [Suite::ChaChaPoly, Suite::AesGcm] {
        for packets in [&[24][..], &[1400], &[1400; 11], &[1400; 88]] {
            let mut batch = PacketBatch::new();
            packets.iter().for_each(|len| batch.push(&vec![7; *len]));
            let plain = batch.as_bytes();
            // What the system tells of computed time has steps of some milliseconds.
            let times = (32 << 20) / (plain.len() as u32 + 200) + 1;
            let (mut seals, mut opens) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..5 {
                let (mut client, mut server) = whole(&keys, suite);
                // Touched before: what is measured is not how the system gives memory.
                let mut sealed = vec![1; times as usize * (plain.len() + plain.len().div_ceil(MAX_RECORD - 1402) * 18)];
                sealed.clear();
                let began = clock();
                (0..times).for_each(|_| client.seal(plain, &mut sealed).expect("not used up"));
                seals = seals.min(clock() - began);
                let mut opened = Vec::with_capacity(plain.len() + MAX_RECORD);
                let began = clock();
                let mut rest = sealed.as_slice();
                while !rest.is_empty() {
                    opened.clear();
                    let piece = &rest[..rest.len().min(plain.len() + plain.len().div_ceil(MAX_RECORD - 1402) * 18)];
                    let taken = server.open(piece, &mut opened).expect("honest");
                    rest = &rest[taken..];
                }
                opens = opens.min(clock() - began);
            }
            let us = |seconds: f64| seconds * 1e6 / f64::from(times);
            let rate = |seconds: f64| plain.len() as f64 * f64::from(times) / seconds / 1e6;
            println!(
                "{:<12} {:>8} {:>10.2} {:>10.2} {:>10.0} {:>10.0}",
                format!("{suite:?}"),
                plain.len(),
                us(seals),
                us(opens),
                rate(seals),
                rate(opens)
            );
        }
    }
}
