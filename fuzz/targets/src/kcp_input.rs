//! A stranger feeds one KCP engine with packets, while its application writes and reads and its carriers come and go.
//!
//! Most packets are of segments that could nearly be: numbers around those of the engine, clocks that it told. Some are any bytes. Held to: all that
//! `kcp_end` holds an engine to; and what is read is, in order and once, what came under each number.

use arbitrary::{Arbitrary, Result, Unstructured};
use kcp::wire::Command;
use kcp::{Config, Resume, Retransmission, Segment, Sn, Ts};
use turbotunnel_sim::pattern::{Pattern, Way};

use crate::kcp_end::End;
use crate::{ms, start, tell};

const CONV: u32 = 0x1122_3344;

/// A segment, with its numbers counted from those of the engine that gets it.
#[derive(Debug)]
struct Spec {
    cmd: Command,
    /// From `rcv_nxt` for PUSH, else from `una`.
    sn: i16,
    una: i8,
    wnd: u16,
    /// An ACK tells the clock of the transmission. Else any.
    true_ts: bool,
    len: u16,
    other_conv: bool,
}

impl<'a> Arbitrary<'a> for Spec {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        let far = kind & 0x40 != 0;
        let long = kind & 0x80 != 0;
        Ok(Self {
            cmd: [Command::Push, Command::Ack, Command::Wask, Command::Wins][usize::from(kind & 3)],
            other_conv: kind & 0x38 == 0x38,
            true_ts: kind & 4 == 0,
            sn: if far { u.arbitrary()? } else { i16::from(u.arbitrary::<i8>()?) / 8 },
            una: u.arbitrary::<i8>()? / 4,
            wnd: if kind & 8 == 0 { u.arbitrary::<u8>()?.into() } else { u.arbitrary()? },
            len: if long { u.arbitrary()? } else { u.int_in_range(0..=31_u16)? },
        })
    }
}

#[derive(Debug)]
enum Op<'a> {
    Write(u16),
    Fill(u16),
    Read(u8),
    Packet(Vec<Spec>),
    Bytes(&'a [u8]),
    /// Bytes behind a header that could be.
    NearlyPacket(Spec, &'a [u8]),
    Transmit(u8),
    Wait(u16),
    WaitLong(u32),
    Timer,
    Suspend,
    Resume(Resume),
    Una(i8),
    UnaOfAnybody(u32),
    AnnounceAtMost(u16),
    AskWindow,
    Rtt(u16),
    Mode(Retransmission),
}

impl<'a> Arbitrary<'a> for Op<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=23_u8)? {
            0 => Self::Write(u.arbitrary()?),
            1 => Self::Write(u.arbitrary::<u8>()?.into()),
            2 => Self::Fill(u.arbitrary::<u8>()?.into()),
            3 => Self::Read(u.arbitrary()?),
            4..=8 => Self::Packet((0..u.int_in_range(1..=4_u8)?).map(|_| u.arbitrary()).collect::<Result<_>>()?),
            9 => {
                let len = u.arbitrary::<u8>()?.into();
                Self::Bytes(u.bytes(u.len().min(len))?)
            }
            10 => {
                let (spec, len) = (u.arbitrary()?, u.arbitrary::<u8>()?.into());
                Self::NearlyPacket(spec, u.bytes(u.len().min(len))?)
            }
            11..=13 => Self::Transmit(u.arbitrary()?),
            14 => Self::Wait(u.arbitrary()?),
            15 => Self::Wait(u.arbitrary::<u8>()?.into()),
            16 => Self::WaitLong(u.arbitrary()?),
            17 | 18 => Self::Timer,
            19 => Self::Suspend,
            20 => Self::Resume(*u.choose(&[Resume::Now, Resume::AfterUna, Resume::AfterFirst])?),
            21 => Self::Una(u.arbitrary()?),
            22 => Self::UnaOfAnybody(u.arbitrary()?),
            _ => match u.int_in_range(0..=3_u8)? {
                0 => Self::AnnounceAtMost(u.arbitrary()?),
                1 => Self::AskWindow,
                2 => Self::Rtt(u.arbitrary()?),
                _ => Self::Mode(*u.choose(&[Retransmission::TailProbe, Retransmission::Timeout])?),
            },
        })
    }
}

/// Settings that small inputs can get to the limits of, and counters near the wrap.
pub(crate) fn config(u: &mut Unstructured<'_>) -> Result<Config> {
    Ok(Config {
        mtu: *u.choose(&[64, 25, 200, 1400, 9000])?,
        send_window: *u.choose(&[32, 1, 5, 1024, 65_535])?,
        recv_window: *u.choose(&[32, 1, 5, 1024, 65_535])?,
        initial_sn: *u.choose(&[0, u32::MAX, u32::MAX - 5, 0x7fff_fff0])?,
        initial_ts_ms: *u.choose(&[0, u32::MAX, u32::MAX - 500, 0x7fff_fff0])?,
        ..Config::default()
    })
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Input that ends in the middle of an operation is not an error.
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let mut now = start();
    let config = config(u)?;
    tell(&config);
    let mut end = End::new(now, CONV, config, Pattern::new(1, 1, Way::Up));
    // The bytes under each number follow a pattern, until a packet of any bytes was believed.
    let mut by_the_pattern = true;
    while !u.is_empty() {
        let op = u.arbitrary::<Op<'_>>()?;
        tell(&op);
        match op {
            Op::Write(len) => end.write(len.into()),
            Op::Fill(wanted) => end.fill(wanted.into()),
            Op::Read(chunks) => {
                let look = |sn: Sn, chunk: &[u8]| {
                    assert!(!by_the_pattern || inbound(sn).first_wrong(0, chunk).is_none(), "chunk {}", sn.value());
                };
                for _ in 0..chunks {
                    if !end.read(look) {
                        break;
                    }
                }
            }
            Op::Packet(specs) => {
                let mut packet = Vec::new();
                specs.iter().for_each(|spec| encode(&end, spec, &mut packet));
                end.handle_packet(now, &packet);
            }
            Op::Bytes(bytes) => by_the_pattern &= !end.handle_packet(now, bytes),
            Op::NearlyPacket(spec, bytes) => {
                let mut packet = Vec::new();
                encode(&end, &spec, &mut packet);
                packet.extend_from_slice(bytes);
                by_the_pattern &= !end.handle_packet(now, &packet);
            }
            Op::Transmit(packets) => {
                for _ in 0..packets {
                    if end.poll_transmit(now).is_none() {
                        break;
                    }
                }
            }
            Op::Wait(millis) => now += ms(millis.into()),
            Op::WaitLong(millis) => {
                now += ms(millis.into());
                end.handle_timeout(now);
            }
            Op::Timer => {
                now = end.kcp().poll_timeout().map_or(now, |at| at.max(now));
                end.handle_timeout(now);
            }
            Op::Suspend => end.suspend(),
            Op::Resume(how) => end.resume(now, how),
            Op::Una(steps) => {
                let una = plus(end.kcp().una(), steps.into());
                end.handle_una(now, una);
            }
            Op::UnaOfAnybody(una) => end.handle_una(now, Sn::new(una)),
            Op::AnnounceAtMost(segments) => end.announce_at_most(segments),
            Op::AskWindow => end.ask_window(),
            Op::Rtt(millis) => end.handle_rtt(ms(millis.into())),
            Op::Mode(mode) => end.set_retransmission(mode),
        }
    }
    Ok(())
}

/// The payload of an inbound segment.
fn inbound(sn: Sn) -> Pattern {
    Pattern::new(1, sn.value(), Way::Down)
}

fn encode(end: &End, spec: &Spec, out: &mut Vec<u8>) {
    let base = if spec.cmd == Command::Push { end.kcp().rcv_nxt() } else { end.kcp().una() };
    let sn = plus(base, spec.sn.into());
    let mut payload = vec![0; if spec.cmd == Command::Push { spec.len.into() } else { 0 }];
    inbound(sn).fill(0, &mut payload);
    let any_ts = Ts::new(spec.len.into());
    Segment {
        conv: CONV ^ u32::from(spec.other_conv),
        cmd: spec.cmd,
        frg: 0,
        wnd: spec.wnd,
        ts: if spec.true_ts { end.ts_of(sn).unwrap_or(any_ts) } else { any_ts },
        sn,
        una: plus(end.kcp().una(), spec.una.into()),
        payload: &payload,
    }
    .encode(out);
}

fn plus(sn: Sn, steps: i32) -> Sn {
    sn.plus(steps.cast_unsigned())
}
