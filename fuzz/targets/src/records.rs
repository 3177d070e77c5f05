//! Packets of one end, sealed and opened by the other, with somebody between them who cuts, flips, leaves out, repeats, swaps and adds.
//!
//! Held to: what comes out are the packets that went in, up to the first byte that was touched, and nothing behind it, ever; the pieces make no difference, nor whether records are opened
//! in place; what waits for its rest is less than a record; an end opens nothing that it has sealed itself.

use std::cell::RefCell;

use arbitrary::{Result, Unstructured};
use turbotunnel::SessionId;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{
    Initiator, InitiatorRandom, KEY_LEN, MAX_RECORD, Recognised, Records, ResponderRandom, Route, StaticKey, Suite,
};
use zeroize::Zeroizing;

use crate::tell;

/// Beyond it an input is slow, and no better.
const MOST_PACKETS: usize = 64;

/// What somebody does to a stream of records, told by numbers that are taken modulo what there is.
#[derive(Debug)]
enum Deed {
    Flip(u32),
    /// From a byte on, so many are missing.
    Remove(u32, u8),
    Insert(u32, u8),
    /// A whole record once more, behind another.
    Repeat(u8, u8),
    Swap(u8, u8),
    LeaveOut(u8),
}

impl Deed {
    fn take(u: &mut Unstructured<'_>) -> Result<Option<Self>> {
        Ok(match u.int_in_range(0..=6_u8)? {
            0 => None,
            1 => Some(Self::Remove(u.arbitrary()?, u.arbitrary()?)),
            2 => Some(Self::Insert(u.arbitrary()?, u.arbitrary()?)),
            3 => Some(Self::Repeat(u.arbitrary()?, u.arbitrary()?)),
            4 => Some(Self::Swap(u.arbitrary()?, u.arbitrary()?)),
            5 => Some(Self::LeaveOut(u.arbitrary()?)),
            _ => Some(Self::Flip(u.arbitrary()?)),
        })
    }
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let suite = if u.arbitrary()? { Suite::AesGcm } else { Suite::ChaChaPoly };
    let client_sends: bool = u.arbitrary()?;
    let batches: Vec<Vec<u16>> = u.arbitrary()?;
    let deed = Deed::take(u)?;
    let pieces: Vec<u16> = u.arbitrary()?;
    tell(&(suite, client_sends, &batches, &deed, &pieces));

    let (client, server) = carrier(suite);
    let (mut from, mut to) = if client_sends { (client, server) } else { (server, client) };
    // The same keys once more.
    let (client, server) = carrier(suite);
    let mut elsewhere = if client_sends { server } else { client };
    let (mut packets, mut records, mut left) = (Vec::new(), Vec::new(), MOST_PACKETS);
    for batch in &batches {
        let plain = plain(batch, &mut left);
        let mut sealed = Vec::new();
        from.seal(&plain, &mut sealed).expect("far from used up");
        packets.extend_from_slice(&plain);
        records.extend(split(&sealed).map(<[u8]>::to_vec));
    }
    let honest = records.concat();
    let sent = deed.map_or_else(|| honest.clone(), |deed| meddle(&deed, records));
    let expected = good(&honest, &sent, &packets);

    let (mut opened, outcome) = in_pieces(&mut to, &sent, &pieces);
    assert!(opened == packets[..expected], "{} bytes opened of {expected}", opened.len());
    let mut at_once = Vec::new();
    assert_eq!(elsewhere.open(&sent, &mut at_once).map(drop), outcome, "at once, and in pieces and in place");
    assert!(at_once == opened);
    assert!(outcome.is_ok() || !honest.starts_with(&sent), "honest records did not open");
    if outcome.is_err() {
        let before = opened.len();
        assert!(to.open(&honest, &mut opened).is_err(), "it opens again after a failure");
        assert_eq!(opened.len(), before);
    } else {
        // At most a record that is not whole has come, or begins with a length that the deed has made.
        assert!(opened.len() + 2 + MAX_RECORD + 16 > sent.len().saturating_sub(18 * MOST_PACKETS));
    }
    assert!(
        honest.is_empty() || from.open(&honest, &mut Vec::new()).is_err(),
        "an end opens what it has sealed itself"
    );
    Ok(())
}

/// The two ends of a carrier.
fn carrier(suite: Suite) -> (Records, Records) {
    let keys = [StaticKey::from_bytes(&[1; KEY_LEN])];
    let own = StaticKey::from_bytes(&[2; KEY_LEN]);
    let random =
        InitiatorRandom { route: [3; 8], ephemeral: Zeroizing::new([4; KEY_LEN]), ml_kem: Zeroizing::new([5; 64]) };
    let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
    let initiator = Initiator::start(&keys[0].public(), &own, suite, Route::ANY, &random, &mut first);
    let (header, message) = first.split_first_chunk().expect("a header");
    let recognised = Recognised::new(&keys, header).expect("ours");
    let random = ResponderRandom { ephemeral: Zeroizing::new([6; KEY_LEN]), ml_kem: Zeroizing::new([7; 32]) };
    let responder = recognised.handle_message(message, Route::ANY, &random, &mut second).expect("honest");
    let established = initiator.handle_answer(&second, SessionId([8; 8]), &mut third).expect("honest");
    (established.records, responder.handle_message(&third).expect("honest").records)
}

fn plain(lengths: &[u16], left: &mut usize) -> Vec<u8> {
    thread_local!(static BATCH: RefCell<PacketBatch> = RefCell::default());
    BATCH.with_borrow_mut(|batch| {
        batch.clear(usize::MAX);
        for (n, len) in lengths.iter().take(*left).enumerate() {
            batch.push(&vec![n as u8; usize::from(*len) % 1501]);
        }
        *left = left.saturating_sub(lengths.len());
        batch.as_bytes().to_vec()
    })
}

/// Each with its length in front.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [high, low, ..] = bytes else { return None };
        let (record, rest) = bytes.split_at(2 + (usize::from(*high) << 8 | usize::from(*low)));
        bytes = rest;
        Some(record)
    })
}

fn meddle(deed: &Deed, mut records: Vec<Vec<u8>>) -> Vec<u8> {
    let count = records.len().max(1);
    let which = |n: &u8| usize::from(*n) % count;
    match deed {
        Deed::Repeat(one, behind) if !records.is_empty() => {
            records.insert(which(behind) + 1, records[which(one)].clone());
        }
        Deed::Swap(one, other) if !records.is_empty() => records.swap(which(one), which(other)),
        Deed::LeaveOut(one) if !records.is_empty() => drop(records.remove(which(one))),
        _ => {}
    }
    let mut bytes = records.concat();
    let len = bytes.len();
    match deed {
        Deed::Flip(bit) if len > 0 => bytes[(bit / 8) as usize % len] ^= 1 << (bit % 8),
        Deed::Remove(from, count) if len > 0 => {
            let from = *from as usize % len;
            bytes.drain(from..(from + usize::from(*count)).min(len));
        }
        Deed::Insert(at, byte) => bytes.insert(*at as usize % (len + 1), *byte),
        _ => {}
    }
    bytes
}

/// Bytes of `packets` in those records at the beginning that were not touched.
fn good(honest: &[u8], sent: &[u8], packets: &[u8]) -> usize {
    let (mut plain, mut at) = (0, 0);
    for record in split(honest) {
        if sent.get(at..at + record.len()) != Some(record) {
            break;
        }
        (plain, at) = (plain + record.len() - 18, at + record.len());
    }
    assert!(plain <= packets.len());
    plain
}

type Outcome = std::result::Result<(), turbotunnel::secure::RecordError>;

/// Opened as they come, in place.
fn in_pieces(to: &mut Records, sent: &[u8], lengths: &[u16]) -> (Vec<u8>, Outcome) {
    let (mut opened, mut partial) = (Vec::new(), Vec::new());
    let mut lengths = lengths.iter().cycle();
    let mut rest = sent;
    while !rest.is_empty() {
        let wanted = lengths.next().map_or(rest.len(), |len| usize::from(*len).max(1));
        let (piece, later) = rest.split_at(wanted.min(rest.len()));
        rest = later;
        let mut bytes = [&partial[..], piece].concat();
        let outcome = to.open_in_place(&mut bytes, &mut partial);
        opened.extend_from_slice(&bytes);
        if outcome.is_err() {
            assert!(partial.is_empty());
            return (opened, outcome);
        }
        assert!(partial.len() < 2 + MAX_RECORD + 16, "{} bytes wait for the rest of a record", partial.len());
    }
    (opened, Ok(()))
}
