//! The two ciphers, with a key made ready: 32 bytes of key, a number as the nonce, 16 bytes of tag. Sealed and opened in place; nothing is allocated.
//!
//! ```text
//! nonce   32 zero bits, the number in 64:  little-endian for ChaCha20-Poly1305, big-endian for AES-256-GCM   (Noise, sections 12.3 and 12.4)
//! ```
//!
//! The code is `ring`'s: with the instructions of the processor it is 2 to 6 times as fast as the crates `chacha20poly1305` and `aes-gcm` (2026). Not here: which number is next.

use std::fmt;
use std::hint::black_box;
use std::ops::RangeFrom;

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::keys::KEY_LEN;

/// Bytes of an authentication tag.
pub(super) const TAG_LEN: usize = 16;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ChaChaPoly,
    AesGcm,
}

impl Kind {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::ChaChaPoly => &CHACHA20_POLY1305,
            Self::AesGcm => &AES_256_GCM,
        }
    }

    fn nonce(self, number: u64) -> Nonce {
        let number = match self {
            Self::ChaChaPoly => number.to_le_bytes(),
            Self::AesGcm => number.to_be_bytes(),
        };
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// What was to be opened was not sealed with this key, this number and these associated data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAuthentic;

/// A cipher with its key: 550 bytes, made in 0.2 us. In a box, so that moving it leaves no copies, and what waits with one in it is no larger for it.
///
/// `ring` wipes no keys. This one overwrites what was made of its key when it is dropped; what making and using it has left in registers and on the stack is overwritten by
/// whoever comes next.
pub(super) struct Aead {
    kind: Kind,
    key: Box<LessSafeKey>,
}

impl Aead {
    pub(super) fn new(kind: Kind, key: &[u8; KEY_LEN]) -> Self {
        Self { kind, key: Box::new(expand(kind, key)) }
    }

    /// Encrypts `in_out` and returns its tag.
    ///
    /// # Panics
    ///
    /// Beyond 64 GiB at once, which no caller has.
    pub(super) fn seal(&self, number: u64, ad: &[u8], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let sealed = self.key.seal_in_place_separate_tag(self.kind.nonce(number), Aad::from(ad), in_out);
        let tag = sealed.expect("records are far below what the ciphers take");
        tag.as_ref().try_into().expect("both ciphers have tags of 16 bytes")
    }

    /// Opens the part `sealed` of `in_out`, tag at the end. What it was is at the beginning of `in_out` then, and its length is returned.
    ///
    /// # Errors
    ///
    /// It does not open; `in_out` means nothing any more.
    pub(super) fn open(
        &self,
        number: u64,
        ad: &[u8],
        in_out: &mut [u8],
        sealed: RangeFrom<usize>,
    ) -> Result<usize, NotAuthentic> {
        let opened = self.key.open_within(self.kind.nonce(number), Aad::from(ad), in_out, sealed);
        opened.map(|plain| plain.len()).map_err(|_| NotAuthentic)
    }
}

impl Drop for Aead {
    fn drop(&mut self) {
        *self.key = expand(self.kind, &[0; KEY_LEN]);
        // So that it is not left out because nobody reads it.
        black_box(&self.key);
    }
}

impl fmt::Debug for Aead {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Aead").field(&self.kind).finish()
    }
}

/// A key that lies idle for most of its life: 32 bytes then, and an [`Aead`] from its first use after a rest on.
pub(super) struct Key {
    kind: Kind,
    /// In a box, so that moving it leaves no copies.
    secret: Box<Zeroizing<[u8; KEY_LEN]>>,
    ready: Option<Aead>,
}

impl Key {
    pub(super) fn new(kind: Kind, secret: &[u8; KEY_LEN]) -> Self {
        Self { kind, secret: Box::new(Zeroizing::new(*secret)), ready: None }
    }

    /// To seal and open with.
    #[inline]
    pub(super) fn ready(&mut self) -> &Aead {
        self.ready.get_or_insert_with(|| Aead::new(self.kind, &self.secret))
    }

    /// Gives back all but the key itself.
    pub(super) fn rest(&mut self) {
        self.ready = None;
    }

    #[cfg(test)]
    pub(super) fn is_ready(&self) -> bool {
        self.ready.is_some()
    }
}

fn expand(kind: Kind, key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(kind.algorithm(), key).expect("both ciphers have keys of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_where_it_stands_or_further_down_and_only_as_it_was() {
        for kind in [Kind::ChaChaPoly, Kind::AesGcm] {
            let aead = Aead::new(kind, &[7; KEY_LEN]);
            for front in [0, 2, 19] {
                let mut bytes = vec![1; front];
                bytes.extend_from_slice(b"some words");
                let tag = aead.seal(5, b"ad", &mut bytes[front..]);
                bytes.extend_from_slice(&tag);
                let open = |number, ad: &[u8], from: usize| {
                    let mut bytes = bytes.clone();
                    aead.open(number, ad, &mut bytes, from..).map(|len| bytes[..len].to_vec())
                };
                assert_eq!(open(5, b"ad", front), Ok(b"some words".to_vec()), "{kind:?} {front}");
                assert_eq!(open(6, b"ad", front), Err(NotAuthentic));
                assert_eq!(open(5, b"", front), Err(NotAuthentic));
                assert_eq!(open(5, b"ad", front + 1), Err(NotAuthentic));
                assert_eq!(open(5, b"ad", bytes.len() + 1), Err(NotAuthentic));
            }
        }
    }
}
