//! A second opinion on the handshake: `clatter`, an independent implementation of Noise, in the place of either end.
//!
//! Everything around Noise (header, prologue, payloads, psk) is written here a second time, after docs/secure-wire.md and not after the code.

use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac256, Digest};
use clatter::crypto::cipher::{AesGcm, ChaChaPoly};
use clatter::crypto::dh::X25519;
use clatter::crypto::hash::Blake2s;
use clatter::handshakepattern::noise_xk_psk3;
use clatter::traits::{Cipher, Dh, Handshaker};
use clatter::{KeyPair, NqHandshake};
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport};
use turbotunnel::secure::{HEADER_LEN, MESSAGE_3_LEN, Records, Route, StaticKey, Suite};

use super::*;

type Noise<C> = NqHandshake<X25519, C, Blake2s>;

fn pair_of(secret: [u8; 32]) -> KeyPair<[u8; 32], <X25519 as Dh>::PrivateKey> {
    let secret = clatter::bytearray::SensitiveByteArray::new(secret);
    KeyPair { public: X25519::pubkey(&secret), secret }
}

fn mac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut mac = <Blake2sMac256 as KeyInit>::new(key.into());
    Update::update(&mut mac, text);
    mac.finalize_fixed().into()
}

fn header(server: &[u8; 32], suite: u8, route: [u8; 8]) -> [u8; HEADER_LEN] {
    let key = Blake2s256::digest([&b"turbotunnel-secure/1 mark"[..], server].concat());
    let mark = mac(&key.into(), &[&route[..], &[suite]].concat());
    [&route[..], &mark[..8]].concat().try_into().unwrap()
}

fn prologue(suite: u8, header: &[u8; HEADER_LEN]) -> Vec<u8> {
    [&b"turbotunnel-secure/1"[..], &[suite], header].concat()
}

fn psk<C: Cipher>(secret: [u8; 32], noise: &Noise<C>) -> [u8; 32] {
    mac(&secret, &[b"turbotunnel-secure/1 psk", noise.get_handshake_hash().as_slice()].concat())
}

trait HandshakeHash {
    fn get_handshake_hash(&self) -> Vec<u8>;
}

impl<C: Cipher> HandshakeHash for Noise<C> {
    fn get_handshake_hash(&self) -> Vec<u8> {
        self.get_state().get_hash().to_vec()
    }
}

/// `clatter` dials our server.
fn clatter_dials<C: Cipher>(suite: Suite, number: u8, ml_kem: bool) {
    let route = *b"8 bytes.";
    let server = *server_key().public().as_bytes();
    let header = header(&server, number, route);
    let mut noise = Noise::<C>::new(
        noise_xk_psk3(),
        &prologue(number, &header),
        true,
        Some(pair_of(*client_key().secret_bytes())),
        None,
        Some(server),
        None,
    )
    .unwrap();
    let key = ml_kem.then(|| DecapsulationKey::from_seed([5; 64].into()));
    let payload = key.as_ref().map_or(Vec::new(), |key| key.encapsulation_key().to_bytes().to_vec());
    let mut buffer = [0; 2048];
    let len = noise.write_message(&payload, &mut buffer).unwrap();
    let first = [&header[..], &buffer[..len]].concat();

    let (responder, second) = answer(&server_key(), &first, 1).expect("our server answers clatter");
    let mut payload = [0; 2048];
    let len = noise.read_message(&second, &mut payload).unwrap();
    assert_eq!(payload[..9], [1, 7, 0, 0, 0, 0, 0, 0, 0], "the server's route");
    let secret = match key {
        Some(key) => key.decapsulate(&Ciphertext::try_from(&payload[9..len]).unwrap()).into(),
        None => {
            assert_eq!(len, 9);
            [0; 32]
        }
    };
    let psk = psk(secret, &noise);
    noise.push_psk(&psk);
    let len = noise.write_message(&ID.0, &mut buffer).unwrap();
    assert_eq!(len, MESSAGE_3_LEN);
    let accepted = responder.handle_message(&buffer[..len]).expect("our server lets clatter in");
    assert_eq!((accepted.client, accepted.session), (client_key().public(), ID));
    exchange(accepted.records, noise, suite);
}

/// Our client dials `clatter`.
fn clatter_answers<C: Cipher>(suite: Suite, number: u8, ml_kem: bool) {
    let (initiator, first) = start(suite, 3);
    let server = server_key();
    let (begin, message) = first.split_first_chunk::<HEADER_LEN>().unwrap();
    assert_eq!(*begin, header(server.public().as_bytes(), number, [3; 8]));
    let mut noise = Noise::<C>::new(
        noise_xk_psk3(),
        &prologue(number, begin),
        false,
        Some(pair_of(*server.secret_bytes())),
        None,
        None,
        None,
    )
    .unwrap();
    let mut payload = [0; 2048];
    let len = noise.read_message(message, &mut payload).unwrap();
    let (ciphertext, secret) = if ml_kem {
        let key = ml_kem::Key::<EncapsulationKey>::try_from(&payload[..len]).unwrap();
        let (ciphertext, secret) = EncapsulationKey::new(&key).unwrap().encapsulate_deterministic(&[8; 32].into());
        (ciphertext.to_vec(), secret.into())
    } else {
        assert_eq!(len, 0);
        (Vec::new(), [0; 32])
    };
    let answer = [&[2, 0xab, 0xcd, 0, 0, 0, 0, 0, 0][..], &ciphertext].concat();
    let mut buffer = [0; 2048];
    let len = noise.write_message(&answer, &mut buffer).unwrap();
    let psk = psk(secret, &noise);
    noise.push_psk(&psk);
    let mut third = Vec::new();
    let established =
        initiator.handle_answer(&buffer[..len], ID, &mut third).expect("our client takes clatter's answer");
    assert_eq!(established.route, Route::new(&[0xab, 0xcd]).unwrap());
    let len = noise.read_message(&third, &mut payload).unwrap();
    assert_eq!(payload[..len], ID.0);
    assert_eq!(noise.get_remote_static(), Some(*client_key().public().as_bytes()));
    exchange(established.records, noise, suite);
}

/// A hundred records each way.
fn exchange<C: Cipher>(mut ours: Records, theirs: Noise<C>, suite: Suite) {
    let mut theirs = theirs.finalize().unwrap();
    for n in 0..100_u8 {
        let packets = [&[0, n][..], &vec![n; usize::from(n)]].concat();
        let mut sealed = Vec::new();
        ours.seal(&packets, &mut sealed).unwrap();
        assert_eq!(theirs.receive_vec(&sealed[2..]).unwrap(), packets, "{suite:?}");
        let answer = theirs.send_vec(&packets).unwrap();
        let record = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
        let mut opened = Vec::new();
        assert_eq!(ours.open(&record, &mut opened), Ok(record.len()), "{suite:?}");
        assert_eq!(opened, packets);
    }
}

#[test]
fn clatter_can_take_the_place_of_either_end() {
    for (suite, number, ml_kem) in [(Suite::ChaChaPolyMlKem, 1, true), (Suite::ChaChaPoly, 3, false)] {
        clatter_dials::<ChaChaPoly>(suite, number, ml_kem);
        clatter_answers::<ChaChaPoly>(suite, number, ml_kem);
    }
    for (suite, number, ml_kem) in [(Suite::AesGcmMlKem, 2, true), (Suite::AesGcm, 4, false)] {
        clatter_dials::<AesGcm>(suite, number, ml_kem);
        clatter_answers::<AesGcm>(suite, number, ml_kem);
    }
}

/// The static key that the second implementation derives is ours, too.
#[test]
fn public_keys_agree() {
    for n in 0..50 {
        let key = StaticKey::from_bytes(&[n; 32]);
        assert_eq!(&pair_of([n; 32]).public, key.public().as_bytes());
    }
}
