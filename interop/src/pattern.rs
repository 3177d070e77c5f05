//! Test data without a file: byte `n` of a [`Pattern`] is a function of `n`, so that lost, doubled and misplaced bytes
//! all show, and 64 GiB need no memory.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, Instant};

/// An endless stream of bytes, another one for every seed.
#[derive(Clone, Copy, Debug)]
pub struct Pattern(pub u64);

impl Pattern {
    /// The byte at `offset`.
    pub fn at(self, offset: u64) -> u8 {
        (self.word(offset / 8) >> (offset % 8 * 8)) as u8
    }

    /// The bytes from `offset` on.
    pub fn fill(self, offset: u64, out: &mut [u8]) {
        for (at, byte) in (offset..).zip(out) {
            *byte = self.at(at);
        }
    }

    /// # Errors
    ///
    /// Where the first byte is that does not belong at its place, and where in the pattern its neighbourhood is from, if
    /// it is from within 16 MiB.
    pub fn check(self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(wrong) = (offset..).zip(bytes).position(|(at, &byte)| self.at(at) != byte) else { return Ok(()) };
        let at = offset + wrong as u64;
        let found = &bytes[wrong..(wrong + 16).min(bytes.len())];
        let origin = (at.saturating_sub(16 << 20)..at + (16 << 20))
            .find(|&from| (from..).zip(found).all(|(place, &byte)| self.at(place) == byte))
            .filter(|_| found.len() >= 8);
        Err(match origin {
            Some(from) => format!("at {at} there are bytes that belong at {from}"),
            None => format!("at {at} there are bytes that were never sent: {found:02x?}"),
        })
    }

    /// 8 bytes of a splitmix64 generator.
    fn word(self, n: u64) -> u64 {
        let mut z = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Writes the first `total` bytes, no faster than `bytes_per_second`. `to` stays open.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub async fn send<W: AsyncWrite + Unpin>(self, to: &mut W, total: u64, bytes_per_second: f64) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        let began = Instant::now();
        let mut sent = 0;
        while sent < total {
            let n = buffer.len().min(usize::try_from(total - sent).unwrap_or(usize::MAX));
            self.fill(sent, &mut buffer[..n]);
            to.write_all(&buffer[..n]).await?;
            sent += n as u64;
            if bytes_per_second.is_finite() {
                tokio::time::sleep_until(began + Duration::from_secs_f64(sent as f64 / bytes_per_second)).await;
            }
        }
        to.flush().await
    }

    /// Reads `total` bytes and compares every one.
    ///
    /// # Errors
    ///
    /// Those of `from`; `InvalidData` at the first byte that is wrong; `UnexpectedEof` with the number of bytes that came.
    pub async fn receive<R: AsyncRead + Unpin>(self, from: &mut R, total: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let mut received = 0;
        while received < total {
            let limit = buffer.len().min(usize::try_from(total - received).unwrap_or(usize::MAX));
            let n = from
                .read(&mut buffer[..limit])
                .await
                .map_err(|e| io::Error::new(e.kind(), format!("after {received} of {total} bytes: {e}")))?;
            if n == 0 {
                let text = format!("the end came after {received} of {total} bytes");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            self.check(received, &buffer[..n]).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
            received += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misplaced_piece_is_named_with_its_origin() {
        let mut bytes = vec![0; 4096];
        Pattern(7).fill(1000, &mut bytes);
        assert_eq!(Pattern(7).check(1000, &bytes), Ok(()));
        Pattern(7).fill(500, &mut bytes[100..200]);
        assert_eq!(Pattern(7).check(1000, &bytes), Err("at 1100 there are bytes that belong at 500".into()));
        bytes[100..116].fill(0);
        assert!(Pattern(7).check(1000, &bytes).unwrap_err().contains("never sent"));
    }
}
