//! One session and a peer that says anything: whatever is a frame has the effect that it must have, and what is none ends the session.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use turbotunnel_smux::{Config, ProtocolError, Version};

use crate::end::End;
use crate::{FIN, Frame, Lines, NOP, PSH, SYN, UPD};
use crate::{bytes, cases, config, counter, length, lines, ms, start, version};

/// The stream that a frame is about.
#[derive(Clone, Copy, Debug)]
enum Id {
    /// One that there was, counted from the latest.
    Old(usize),
    /// Any, of whichever side.
    Any(u32),
}

#[derive(Clone, Debug)]
enum Said {
    Syn(Id),
    /// So many of them, for streams that there never were.
    Syns(u32),
    Fin(Id),
    /// Data, and so many bytes.
    Psh(Id, usize),
    /// As much as the window takes, and so many bytes more or less.
    PshToEdge(Id, i64),
    Nop,
    /// So much of what is in flight is consumed, and the window from there.
    Upd(Id, i64, u32),
}

/// What is wrong with the last frame.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    Version(u8),
    Command(u8),
    Length(u16),
}

#[derive(Clone, Debug)]
enum Deed {
    /// Frames, the pieces in which they come, and what is wrong.
    Frames(Vec<Said>, Vec<usize>, Option<Flaw>),
    Open,
    Accept,
    Write(usize, usize),
    Read(usize, usize),
    Finish(usize),
    Close(usize),
    Abort(usize),
    Send(usize),
    Wait(u64),
    /// The window that the peer's streams begin with is announced.
    PeerWindow(u32),
}

fn id() -> impl Strategy<Value = Id> {
    prop_oneof![6 => (0..4_usize).prop_map(Id::Old), 3 => (0..12_u32).prop_map(Id::Any), 1 => any::<u32>().prop_map(Id::Any)]
}

fn said() -> impl Strategy<Value = Said> {
    let consumed =
        prop_oneof![4 => 0..100_i64, 2 => -3..4_000_i64, 2 => Just(i64::MAX), 1 => any::<u32>().prop_map(i64::from)];
    let window = prop_oneof![6 => 0..3_000_u32, 2 => 250_000..400_000_u32, 1 => any::<u32>()];
    prop_oneof![
        16 => id().prop_map(Said::Syn),
        1 => (0..800_u32).prop_map(Said::Syns),
        8 => id().prop_map(Said::Fin),
        32 => (id(), length(65_535)).prop_map(|(id, len)| Said::Psh(id, len)),
        8 => (id(), 50_000..=65_535_usize).prop_map(|(id, len)| Said::Psh(id, len)),
        8 => (id(), -3..3_i64).prop_map(|(id, more)| Said::PshToEdge(id, more)),
        4 => Just(Said::Nop),
        20 => (id(), consumed, window).prop_map(|(id, consumed, window)| Said::Upd(id, consumed, window)),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let which = || 0..4_usize;
    let pieces = prop_oneof![vec(1..20_usize, 0..6), vec(1..70_000_usize, 0..3)];
    let flaw = prop_oneof![
        any::<u8>().prop_map(Flaw::Version),
        any::<u8>().prop_map(Flaw::Command),
        any::<u16>().prop_map(Flaw::Length)
    ];
    let flaw = prop_oneof![60 => Just(None), 1 => flaw.prop_map(Some)];
    let room = prop_oneof![2 => Just(70_000_usize), 1 => 0..40_usize, 1 => Just(1_376)];
    prop_oneof![
        10 => (vec(said(), 1..6), pieces, flaw).prop_map(|(said, pieces, flaw)| Deed::Frames(said, pieces, flaw)),
        1 => Just(Deed::Open),
        2 => Just(Deed::Accept),
        6 => (which(), length(600_000)).prop_map(|(which, len)| Deed::Write(which, len)),
        6 => (which(), length(600_000)).prop_map(|(which, len)| Deed::Read(which, len)),
        1 => which().prop_map(Deed::Finish),
        1 => which().prop_map(Deed::Close),
        1 => which().prop_map(Deed::Abort),
        8 => room.prop_map(Deed::Send),
        1 => (0..2_000_u64).prop_map(Deed::Wait),
        1 => prop_oneof![0..600_000_u32, any::<u32>()].prop_map(Deed::PeerWindow),
    ]
}

struct Alone {
    now: Instant,
    end: End,
    who: usize,
    version: Version,
    failed: Option<ProtocolError>,
}

impl Alone {
    fn new(who: usize, config: Config) -> Self {
        let (now, version) = (start(), config.version);
        Self { now, end: End::new(who, now, config), who, version, failed: None }
    }

    fn play(&mut self, deed: &Deed) {
        match deed {
            Deed::Frames(said, pieces, flaw) => self.frames(said, pieces, *flaw),
            Deed::Open => drop(self.end.open()),
            Deed::Accept => drop(self.end.accept()),
            Deed::Write(which, len) => self.end.write(self.id(Id::Old(*which)), *len),
            Deed::Read(which, len) => self.end.read(self.id(Id::Old(*which)), *len),
            Deed::Finish(which) => self.end.finish(self.id(Id::Old(*which))),
            Deed::Close(which) => self.end.close(self.id(Id::Old(*which))),
            Deed::Abort(which) => self.end.abort(self.id(Id::Old(*which))),
            Deed::Send(room) => drop(self.end.poll(*room)),
            Deed::Wait(time) => {
                self.now += ms(*time);
                self.end.wait_until(self.now);
            }
            Deed::PeerWindow(window) => self.end.set_peer_window(*window),
        }
        self.end.check();
    }

    fn id(&self, id: Id) -> u32 {
        match id {
            Id::Any(id) => id,
            Id::Old(which) => self.end.ids().iter().rev().nth(which).copied().unwrap_or(which as u32),
        }
    }

    fn frames(&mut self, said: &[Said], pieces: &[usize], flaw: Option<Flaw>) {
        for (index, said) in said.iter().enumerate() {
            let mut frame = self.encode(said);
            if frame.is_empty() {
                continue;
            }
            if index == 0
                && let Some(flaw) = flaw
            {
                match flaw {
                    Flaw::Version(version) => frame[0] = version,
                    Flaw::Command(command) => frame[1] = command,
                    Flaw::Length(length) => frame[2..4].copy_from_slice(&length.to_le_bytes()),
                }
                // Whatever the frame is now, there are bytes enough for it.
                frame.resize(8 + usize::from(u16::from_le_bytes([frame[2], frame[3]])), 0);
                if self.is_data_for_somebody(&frame) {
                    continue;
                }
            }
            let mut rest = &frame[..];
            let mut lengths = pieces.iter();
            let pieces = std::iter::from_fn(|| {
                let (piece, later) = rest.split_at(rest.len().min(lengths.next().copied().unwrap_or(usize::MAX)));
                rest = later;
                Some(piece).filter(|piece| !piece.is_empty())
            });
            let result = self.end.take_in(pieces);
            match self.failed {
                Some(error) => assert_eq!(result, Err(error), "over is over"),
                None => self.failed = result.err(),
            }
        }
    }

    /// What was made up has no place in a stream's bytes.
    fn is_data_for_somebody(&self, frame: &[u8]) -> bool {
        frame[1] == PSH && frame[0] == self.version as u8
    }

    /// In frames as large as frames can be.
    fn data(&self, id: u32, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in bytes(1 - self.who, id, self.end.announced(id), len).chunks(65_535) {
            Frame { version: self.version as u8, cmd: PSH, id, payload }.encode(&mut out);
        }
        out
    }

    fn encode(&self, said: &Said) -> Vec<u8> {
        let (cmd, id, payload) = match *said {
            Said::Syn(id) => (SYN, self.id(id), Vec::new()),
            Said::Syns(count) => {
                let mut out = Vec::new();
                for id in (1 << 20)..(1 << 20) + count {
                    Frame { version: self.version as u8, cmd: SYN, id, payload: b"" }.encode(&mut out);
                }
                return out;
            }
            Said::Fin(id) => (FIN, self.id(id), Vec::new()),
            Said::Psh(id, len) => {
                let id = self.id(id);
                (PSH, id, bytes(1 - self.who, id, self.end.announced(id), len))
            }
            Said::PshToEdge(id, more) => {
                let id = self.id(id);
                let len = self.end.window_left(id) as i64 + more;
                return self.data(id, usize::try_from(len).unwrap_or(0));
            }
            Said::Nop => (NOP, 0, Vec::new()),
            // Version 1 has none, and would end with the first.
            Said::Upd(..) if self.version == Version::V1 => (NOP, 0, Vec::new()),
            Said::Upd(id, consumed, window) => {
                let id = self.id(id);
                let (known, in_flight) = self.end.in_flight(id);
                let consumed = if consumed == i64::MAX { i64::from(in_flight) } else { consumed };
                let consumed = known.wrapping_add(consumed as u32);
                (UPD, id, [consumed.to_le_bytes(), window.to_le_bytes()].concat())
            }
        };
        let mut out = Vec::new();
        Frame { version: self.version as u8, cmd, id, payload: &payload }.encode(&mut out);
        out
    }
}

fn configs() -> impl Strategy<Value = Config> {
    (version(), counter()).prop_flat_map(|(version, counter)| config(version, counter))
}

proptest! {
    #![proptest_config(cases(3_000))]

    /// Frames true, late, senseless and malformed, in pieces of any size: each has its effect and no other.
    #[test]
    fn a_session_goes_by_the_rules_whatever_it_is_told(
        who in 0..2_usize,
        config in configs(),
        deeds in lines(deed(), 100),
    ) {
        let Lines(deeds) = deeds;
        let mut alone = Alone::new(who, config);
        for deed in &deeds {
            alone.play(deed);
        }
        alone.end.abort_all();
        alone.end.check();
        while !alone.end.poll(1_376).is_empty() {}
        alone.end.check();
        alone.end.assert_idle();
    }
}
