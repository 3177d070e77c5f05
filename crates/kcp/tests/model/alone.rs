//! One engine and a peer that says anything: what is taken, acknowledged, answered, counted and ignored is decided here
//! once more, on plain lists, by the rules of the wire.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use turbotunnel_kcp::{Config, DecodeError, Kcp, Retransmission, Stats};

use crate::sending::Sending;
use crate::{
    ACK, CONV, HEADER, PUSH, Seg, WASK, WINS, beginning, bytes, cases, encode, lines, ms, parse, place, start,
};
use crate::{Lines, retransmission};

/// A number as the peer chooses it: so far from what the engine has or expects.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// From what the engine has not received yet (PUSH), or not heard to have arrived (ACK, `una`).
    Next(i64),
    /// From the end of the receive window (PUSH), or from what was not sent yet (ACK, `una`).
    End(i64),
}

#[derive(Clone, Debug)]
struct Said {
    cmd: u8,
    wnd: u16,
    ts: u32,
    sn: Number,
    una: Number,
    len: usize,
}

/// What is wrong with a whole packet.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    None,
    /// Bytes behind the last segment, too few for another.
    Trailing(usize),
    Short(usize),
    OtherConv(u32),
    Command(u8),
    /// The last segment claims so much more than there is.
    Length(u32),
}

#[derive(Clone, Debug)]
enum Deed {
    Packet(Vec<Said>, Flaw),
    Write(usize),
    Read(usize),
    /// Takes all packets that there are.
    Drain,
    Wait(u64),
}

fn number() -> impl Strategy<Value = Number> {
    let far =
        || prop_oneof![Just(0x7fff_ffff_i64), Just(0x8000_0000), Just(-0x7fff_ffff), -0x8000_0000..0x8000_0000_i64];
    let near = || prop_oneof![8 => -3..6_i64, 2 => -30..60_i64, 1 => far()];
    prop_oneof![3 => near().prop_map(Number::Next), 1 => near().prop_map(Number::End)]
}

/// A `una` that is most often true, or nothing would ever have an effect.
fn una() -> impl Strategy<Value = Number> {
    prop_oneof![4 => Just(Number::Next(0)), 3 => (-3..1_i64).prop_map(Number::End), 2 => number()]
}

fn said() -> impl Strategy<Value = Said> {
    let cmd = prop_oneof![4 => Just(PUSH), 3 => Just(ACK), 1 => Just(WASK), 1 => Just(WINS)];
    let wnd = prop_oneof![4 => 0..40_u16, 1 => any::<u16>()];
    let len = prop_oneof![1 => Just(0), 9 => 1..40_usize];
    (cmd, wnd, any::<u32>(), number(), una(), len).prop_map(|(cmd, wnd, ts, sn, una, len)| Said {
        cmd,
        wnd,
        ts,
        sn,
        una,
        len: if cmd == PUSH { len } else { 0 },
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    let flaw = prop_oneof![
        12 => Just(Flaw::None),
        1 => (1..HEADER).prop_map(Flaw::Trailing),
        1 => (0..HEADER).prop_map(Flaw::Short),
        1 => any::<u32>().prop_map(Flaw::OtherConv),
        1 => any::<u8>().prop_map(Flaw::Command),
        1 => (1..u32::MAX / 2).prop_map(Flaw::Length),
    ];
    prop_oneof![
        8 => (vec(said(), 1..5), flaw).prop_map(|(said, flaw)| Deed::Packet(said, flaw)),
        2 => (0..2_000_usize).prop_map(Deed::Write),
        2 => (1..20_usize).prop_map(Deed::Read),
        4 => Just(Deed::Drain),
        1 => (0..3_000_u64).prop_map(Deed::Wait),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let mtu = prop_oneof![25..70_usize, Just(1_400)];
    (mtu, 1..40_u16, 1..12_u16, beginning()).prop_map(|(mtu, send_window, recv_window, initial_sn)| Config {
        mtu,
        send_window,
        recv_window,
        initial_sn,
        ..Config::default()
    })
}

/// What a chunk costs: no buffer is smaller than a full segment of a kcp-go peer.
fn cost(chunk: &[u8]) -> usize {
    match chunk.len() {
        ..=1_376 => 1_376,
        7_569..=15_136 => 15_136,
        odd => odd,
    }
}

struct Alone {
    now: Instant,
    kcp: Kcp,
    initial_sn: u32,
    window: i64,
    budget: usize,
    sending: Sending,
    /// Held for what comes before them, in no order.
    waiting: Vec<(i64, Vec<u8>)>,
    /// In order, unread.
    readable: Vec<Vec<u8>>,
    rcv_nxt: i64,
    /// Place, number and `ts` of all that came since the last answer and is to be acknowledged.
    arrived: Vec<(i64, u32, u32)>,
    question: bool,
    /// It was read since the last answer: the window may be worth telling.
    has_read: bool,
    stats: Stats,
    /// Bytes that the peer has made up so far.
    said: usize,
    /// Every payload is so many times as long.
    size: usize,
}

impl Alone {
    fn new(config: &Config, mode: Retransmission, size: usize) -> Self {
        let now = start();
        let mut kcp = Kcp::new(now, CONV, config.clone());
        kcp.set_retransmission(mode);
        Self {
            now,
            kcp,
            initial_sn: config.initial_sn,
            window: i64::from(config.recv_window),
            budget: 2 * 1500 * usize::from(config.recv_window),
            sending: Sending::new(0, now, config, mode),
            waiting: Vec::new(),
            readable: Vec::new(),
            rcv_nxt: 0,
            arrived: Vec::new(),
            question: false,
            has_read: false,
            stats: Stats::default(),
            said: 0,
            size,
        }
    }

    fn play(&mut self, deed: &Deed) {
        match deed {
            Deed::Packet(said, flaw) => self.packet(said, *flaw),
            Deed::Write(len) => self.sending.write(&mut self.kcp, *len),
            Deed::Read(chunks) => self.read(*chunks),
            Deed::Drain => self.drain(),
            Deed::Wait(time) => {
                self.now += ms(*time);
                self.sending.on_time(self.now);
                self.kcp.handle_timeout(self.now);
                assert!(self.kcp.poll_timeout().is_none_or(|due| due > self.now), "a timer that fired is not due");
            }
        }
        self.check();
    }

    fn place_of(&self, number: Number, next: i64, end: i64) -> i64 {
        match number {
            Number::Next(from) => next + from,
            Number::End(from) => end + from,
        }
    }

    fn packet(&mut self, said: &[Said], flaw: Flaw) {
        let (una, nxt) = (self.sending.una() as i64, self.sending.nxt() as i64);
        let mut packet = Vec::new();
        let mut segments = Vec::new();
        let mut last = 0;
        for said in said {
            let sn = match said.cmd {
                PUSH => self.place_of(said.sn, self.rcv_nxt, self.rcv_nxt + self.window),
                _ => self.place_of(said.sn, una, nxt),
            };
            let wire = |place: i64| self.initial_sn.wrapping_add(place as u32);
            // Every segment of the peer has other bytes, also when it has the number of an earlier one.
            let payload = bytes(1, self.said, said.len * self.size);
            self.said += payload.len();
            last = packet.len();
            let una = self.place_of(said.una, una, nxt);
            let seg =
                Seg { cmd: said.cmd, wnd: said.wnd, ts: said.ts, sn: wire(sn), una: wire(una), payload: &payload };
            encode(&seg, &mut packet);
            segments.push((said, wire(sn), wire(una), payload));
        }
        let expected = self.spoil(&mut packet, last, flaw);
        if let Err(error) = expected {
            self.stats.packets_malformed += 1;
            assert_eq!(self.kcp.handle_packet(self.now, &packet), Err(error));
            return;
        }
        self.stats.packets_received += 1;
        let mut heard = false;
        for (said, sn, una, payload) in segments {
            heard |= self.take_in(said, sn, una, payload);
        }
        assert_eq!(self.kcp.handle_packet(self.now, &packet), Ok(heard));
    }

    /// Makes the packet as wrong as `flaw` says, and tells what becomes of it.
    fn spoil(&self, packet: &mut Vec<u8>, last: usize, flaw: Flaw) -> Result<(), DecodeError> {
        match flaw {
            Flaw::None => {}
            Flaw::Trailing(count) => packet.resize(packet.len() + count, 0xff),
            Flaw::Short(len) => {
                packet.truncate(len);
                return Err(DecodeError::Short(len));
            }
            Flaw::OtherConv(found) => {
                packet[last..last + 4].copy_from_slice(&found.to_le_bytes());
                if found != CONV {
                    return Err(DecodeError::OtherConv { expected: CONV, found });
                }
            }
            Flaw::Command(command) => {
                if !(PUSH..=WINS).contains(&command) {
                    packet[last + 4] = command;
                    return Err(DecodeError::Command(command));
                }
            }
            Flaw::Length(more) => {
                let left = packet.len() - last - HEADER;
                let len = left as u32 + more;
                packet[last + 20..last + 24].copy_from_slice(&len.to_le_bytes());
                return Err(DecodeError::Length { len, left });
            }
        }
        Ok(())
    }

    /// The rules, for one segment. `true`: it can be.
    fn take_in(&mut self, said: &Said, sn: u32, una: u32, payload: Vec<u8>) -> bool {
        let nxt = self.sending.nxt() as i64;
        let una = place(self.initial_sn, nxt, una);
        if una > nxt {
            self.stats.dropped_wrong_una += 1;
            return false;
        }
        let number = sn;
        let sn = place(self.initial_sn, if said.cmd == PUSH { self.rcv_nxt } else { nxt }, number);
        match said.cmd {
            PUSH if payload.is_empty() => {
                self.stats.dropped_empty_push += 1;
                return false;
            }
            PUSH if sn >= self.rcv_nxt + self.window => {
                self.stats.dropped_beyond_window += 1;
                return false;
            }
            ACK if sn >= nxt => {
                self.stats.dropped_wrong_ack += 1;
                return false;
            }
            _ => {}
        }
        self.sending.on_una(self.now, una);
        self.sending.on_window(una, said.wnd);
        self.sending.on_heard();
        match said.cmd {
            PUSH => self.on_push((sn, number, said.ts), payload),
            ACK => {
                self.stats.acks_received += 1;
                self.sending.on_ack(sn, said.ts);
            }
            WASK => {
                self.stats.wask_received += 1;
                self.question = true;
            }
            _ => self.stats.wins_received += 1,
        }
        true
    }

    fn on_push(&mut self, arrival: (i64, u32, u32), payload: Vec<u8>) {
        let sn = arrival.0;
        if sn < self.rcv_nxt || self.waiting.iter().any(|(held, _)| *held == sn) {
            self.stats.duplicates += 1;
            self.arrived.push(arrival);
            return;
        }
        let held: usize = self.waiting.iter().map(|(_, chunk)| cost(chunk)).sum();
        let held = held + self.readable.iter().map(|chunk| cost(chunk)).sum::<usize>();
        // What all others wait for is taken all the same when there is nothing to read.
        if held >= self.budget && !(sn == self.rcv_nxt && self.readable.is_empty()) {
            self.stats.dropped_over_budget += 1;
            return;
        }
        self.stats.segments_received += 1;
        self.stats.bytes_received += payload.len() as u64;
        self.arrived.push(arrival);
        self.waiting.push((sn, payload));
        self.move_up();
    }

    fn move_up(&mut self) {
        while (self.readable.len() as i64) < self.window
            && let Some(found) = self.waiting.iter().position(|(sn, _)| *sn == self.rcv_nxt)
        {
            self.readable.push(self.waiting.swap_remove(found).1);
            self.rcv_nxt += 1;
        }
    }

    fn read(&mut self, chunks: usize) {
        for _ in 0..chunks {
            assert_eq!(self.kcp.peek(), self.readable.first().map(Vec::as_slice), "{}", self.rcv_nxt);
            if self.readable.is_empty() {
                return;
            }
            self.kcp.consume();
            self.has_read = true;
            self.readable.remove(0);
            self.move_up();
        }
    }

    fn drain(&mut self) {
        let mut packet = Vec::new();
        let (mut below, mut answers) = (0, 0);
        while self.kcp.poll_transmit(self.now, &mut packet) {
            for seg in parse(&packet) {
                assert_eq!(seg.una, self.initial_sn.wrapping_add(self.rcv_nxt as u32), "una");
                let unread: usize = self.readable.iter().map(|chunk| chunk.len().div_ceil(1_376)).sum();
                assert_eq!(i64::from(seg.wnd), (self.window - unread as i64).max(0), "wnd");
                match seg.cmd {
                    ACK => {
                        let arrival = self.arrived.iter().find(|(_, sn, ts)| (*sn, *ts) == (seg.sn, seg.ts)).copied();
                        let (sn, ..) = arrival.expect("what is acknowledged has come, with this ts");
                        if sn < self.rcv_nxt {
                            below += 1;
                        } else {
                            self.arrived.retain(|(arrived, ..)| *arrived != sn);
                        }
                    }
                    PUSH => {
                        let sn = place(self.initial_sn, self.sending.nxt() as i64, seg.sn);
                        self.sending.on_push(self.now, sn, seg.ts, seg.payload);
                    }
                    WINS => answers += 1,
                    _ => {}
                }
            }
            packet.clear();
        }
        assert!(self.arrived.iter().all(|(sn, ..)| *sn < self.rcv_nxt), "{:?} are not acknowledged", self.arrived);
        assert_eq!(below, usize::from(!self.arrived.is_empty()), "one ACK for all that una speaks for");
        let allowed = usize::from(self.question)..=usize::from(self.question || self.has_read);
        assert!(allowed.contains(&answers), "{answers} answers");
        self.arrived.clear();
        (self.question, self.has_read) = (false, false);
        self.sending.drained();
    }

    fn check(&mut self) {
        self.sending.check(&self.kcp, self.now, self.initial_sn);
        assert_eq!(self.kcp.rcv_nxt().value(), self.initial_sn.wrapping_add(self.rcv_nxt as u32), "rcv_nxt");
        assert_eq!(self.kcp.is_in_order(), self.readable.is_empty() && self.waiting.is_empty());
        assert_eq!(self.kcp.peek(), self.readable.first().map(Vec::as_slice));
        // What the engine counts on its own account is not at issue here.
        let mut stats = self.kcp.stats().clone();
        stats.packets_sent = 0;
        (stats.segments_sent, stats.bytes_sent, stats.bytes_resent) = (0, 0, 0);
        (stats.resent_timeout, stats.resent_overtaken, stats.resent_probe, stats.resent_resume) = (0, 0, 0, 0);
        (stats.acks_sent, stats.wask_sent, stats.wins_sent) = (0, 0, 0);
        (stats.rtt_samples, stats.rtt_implausible, stats.buffers_allocated) = (0, 0, 0);
        assert_eq!(stats, self.stats);
    }
}

proptest! {
    #![proptest_config(cases(12_000))]

    /// Whatever a peer says, true, old, impossible or malformed, has the effect that the rules give it and no other.
    #[test]
    fn an_engine_goes_by_the_rules_whatever_it_is_told(
        config in config(),
        mode in retransmission(),
        size in prop_oneof![4 => Just(1), 1 => Just(150_usize)],
        deeds in lines(deed(), 80),
    ) {
        let Lines(deeds) = deeds;
        let mut alone = Alone::new(&config, mode, size);
        for deed in &deeds {
            alone.play(deed);
        }
        alone.play(&Deed::Drain);
    }
}
