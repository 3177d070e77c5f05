//! What follows the handshake: records, each a length and sealed bytes.
//!
//! ```text
//! u16 length, big-endian | that many bytes: AEAD(packets, each with its length as in the plain format)
//! ```
//!
//! In one direction: packets, back to back, to records. In the other: pieces of what a connection brings, to packets. Records are numbered by their order, and the
//! number is the nonce, so that a record that was left out, repeated or moved does not open. Nothing opens after one that did not.
//!
//! A carrier that loses or reorders records would have to say their numbers; for that there are other suites to come.

use std::fmt;

use super::aead::{Key, TAG_LEN};
use crate::encapsulation::{HEADER_LEN as PACKET_HEADER_LEN, MAX_PACKET};

/// Most bytes in a record, as they are before they are sealed: eleven full packets. More would be better for nothing but the last percent of speed, and the
/// receiver has to have it all before it has any of it.
pub const MAX_RECORD: usize = 16 << 10;

const LENGTH_LEN: usize = 2;

/// Why a carrier is over: what came was not sealed by the peer for this place, or there was enough of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The peer has not sealed this, or not as the next one: bytes were changed, left out, repeated or put in.
    #[error("a record that the peer has not sealed for this place")]
    NotAuthentic,
    /// The peer has sealed what is no row of packets.
    #[error("a record that holds no packets")]
    NoPackets,
    /// [`Records::MAX_RECORDS`] or [`Records::MAX_BYTES`] is reached: dial anew.
    #[error("enough was sealed with one key")]
    UsedUp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    records: u64,
    bytes: u64,
}

impl Count {
    fn take(&mut self, bytes: usize) -> Result<u64, RecordError> {
        let number = self.records;
        let total = self.bytes.saturating_add(bytes as u64);
        if number >= Records::MAX_RECORDS || total > Records::MAX_BYTES {
            return Err(RecordError::UsedUp);
        }
        *self = Self { records: number + 1, bytes: total };
        Ok(number)
    }

    fn is_worn(self) -> bool {
        self.records >= Records::MAX_RECORDS / 2 || self.bytes >= Records::MAX_BYTES / 2
    }
}

/// The keys of one carrier, one for each direction, and how much they were used.
pub struct Records {
    seals: Key,
    opens: Key,
    sealed: Count,
    opened: Count,
    failed: Option<RecordError>,
}

impl Records {
    /// Records of one direction: far below what the nonce can count (2^64), and what AES-GCM bears.
    pub const MAX_RECORDS: u64 = 1 << 32;
    /// Bytes of one direction, before they are sealed.
    pub const MAX_BYTES: u64 = 64 << 30;

    /// For the end that seals with the one and opens with the other.
    pub(super) fn new(seals: Key, opens: Key) -> Self {
        Self { seals, opens, sealed: Count::default(), opened: Count::default(), failed: None }
    }

    /// Half of what one carrier may carry is used: time to dial another, beside this one.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.sealed.is_worn() || self.opened.is_worn()
    }

    /// For sealing, for opening.
    #[cfg(test)]
    pub(crate) fn keys_ready(&self) -> [bool; 2] {
        [&self.seals, &self.opens].map(Key::is_ready)
    }

    /// When little is sealed: gives back the half kilobyte of what was made of that key. The next record makes it anew, in 0.2 us.
    pub fn rest_sealing(&mut self) {
        self.seals.rest();
    }

    /// The same when little is opened.
    pub fn rest_opening(&mut self) {
        self.opens.rest();
    }

    /// As if `records` more had gone each way, of no bytes: for simulations, which cannot wait for 2^31 of them. Both ends have to be told. The count only goes up, so that no
    /// nonce is used twice.
    #[doc(hidden)]
    pub fn skip(&mut self, records: u64) {
        for count in [&mut self.sealed, &mut self.opened] {
            count.records = count.records.saturating_add(records);
        }
    }

    /// Seals `packets`, as in a [`PacketBatch`](crate::encapsulation::PacketBatch), into as few records as they fit in, and appends those to `out`.
    ///
    /// # Errors
    ///
    /// [`RecordError::UsedUp`]; what was appended by then is good.
    ///
    /// # Panics
    ///
    /// If `packets` is not whole packets of at most [`MAX_PACKET`] bytes: a mistake of the caller.
    pub fn seal(&mut self, packets: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut rest = packets;
        while !rest.is_empty() {
            let len = whole_packets(rest, MAX_RECORD).expect("whole packets are sealed");
            let (record, after) = rest.split_at(len);
            rest = after;
            let number = self.sealed.take(len)?;
            let length = u16::try_from(len + TAG_LEN).expect("MAX_RECORD is below 64 KiB");
            out.reserve(LENGTH_LEN + len + TAG_LEN);
            out.extend_from_slice(&length.to_be_bytes());
            let start = out.len();
            out.extend_from_slice(record);
            let tag = self.seals.ready().seal(number, &[], &mut out[start..]);
            out.extend_from_slice(&tag);
        }
        Ok(())
    }

    /// Opens all whole records at the beginning of `bytes`, appends their packets to `out`, and returns how many of the bytes they were. What is left is the
    /// beginning of a record: at most [`MAX_RECORD`] bytes and 18. Come again with it and more.
    ///
    /// # Errors
    ///
    /// The carrier is over. The packets of the records before are in `out`; those are good. It fails in the same way ever after.
    pub fn open(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, RecordError> {
        let start = out.len();
        out.extend_from_slice(bytes);
        let (plain, left, outcome) = self.open_behind(start, out);
        out.truncate(plain);
        outcome.map(|()| bytes.len() - left)
    }

    /// As [`Records::open`], where the bytes stand: packets take the place of the whole records in `bytes`, and what is left goes to `partial`, which is overwritten.
    ///
    /// # Errors
    ///
    /// As there; the good packets are in `bytes`, and nothing is left.
    pub fn open_in_place(&mut self, bytes: &mut Vec<u8>, partial: &mut Vec<u8>) -> Result<(), RecordError> {
        let (plain, left, outcome) = self.open_behind(0, bytes);
        partial.clear();
        if outcome.is_ok() {
            partial.extend_from_slice(&bytes[bytes.len() - left..]);
        }
        bytes.truncate(plain);
        outcome
    }

    /// Opens what is in `bytes` from `start` on. Returns where the packets end that begin there, and how much at the end of `bytes` is left.
    fn open_behind(&mut self, start: usize, bytes: &mut [u8]) -> (usize, usize, Result<(), RecordError>) {
        let (mut plain, mut at) = (start, start);
        let mut outcome = self.failed.map_or(Ok(()), Err);
        while outcome.is_ok() {
            match self.open_next(&mut bytes[plain..], at - plain) {
                Ok(None) => break,
                Ok(Some((opened, taken))) => (plain, at) = (plain + opened, at + taken),
                Err(error) => {
                    self.failed = Some(error);
                    outcome = Err(error);
                }
            }
        }
        (plain, bytes.len() - at, outcome)
    }

    /// Opens the record at `at`; its packets come to the beginning of `bytes`. Returns their length and the record's. `None`: not all of it is there.
    fn open_next(&mut self, bytes: &mut [u8], at: usize) -> Result<Option<(usize, usize)>, RecordError> {
        let Some(len) = first_record(&bytes[at..])? else { return Ok(None) };
        let sealed = at + LENGTH_LEN;
        let number = self.opened.take(len - TAG_LEN)?;
        let opened = self.opens.ready().open(number, &[], &mut bytes[..sealed + len], sealed..);
        let opened = opened.map_err(|_| RecordError::NotAuthentic)?;
        if whole_packets(&bytes[..opened], MAX_RECORD) != Some(opened) {
            return Err(RecordError::NoPackets);
        }
        Ok(Some((opened, LENGTH_LEN + len)))
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("sealed", &self.sealed).field("opened", &self.opened).finish_non_exhaustive()
    }
}

/// Sealed bytes of the first record, behind its length. `None`: not all of it is there. A length that no record has is an error at once.
fn first_record(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some((length, after)) = bytes.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes(*length));
    if !(TAG_LEN + 1..=TAG_LEN + MAX_RECORD).contains(&len) {
        return Err(RecordError::NotAuthentic);
    }
    Ok((after.len() >= len).then_some(len))
}

/// Bytes of the packets at the beginning, as many as there are within `limit`. `None`: not one, or one that is not whole or too long before that.
fn whole_packets(bytes: &[u8], limit: usize) -> Option<usize> {
    let mut whole = 0;
    while let Some((length, after)) = bytes[whole..].split_first_chunk::<PACKET_HEADER_LEN>() {
        let len = usize::from(u16::from_be_bytes(*length));
        if len > MAX_PACKET || after.len() < len {
            return None;
        }
        if whole + PACKET_HEADER_LEN + len > limit {
            return Some(whole);
        }
        whole += PACKET_HEADER_LEN + len;
    }
    // A single byte at the end is no length.
    (whole > 0 && (whole == bytes.len())).then_some(whole)
}
