//! A byte stream as a connection delivers it: cut anywhere.

use arbitrary::{Result, Unstructured};

/// The rest of the input, in pieces: up to 31 lengths, used in turn, stand in front of the bytes. No lengths: it comes in one piece.
pub(crate) struct Pieces<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Pieces<'a> {
    pub(crate) fn take(u: &mut Unstructured<'a>) -> Result<Self> {
        let count = u.int_in_range(0..=31_usize)?;
        let lengths = u.bytes(count.min(u.len()))?;
        let bytes = u.bytes(u.len())?;
        Ok(Self { lengths, bytes })
    }

    pub(crate) fn whole(&self) -> &'a [u8] {
        self.bytes
    }

    /// The pieces, never an empty one.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        let mut lengths = self.lengths.iter().cycle();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let wanted = lengths.next().map_or(rest.len(), |length| usize::from(*length).max(1));
            let (piece, later) = rest.split_at(wanted.min(rest.len()));
            rest = later;
            Some(piece)
        })
    }
}
