//! Our engine and the `kcp` crate, a port of the original C, over one bad path and by one clock: they have to understand each other.
//!
//! The crate is used where it is right: its clock and its numbers overflow at 2^31, so both start at 0; its `send` takes part of what is
//! too long and then says that it took nothing, so it is given three segments at a time; its timeouts double without an end, so
//! no more than four packets in a row are lost; it takes a link for dead and goes on all the same, so that is not looked at.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use turbotunnel_kcp::{Config, Kcp, Resume, Retransmission};

const CONV: u32 = 0x1122_3344;
const OURS: usize = 0;
const THEIRS: usize = 1;

fn ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}

/// The byte that `who` writes at `offset`.
fn byte(who: usize, offset: usize) -> u8 {
    let mixed = (2 * offset as u64 + who as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

fn bytes(who: usize, offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len).map(|at| byte(who, at)).collect()
}

/// What the path does to one packet. After the last of them it does nothing any more.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Late(u32),
    Twice(u32),
}

#[derive(Clone)]
struct Fates(Vec<Fate>);

impl fmt::Debug for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fate| match fate {
            Fate::Lost => write!(f, "lost "),
            Fate::Late(ms) => write!(f, "{ms} "),
            Fate::Twice(ms) => write!(f, "0+{ms} "),
        })
    }
}

#[derive(Clone, Debug)]
struct Plan {
    mtu: usize,
    retransmission: Retransmission,
    /// Send and receive window, ours and theirs. The crate makes its receive window at least 128.
    windows: [(u16, u16); 2],
    stream: bool,
    nodelay: bool,
    interval: i32,
    fast_resend: i32,
    no_congestion_window: bool,
    /// Bytes to write.
    bytes: [usize; 2],
    /// Until then it does not read, in milliseconds.
    reads_from: [u32; 2],
    delay: u32,
    fates: Fates,
    /// Our carrier dies then, and another comes so much later.
    cuts: Vec<(u32, u32, Resume)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        2 => Just(Fate::Lost),
        6 => Just(Fate::Late(0)),
        2 => (0..60_u32).prop_map(Fate::Late),
        1 => (0..400_u32).prop_map(Fate::Twice),
    ];
    let how = prop_oneof![Just(Resume::Now), Just(Resume::AfterUna), Just(Resume::AfterFirst)];
    let reads_from = || prop_oneof![4 => Just(0), 1 => 0..20_000_u32];
    // Before our first word the crate believes in a window of 128, and what it sends beyond ours waits for its doubled timeouts.
    let windows = [(1..200_u16, 128..200_u16), (1..200_u16, 1..200_u16)];
    let theirs = (any::<bool>(), any::<bool>(), 10..100_i32, 0..4_i32, any::<bool>());
    let path = (0..200_u32, vec(fate, 0..300), vec((0..4_000_u32, 0..3_000_u32, how), 0..3));
    let mode = prop_oneof![Just(Retransmission::Timeout), Just(Retransmission::TailProbe)];
    let mtu = prop_oneof![Just(1_400), 50..1_400_usize];
    let load = ([0..30_000_usize, 0..30_000_usize], [reads_from(), reads_from()]);
    (mtu, mode, windows, theirs, load, path).prop_map(|(mtu, retransmission, windows, theirs, load, path)| {
        let (stream, nodelay, interval, fast_resend, no_congestion_window) = theirs;
        let (bytes, reads_from) = load;
        let (delay, fates, mut cuts) = path;
        cuts.sort_unstable_by_key(|cut| cut.0);
        Plan {
            mtu,
            retransmission,
            windows,
            stream,
            nodelay,
            interval,
            fast_resend,
            no_congestion_window,
            bytes,
            reads_from,
            delay,
            fates: Fates(fates),
            cuts,
        }
    })
}

/// Where the crate puts its packets.
#[derive(Clone, Default)]
struct Outbox(Rc<RefCell<Vec<Vec<u8>>>>);

impl io::Write for Outbox {
    fn write(&mut self, packet: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().push(packet.to_vec());
        Ok(packet.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Meeting {
    plan: Plan,
    started: Instant,
    /// Milliseconds since then.
    now: u32,
    ours: Kcp,
    theirs: kcp_crate::Kcp<Outbox>,
    outbox: Outbox,
    /// To whom, when, what.
    air: Vec<(usize, u32, Vec<u8>)>,
    packets: usize,
    /// Packets to each that were lost one after the other.
    lost_in_a_row: [usize; 2],
    /// When our carrier comes back.
    away_until: Option<(u32, Resume)>,
    written: [usize; 2],
    read: [usize; 2],
}

impl Meeting {
    fn new(plan: Plan) -> Self {
        let started = Instant::now();
        let (send_window, recv_window) = plan.windows[OURS];
        let config = Config { mtu: plan.mtu, send_window, recv_window, ..Config::default() };
        let mut ours = Kcp::new(started, CONV, config);
        ours.set_retransmission(plan.retransmission);
        let outbox = Outbox::default();
        let mut theirs = match plan.stream {
            true => kcp_crate::Kcp::new_stream(CONV, outbox.clone()),
            false => kcp_crate::Kcp::new(CONV, outbox.clone()),
        };
        theirs.set_mtu(plan.mtu).expect("at least 50");
        theirs.set_wndsize(plan.windows[THEIRS].0, plan.windows[THEIRS].1);
        theirs.set_nodelay(plan.nodelay, plan.interval, plan.fast_resend, plan.no_congestion_window);
        theirs.update(0).expect("it writes into memory");
        Self {
            plan,
            started,
            now: 0,
            ours,
            theirs,
            outbox,
            air: Vec::new(),
            packets: 0,
            lost_in_a_row: [0; 2],
            away_until: None,
            written: [0; 2],
            read: [0; 2],
        }
    }

    fn instant(&self) -> Instant {
        self.started + ms(self.now)
    }

    fn done(&self) -> bool {
        self.read == [self.plan.bytes[THEIRS], self.plan.bytes[OURS]]
            && self.ours.all_acknowledged()
            && self.theirs.wait_snd() == 0
    }

    /// All that happens now.
    fn turn(&mut self) {
        self.carriers();
        self.arrivals();
        if self.ours.poll_timeout().is_some_and(|due| due <= self.instant()) {
            self.ours.handle_timeout(self.instant());
        }
        self.write();
        self.theirs.update(self.now).expect("it writes into memory");
        self.read();
        let mut packet = Vec::new();
        while self.ours.poll_transmit(self.instant(), &mut packet) {
            self.send(THEIRS, std::mem::take(&mut packet));
        }
        for packet in self.outbox.0.take() {
            self.send(OURS, packet);
        }
    }

    fn carriers(&mut self) {
        let now = self.instant();
        if let Some((_, how)) = self.away_until.take_if(|(back, _)| *back <= self.now) {
            self.ours.resume(now, how);
            if self.ours.is_learning() {
                self.ours.ask_window();
            }
        }
        if self.away_until.is_none()
            && let Some(&(when, outage, how)) = self.plan.cuts.first()
            && when <= self.now
        {
            self.plan.cuts.remove(0);
            self.ours.suspend();
            self.air.clear();
            self.away_until = Some((self.now + outage, how));
        }
    }

    fn arrivals(&mut self) {
        let (now, instant) = (self.now, self.instant());
        for (to, _, packet) in self.air.extract_if(.., |(_, at, _)| *at <= now) {
            if to == THEIRS {
                assert_eq!(self.theirs.input(&packet).expect("a packet of ours"), packet.len(), "it reads all of it");
            } else {
                assert_eq!(self.ours.handle_packet(instant, &packet), Ok(true), "a packet of theirs");
            }
        }
    }

    fn send(&mut self, to: usize, packet: Vec<u8>) {
        assert!(packet.len() <= self.plan.mtu);
        let fate = self.plan.fates.0.get(self.packets).copied().unwrap_or(Fate::Late(0));
        self.packets += 1;
        let at = self.now + self.plan.delay;
        if self.away_until.is_some() {
            return;
        }
        let lost = matches!(fate, Fate::Lost) && self.lost_in_a_row[to] < 4;
        self.lost_in_a_row[to] = if lost { self.lost_in_a_row[to] + 1 } else { 0 };
        match fate {
            Fate::Lost if lost => {}
            Fate::Lost => self.air.push((to, at, packet)),
            Fate::Late(by) => self.air.push((to, at + by, packet)),
            Fate::Twice(by) => {
                self.air.push((to, at, packet.clone()));
                self.air.push((to, at + by, packet));
            }
        }
    }

    fn write(&mut self) {
        let left = self.plan.bytes[OURS] - self.written[OURS];
        self.written[OURS] += self.ours.write(&bytes(OURS, self.written[OURS], left));
        while self.theirs.wait_snd() < 64 && self.written[THEIRS] < self.plan.bytes[THEIRS] {
            let len = (self.plan.bytes[THEIRS] - self.written[THEIRS]).min(5 * self.theirs.mss() / 2);
            let taken = self.theirs.send(&bytes(THEIRS, self.written[THEIRS], len)).expect("three segments at most");
            assert_eq!(taken, len);
            self.written[THEIRS] += len;
        }
    }

    fn read(&mut self) {
        if self.now >= self.plan.reads_from[OURS] {
            while let Some(chunk) = self.ours.peek() {
                self.read[OURS] += check(THEIRS, self.read[OURS], chunk);
                self.ours.consume();
            }
        }
        if self.now >= self.plan.reads_from[THEIRS] {
            while let Ok(len) = self.theirs.peeksize() {
                let mut chunk = vec![0; len];
                assert_eq!(self.theirs.recv(&mut chunk).expect("it has just told the size"), len);
                self.read[THEIRS] += check(OURS, self.read[THEIRS], &chunk);
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> u32 {
        let since_start = |at: Instant| u32::try_from((at - self.started).as_micros().div_ceil(1000)).expect("hours");
        let arrivals = self.air.iter().map(|(_, at, _)| *at);
        let timer = self.ours.poll_timeout().map(since_start);
        let back = self.away_until.map(|(back, _)| back);
        let cut = self.plan.cuts.first().map(|cut| cut.0);
        let reads = self.plan.reads_from.into_iter().filter(|from| *from > self.now);
        let theirs = self.now + self.theirs.check(self.now);
        let all = arrivals.chain(timer).chain(back).chain(cut).chain(reads).chain([theirs]);
        all.min().unwrap_or(theirs).max(self.now + 1)
    }
}

/// Compares what was read at `offset` with what `who` wrote there. How much it was.
fn check(who: usize, offset: usize, chunk: &[u8]) -> usize {
    let wrong = (offset..).zip(chunk).find(|&(at, &found)| found != byte(who, at));
    assert_eq!(wrong, None, "the first byte that does not belong there");
    chunk.len()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        rng_seed: RngSeed::Fixed(0x5eed),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Both directions at once, over losses, delays, doubles and cuts: every byte arrives, and nothing comes to a stop.
    #[test]
    fn ours_and_the_kcp_crate_understand_each_other(plan in plan()) {
        let mut meeting = Meeting::new(plan);
        while !meeting.done() {
            meeting.turn();
            meeting.now = meeting.next();
            assert!(meeting.now < 1_800_000, "no end in sight: {:?} were read", meeting.read);
        }
        let stats = meeting.ours.stats();
        assert_eq!((stats.packets_malformed, stats.dropped(), stats.rtt_implausible), (0, 0, 0));
    }
}
