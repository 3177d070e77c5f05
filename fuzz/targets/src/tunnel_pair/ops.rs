//! What is done in a run, and how it is read from the input.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::wires::Over;

#[derive(Debug)]
pub(super) enum Op<'a> {
    Open(usize),
    Accept(usize),
    Write(usize, u8, u16),
    Read(usize, u8, u16),
    Finish(usize, u8),
    CloseStream(usize, u8),
    /// The oldest dial without an answer gets one.
    Dial(bool),
    /// Everything that an end wants to send goes onto its wires, and what it wants done is done.
    Turn(usize),
    /// So many packets.
    Send(usize, u8),
    /// So many bytes arrive on a wire.
    Deliver(usize, u8, u16),
    DeliverAll(usize),
    /// Both directions end behind so many more bytes.
    Cut(u8, Over, u16, u16),
    HalfCut(u8, usize, u16),
    Stall(u8),
    Wait(u16),
    /// To the next timer of an end, and a little further.
    Timer(usize, u8),
    Timeout(usize),
    Redial,
    /// A packet that cannot be of the peer's.
    Noise(usize, u8, Noise<'a>),
    /// A packet that was sent before, changed or not.
    Forge(usize, u8, u8, u8, u8),
    Close(usize),
    Abort(usize),
}

#[derive(Debug)]
pub(super) enum Noise<'a> {
    Bytes(&'a [u8]),
    OtherConv(u8),
    WrongToken([u8; 8]),
    WrongUna(u8),
}

impl<'a> Arbitrary<'a> for Op<'a> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let kind = u.arbitrary::<u8>()?;
        let side = usize::from(kind >> 7);
        Ok(match kind & 0x3f {
            0..=2 => Self::Open(side),
            3..=5 => Self::Accept(side),
            6..=9 => Self::Write(side, u.arbitrary()?, u.arbitrary()?),
            10..=13 => Self::Read(side, u.arbitrary()?, u.arbitrary()?),
            14 | 15 => Self::Finish(side, u.arbitrary()?),
            16 => Self::CloseStream(side, u.arbitrary()?),
            17..=20 => Self::Dial(true),
            21 => Self::Dial(false),
            22..=28 => Self::Turn(side),
            29 | 30 => Self::Send(side, u.arbitrary()?),
            31..=34 => Self::Deliver(side, u.arbitrary()?, u.arbitrary()?),
            35..=41 => Self::DeliverAll(side),
            42 => Self::Cut(u.arbitrary()?, Over::Fin, u.arbitrary()?, u.arbitrary()?),
            43 => Self::Cut(u.arbitrary()?, Over::Reset, u.arbitrary()?, u.arbitrary()?),
            44 => Self::HalfCut(u.arbitrary()?, side, u.arbitrary()?),
            45 => Self::Stall(u.arbitrary()?),
            46 => Self::Wait(u.arbitrary::<u8>()?.into()),
            47 => Self::Wait(u.arbitrary()?),
            48..=51 => Self::Timer(side, u.arbitrary()?),
            52 | 53 => Self::Timeout(side),
            54 => Self::Redial,
            55..=58 => {
                let (wire, kind) = (u.arbitrary()?, u.int_in_range(0..=3_u8)?);
                let noise = match kind {
                    0 => {
                        let len = u.arbitrary::<u8>()?.into();
                        Noise::Bytes(u.bytes(u.len().min(len))?)
                    }
                    1 => Noise::OtherConv(u.arbitrary()?),
                    2 => Noise::WrongToken(u.arbitrary()?),
                    _ => Noise::WrongUna(u.arbitrary()?),
                };
                Self::Noise(side, wire, noise)
            }
            59..=61 => Self::Forge(side, u.arbitrary()?, u.arbitrary()?, u.arbitrary()?, u.arbitrary()?),
            62 => Self::Close(side),
            _ => Self::Abort(side),
        })
    }
}
