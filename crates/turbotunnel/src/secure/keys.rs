//! Static keys, and how they are written down.
//!
//! ```text
//! public   k + base64url(32 bytes of key, 2 bytes of checksum)                       47 characters, to hand on
//! secret   TURBOTUNNEL-SECRET- + base64url(32 bytes of key, 2 bytes of checksum)     in a file of its owner's, nowhere else
//! ```
//!
//! The checksum is the beginning of BLAKE2s over the kind and the key: a mistyped key is told at once, and not by a server that does not answer.
//! The two kinds cannot be taken for one another. Not here: files (`key_file.rs`).

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2s256, Digest};
use curve25519_dalek::MontgomeryPoint;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

/// Length of keys, in bytes.
pub const KEY_LEN: usize = 32;
const CHECKSUM_LEN: usize = 2;
const TEXT_LEN: usize = (KEY_LEN + CHECKSUM_LEN) * 8 / 6 + 1;
const PUBLIC_PREFIX: &str = "k";
const SECRET_PREFIX: &str = "TURBOTUNNEL-SECRET-";

/// The public half of a [`StaticKey`]: says who somebody is, and is no secret. A server's is what its clients have to know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// From its bytes, as they are on the wire. Any bytes are taken; with those that are no point of large order no handshake succeeds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// As on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The first characters of the text form: enough to tell keys apart in a log.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(9);
        text
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PUBLIC_PREFIX)?;
        f.write_str(&encode(PUBLIC_PREFIX, &self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", self.short())
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        if text.starts_with(SECRET_PREFIX) {
            return Err(ParseKeyError::Secret);
        }
        let text = text.strip_prefix(PUBLIC_PREFIX).ok_or(ParseKeyError::NoKey)?;
        decode(PUBLIC_PREFIX, text).map(|bytes| Self(*bytes))
    }
}

/// A key pair of X25519: whoever has it is who the [`PublicKey`] says. Wiped from memory when dropped.
#[derive(Clone)]
pub struct StaticKey {
    secret: Zeroizing<[u8; KEY_LEN]>,
    public: PublicKey,
}

impl StaticKey {
    /// A new one from the operating system's randomness.
    ///
    /// # Errors
    ///
    /// When the operating system has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(bytes.as_mut()).map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(Self::from_bytes(&bytes))
    }

    /// From 32 secret bytes. Any bytes are a key.
    #[must_use]
    pub fn from_bytes(secret: &[u8; KEY_LEN]) -> Self {
        let public = PublicKey(MontgomeryPoint::mul_base_clamped(*secret).to_bytes());
        Self { secret: Zeroizing::new(*secret), public }
    }

    /// The half that others may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The half that nobody else may know.
    #[must_use]
    pub fn secret_bytes(&self) -> &[u8; KEY_LEN] {
        &self.secret
    }

    /// The text form, wiped from memory when dropped.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(encode(SECRET_PREFIX, &self.secret));
        let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + TEXT_LEN));
        text.push_str(SECRET_PREFIX);
        text.push_str(&encoded);
        text
    }

    /// From the text form.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_secret_text(text: &str) -> Result<Self, ParseKeyError> {
        let Some(text) = text.strip_prefix(SECRET_PREFIX) else {
            return Err(if text.parse::<PublicKey>().is_ok() { ParseKeyError::Public } else { ParseKeyError::NoKey });
        };
        decode(SECRET_PREFIX, text).map(|bytes| Self::from_bytes(&bytes))
    }
}

impl fmt::Debug for StaticKey {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticKey(of {}…)", self.public.short())
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// It does not begin as one.
    #[error("not a key: a public key begins with \"{PUBLIC_PREFIX}\" and has {} characters", PUBLIC_PREFIX.len() + TEXT_LEN)]
    NoKey,
    /// A part is missing, or there is more.
    #[error("a key that is {}: {found} characters instead of {expected}", if .found < .expected { "cut short" } else { "too long" })]
    Length {
        /// Characters behind the prefix.
        found: usize,
        /// Characters that there should be.
        expected: usize,
    },
    /// A character that is in no key.
    #[error("a key has letters, digits, - and _ only")]
    Character,
    /// All characters are legal, but at least one is wrong.
    #[error("a key with a typing error: its checksum is wrong")]
    Checksum,
    /// A secret key where a public one belongs. It should be made anew: somebody may have seen it.
    #[error("a secret key where the public one belongs")]
    Secret,
    /// A public key where a secret one belongs.
    #[error("a public key where the secret one belongs")]
    Public,
}

fn checksum(kind: &str, key: &[u8; KEY_LEN]) -> [u8; CHECKSUM_LEN] {
    let digest = Blake2s256::new().chain_update("turbotunnel key ").chain_update(kind).chain_update(key).finalize();
    [digest[0], digest[1]]
}

fn encode(kind: &str, key: &[u8; KEY_LEN]) -> String {
    let mut bytes = Zeroizing::new([0; KEY_LEN + CHECKSUM_LEN]);
    bytes[..KEY_LEN].copy_from_slice(key);
    bytes[KEY_LEN..].copy_from_slice(&checksum(kind, key));
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

fn decode(kind: &str, text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, ParseKeyError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !text.bytes().all(legal) {
        return Err(ParseKeyError::Character);
    }
    if text.len() != TEXT_LEN {
        return Err(ParseKeyError::Length { found: text.len(), expected: TEXT_LEN });
    }
    // What is left to fail are bits of the last character that belong to nothing.
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| ParseKeyError::Checksum)?);
    let (key, sum) = bytes.split_first_chunk::<KEY_LEN>().ok_or(ParseKeyError::Checksum)?;
    if *sum != checksum(kind, key) {
        return Err(ParseKeyError::Checksum);
    }
    Ok(Zeroizing::new(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_and_read() {
        let key = StaticKey::from_bytes(&[7; 32]);
        let public = key.public().to_string();
        assert_eq!((public.len(), &public[..1]), (47, "k"));
        assert_eq!(public.parse(), Ok(key.public()));
        let secret = key.to_secret_text();
        assert_eq!(StaticKey::from_secret_text(&secret).unwrap().public(), key.public());
        assert_eq!(format!("{key:?}"), format!("StaticKey(of {}…)", &public[..9]));
    }

    #[test]
    fn any_wrong_character_and_any_missing_one_is_told() {
        let text = StaticKey::from_bytes(&[7; 32]).public().to_string();
        for at in 1..text.len() {
            let mut wrong = text.clone();
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            wrong.replace_range(at..=at, other);
            assert_eq!(wrong.parse::<PublicKey>(), Err(ParseKeyError::Checksum), "{wrong}");
            let cut = &text[..at];
            assert_eq!(cut.parse::<PublicKey>(), Err(ParseKeyError::Length { found: at - 1, expected: 46 }));
        }
        assert_eq!(format!("{text} ").parse::<PublicKey>(), Err(ParseKeyError::Character));
        assert_eq!("".parse::<PublicKey>(), Err(ParseKeyError::NoKey));
        assert_eq!("kü".parse::<PublicKey>(), Err(ParseKeyError::Character));
    }

    #[test]
    fn the_two_kinds_are_told_apart() {
        let key = StaticKey::from_bytes(&[7; 32]);
        assert_eq!(key.to_secret_text().parse::<PublicKey>(), Err(ParseKeyError::Secret));
        let public = key.public().to_string();
        assert_eq!(StaticKey::from_secret_text(&public).err(), Some(ParseKeyError::Public));
        assert_eq!(StaticKey::from_secret_text("hello").err(), Some(ParseKeyError::NoKey));
    }
}
