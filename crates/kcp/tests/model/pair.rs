//! Two engines, and a path between them on which anything can happen to a packet.

use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use turbotunnel_kcp::{Config, Kcp, Resume, Retransmission, Sn};

use crate::sending::Sending;
use crate::{ACK, CONV, PUSH, WASK, WINS, beginning, byte, cases, lines, ms, parse, place, retransmission, start};

/// One end, and one way to it.
type Who = usize;

#[derive(Clone, Debug)]
enum Deed {
    Write(Who, usize),
    Fill(Who, usize),
    /// Reads so many chunks.
    Read(Who, usize),
    /// Gives out so many packets.
    Send(Who, usize),
    /// The packet at a place in the air arrives, if there is one; the place is taken modulo how many there are.
    Deliver(Who, usize),
    /// It arrives and will once more.
    Double(Who, usize),
    Lose(Who, usize),
    /// All that is in the air arrives, in order.
    DeliverAll(Who),
    Wait(u64),
    /// To the next timer of either.
    WaitForTimer,
    /// The carrier dies for both, with all that is on it.
    Cut,
    Suspend(Who),
    Resume(Who, Resume),
    /// `una` comes another way: the truth, or so much more or less.
    Tell(Who, i64),
    Announce(Who, u16),
    Ask(Who),
    Mode(Who, Retransmission),
    RoundTrip(Who, u64),
    /// From now on it takes what comes in order at once, or no longer.
    Eager(Who, bool),
    Room(Who, u16),
}

fn deed() -> impl Strategy<Value = Deed> {
    let who = || 0..2_usize;
    let how = prop_oneof![Just(Resume::Now), Just(Resume::AfterUna), Just(Resume::AfterFirst)];
    let wrong_by = prop_oneof![4 => Just(0), 1 => -40..40_i64];
    prop_oneof![
        8 => (who(), 0..3_000_usize).prop_map(|(who, len)| Deed::Write(who, len)),
        2 => (who(), prop_oneof![Just(0), 0..200_usize]).prop_map(|(who, len)| Deed::Fill(who, len)),
        4 => (who(), 1..30_usize).prop_map(|(who, chunks)| Deed::Read(who, chunks)),
        12 => (who(), 1..12_usize).prop_map(|(who, packets)| Deed::Send(who, packets)),
        12 => (who(), any::<usize>()).prop_map(|(to, index)| Deed::Deliver(to, index)),
        3 => (who(), any::<usize>()).prop_map(|(to, index)| Deed::Double(to, index)),
        4 => (who(), any::<usize>()).prop_map(|(to, index)| Deed::Lose(to, index)),
        4 => who().prop_map(Deed::DeliverAll),
        4 => (0..3_000_u64).prop_map(Deed::Wait),
        2 => Just(Deed::WaitForTimer),
        1 => Just(Deed::Cut),
        1 => who().prop_map(Deed::Suspend),
        3 => (who(), how).prop_map(|(who, how)| Deed::Resume(who, how)),
        2 => (who(), wrong_by).prop_map(|(who, wrong_by)| Deed::Tell(who, wrong_by)),
        1 => (who(), 0..40_u16).prop_map(|(who, segments)| Deed::Announce(who, segments)),
        1 => who().prop_map(Deed::Ask),
        1 => (who(), retransmission()).prop_map(|(who, mode)| Deed::Mode(who, mode)),
        1 => (who(), 0..500_u64).prop_map(|(who, rtt)| Deed::RoundTrip(who, rtt)),
        1 => (who(), any::<bool>()).prop_map(|(who, eager)| Deed::Eager(who, eager)),
        1 => (who(), 0..60_u16).prop_map(|(who, segments)| Deed::Room(who, segments)),
    ]
}

fn config(initial_sn: u32) -> impl Strategy<Value = Config> {
    let mtu = prop_oneof![25..70_usize, Just(200), Just(1_400), Just(4_000)];
    let recv_window = prop_oneof![1..6_u16, 1..48_u16];
    let initial_flight = prop_oneof![Just(64 << 10), 0..20_000_usize, Just(0)];
    (mtu, 1..48_u16, recv_window, initial_flight, beginning()).prop_map(
        move |(mtu, send_window, recv_window, initial_flight, initial_ts_ms)| Config {
            mtu,
            send_window,
            recv_window,
            initial_flight,
            initial_sn,
            initial_ts_ms,
            ..Config::default()
        },
    )
}

fn configs() -> impl Strategy<Value = [Config; 2]> {
    beginning().prop_flat_map(|initial_sn| [config(initial_sn), config(initial_sn)])
}

/// One engine and what is known of it. Segments are counted from 0.
struct End {
    kcp: Kcp,
    initial_sn: u32,
    mtu: usize,
    recv_window: usize,
    sending: Sending,
    /// Arrived, but something before it has not, or there was no room.
    out_of_order: BTreeSet<usize>,
    rcv_nxt: usize,
    read: usize,
    /// Whoever is above takes what is next in order as it comes, and these are its bytes.
    taken: Option<Vec<u8>>,
    announced: usize,
    room: usize,
    /// Arrived and not yet acknowledged since.
    unanswered: BTreeSet<usize>,
    question: bool,
    /// The window's end as the peer was told last.
    told_edge: usize,
    /// Or may have been told: it died with a carrier, or what was read since makes a difference.
    worth_telling: bool,
    wins_owed: bool,
    /// What a new carrier begins with, because it may have died on the old one: a question, and an answer.
    must_ask: bool,
    must_tell: bool,
    segments_received: u64,
    duplicates: u64,
    beyond_window: u64,
}

impl End {
    fn new(who: Who, now: Instant, config: &Config, mode: Retransmission) -> Self {
        let mut kcp = Kcp::new(now, CONV, config.clone());
        kcp.set_retransmission(mode);
        let recv_window = usize::from(config.recv_window);
        Self {
            kcp,
            initial_sn: config.initial_sn,
            mtu: config.mtu,
            recv_window,
            sending: Sending::new(who, now, config, mode),
            out_of_order: BTreeSet::new(),
            rcv_nxt: 0,
            read: 0,
            taken: None,
            announced: recv_window,
            room: recv_window,
            unanswered: BTreeSet::new(),
            question: false,
            told_edge: recv_window,
            worth_telling: false,
            wins_owed: false,
            must_ask: false,
            must_tell: false,
            segments_received: 0,
            duplicates: 0,
            beyond_window: 0,
        }
    }

    fn unread(&self) -> usize {
        self.rcv_nxt - self.read
    }

    fn wnd(&self) -> usize {
        self.room.saturating_sub(self.unread()).min(self.announced)
    }

    fn place(&self, near: usize, sn: u32) -> usize {
        usize::try_from(place(self.initial_sn, near as i64, sn)).expect("our peer counts from the same number")
    }

    fn note_room(&mut self) {
        // A quarter of it is worth a packet.
        self.worth_telling |= self.told_edge < self.rcv_nxt + (self.room / 4).max(1);
    }

    fn advance(&mut self) {
        while self.unread() < self.recv_window && self.out_of_order.remove(&self.rcv_nxt) {
            self.rcv_nxt += 1;
        }
    }

    fn take_in(&mut self, now: Instant, packet: &[u8]) {
        let mut heard = false;
        let progress = self.sending.progress();
        for seg in parse(packet) {
            let una = self.place(self.sending.una(), seg.una);
            assert!(una <= self.sending.nxt(), "the peer has what was never sent");
            let sn = match seg.cmd {
                PUSH => self.place(self.rcv_nxt, seg.sn),
                ACK => self.place(una, seg.sn),
                _ => 0,
            };
            if seg.cmd == PUSH && sn >= self.rcv_nxt + self.recv_window {
                self.beyond_window += 1;
                continue;
            }
            heard = true;
            self.sending.on_una(now, una as i64);
            self.sending.on_window(una as i64, seg.wnd);
            match seg.cmd {
                PUSH => {
                    self.unanswered.insert(sn);
                    if sn < self.rcv_nxt || !self.out_of_order.insert(sn) {
                        self.duplicates += 1;
                    } else {
                        self.segments_received += 1;
                        if self.taken.is_some() && sn == self.rcv_nxt && self.unread() == 0 {
                            self.out_of_order.remove(&sn);
                            self.rcv_nxt += 1;
                            self.read += 1;
                        }
                        self.advance();
                    }
                }
                ACK => self.sending.on_ack(sn as i64, seg.ts),
                WASK => self.question = true,
                _ => self.wins_owed = false,
            }
        }
        if heard {
            self.sending.on_heard();
        }
        let eager = &mut self.taken;
        let offered = |bytes: &[u8]| eager.as_mut().map(|taken| taken.extend_from_slice(bytes)).is_some();
        assert_eq!(self.kcp.handle_packet_with(now, packet, offered), Ok(heard));
        if self.sending.progress() > progress && self.sending.waits_for_acknowledgements() {
            let first_wait = self.kcp.rto().max(ms(1_000) + 4 * self.kcp.srtt().unwrap_or_default());
            let due = self.kcp.poll_timeout();
            assert!(due.is_some_and(|due| due <= now + first_wait), "a backoff goes on in spite of progress");
        }
    }

    /// The next packet, if there is one.
    fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        let wanted = self.kcp.wants_transmit(now);
        let only_acks = self.kcp.only_acks_waiting(now).is_some();
        let mut out = b"kept".to_vec();
        assert_eq!(self.kcp.poll_transmit(now, &mut out), wanted, "wants_transmit tells whether there is a packet");
        assert_eq!(out[..4], *b"kept");
        let packet = out.split_off(4);
        if !wanted {
            assert!(packet.is_empty());
            self.drained();
            return None;
        }
        assert!(packet.len() <= self.mtu, "{} bytes", packet.len());
        let mut rank = 0;
        for seg in parse(&packet) {
            assert_eq!(seg.una, self.initial_sn.wrapping_add(self.rcv_nxt as u32), "una");
            assert_eq!(usize::from(seg.wnd), self.wnd(), "wnd");
            let rank_before = rank;
            rank = match seg.cmd {
                ACK => {
                    let sn = self.place(self.rcv_nxt, seg.sn);
                    assert!(self.unanswered.remove(&sn), "{sn} is acknowledged and did not come");
                    if sn < self.rcv_nxt {
                        // `una` speaks for all the others below.
                        self.unanswered = self.unanswered.split_off(&self.rcv_nxt);
                    }
                    0
                }
                WASK => {
                    (self.wins_owed, self.must_ask) = (true, false);
                    1
                }
                WINS => {
                    assert!(self.question || self.worth_telling, "nobody asked, and nothing new is to be told");
                    (self.question, self.worth_telling, self.must_tell) = (false, false, false);
                    2
                }
                _ => {
                    let sn = place(self.initial_sn, self.sending.nxt() as i64, seg.sn);
                    3 + u8::from(self.sending.on_push(now, sn, seg.ts, seg.payload))
                }
            };
            assert!(rank >= rank_before, "acknowledgements, then what goes again, then new data");
        }
        assert!(!only_acks || rank == 0, "only acknowledgements waited");
        self.told_edge = self.rcv_nxt + self.wnd();
        Some(packet)
    }

    /// There is nothing more to send: whatever is owed has been sent.
    fn drained(&self) {
        if self.sending.suspended {
            return;
        }
        assert!(self.unanswered.is_empty(), "{:?} came and are not acknowledged", self.unanswered);
        assert!(!self.question, "a question without an answer");
        assert!(!self.must_ask, "a question may have died with a carrier");
        assert!(!self.must_tell, "a window may have died with a carrier");
        assert!(self.told_edge > self.rcv_nxt || self.wnd() == 0, "the peer thinks the window is closed");
        self.sending.drained();
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.sending.on_time(now);
        self.kcp.handle_timeout(now);
        assert!(self.kcp.poll_timeout().is_none_or(|due| due > now), "a timer that fired is not due");
    }

    fn resume(&mut self, now: Instant, how: Resume) {
        (self.wins_owed, self.worth_telling) = (false, true);
        self.must_ask |= self.sending.is_blocked_by_peer();
        self.must_tell |= self.told_edge < self.rcv_nxt + self.room / 2;
        self.sending.resume(how);
        self.kcp.resume(now, how);
    }

    fn check(&mut self, now: Instant) {
        self.sending.check(&self.kcp, now, self.initial_sn);
        assert_eq!(self.kcp.rcv_nxt().value(), self.initial_sn.wrapping_add(self.rcv_nxt as u32), "rcv_nxt");
        assert_eq!(self.kcp.is_in_order(), self.unread() == 0 && self.out_of_order.is_empty());
        assert_eq!(self.kcp.peek().is_some(), self.unread() > 0, "{} chunks are unread", self.unread());
        assert_eq!(self.kcp.owes_window(), self.wins_owed);
        let stats = self.kcp.stats();
        assert_eq!((stats.segments_received, stats.duplicates), (self.segments_received, self.duplicates));
        assert_eq!((stats.dropped(), stats.dropped_beyond_window), (self.beyond_window, self.beyond_window));
    }
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    /// On their way to each end, oldest first.
    air: [Vec<Vec<u8>>; 2],
    bytes_read: [usize; 2],
}

impl Pair {
    fn new(configs: &[Config; 2], modes: [Retransmission; 2]) -> Self {
        let now = start();
        let end = |who: Who| End::new(who, now, &configs[who], modes[who]);
        Self { now, ends: [end(0), end(1)], air: [Vec::new(), Vec::new()], bytes_read: [0, 0] }
    }

    fn play(&mut self, deed: &Deed) {
        let now = self.now;
        match *deed {
            Deed::Write(who, len) => {
                let end = &mut self.ends[who];
                end.sending.write(&mut end.kcp, len);
            }
            Deed::Fill(who, len) => {
                let end = &mut self.ends[who];
                end.sending.fill(&mut end.kcp, len);
            }
            Deed::Read(who, chunks) => self.read(who, chunks),
            Deed::Send(who, packets) => self.send(who, packets),
            Deed::Deliver(to, index) if !self.air[to].is_empty() => {
                let packet = self.take_off(to, index);
                self.arrive(to, &packet);
            }
            Deed::Double(to, index) if !self.air[to].is_empty() => {
                let packet = self.air[to][index % self.air[to].len()].clone();
                self.arrive(to, &packet);
            }
            Deed::Lose(to, index) if !self.air[to].is_empty() => drop(self.take_off(to, index)),
            Deed::Deliver(..) | Deed::Double(..) | Deed::Lose(..) => {}
            Deed::DeliverAll(to) => self.deliver_all(to),
            Deed::Wait(time) => self.wait_until(now + ms(time)),
            Deed::WaitForTimer => {
                if let Some(due) = self.next_timer() {
                    self.wait_until(due.max(now));
                }
            }
            Deed::Cut => {
                self.air = [Vec::new(), Vec::new()];
                for who in 0..2 {
                    self.suspend(who);
                }
            }
            Deed::Suspend(who) => self.suspend(who),
            Deed::Resume(who, how) => self.ends[who].resume(now, how),
            Deed::Tell(who, wrong_by) => self.tell(who, wrong_by),
            Deed::Announce(who, segments) => {
                let end = &mut self.ends[who];
                end.announced = usize::from(segments).clamp(1, end.recv_window);
                end.kcp.announce_at_most(segments);
            }
            Deed::Ask(who) => self.ends[who].kcp.ask_window(),
            Deed::Mode(who, mode) => {
                self.ends[who].sending.set_mode(mode);
                self.ends[who].kcp.set_retransmission(mode);
            }
            Deed::RoundTrip(who, rtt) => self.ends[who].kcp.handle_rtt(ms(rtt)),
            Deed::Room(who, segments) => {
                let end = &mut self.ends[who];
                end.room = usize::from(segments).clamp(32.min(end.recv_window), end.recv_window);
                end.kcp.set_recv_room(segments);
                end.note_room();
            }
            Deed::Eager(who, eager) => self.ends[who].taken = eager.then(Vec::new),
        }
        self.check();
    }

    fn arrive(&mut self, to: Who, packet: &[u8]) {
        self.ends[to].take_in(self.now, packet);
        let taken = self.ends[to].taken.as_mut().map(std::mem::take).unwrap_or_default();
        let wrong = (self.bytes_read[to]..).zip(&taken).find(|&(at, &found)| found != byte(1 - to, at));
        assert_eq!(wrong, None, "the first byte taken that does not belong there");
        self.bytes_read[to] += taken.len();
    }

    fn take_off(&mut self, to: Who, index: usize) -> Vec<u8> {
        let index = index % self.air[to].len();
        self.air[to].remove(index)
    }

    fn read(&mut self, who: Who, chunks: usize) {
        for _ in 0..chunks {
            let at = self.ends[who].read;
            let Some(chunk) = self.ends[who].kcp.peek() else { break };
            assert!(self.ends[who].unread() > 0, "there is nothing to read");
            let (offset, len) = self.ends[1 - who].sending.range(at);
            assert_eq!((offset, chunk.len()), (self.bytes_read[who], len), "chunk {at}");
            let wrong = (offset..).zip(chunk).find(|&(at, &found)| found != byte(1 - who, at));
            assert_eq!(wrong, None, "the first byte that does not belong there");
            self.bytes_read[who] += len;
            let end = &mut self.ends[who];
            end.kcp.consume();
            end.read += 1;
            end.advance();
            end.note_room();
        }
    }

    fn send(&mut self, who: Who, packets: usize) {
        for _ in 0..packets {
            let Some(packet) = self.ends[who].poll(self.now) else { break };
            self.air[1 - who].push(packet);
        }
    }

    fn deliver_all(&mut self, to: Who) {
        for packet in std::mem::take(&mut self.air[to]) {
            self.arrive(to, &packet);
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        self.ends.iter().filter_map(|end| end.kcp.poll_timeout()).min()
    }

    fn wait_until(&mut self, now: Instant) {
        self.now = now;
        for end in &mut self.ends {
            end.handle_timeout(now);
        }
    }

    fn suspend(&mut self, who: Who) {
        self.ends[who].sending.suspended = true;
        self.ends[who].kcp.suspend();
    }

    fn tell(&mut self, who: Who, wrong_by: i64) {
        let una = self.ends[1 - who].rcv_nxt as i64 + wrong_by;
        let end = &mut self.ends[who];
        let can_be = (end.sending.una() as i64..=end.sending.nxt() as i64).contains(&una);
        // A number that was never sent is what a peer says that is not ours; one that is merely wrong would be believed.
        let una = if wrong_by > 0 && can_be { end.sending.nxt() as i64 + wrong_by } else { una };
        let can_be = can_be && wrong_by <= 0;
        if can_be {
            end.sending.on_una_from_elsewhere(self.now, una);
        }
        let told = Sn::new(end.initial_sn.wrapping_add(una as u32));
        let samples = end.kcp.stats().rtt_samples;
        assert_eq!(end.kcp.handle_una(self.now, told), can_be, "{una}");
        assert_eq!(end.kcp.stats().rtt_samples, samples, "it is no round trip");
    }

    fn check(&mut self) {
        for end in &mut self.ends {
            end.check(self.now);
        }
    }

    /// Everybody reads, and nothing is lost any more, or all that is sent now and then no more. What was written arrives, and so do so
    /// many segments more.
    fn calm_down(&mut self, more: [usize; 2], last_loss: bool) {
        let mut progress = (self.now, self.bytes_read);
        let mut more = more.map(|segments| segments * self.ends[0].mtu.min(self.ends[1].mtu));
        for who in 0..2 {
            if self.ends[who].sending.suspended {
                self.play(&Deed::Resume(who, Resume::Now));
            }
            if last_loss {
                self.play(&Deed::Read(who, usize::MAX));
                self.play(&Deed::Send(who, usize::MAX));
                self.air[1 - who].clear();
            }
        }
        loop {
            for (who, more) in more.iter_mut().enumerate() {
                let before = self.ends[who].sending.written();
                self.play(&Deed::Write(who, *more));
                *more -= self.ends[who].sending.written() - before;
                self.play(&Deed::Read(who, usize::MAX));
                self.play(&Deed::Send(who, usize::MAX));
            }
            let next = if self.air.iter().all(Vec::is_empty) { self.next_timer() } else { Some(self.now + ms(10)) };
            let Some(next) = next else { break };
            self.wait_until(next.max(self.now));
            for who in 0..2 {
                self.play(&Deed::DeliverAll(who));
            }
            if progress.1 != self.bytes_read {
                progress = (self.now, self.bytes_read);
            }
            // The longest that a segment waits to be sent again, twice.
            let slowest = self.ends.iter().filter_map(|end| end.kcp.srtt()).max().unwrap_or_default();
            let patience = 2 * (ms(1_000) + 4 * slowest).max(ms(5_000)) + ms(1_000);
            assert!(self.now - progress.0 < patience, "nothing has arrived for {patience:?}");
        }
        assert_eq!(more, [0, 0], "still to be written, and nothing happens");
        for who in 0..2 {
            assert_eq!(self.bytes_read[who], self.ends[1 - who].sending.written(), "read by {who}");
            let kcp = &self.ends[who].kcp;
            assert!(kcp.all_acknowledged() && kcp.is_in_order());
        }
    }
}

proptest! {
    #![proptest_config(cases(8_000))]

    /// Every byte arrives once and in order, nothing goes again without a reason, and whatever is owed is sent at once.
    #[test]
    fn two_engines_keep_their_promises_on_any_path(
        configs in configs(),
        modes in [retransmission(), retransmission()],
        deeds in lines(deed(), 150),
        more in [prop_oneof![Just(0), 0..40_usize], prop_oneof![Just(0), 0..40_usize]],
        last_loss in any::<bool>(),
    ) {
        let mut pair = Pair::new(&configs, modes);
        for deed in &deeds.0 {
            pair.play(deed);
        }
        pair.calm_down(more, last_loss);
    }
}
