//! The vectors of docs/secure-wire.md and testdata/secure: the documents and the code cannot part.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{Initiator, Recognised, Records, Suite};

use super::*;

/// Everything of one handshake and the first records, from the keys and random bytes that the document names.
fn made(suite: Suite) -> BTreeMap<&'static str, Vec<u8>> {
    let (server, client) = (server_key(), client_key());
    let mut first = Vec::new();
    let initiator = Initiator::start(&server.public(), &client, suite, Route::ANY, &initiator_random(0), &mut first);
    let keys = [server.clone()];
    let (header, message_1) = first.split_first_chunk().unwrap();
    let mut message_2 = Vec::new();
    let responder = Recognised::new(&keys, header)
        .unwrap()
        .handle_message(message_1, Route::new(b"\x07").unwrap(), &responder_random(0), &mut message_2)
        .unwrap();
    let mut message_3 = Vec::new();
    let mut from_client = initiator.handle_answer(&message_2, ID, &mut message_3).unwrap().records;
    let mut from_server = responder.handle_message(&message_3).unwrap().records;
    let sealed = |records: &mut Records, packets: &[&[u8]]| {
        let mut batch = PacketBatch::new();
        packets.iter().for_each(|packet| batch.push(packet));
        let mut sealed = Vec::new();
        records.seal(batch.as_bytes(), &mut sealed).unwrap();
        sealed
    };
    BTreeMap::from([
        ("server public key", server.public().as_bytes().to_vec()),
        ("client public key", client.public().as_bytes().to_vec()),
        ("header", header.to_vec()),
        ("message 1", message_1.to_vec()),
        ("message 2", message_2),
        ("message 3", message_3),
        ("client record 0", sealed(&mut from_client, &[b"ping", b""])),
        ("client record 1", sealed(&mut from_client, &[b"again"])),
        ("server record 0", sealed(&mut from_server, &[b"pong"])),
    ])
}

/// Lines `vector NAME: HEX`.
fn written(text: &str) -> BTreeMap<String, Vec<u8>> {
    let vectors = text.lines().filter_map(|line| line.trim_start().strip_prefix("vector "));
    vectors
        .map(|line| {
            let (name, hex) = line.split_once(": ").expect("vector NAME: HEX");
            (name.to_owned(), HEXLOWER.decode(hex.replace(' ', "").as_bytes()).expect("hexadecimal digits"))
        })
        .collect()
}

fn compare(suite: Suite, text: &str) {
    let made = made(suite);
    if std::env::var_os("PRINT_VECTORS").is_some() {
        println!("{suite:?}");
        made.iter().for_each(|(name, bytes)| println!("    vector {name}: {}", HEXLOWER.encode(bytes)));
        return;
    }
    let written = written(text);
    assert_eq!(written.len(), made.len(), "{suite:?}");
    for (name, bytes) in made {
        assert_eq!(written.get(name), Some(&bytes), "{suite:?} {name}");
    }
}

#[test]
fn the_documented_vectors_are_what_we_say() {
    compare(Suite::ChaChaPoly, include_str!("../../../../docs/secure-wire.md"));
    compare(Suite::AesGcm, include_str!("../../../../testdata/secure/aes-gcm.txt"));
    compare(Suite::ChaChaPolyMlKem, include_str!("../../../../testdata/secure/chachapoly-mlkem.txt"));
    compare(Suite::AesGcmMlKem, include_str!("../../../../testdata/secure/aes-gcm-mlkem.txt"));
}

#[test]
fn suites_have_the_documented_numbers() {
    assert_eq!(Suite::ALL.map(Suite::number), [1, 2, 3, 4]);
    assert_eq!(Suite::ALL.map(Suite::message_1_len), [1232, 1232, 48, 48]);
    assert_eq!(Suite::ALL.map(Suite::message_2_len), [1145, 1145, 57, 57]);
    assert_eq!(turbotunnel::secure::MESSAGE_3_LEN, 72);
}
