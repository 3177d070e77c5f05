//! Two sessions, and two byte streams between them that arrive in any pieces.

use std::time::Instant;

use proptest::prelude::*;
use turbotunnel_smux::Config;

use crate::end::End;
use crate::{Lines, cases, config, counter, length, lines, ms, start, version};

/// One end, and one way to it.
type Who = usize;
/// Which of the streams that an end ever had, counted from the latest and modulo how many there are.
type Which = usize;

#[derive(Clone, Debug)]
enum Deed {
    Open(Who),
    Accept(Who),
    Write(Who, Which, usize),
    Read(Who, Which, usize),
    Finish(Who, Which),
    FinishAll(Who),
    Close(Who, Which),
    Abort(Who, Which),
    /// Frames into so much room.
    Send(Who, usize),
    /// All frames, in rooms of that size.
    SendAll(Who, usize),
    /// So many bytes arrive in one piece, if there is room.
    Deliver(Who, usize),
    /// All bytes arrive, in pieces of that size, as long as there is room.
    DeliverAll(Who, usize),
    Wait(u64),
    Keepalive(Who, Option<u64>),
    Postpone(Who),
    RoundTrip(Who, u64),
    /// The peer's first window becomes known, or nothing that was not.
    PeerWindow(Who, bool),
    FinQuiet(Who, Option<u64>),
    StartQuiet(Who, Which),
    Alive(Who),
    Pause(Who),
    Resume(Who, u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let who = || 0..2_usize;
    let which = || prop_oneof![3 => 0..3_usize, 1 => any::<usize>()];
    let room = || prop_oneof![4 => Just(1_376_usize), 2 => 0..40_usize, 1 => Just(70_000)];
    let piece = || prop_oneof![1..20_usize, 1..3_000_usize, Just(usize::MAX)];
    prop_oneof![
        4 => who().prop_map(Deed::Open),
        4 => who().prop_map(Deed::Accept),
        10 => (who(), which(), length(400_000)).prop_map(|(who, which, len)| Deed::Write(who, which, len)),
        10 => (who(), which(), length(400_000)).prop_map(|(who, which, len)| Deed::Read(who, which, len)),
        3 => (who(), which()).prop_map(|(who, which)| Deed::Finish(who, which)),
        2 => (who(), which()).prop_map(|(who, which)| Deed::Close(who, which)),
        1 => (who(), which()).prop_map(|(who, which)| Deed::Abort(who, which)),
        10 => (who(), room()).prop_map(|(who, room)| Deed::Send(who, room)),
        6 => (who(), room()).prop_map(|(who, room)| Deed::SendAll(who, room)),
        10 => (who(), piece()).prop_map(|(to, len)| Deed::Deliver(to, len)),
        6 => (who(), piece()).prop_map(|(to, len)| Deed::DeliverAll(to, len)),
        4 => (0..2_000_u64).prop_map(Deed::Wait),
        6 => settings(),
    ]
}

fn settings() -> impl Strategy<Value = Deed> {
    let who = || 0..2_usize;
    let pause = || prop_oneof![Just(None), (0..3_000_u64).prop_map(Some)];
    prop_oneof![
        1 => who().prop_map(Deed::FinishAll),
        2 => (who(), pause()).prop_map(|(who, interval)| Deed::Keepalive(who, interval)),
        1 => who().prop_map(Deed::Postpone),
        3 => (who(), 0..1_000_u64).prop_map(|(who, rtt)| Deed::RoundTrip(who, rtt)),
        1 => (who(), any::<bool>()).prop_map(|(who, known)| Deed::PeerWindow(who, known)),
        4 => (who(), pause()).prop_map(|(who, quiet)| Deed::FinQuiet(who, quiet)),
        4 => (who(), 0..3_usize).prop_map(|(who, which)| Deed::StartQuiet(who, which)),
        4 => who().prop_map(Deed::Alive),
        1 => who().prop_map(Deed::Pause),
        2 => (who(), 0..5_000_u64).prop_map(|(who, gap)| Deed::Resume(who, gap)),
    ]
}

/// Little else than what holds a FIN and lets it go.
fn quiet_deed() -> impl Strategy<Value = Deed> {
    let who = || 0..2_usize;
    let which = || 0..2_usize;
    let quiet = prop_oneof![1 => Just(None), 4 => (50..300_u64).prop_map(Some)];
    prop_oneof![
        2 => who().prop_map(Deed::Open),
        2 => (who(), which(), 1..20_usize).prop_map(|(who, which, len)| Deed::Write(who, which, len)),
        2 => (who(), which(), 1..20_usize).prop_map(|(who, which, len)| Deed::Read(who, which, len)),
        3 => (who(), which()).prop_map(|(who, which)| Deed::Finish(who, which)),
        1 => (who(), which()).prop_map(|(who, which)| Deed::Close(who, which)),
        4 => who().prop_map(|who| Deed::SendAll(who, 1_376)),
        4 => (who(), prop_oneof![Just(usize::MAX), 1..20_usize]).prop_map(|(to, len)| Deed::Deliver(to, len)),
        6 => (0..200_u64).prop_map(Deed::Wait),
        2 => (who(), quiet).prop_map(|(who, quiet)| Deed::FinQuiet(who, quiet)),
        4 => (who(), which()).prop_map(|(who, which)| Deed::StartQuiet(who, which)),
        4 => who().prop_map(Deed::Alive),
        1 => who().prop_map(Deed::Pause),
        2 => (who(), 0..500_u64).prop_map(|(who, gap)| Deed::Resume(who, gap)),
    ]
}

fn configs() -> impl Strategy<Value = [Config; 2]> {
    (version(), counter()).prop_flat_map(|(version, counter)| [config(version, counter), config(version, counter)])
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    /// Bytes on their way to each.
    wire: [Vec<u8>; 2],
    first_windows: [u32; 2],
}

impl Pair {
    fn new(configs: [Config; 2]) -> Self {
        let now = start();
        let first_windows = [configs[0].initial_window, configs[1].initial_window];
        let [client, server] = configs;
        let ends = [End::new(0, now, client), End::new(1, now, server)];
        Self { now, ends, wire: [Vec::new(), Vec::new()], first_windows }
    }

    fn play(&mut self, deed: &Deed) {
        match *deed {
            Deed::Open(who) => drop(self.ends[who].open()),
            Deed::Accept(who) => drop(self.ends[who].accept()),
            Deed::Write(who, which, len) => self.with(who, which, |end, id| end.write(id, len)),
            Deed::Read(who, which, len) => self.with(who, which, |end, id| end.read(id, len)),
            Deed::Finish(who, which) => self.with(who, which, End::finish),
            Deed::FinishAll(who) => self.ends[who].finish_all(),
            Deed::Close(who, which) => self.with(who, which, End::close),
            Deed::Abort(who, which) => self.with(who, which, End::abort),
            Deed::Send(who, room) => drop(self.send(who, room)),
            Deed::SendAll(who, room) => while self.send(who, room) {},
            Deed::Deliver(to, len) => drop(self.deliver(to, len)),
            Deed::DeliverAll(to, len) => while self.deliver(to, len) {},
            Deed::Wait(time) => {
                self.now += ms(time);
                for end in &mut self.ends {
                    end.wait_until(self.now);
                }
            }
            Deed::Keepalive(who, interval) => self.ends[who].set_keepalive(interval.map(ms)),
            Deed::Postpone(who) => self.ends[who].postpone_keepalive(),
            Deed::RoundTrip(who, rtt) => self.ends[who].set_rtt(ms(rtt)),
            Deed::PeerWindow(who, known) => {
                let window = if known { self.first_windows[1 - who] } else { 0 };
                self.ends[who].set_peer_window(window);
            }
            Deed::FinQuiet(who, quiet) => self.ends[who].set_fin_quiet(quiet.map(ms)),
            Deed::StartQuiet(who, which) => self.with(who, which, End::start_fin_quiet),
            Deed::Alive(who) => self.ends[who].handle_alive(),
            Deed::Pause(who) => self.ends[who].pause_fin_quiet(),
            Deed::Resume(who, gap) => self.ends[who].resume_fin_quiet(ms(gap)),
        }
        self.ends.iter_mut().for_each(End::check);
    }

    fn with(&mut self, who: Who, which: Which, deed: impl FnOnce(&mut End, u32)) {
        let ids = self.ends[who].ids();
        if !ids.is_empty() {
            deed(&mut self.ends[who], ids[ids.len() - 1 - which % ids.len()]);
        }
    }

    /// `false`: there was nothing to send.
    fn send(&mut self, who: Who, room: usize) -> bool {
        let frames = self.ends[who].poll(room);
        self.wire[1 - who].extend(&frames);
        !frames.is_empty()
    }

    /// `false`: nothing is on its way, or there is no room for it.
    fn deliver(&mut self, to: Who, len: usize) -> bool {
        if self.wire[to].is_empty() || !self.ends[to].has_room() {
            return false;
        }
        let rest = self.wire[to].split_off(len.min(self.wire[to].len()));
        let piece = std::mem::replace(&mut self.wire[to], rest);
        self.ends[to].take_in(std::iter::once(&piece[..])).expect("our own frames");
        true
    }

    /// Everybody reads and finishes. Whatever was written to a stream that both ends kept arrives, and its end; then all are let go, and
    /// nothing remains.
    fn calm_down(&mut self) {
        for who in 0..2 {
            self.play(&Deed::Keepalive(who, None));
            self.play(&Deed::FinQuiet(who, None));
        }
        self.exchange();
        for who in 0..2 {
            for id in self.ends[who].ids() {
                let Some((_, read, end_told)) = self.ends[who].account(id) else { continue };
                let peer = &self.ends[1 - who];
                // A stream that was refused has no other end.
                let Some(sent) = peer.sent(id) else { continue };
                assert_eq!((read, end_told), (sent, true), "{id}: what was read of what was sent, and the end");
                if let Some((written, ..)) = peer.account(id) {
                    assert_eq!(read, written, "{id}: what was read of what was written");
                }
            }
        }
        for end in &mut self.ends {
            end.abort_all();
        }
        self.exchange();
        for end in &self.ends {
            end.assert_idle();
        }
    }

    fn exchange(&mut self) {
        loop {
            let mut moved = false;
            for end in &mut self.ends {
                end.read_all();
                end.finish_all();
                end.check();
            }
            for who in 0..2 {
                while self.send(who, 1_376) {
                    moved = true;
                }
                while self.deliver(1 - who, usize::MAX) {
                    moved = true;
                }
                self.ends.iter_mut().for_each(End::check);
            }
            if !moved {
                break;
            }
        }
        assert!(self.wire.iter().all(Vec::is_empty), "bytes that nobody takes in");
    }
}

proptest! {
    #![proptest_config(cases(3_000))]

    /// Every byte arrives once and in order, in its stream; all that can be sent is sent, and all that happened is told.
    #[test]
    fn two_sessions_keep_their_promises(configs in configs(), deeds in lines(deed(), 120)) {
        let Lines(deeds) = deeds;
        let mut pair = Pair::new(configs);
        for deed in &deeds {
            pair.play(deed);
        }
        pair.calm_down();
    }

    /// A FIN that is held goes when the stream has been silent for long enough while it could have spoken, and not before.
    #[test]
    fn a_held_fin_waits_for_silence_that_means_something(deeds in lines(quiet_deed(), 80)) {
        let Lines(deeds) = deeds;
        let mut pair = Pair::new([Config::default(), Config::default()]);
        for deed in [Deed::Open(0), Deed::FinQuiet(0, Some(100)), Deed::FinQuiet(1, Some(100))].iter().chain(&deeds) {
            pair.play(deed);
        }
        pair.calm_down();
    }
}
