//! A stranger feeds one end of smux with a byte stream, while its application opens, writes, reads, finishes and closes.
//!
//! The same is played twice: once with what arrives between two operations in one piece, once in arbitrary pieces. Held to: all that
//! `mux_end` holds an end to; both times the same comes of it, to the last event, byte and counter; and when the application has let go of
//! everything, nothing is left.

use std::time::Instant;

use arbitrary::{Arbitrary, Result, Unstructured};
use smux::wire::{Command, Header, Upd};
use smux::{ASSUMED_WINDOW, Config, Event, OpenError, ProtocolError, Side, Stats, StreamError, StreamId, Version};

use crate::mux_end::{End, ROOM};
use crate::{ms, start, tell};

/// A frame that could be.
#[derive(Debug)]
struct Spec {
    command: Command,
    id: u32,
    len: u16,
    upd: Upd,
}

impl<'a> Arbitrary<'a> for Spec {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        let command = match kind & 7 {
            0 | 1 => Command::Syn,
            2 => Command::Fin,
            3..=5 => Command::Psh,
            6 => Command::Upd,
            _ => Command::Nop,
        };
        let id = if kind & 0xf8 == 0xf8 { u.arbitrary()? } else { u32::from(kind >> 3) & 7 };
        let len = match command {
            Command::Psh if kind & 0x40 == 0 => u.arbitrary::<u8>()?.into(),
            Command::Psh => u.arbitrary()?,
            _ => 0,
        };
        let consumed = if command == Command::Upd { u.arbitrary::<u16>()?.into() } else { 0 };
        let window = if command == Command::Upd { u.arbitrary()? } else { 0 };
        Ok(Self { command, id, len, upd: Upd { consumed, window } })
    }
}

#[derive(Debug)]
enum Op<'a> {
    Frame(Spec),
    Bytes(&'a [u8]),
    Open,
    Accept,
    Write(u8, u16),
    Read(u8, u16),
    Finish(u8),
    FinishAll,
    Close(u8),
    Abort(u8),
    Transmit(u16),
    Events,
    Wait(u16),
    Timer,
    Keepalive(u8),
    FinQuiet(Option<u8>),
    StartFinQuiet(u8),
    Alive,
    Pause,
    Resume(u16),
    PeerWindow(u32),
    Rtt(u16),
}

impl<'a> Arbitrary<'a> for Op<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=31_u8)? {
            0..=9 => Self::Frame(u.arbitrary()?),
            10 => {
                let len = u.arbitrary::<u8>()?.into();
                Self::Bytes(u.bytes(u.len().min(len))?)
            }
            11 => Self::Open,
            12 | 13 => Self::Accept,
            14 | 15 => Self::Write(u.arbitrary()?, u.arbitrary()?),
            16 | 17 => Self::Read(u.arbitrary()?, u.arbitrary()?),
            18 => Self::Finish(u.arbitrary()?),
            19 => Self::Close(u.arbitrary()?),
            20 => Self::Abort(u.arbitrary()?),
            21 => Self::Transmit(u.arbitrary::<u8>()?.into()),
            22 => Self::Transmit(u.arbitrary()?),
            23 => Self::Events,
            24 => Self::Wait(u.arbitrary()?),
            25 => Self::Timer,
            26 => Self::FinQuiet(u.arbitrary()?),
            27 => Self::StartFinQuiet(u.arbitrary()?),
            28 => Self::Alive,
            29 => Self::Pause,
            30 => Self::Resume(u.arbitrary()?),
            _ => match u.int_in_range(0..=3_u8)? {
                0 => Self::FinishAll,
                1 => Self::Keepalive(u.arbitrary()?),
                2 => Self::PeerWindow(u.arbitrary()?),
                _ => Self::Rtt(u.arbitrary()?),
            },
        })
    }
}

/// Settings that small inputs can get to the limits of, and counters near the wrap.
pub(crate) fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    let mut config = Config {
        version: *u.choose(&[Version::V2, Version::V1])?,
        max_frame_size: *u.choose(&[32_768, 1, 100, 65_535])?,
        initial_window: *u.choose(&[ASSUMED_WINDOW, 1 << 20])?,
        max_window: *u.choose(&[8 << 20, 0])?,
        max_buffered: *u.choose(&[16 << 20, 1, 100_000])?,
        send_buffer: *u.choose(&[256 << 10, 1, 5_000])?,
        max_streams: *u.choose(&[4_096, 3, 1])?,
        stream_rate: *u.choose(&[1_000, 1])?,
        stream_burst: *u.choose(&[4_096, 1, 3])?,
        accept_backlog: *u.choose(&[1_024, 0, 2])?,
        first_stream_id: *u.choose(&[None, Some(u32::MAX - 2), Some(u32::MAX - 4)])?,
        initial_counter: *u.choose(&[0, u32::MAX, u32::MAX - 1000, 0x7fff_ff00])?,
        ..Config::default()
    };
    // Three streams that fill their buffers leave nothing to the others.
    config.first_unsent = config.send_buffer * 3;
    Ok(config)
}

/// What the application saw.
#[derive(Debug, PartialEq)]
enum Seen {
    Opened(std::result::Result<StreamId, OpenError>),
    Accepted(Option<StreamId>),
    Wrote(std::result::Result<usize, StreamError>),
    Read(std::result::Result<Option<usize>, StreamError>, Vec<u8>),
    Finished(std::result::Result<(), StreamError>),
    Sent(Option<Vec<u8>>),
    Told(Event),
    /// After what came between two operations.
    Fed(std::result::Result<(), ProtocolError>, Box<Stats>),
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let count = u.int_in_range(0..=15_usize).unwrap_or(0);
    let lengths = u.bytes(count.min(u.len())).unwrap_or_default();
    let rest = u.take_rest();
    let whole = play(rest, &[]);
    let pieces = play(rest, if lengths.is_empty() { &[1] } else { lengths });
    for (whole, pieces) in whole.iter().zip(&pieces) {
        assert_eq!(whole, pieces, "in one piece, and in pieces");
    }
    assert_eq!(whole.len(), pieces.len());
}

/// `lengths`: of pieces, used in turn; none: what there is comes at once.
fn play(input: &[u8], lengths: &[u8]) -> Vec<Seen> {
    let u = &mut Unstructured::new(input);
    let mut seen = Vec::new();
    let Ok(config) = config(u) else { return seen };
    tell(&config);
    let version = config.version;
    let side = if u.arbitrary().unwrap_or(false) { Side::Client } else { Side::Server };
    let mut now = start();
    let mut end = End::new(side, config);
    let mut streams: Vec<StreamId> = Vec::new();
    // What has come since the last operation.
    let mut fed = Vec::new();
    let mut buf = vec![0; 1 << 16];
    while !u.is_empty() {
        let Ok(op) = u.arbitrary::<Op<'_>>() else { break };
        tell(&op);
        match op {
            Op::Frame(spec) => {
                encode(version, &spec, &mut fed);
                continue;
            }
            Op::Bytes(bytes) => {
                fed.extend_from_slice(bytes);
                continue;
            }
            _ => feed(&mut end, now, &mut fed, lengths, &mut seen),
        }
        let stream = |index: u8| match streams.len() {
            0 => StreamId::new(index.into()),
            count => streams[usize::from(index) % count],
        };
        match op {
            Op::Frame(_) | Op::Bytes(_) => unreachable!("above"),
            Op::Open => {
                let opened = end.open();
                streams.extend(opened);
                seen.push(Seen::Opened(opened));
            }
            Op::Accept => {
                let accepted = end.accept();
                streams.extend(accepted);
                seen.push(Seen::Accepted(accepted));
            }
            Op::Write(index, len) => {
                let id = stream(index);
                seen.push(Seen::Wrote(end.write(id, &vec![index; len.into()])));
            }
            Op::Read(index, len) => {
                let id = stream(index);
                let read = end.read(now, id, &mut buf[..len.into()]);
                let bytes = buf[..read.ok().flatten().unwrap_or(0)].to_vec();
                seen.push(Seen::Read(read, bytes));
            }
            Op::Finish(index) => seen.push(Seen::Finished(end.finish(stream(index)))),
            Op::FinishAll => end.finish_all(),
            Op::Close(index) => end.close(stream(index)),
            Op::Abort(index) => end.abort(stream(index)),
            Op::Transmit(room) => seen.push(Seen::Sent(end.poll_transmit(now, room.into()))),
            Op::Events => seen.extend(std::iter::from_fn(|| end.poll_event()).map(Seen::Told)),
            Op::Wait(millis) => now += ms(millis.into()),
            Op::Timer => {
                now = end.mux().poll_timeout().map_or(now, |at| at.max(now));
                end.handle_timeout(now);
            }
            Op::Keepalive(millis) => {
                end.with(|mux| mux.set_keepalive(now, (millis > 0).then(|| ms(millis.into()))));
            }
            Op::FinQuiet(millis) => end.with(|mux| mux.set_fin_quiet(millis.map(|millis| ms(millis.into())))),
            Op::StartFinQuiet(index) => end.with(|mux| mux.start_fin_quiet(now, stream(index))),
            Op::Alive => end.with(|mux| mux.handle_alive(now)),
            Op::Pause => end.with(|mux| mux.pause_fin_quiet(now)),
            Op::Resume(millis) => end.with(|mux| mux.resume_fin_quiet(now, ms(millis.into()))),
            Op::PeerWindow(window) => end.with(|mux| mux.set_peer_window(window)),
            Op::Rtt(millis) => end.with(|mux| mux.set_rtt(ms(millis.into()))),
        }
    }
    feed(&mut end, now, &mut fed, lengths, &mut seen);
    let_go(&mut end, now, streams, &mut seen);
    seen
}

fn encode(version: Version, spec: &Spec, out: &mut Vec<u8>) {
    let length = if spec.command == Command::Upd { 8 } else { spec.len };
    out.extend_from_slice(&Header { version, command: spec.command, length, stream: StreamId::new(spec.id) }.encode());
    match spec.command {
        Command::Upd => out.extend_from_slice(&spec.upd.encode()),
        // Bytes that differ, so that one in the wrong place is seen.
        _ => out.extend((0..spec.len).map(|at| (at ^ at >> 8) as u8 ^ spec.id as u8)),
    }
}

fn feed(end: &mut End, now: Instant, fed: &mut Vec<u8>, lengths: &[u8], seen: &mut Vec<Seen>) {
    let mut rest = &fed[..];
    let mut lengths = lengths.iter().cycle();
    let mut outcome = Ok(());
    while !rest.is_empty() {
        let wanted = lengths.next().map_or(rest.len(), |length| usize::from(*length).max(1));
        let (piece, later) = rest.split_at(wanted.min(rest.len()));
        rest = later;
        outcome = end.handle_bytes(now, piece);
        if outcome.is_err() {
            break;
        }
    }
    if !fed.is_empty() {
        seen.push(Seen::Fed(outcome, Box::new(end.mux().stats().clone())));
    }
    fed.clear();
}

/// The application lets go of all its streams, and of those that nobody has accepted.
fn let_go(end: &mut End, now: Instant, mut streams: Vec<StreamId>, seen: &mut Vec<Seen>) {
    loop {
        while let Some(id) = end.accept() {
            streams.push(id);
        }
        streams.extend(end.guessed());
        streams.sort_unstable();
        streams.drain(..).for_each(|id| end.abort(id));
        while let Some(frames) = end.poll_transmit(now, ROOM) {
            seen.push(Seen::Sent(Some(frames)));
        }
        seen.extend(std::iter::from_fn(|| end.poll_event()).map(Seen::Told));
        if end.mux().streams() == 0 {
            break;
        }
        assert!(end.mux().wants_transmit(), "{} streams stay", end.mux().streams());
    }
    assert!(end.mux().is_quiet() && !end.mux().wants_transmit(), "nothing is left to be sent");
    assert_eq!((end.mux().buffered(), end.mux().has_unfinished_reads()), (0, false), "nothing is left to be read");
}
