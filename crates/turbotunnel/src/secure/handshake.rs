//! The handshake of one carrier: who is at the other end, and keys that nobody else has.
//!
//! Each side is a row of types; each step takes the state along, so that there is no second try after a failure. Messages have one length for each suite, so
//! that nothing of them has to be understood before it is verified.
//!
//! ```text
//! header     route (8), mark (8): the first half of BLAKE2s, keyed with the server's public key, over route and suite
//! prologue   "turbotunnel-secure/1", suite (1), route (8), mark (8)
//! message 1  e, es          payload: ML-KEM-768 encapsulation key (1,184), or nothing
//! message 2  e, ee          payload: route of the server (9), ML-KEM-768 ciphertext (1,088) or nothing
//! message 3  s, se, psk     payload: session id (8)
//! psk        BLAKE2s, keyed with the secret of ML-KEM or zeros, over "turbotunnel-secure/1 psk" and the hash of everything up to message 2
//! ```
//!
//! Not here: reading and writing, how long a step may take, and which client is let in.

use std::fmt;

use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac256, Digest};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport, Seed};
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::aead::{Key, Kind, TAG_LEN};
use super::keys::{KEY_LEN, PublicKey, StaticKey};
use super::primitives::Primitives;
use super::record::Records;
use crate::SessionId;

/// Bytes by which a load balancer may find the server.
pub const ROUTE_LEN: usize = 8;
const MARK_LEN: usize = 8;
/// Bytes in front of message 1.
pub const HEADER_LEN: usize = ROUTE_LEN + MARK_LEN;

const NAME: &[u8] = b"turbotunnel-secure/1";
const ENCAPSULATION_KEY_LEN: usize = 1184;
const CIPHERTEXT_LEN: usize = 1088;
const ROUTE_FIELD_LEN: usize = 1 + ROUTE_LEN;
/// Bytes of message 3.
pub const MESSAGE_3_LEN: usize = KEY_LEN + TAG_LEN + SessionId::LEN + TAG_LEN;
/// The longest of all messages.
const LONGEST: usize = KEY_LEN + ENCAPSULATION_KEY_LEN + TAG_LEN;
/// Where `psk3` is kept.
const PSK_PLACE: usize = 3;

/// What a carrier is encrypted with: a cipher for what is sent, and whether a key exchange that withstands quantum computers is added. The client chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Suite {
    /// ChaCha20-Poly1305, X25519 and ML-KEM-768.
    ChaChaPolyMlKem,
    /// AES-256-GCM, X25519 and ML-KEM-768: faster where the processor has instructions for it, slower by far where it has not.
    AesGcmMlKem,
    /// ChaCha20-Poly1305, X25519 only.
    ChaChaPoly,
    /// AES-256-GCM, X25519 only.
    AesGcm,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ChaChaPolyMlKem, Self::AesGcmMlKem, Self::ChaChaPoly, Self::AesGcm];

    /// The better one for this machine, with ML-KEM: AES-GCM where the processor has instructions for all of it.
    #[must_use]
    pub fn for_this_machine() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        if std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq") {
            return Self::AesGcmMlKem;
        }
        Self::ChaChaPolyMlKem
    }

    /// With ML-KEM-768.
    #[must_use]
    pub const fn has_ml_kem(self) -> bool {
        matches!(self, Self::ChaChaPolyMlKem | Self::AesGcmMlKem)
    }

    /// The byte that stands for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::ChaChaPolyMlKem => 1,
            Self::AesGcmMlKem => 2,
            Self::ChaChaPoly => 3,
            Self::AesGcm => 4,
        }
    }

    /// Bytes of message 1.
    #[must_use]
    pub const fn message_1_len(self) -> usize {
        KEY_LEN + if self.has_ml_kem() { ENCAPSULATION_KEY_LEN } else { 0 } + TAG_LEN
    }

    /// Bytes of message 2.
    #[must_use]
    pub const fn message_2_len(self) -> usize {
        KEY_LEN + ROUTE_FIELD_LEN + if self.has_ml_kem() { CIPHERTEXT_LEN } else { 0 } + TAG_LEN
    }

    fn cipher(self) -> Kind {
        match self {
            Self::ChaChaPolyMlKem | Self::ChaChaPoly => Kind::ChaChaPoly,
            Self::AesGcmMlKem | Self::AesGcm => Kind::AesGcm,
        }
    }

    fn params(self) -> NoiseParams {
        let name = match self.cipher() {
            Kind::ChaChaPoly => "Noise_XKpsk3_25519_ChaChaPoly_BLAKE2s",
            Kind::AesGcm => "Noise_XKpsk3_25519_AESGCM_BLAKE2s",
        };
        name.parse().expect("a pattern that snow knows")
    }
}

/// How the carriers of a session find their server behind a load balancer: what the first bytes of each have to be. The others are random, so that nobody can tell
/// which carriers belong to one session, only which to one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    len: u8,
    bytes: [u8; ROUTE_LEN],
}

impl Route {
    /// Any bytes will do: there is one server, or the load balancer goes by something else.
    pub const ANY: Self = Self { len: 0, bytes: [0; ROUTE_LEN] };

    /// The first bytes, 8 at most; the fewer, the less they tell. `None`: more than that.
    #[must_use]
    pub fn new(first: &[u8]) -> Option<Self> {
        let mut bytes = [0; ROUTE_LEN];
        bytes.get_mut(..first.len())?.copy_from_slice(first);
        Some(Self { len: u8::try_from(first.len()).ok()?, bytes })
    }

    /// What the first bytes have to be.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(ROUTE_LEN)]
    }

    fn apply(self, random: [u8; ROUTE_LEN]) -> [u8; ROUTE_LEN] {
        let mut route = random;
        let first = self.as_bytes();
        route[..first.len()].copy_from_slice(first);
        route
    }

    fn encode(self) -> [u8; ROUTE_FIELD_LEN] {
        let mut field = [0; ROUTE_FIELD_LEN];
        field[0] = self.len;
        field[1..].copy_from_slice(&self.bytes);
        field
    }

    fn decode(field: &[u8; ROUTE_FIELD_LEN]) -> Option<Self> {
        let [len, bytes @ ..] = field;
        let route = Self::new(bytes.get(..usize::from(*len))?)?;
        (route.bytes == *bytes).then_some(route)
    }
}

/// Why a handshake failed. Whoever is at the other end learns nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message does not verify: changed on the way, from an earlier handshake, or made without the key that it takes.
    #[error("a handshake message that does not verify")]
    NotAuthentic,
    /// It verifies, but says what no peer of this version says.
    #[error("a handshake message with unknown contents")]
    Malformed,
}

impl From<snow::Error> for HandshakeError {
    fn from(_: snow::Error) -> Self {
        Self::NotAuthentic
    }
}

/// Fresh random bytes for a client's handshake. Never use any twice.
pub struct InitiatorRandom {
    /// For the route.
    pub route: [u8; ROUTE_LEN],
    /// The secret half of the ephemeral key.
    pub ephemeral: Zeroizing<[u8; KEY_LEN]>,
    /// What the key of ML-KEM is made from.
    pub ml_kem: Zeroizing<[u8; 64]>,
}

/// Fresh random bytes for a server's handshake. Never use any twice.
pub struct ResponderRandom {
    /// The secret half of the ephemeral key.
    pub ephemeral: Zeroizing<[u8; KEY_LEN]>,
    /// What the secret of ML-KEM is made from.
    pub ml_kem: Zeroizing<[u8; 32]>,
}

fn random<const N: usize>() -> std::io::Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(bytes)
}

impl InitiatorRandom {
    /// From the operating system.
    ///
    /// # Errors
    ///
    /// When it has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        Ok(Self { route: *random()?, ephemeral: random()?, ml_kem: random()? })
    }
}

impl ResponderRandom {
    /// From the operating system.
    ///
    /// # Errors
    ///
    /// When it has no random bytes to give.
    pub fn generate() -> std::io::Result<Self> {
        Ok(Self { ephemeral: random()?, ml_kem: random()? })
    }
}

/// The client's side, between message 1 and message 2.
pub struct Initiator {
    noise: HandshakeState,
    suite: Suite,
    ml_kem: Option<Box<DecapsulationKey>>,
}

/// A carrier as the client has it after message 3.
#[derive(Debug)]
pub struct Established {
    /// Seals and opens what follows.
    pub records: Records,
    /// What the next carriers of the session have to begin with.
    pub route: Route,
}

impl Initiator {
    /// Begins a carrier to the server with the key `server`: appends header and message 1 to `out`.
    pub fn start(
        server: &PublicKey,
        own: &StaticKey,
        suite: Suite,
        route: Route,
        random: &InitiatorRandom,
        out: &mut Vec<u8>,
    ) -> Self {
        let route = route.apply(random.route);
        let mark = Marker::new(server).mark(route, suite);
        out.extend_from_slice(&route);
        out.extend_from_slice(&mark);
        let builder = Builder::with_resolver(suite.params(), Box::new(Primitives::new(own, &random.ephemeral)));
        let mut noise = builder
            .local_private_key(own.secret_bytes())
            .and_then(|builder| {
                builder.remote_public_key(server.as_bytes())?.prologue(&prologue(suite, route, mark))?.build_initiator()
            })
            .expect("everything that the pattern asks for is given");
        let ml_kem = suite.has_ml_kem().then(|| Box::new(DecapsulationKey::from_seed(Seed::from(*random.ml_kem))));
        let key = ml_kem.as_ref().map(|ml_kem| ml_kem.encapsulation_key().to_bytes());
        let payload = key.as_ref().map_or(&[][..], |key| key.as_slice());
        if write(&mut noise, payload, out).is_err() {
            // A server key of small order: an answer cannot come, and this shows it to nobody.
            out.resize(out.len() + suite.message_1_len(), 0);
        }
        Self { noise, suite, ml_kem }
    }

    /// Bytes of the answer that is waited for.
    #[must_use]
    pub fn answer_len(&self) -> usize {
        self.suite.message_2_len()
    }

    /// Takes in message 2, appends message 3 to `out`, and is done. The carrier is one of session `id`.
    ///
    /// # Errors
    ///
    /// It is not an answer of this server to this carrier. Close it.
    pub fn handle_answer(
        mut self,
        message: &[u8],
        id: SessionId,
        out: &mut Vec<u8>,
    ) -> Result<Established, HandshakeError> {
        if message.len() != self.answer_len() {
            return Err(HandshakeError::NotAuthentic);
        }
        let mut payload = [0; LONGEST];
        let len = self.noise.read_message(message, &mut payload)?;
        let (route, rest) = payload[..len].split_first_chunk().ok_or(HandshakeError::Malformed)?;
        let route = Route::decode(route).ok_or(HandshakeError::Malformed)?;
        let secret = match self.ml_kem {
            Some(key) => {
                let ciphertext = Ciphertext::try_from(rest).map_err(|_| HandshakeError::Malformed)?;
                Zeroizing::new(key.decapsulate(&ciphertext).into())
            }
            None => Zeroizing::new([0; KEY_LEN]),
        };
        mix_psk(&mut self.noise, &secret)?;
        write(&mut self.noise, &id.0, out)?;
        let [ours, theirs] = split(&mut self.noise, self.suite);
        Ok(Established { records: Records::new(ours, theirs), route })
    }
}

/// The server's side when it has read a header that is for one of its keys.
pub struct Recognised<'a> {
    key: &'a StaticKey,
    suite: Suite,
    route: [u8; ROUTE_LEN],
    mark: [u8; MARK_LEN],
}

/// The server's side, between message 2 and message 3.
pub struct Responder {
    noise: HandshakeState,
    suite: Suite,
}

/// A carrier as the server has it after message 3.
#[derive(Debug)]
pub struct Accepted {
    /// Who has dialled: only the holder of this key can have.
    pub client: PublicKey,
    /// Which of the client's sessions it is for.
    pub session: SessionId,
    /// Seals and opens what follows.
    pub records: Records,
}

impl<'a> Recognised<'a> {
    /// Finds out for which of the `keys` a header is, and with which suite. `None`: for none; say nothing. This costs a strangers' header a few hashes and
    /// nothing else.
    #[must_use]
    pub fn new(keys: &'a [StaticKey], header: &[u8; HEADER_LEN]) -> Option<Self> {
        let route = *header.first_chunk()?;
        let mark = *header.last_chunk()?;
        keys.iter().find_map(|key| {
            let marker = Marker::new(&key.public());
            let suite = Suite::ALL.into_iter().find(|suite| marker.mark(route, *suite) == mark)?;
            Some(Self { key, suite, route, mark })
        })
    }

    /// The suite that the client has chosen.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Which of the keys it is for.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key.public()
    }

    /// Takes in message 1, of [`Suite::message_1_len`], and appends message 2 to `out`. `route` is what this server's carriers are to begin with.
    ///
    /// # Errors
    ///
    /// It does not verify. Say nothing.
    pub fn handle_message(
        self,
        message: &[u8],
        route: Route,
        random: &ResponderRandom,
        out: &mut Vec<u8>,
    ) -> Result<Responder, HandshakeError> {
        let suite = self.suite;
        if message.len() != suite.message_1_len() {
            return Err(HandshakeError::NotAuthentic);
        }
        let builder = Builder::with_resolver(suite.params(), Box::new(Primitives::new(self.key, &random.ephemeral)));
        let mut noise = builder
            .local_private_key(self.key.secret_bytes())?
            .prologue(&prologue(suite, self.route, self.mark))?
            .build_responder()?;
        let mut payload = [0; LONGEST];
        let len = noise.read_message(message, &mut payload)?;
        let mut answer = route.encode().to_vec();
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        if suite.has_ml_kem() {
            let key =
                ml_kem::Key::<EncapsulationKey>::try_from(&payload[..len]).map_err(|_| HandshakeError::Malformed)?;
            let key = EncapsulationKey::new(&key).map_err(|_| HandshakeError::Malformed)?;
            let (ciphertext, shared) = key.encapsulate_deterministic(&(*random.ml_kem).into());
            answer.extend_from_slice(&ciphertext);
            secret = Zeroizing::new(shared.into());
        }
        let start = out.len();
        write(&mut noise, &answer, out)?;
        if let Err(error) = mix_psk(&mut noise, &secret) {
            out.truncate(start);
            return Err(error);
        }
        Ok(Responder { noise, suite })
    }
}

impl Responder {
    /// Takes in message 3, of [`MESSAGE_3_LEN`] bytes. Only now it is known that somebody is there who has the client's key and answers to message 2: keep nothing
    /// of a session, and send nothing of one, before that.
    ///
    /// # Errors
    ///
    /// It does not verify. Close the carrier.
    pub fn handle_message(mut self, message: &[u8]) -> Result<Accepted, HandshakeError> {
        if message.len() != MESSAGE_3_LEN {
            return Err(HandshakeError::NotAuthentic);
        }
        let mut payload = [0; MESSAGE_3_LEN];
        let len = self.noise.read_message(message, &mut payload)?;
        let id = <[u8; SessionId::LEN]>::try_from(&payload[..len]).map_err(|_| HandshakeError::Malformed)?;
        let client = self.noise.get_remote_static().and_then(|key| key.first_chunk().copied());
        let client = PublicKey::from_bytes(client.ok_or(HandshakeError::Malformed)?);
        let [theirs, ours] = split(&mut self.noise, self.suite);
        Ok(Accepted { client, session: SessionId(id), records: Records::new(ours, theirs) })
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// Appends the next message with `payload`.
fn write(noise: &mut HandshakeState, payload: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let start = out.len();
    // More than any message has beside its payload.
    out.resize(start + payload.len() + 2 * (KEY_LEN + TAG_LEN), 0);
    match noise.write_message(payload, &mut out[start..]) {
        Ok(len) => {
            out.truncate(start + len);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error.into())
        }
    }
}

/// The ciphers of both directions, the initiator's first.
///
/// # Panics
///
/// Before the end of the handshake: a mistake of ours, with keys that would be worth nothing.
fn split(noise: &mut HandshakeState, suite: Suite) -> [Key; 2] {
    assert!(noise.is_handshake_finished(), "both messages and the psk are in");
    let (initiator, responder) = noise.dangerously_get_raw_split();
    [Zeroizing::new(initiator), Zeroizing::new(responder)].map(|key| Key::new(suite.cipher(), &key))
}

fn prologue(suite: Suite, route: [u8; ROUTE_LEN], mark: [u8; MARK_LEN]) -> Vec<u8> {
    [NAME, &[suite.number()], &route, &mark].concat()
}

/// Makes what shows a server that a header is for its key, and whoever does not know that key nothing.
struct Marker(Zeroizing<[u8; 32]>);

impl Marker {
    fn new(server: &PublicKey) -> Self {
        let key =
            Blake2s256::new().chain_update(NAME).chain_update(b" mark").chain_update(server.as_bytes()).finalize();
        Self(Zeroizing::new(key.into()))
    }

    fn mark(&self, route: [u8; ROUTE_LEN], suite: Suite) -> [u8; MARK_LEN] {
        let tag = keyed(&self.0, &[&route, &[suite.number()]]);
        std::array::from_fn(|i| tag[i])
    }
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = <Blake2sMac256 as KeyInit>::new(key.into());
    parts.iter().for_each(|part| Update::update(&mut mac, part));
    Zeroizing::new(mac.finalize_fixed().into())
}

fn mix_psk(noise: &mut HandshakeState, secret: &[u8; KEY_LEN]) -> Result<(), HandshakeError> {
    let psk = keyed(secret, &[NAME, b" psk", noise.get_handshake_hash()]);
    Ok(noise.set_psk(PSK_PLACE, psk.as_ref())?)
}
