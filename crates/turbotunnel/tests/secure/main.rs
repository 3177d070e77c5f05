//! The secure carrier without I/O: what it promises against whoever changes, repeats, mixes or makes up bytes; the documented vectors; and a second opinion.

mod differential;
mod forgery;
mod records;
mod vectors;

use turbotunnel::SessionId;
use turbotunnel::secure::{
    Accepted, Established, HEADER_LEN, HandshakeError, Initiator, InitiatorRandom, Recognised, Responder,
    ResponderRandom, Route, StaticKey, Suite,
};
use zeroize::Zeroizing;

const ID: SessionId = SessionId(*b"session!");

fn server_key() -> StaticKey {
    StaticKey::from_bytes(&std::array::from_fn(|i| i as u8))
}

fn client_key() -> StaticKey {
    StaticKey::from_bytes(&std::array::from_fn(|i| 0x20 + i as u8))
}

/// Random bytes that are anything but random: `seed` and counting.
fn initiator_random(seed: u8) -> InitiatorRandom {
    InitiatorRandom {
        route: [seed; 8],
        ephemeral: Zeroizing::new(std::array::from_fn(|i| seed ^ (0x40 + i as u8))),
        ml_kem: Zeroizing::new(std::array::from_fn(|i| seed ^ (0x60 + i as u8))),
    }
}

fn responder_random(seed: u8) -> ResponderRandom {
    ResponderRandom {
        ephemeral: Zeroizing::new(std::array::from_fn(|i| seed ^ (0xa0 + i as u8))),
        ml_kem: Zeroizing::new(std::array::from_fn(|i| seed ^ (0xc0 + i as u8))),
    }
}

fn start(suite: Suite, seed: u8) -> (Initiator, Vec<u8>) {
    let mut first = Vec::new();
    let server = server_key().public();
    let initiator = Initiator::start(&server, &client_key(), suite, Route::ANY, &initiator_random(seed), &mut first);
    (initiator, first)
}

/// What the server does with a client's first bytes. `None`: it says nothing.
fn answer(key: &StaticKey, first: &[u8], seed: u8) -> Option<(Responder, Vec<u8>)> {
    let (header, message) = first.split_first_chunk::<HEADER_LEN>()?;
    let keys = [key.clone()];
    let recognised = Recognised::new(&keys, header)?;
    let mut second = Vec::new();
    let route = Route::new(b"\x07").unwrap();
    let responder = recognised.handle_message(message, route, &responder_random(seed), &mut second);
    if responder.is_err() {
        assert!(second.is_empty(), "who is refused hears nothing");
    }
    Some((responder.ok()?, second))
}

struct Whole {
    messages: [Vec<u8>; 3],
    client: Established,
    server: Accepted,
}

fn whole(suite: Suite, seed: u8) -> Whole {
    let (initiator, first) = start(suite, seed);
    let (responder, second) = answer(&server_key(), &first, seed).expect("an honest client is answered");
    let mut third = Vec::new();
    let client = initiator.handle_answer(&second, ID, &mut third).expect("an honest answer is taken");
    let server = responder.handle_message(&third).expect("an honest client is let in");
    Whole { messages: [first, second, third], client, server }
}

fn refused<T>(result: &Result<T, HandshakeError>) -> bool {
    result.is_err()
}
