//! What every byte of every stream has to be.
//!
//! A byte is a function of the session, the stream, the direction and its offset, so a received byte is checked against
//! arithmetic and never against a buffer that the code under test has had in its hands.

use crate::random::mix;

/// Direction of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// The bytes of one stream in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(u64);

impl Pattern {
    /// The bytes of `stream` of `session` that go `way`.
    #[must_use]
    pub fn new(session: u64, stream: u32, way: Way) -> Self {
        Self(mix(session ^ mix(u64::from(stream) << 1 | u64::from(way == Way::Down))))
    }

    #[inline]
    fn word(self, index: u64) -> [u8; 8] {
        mix(self.0 ^ index).to_le_bytes()
    }

    /// Overwrites `bytes` with those from `offset` on.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(at / 8);
            // Whole words make nearly all of it.
            if at.is_multiple_of(8) && rest.len() >= 8 {
                let (head, tail) = rest.split_at_mut(8);
                head.copy_from_slice(&word);
                rest = tail;
                at += 8;
                continue;
            }
            let word = &word[(at % 8) as usize..];
            let len = word.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(len);
            head.copy_from_slice(&word[..len]);
            rest = tail;
            at += len as u64;
        }
    }

    /// The offset of the first byte in `bytes`, which begin at `offset`, that is not what it has to be.
    #[must_use]
    pub fn first_wrong(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.word(at / 8);
            if at.is_multiple_of(8)
                && let Some((head, tail)) = rest.split_first_chunk()
                && *head == word
            {
                rest = tail;
                at += 8;
                continue;
            }
            let word = &word[(at % 8) as usize..];
            let len = word.len().min(rest.len());
            if rest[..len] != word[..len] {
                let wrong = rest.iter().zip(word).position(|(a, b)| a != b);
                return wrong.map(|wrong| at + wrong as u64);
            }
            rest = &rest[len..];
            at += len as u64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_a_pattern_is_that_piece() {
        let pattern = Pattern::new(1, 3, Way::Up);
        let mut whole = [0; 64];
        pattern.fill(0, &mut whole);
        for start in 0..64 {
            for end in start..64 {
                let mut piece = vec![0; end - start];
                pattern.fill(start as u64, &mut piece);
                assert_eq!(piece, whole[start..end]);
                assert_eq!(pattern.first_wrong(start as u64, &piece), None);
            }
        }
        let mut broken = whole;
        broken[40] ^= 1;
        assert_eq!(pattern.first_wrong(0, &broken), Some(40));
        assert_eq!(pattern.first_wrong(3, &broken[3..]), Some(40));
    }

    #[test]
    fn a_byte_of_another_stream_direction_or_session_is_noticed() {
        let mut bytes = [0; 32];
        Pattern::new(1, 3, Way::Up).fill(0, &mut bytes);
        for other in [Pattern::new(2, 3, Way::Up), Pattern::new(1, 5, Way::Up), Pattern::new(1, 3, Way::Down)] {
            assert!(other.first_wrong(0, &bytes).is_some());
        }
        assert!(Pattern::new(1, 3, Way::Up).first_wrong(1, &bytes).is_some(), "shifted by one");
    }
}
