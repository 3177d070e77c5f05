//! The primitives that the Noise state machine of `snow` is given: X25519, BLAKE2s, the two ciphers, and randomness that was asked for before.
//!
//! `snow` can bring its own. Ours differ in three things: secret keys are wiped when dropped, a Diffie-Hellman result of zeros (a public key of small order)
//! is an error, and there is no source of randomness but the bytes that the caller brings, so that a handshake can be played again.

use blake2::{Blake2s256, Digest};
use curve25519_dalek::MontgomeryPoint;
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{Aead, Kind, TAG_LEN};
use super::keys::{KEY_LEN, StaticKey};

/// Gives `snow` what it asks for.
pub(super) struct Primitives {
    own: StaticKey,
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
}

impl Primitives {
    /// `ephemeral` is the secret half of the one key that the handshake generates: fresh random bytes.
    pub(super) fn new(own: &StaticKey, ephemeral: &[u8; KEY_LEN]) -> Self {
        Self { own: own.clone(), ephemeral: Zeroizing::new(*ephemeral) }
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519 {
                own: self.own.clone(),
                secret: Zeroizing::new([0; KEY_LEN]),
                public: [0; KEY_LEN],
            })),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::<Blake2s>::default()),
            _ => None,
        }
    }

    #[allow(unreachable_patterns, reason = "snow has a third choice with a feature that somebody else may ask for")]
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let kind = match choice {
            CipherChoice::ChaChaPoly => Kind::ChaChaPoly,
            CipherChoice::AESGCM => Kind::AesGcm,
            _ => return None,
        };
        Some(Box::new(Keyed { kind, key: [0; KEY_LEN] }))
    }
}

/// Randomness for one key. A handshake that asks for more gets an error, and never the same again.
struct Once(Option<Zeroizing<[u8; KEY_LEN]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().filter(|bytes| bytes.len() == dest.len()).ok_or(Error::Rng)?;
        dest.copy_from_slice(bytes.as_ref());
        Ok(())
    }
}

struct X25519 {
    /// Its public half is known: to compute it costs as much as the handshake's other half.
    own: StaticKey,
    secret: Zeroizing<[u8; KEY_LEN]>,
    public: [u8; KEY_LEN],
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = if self.secret.as_ref() == self.own.secret_bytes() {
            *self.own.public().as_bytes()
        } else {
            MontgomeryPoint::mul_base_clamped(*self.secret).to_bytes()
        };
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), Error> {
        random.try_fill_bytes(self.secret.as_mut())?;
        self.public = MontgomeryPoint::mul_base_clamped(*self.secret).to_bytes();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_ref()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<KEY_LEN>().ok_or(Error::Dh)?;
        let shared = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*self.secret).to_bytes());
        // Any order will do for zeros: they are public.
        if shared.iter().all(|byte| *byte == 0) {
            return Err(Error::Dh);
        }
        out.get_mut(..KEY_LEN).ok_or(Error::Dh)?.copy_from_slice(shared.as_ref());
        Ok(())
    }
}

#[derive(Default)]
struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_reset());
    }
}

/// A key of the handshake, and nothing made of it: there are three, and each is used once or twice, or never.
struct Keyed {
    kind: Kind,
    key: [u8; KEY_LEN],
}

impl Drop for Keyed {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Cipher for Keyed {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::ChaChaPoly => "ChaChaPoly",
            Kind::AesGcm => "AESGCM",
        }
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        self.key = *key;
    }

    fn encrypt(&self, number: u64, ad: &[u8], plain: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        rest[..TAG_LEN].copy_from_slice(&Aead::new(self.kind, &self.key).seal(number, ad, text));
        plain.len() + TAG_LEN
    }

    fn decrypt(&self, number: u64, ad: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let mut in_out = Zeroizing::new(sealed.to_vec());
        let opened = Aead::new(self.kind, &self.key).open(number, ad, &mut in_out, 0..);
        let len = opened.map_err(|_| Error::Decrypt)?;
        out.get_mut(..len).ok_or(Error::Decrypt)?.copy_from_slice(&in_out[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x25519(secret: [u8; 32]) -> Box<dyn Dh> {
        let own = StaticKey::from_bytes(&[1; 32]);
        let mut dh = Primitives::new(&own, &[2; 32]).resolve_dh(&DHChoice::Curve25519).unwrap();
        dh.set(&secret);
        dh
    }

    /// RFC 7748, section 6.1, and the keys that make every secret zero.
    #[test]
    fn x25519_agrees_with_the_standard_and_refuses_points_of_small_order() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let alice = x25519(hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a").try_into().unwrap());
        assert_eq!(alice.pubkey(), hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"));
        let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let mut shared = [0; 32];
        alice.dh(&bob, &mut shared).unwrap();
        assert_eq!(shared[..], hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
        for small in [[0; 32], std::array::from_fn(|i| u8::from(i == 0))] {
            assert!(alice.dh(&small, &mut shared).is_err());
        }
    }

    #[test]
    fn our_own_public_half_is_not_computed_anew_but_right() {
        let own = StaticKey::from_bytes(&[1; 32]);
        assert_eq!(x25519([1; 32]).pubkey(), own.public().as_bytes());
        assert_eq!(x25519([3; 32]).pubkey(), StaticKey::from_bytes(&[3; 32]).public().as_bytes());
    }

    #[test]
    fn randomness_is_given_once() {
        let own = StaticKey::from_bytes(&[1; 32]);
        let mut random = Primitives::new(&own, &[2; 32]).resolve_rng().unwrap();
        let mut bytes = [0; 32];
        random.try_fill_bytes(&mut bytes).unwrap();
        assert_eq!(bytes, [2; 32]);
        assert!(random.try_fill_bytes(&mut bytes).is_err());
    }
}
