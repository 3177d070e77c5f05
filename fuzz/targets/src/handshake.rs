//! Both ends of a handshake, with somebody between them who changes its messages, or takes the part of one end.
//!
//! Held to: untouched, both ends get what they are promised, and the same keys; whatever was changed, cut, made longer or made up is refused by whoever gets it, at that
//! message, and he says nothing; what is for another key is nobody's.

use arbitrary::{Result, Unstructured};
use turbotunnel::SessionId;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{
    Accepted, Established, HEADER_LEN, Initiator, InitiatorRandom, KEY_LEN, MESSAGE_3_LEN, Recognised, Records,
    Responder, ResponderRandom, Route, StaticKey, Suite,
};
use zeroize::Zeroizing;

use crate::tell;

const ID: SessionId = SessionId(*b"session!");

/// What is done to one of the messages, header and message 1 being one.
#[derive(Debug)]
enum Deed {
    Flip(u16),
    Cut(u16),
    /// With a byte more.
    Longer(u8),
    /// Made up, beginning with these bytes and of the right length.
    MadeUp(Vec<u8>),
    /// The server's first message comes to the client, the client's to the server.
    Mirror,
}

impl Deed {
    fn take(u: &mut Unstructured<'_>) -> Result<Option<Self>> {
        Ok(match u.int_in_range(0..=5_u8)? {
            0 => None,
            1 => Some(Self::Cut(u.arbitrary()?)),
            2 => Some(Self::Longer(u.arbitrary()?)),
            3 => Some(Self::MadeUp(u.arbitrary()?)),
            4 => Some(Self::Mirror),
            _ => Some(Self::Flip(u.arbitrary()?)),
        })
    }

    fn apply(&self, honest: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = honest.to_vec();
        match self {
            Self::Flip(bit) => bytes[usize::from(*bit) / 8 % honest.len()] ^= 1 << (bit % 8),
            Self::Cut(len) => bytes.truncate(usize::from(*len) % honest.len()),
            Self::Longer(byte) => bytes.push(*byte),
            Self::MadeUp(with) => {
                bytes = with.clone();
                bytes.resize(honest.len(), 0x55);
            }
            Self::Mirror => {
                bytes = other.to_vec();
                bytes.resize(honest.len(), 0);
            }
        }
        bytes
    }
}

fn key(seed: u8) -> StaticKey {
    StaticKey::from_bytes(&[seed; KEY_LEN])
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let _ = play(&mut Unstructured::new(data));
}

fn play(u: &mut Unstructured<'_>) -> Result<()> {
    let suite = *u.choose(&Suite::ALL)?;
    let (at, deed) = (u.int_in_range(0..=2_u8)?, Deed::take(u)?);
    let (route, seed): ([u8; 8], u8) = (u.arbitrary()?, u.arbitrary()?);
    tell(&(suite, at, &deed));
    let changed = |number: u8, honest: &[u8], other: &[u8]| match &deed {
        Some(deed) if at == number => deed.apply(honest, other),
        _ => honest.to_vec(),
    };

    let random = InitiatorRandom {
        route,
        ephemeral: Zeroizing::new([seed; KEY_LEN]),
        ml_kem: Zeroizing::new([seed ^ 0x5a; 64]),
    };
    let mut first = Vec::new();
    let initiator = Initiator::start(&key(1).public(), &key(2), suite, Route::ANY, &random, &mut first);
    assert_eq!(first.len(), HEADER_LEN + suite.message_1_len());
    assert!(answer(&[key(3)], &first, seed).is_none(), "a message for another key was taken");
    let sent = changed(0, &first, &[]);
    let Some((responder, second)) = answer(&[key(3), key(1)], &sent, seed) else {
        assert_ne!(sent, first, "an honest first message was refused");
        return Ok(());
    };
    assert_eq!(sent, first, "a first message that the client has not made was answered");

    let sent = changed(1, &second, &first);
    let mut third = Vec::new();
    let Ok(established) = initiator.handle_answer(&sent, ID, &mut third) else {
        assert_ne!(sent, second, "an honest answer was refused");
        assert!(third.is_empty(), "something was said to whoever is not the server");
        return Ok(());
    };
    assert_eq!(sent, second, "an answer that the server has not made was taken");
    assert_eq!((third.len(), established.route.as_bytes()), (MESSAGE_3_LEN, &b"\x07\x08"[..]));

    let sent = changed(2, &third, &second);
    let Ok(accepted) = responder.handle_message(&sent) else {
        assert_ne!(sent, third, "an honest client was refused");
        return Ok(());
    };
    assert_eq!(sent, third, "a third message that the client has not made was taken");
    check_ends(established, accepted);
    Ok(())
}

fn answer(keys: &[StaticKey], first: &[u8], seed: u8) -> Option<(Responder, Vec<u8>)> {
    let (header, message) = first.split_first_chunk()?;
    let recognised = Recognised::new(keys, header)?;
    assert_eq!(recognised.key(), key(1).public());
    let random =
        ResponderRandom { ephemeral: Zeroizing::new([!seed; KEY_LEN]), ml_kem: Zeroizing::new([seed ^ 0xa5; 32]) };
    let (suite, mut out) = (recognised.suite(), Vec::new());
    let route = Route::new(b"\x07\x08")?;
    let Ok(responder) = recognised.handle_message(message, route, &random, &mut out) else {
        assert!(out.is_empty(), "something was said to a stranger");
        return None;
    };
    assert_eq!(out.len(), suite.message_2_len());
    Some((responder, out))
}

fn check_ends(established: Established, accepted: Accepted) {
    assert_eq!((accepted.client, accepted.session), (key(2).public(), ID));
    let (mut client, mut server) = (established.records, accepted.records);
    pass(&mut client, &mut server);
    pass(&mut server, &mut client);
}

fn pass(from: &mut Records, to: &mut Records) {
    let mut batch = PacketBatch::new();
    batch.push(b"a packet");
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());
    from.seal(batch.as_bytes(), &mut sealed).expect("not used up");
    assert_eq!(to.open(&sealed, &mut opened), Ok(sealed.len()));
    assert_eq!(opened, batch.as_bytes());
}
