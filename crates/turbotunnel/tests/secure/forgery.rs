//! The handshake against whoever sits between the two, or pretends to be one of them.

use turbotunnel::SessionId;
use turbotunnel::secure::{
    HEADER_LEN, Initiator, InitiatorRandom, MESSAGE_3_LEN, PublicKey, Recognised, Route, StaticKey, Suite,
};

use super::*;

#[test]
fn both_sides_learn_who_the_other_is_and_nobody_else_does() {
    for suite in Suite::ALL {
        let whole = whole(suite, 1);
        assert_eq!((whole.server.client, whole.server.session), (client_key().public(), ID), "{suite:?}");
        assert_eq!(whole.client.route.as_bytes(), b"\x07");
        let lens = whole.messages.each_ref().map(Vec::len);
        assert_eq!(lens, [HEADER_LEN + suite.message_1_len(), suite.message_2_len(), MESSAGE_3_LEN]);
        let wire = whole.messages.concat();
        for secret in [server_key().public().as_bytes(), client_key().public().as_bytes()] {
            assert!(!wire.windows(8).any(|bytes| bytes == &secret[..8]), "a static key is in the clear");
        }
        assert!(!wire.windows(8).any(|bytes| bytes == ID.0), "the session id is in the clear");
    }
}

/// Each bit of each message, for each suite: 23,000 handshakes with one thing wrong. One of the two with ML-KEM, which differ in the cipher only, is looked at
/// in every seventh bit.
#[test]
fn any_flipped_bit_of_any_message_is_refused() {
    std::thread::scope(|scope| {
        Suite::ALL.map(|suite| scope.spawn(move || flip_every_bit(suite))).map(|run| run.join().unwrap())
    });
}

fn flip_every_bit(suite: Suite) {
    let honest = whole(suite, 1);
    let [first, second, third] = &honest.messages;
    let step = if suite == Suite::AesGcmMlKem { 7 } else { 1 };
    for bit in (0..first.len() * 8).step_by(step) {
        assert!(answer(&server_key(), &flipped(first, bit), 1).is_none(), "{suite:?} message 1 bit {bit}");
    }
    for bit in (0..second.len() * 8).step_by(step) {
        let (initiator, _) = start(suite, 1);
        let mut out = Vec::new();
        let outcome = initiator.handle_answer(&flipped(second, bit), ID, &mut out);
        assert!(refused(&outcome), "{suite:?} message 2 bit {bit}");
        assert!(out.is_empty(), "nothing is said to whoever is not the server");
    }
    for bit in 0..third.len() * 8 {
        let (responder, _) = answer(&server_key(), first, 1).unwrap();
        assert!(refused(&responder.handle_message(&flipped(third, bit))), "{suite:?} message 3 bit {bit}");
    }
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn any_message_that_is_cut_short_or_goes_on_is_refused() {
    for suite in Suite::ALL {
        let honest = whole(suite, 1);
        let [first, second, third] = &honest.messages;
        let wrong = |message: &Vec<u8>| {
            let longer = [message, &b"x"[..]].concat();
            (0..message.len()).map(|len| message[..len].to_vec()).chain([longer]).collect::<Vec<_>>()
        };
        assert!(wrong(first).iter().all(|message| answer(&server_key(), message, 1).is_none()));
        for message in wrong(second) {
            assert!(refused(&start(suite, 1).0.handle_answer(&message, ID, &mut Vec::new())));
        }
        for message in wrong(third) {
            let (responder, _) = answer(&server_key(), first, 1).unwrap();
            assert!(refused(&responder.handle_message(&message)));
        }
    }
}

/// Somebody plays a recorded carrier to the server, byte for byte. The server answers, with another ephemeral key, and the rest does not fit.
#[test]
fn a_recorded_carrier_that_is_played_again_ends_at_message_3() {
    for suite in Suite::ALL {
        let recorded = whole(suite, 1);
        let (responder, second) = answer(&server_key(), &recorded.messages[0], 2).unwrap();
        assert_ne!(second, recorded.messages[1]);
        assert!(refused(&responder.handle_message(&recorded.messages[2])));
    }
}

/// Messages of two honest carriers, exchanged at any place.
#[test]
fn messages_of_another_carrier_are_refused() {
    for suite in Suite::ALL {
        let (one, other) = (whole(suite, 1), whole(suite, 2));
        let header_of_other = [&other.messages[0][..HEADER_LEN], &one.messages[0][HEADER_LEN..]].concat();
        assert!(answer(&server_key(), &header_of_other, 1).is_none());
        assert!(refused(&start(suite, 1).0.handle_answer(&other.messages[1], ID, &mut Vec::new())));
        let (responder, _) = answer(&server_key(), &one.messages[0], 1).unwrap();
        assert!(refused(&responder.handle_message(&other.messages[2])));
    }
}

/// What one side has said is said back to it.
#[test]
fn reflected_messages_are_refused() {
    for suite in Suite::ALL {
        let honest = whole(suite, 1);
        let mut reflected = honest.messages[0][HEADER_LEN..].to_vec();
        reflected.resize(suite.message_2_len(), 0);
        assert!(refused(&start(suite, 1).0.handle_answer(&reflected, ID, &mut Vec::new())));
        let mut reflected = honest.messages[1].clone();
        reflected.resize(MESSAGE_3_LEN, 0);
        let (responder, _) = answer(&server_key(), &honest.messages[0], 1).unwrap();
        assert!(refused(&responder.handle_message(&reflected)));
    }
}

#[test]
fn a_client_with_another_servers_key_is_not_recognised() {
    for suite in Suite::ALL {
        let (_, first) = start(suite, 1);
        assert!(answer(&StaticKey::from_bytes(&[9; 32]), &first, 1).is_none());
    }
}

/// Somebody who knows the server's public key, and so can say a first message, but not its secret, pretends to be it.
#[test]
fn whoever_has_not_the_servers_secret_is_not_taken_for_it() {
    for suite in Suite::ALL {
        let (initiator, first) = start(suite, 1);
        // The best that he can do: an own key in the place of the server's. The mark is no obstacle to him.
        let own = StaticKey::from_bytes(&[9; 32]);
        let mut to_him = Vec::new();
        let random = initiator_random(1);
        let _ = Initiator::start(&own.public(), &client_key(), suite, Route::ANY, &random, &mut to_him);
        let (_, second) = answer(&own, &to_him, 1).unwrap();
        assert!(answer(&own, &first, 1).is_none());
        assert!(refused(&initiator.handle_answer(&second, ID, &mut Vec::new())));
    }
}

/// The suite is part of what is verified: nobody talks two ends into another one.
#[test]
fn a_changed_suite_is_refused() {
    for suite in Suite::ALL {
        let (_, first) = start(suite, 1);
        for other in Suite::ALL.into_iter().filter(|other| *other != suite) {
            let (_, of_other) = start(other, 1);
            let mut mixed = of_other[..HEADER_LEN].to_vec();
            mixed.extend_from_slice(&first[HEADER_LEN..]);
            mixed.resize(HEADER_LEN + other.message_1_len(), 0);
            assert!(answer(&server_key(), &mixed, 1).is_none(), "{suite:?} as {other:?}");
        }
    }
}

/// Keys are rotated: the server has the old one and the new one for a while.
#[test]
fn a_server_with_several_keys_answers_for_each_and_for_no_other() {
    let keys = [StaticKey::from_bytes(&[9; 32]), server_key()];
    let (_, first) = start(Suite::ChaChaPoly, 1);
    let header = first.first_chunk().unwrap();
    assert_eq!(Recognised::new(&keys, header).unwrap().key(), server_key().public());
    assert!(Recognised::new(&keys[..1], header).is_none());
    assert!(Recognised::new(&[], header).is_none());
}

#[test]
fn no_carrier_begins_like_another_except_for_the_servers_route() {
    let begin = |route, seed| {
        let mut first = Vec::new();
        let random = initiator_random(seed);
        let _ = Initiator::start(&server_key().public(), &client_key(), Suite::AesGcm, route, &random, &mut first);
        first
    };
    let (one, other) = (begin(Route::ANY, 1), begin(Route::ANY, 2));
    assert!(one.iter().zip(&other).filter(|(a, b)| a == b).count() < 8);
    let route = Route::new(&[0xbe, 0xef]).unwrap();
    for seed in [1, 2] {
        let first = begin(route, seed);
        assert_eq!(first[..3], [0xbe, 0xef, seed]);
        assert!(answer(&server_key(), &first, 1).is_some());
    }
    assert_eq!(Route::new(&[1; 8]).unwrap().as_bytes(), [1; 8]);
    assert_eq!(Route::new(&[1; 9]), None);
}

/// A server key with which X25519 gives zeros: the client says something, and believes no answer.
#[test]
fn a_server_key_of_small_order_makes_no_panic_and_no_carrier() {
    let zero = PublicKey::from_bytes([0; 32]);
    for suite in Suite::ALL {
        let mut first = Vec::new();
        let initiator = Initiator::start(&zero, &client_key(), suite, Route::ANY, &initiator_random(1), &mut first);
        assert_eq!(first.len(), HEADER_LEN + suite.message_1_len());
        let answer = vec![0; initiator.answer_len()];
        assert!(refused(&initiator.handle_answer(&answer, ID, &mut Vec::new())));
    }
}

#[test]
fn random_bytes_are_never_understood() {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for _ in 0..10_000 {
        let header = std::array::from_fn(|_| byte());
        assert!(Recognised::new(&[server_key()], &header).is_none());
    }
}

#[test]
fn every_session_and_every_client_is_told_apart() {
    let (initiator, first) = start(Suite::ChaChaPoly, 1);
    let (responder, second) = answer(&server_key(), &first, 1).unwrap();
    let mut third = Vec::new();
    initiator.handle_answer(&second, SessionId([0; 8]), &mut third).unwrap();
    assert_eq!(responder.handle_message(&third).unwrap().session, SessionId([0; 8]));
    assert!(InitiatorRandom::generate().unwrap().route != InitiatorRandom::generate().unwrap().route);
}
