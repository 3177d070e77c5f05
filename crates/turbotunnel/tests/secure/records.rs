//! Records: packets come out as they went in, or not at all and never again.

use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::secure::{MAX_RECORD, RecordError, Records, Suite};

use super::whole;

fn batch(packets: &[&[u8]]) -> Vec<u8> {
    let mut batch = PacketBatch::new();
    packets.iter().for_each(|packet| batch.push(packet));
    batch.as_bytes().to_vec()
}

fn pair(suite: Suite) -> (Records, Records) {
    let whole = whole(suite, 1);
    (whole.client.records, whole.server.records)
}

/// The records of three batches, one each.
fn three(records: &mut Records) -> [Vec<u8>; 3] {
    [&b"first"[..], b"second packet", b"3"].map(|packet| {
        let mut sealed = Vec::new();
        records.seal(&batch(&[packet]), &mut sealed).unwrap();
        sealed
    })
}

#[test]
fn packets_come_out_as_they_went_in_both_ways() {
    for suite in Suite::ALL {
        let (mut client, mut server) = pair(suite);
        let packets = batch(&[b"HELLO", &[7; 1400], b""]);
        let mut sealed = Vec::new();
        client.seal(&packets, &mut sealed).unwrap();
        assert_eq!(sealed.len(), 2 + packets.len() + 16, "several packets share a record");
        let mut opened = Vec::new();
        assert_eq!(server.open(&sealed, &mut opened), Ok(sealed.len()));
        assert_eq!(opened, packets);
        let mut sealed = Vec::new();
        server.seal(&batch(&[b"answer"]), &mut sealed).unwrap();
        let mut opened = Vec::new();
        client.open(&sealed, &mut opened).unwrap();
        assert_eq!(opened, batch(&[b"answer"]));
    }
}

/// The number of a record is counted on; only what was made of a key is made anew.
#[test]
fn keys_that_rest_go_on_where_they_were() {
    for suite in Suite::ALL {
        let [mut client, mut server] = <[_; 2]>::from(pair(suite));
        let (mut resting, mut awake) = (Vec::new(), Vec::new());
        for packet in [&b"one"[..], b"two", b"three"] {
            client.rest_sealing();
            server.rest_opening();
            let sealed = resting.len();
            client.seal(&batch(&[packet]), &mut resting).unwrap();
            let mut opened = Vec::new();
            server.open(&resting[sealed..], &mut opened).unwrap();
            assert_eq!(opened, batch(&[packet]));
        }
        let (mut client, _) = pair(suite);
        [&b"one"[..], b"two", b"three"].iter().for_each(|packet| client.seal(&batch(&[packet]), &mut awake).unwrap());
        assert_eq!(resting, awake);
    }
}

/// More than a record takes goes into several, cut between packets; and a connection may cut them anywhere.
#[test]
fn bulk_goes_into_few_records_and_any_split_gives_the_same_packets() {
    let (mut client, mut server) = pair(Suite::ChaChaPoly);
    let packets: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 1400]).collect();
    let packets = batch(&packets.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut sealed = Vec::new();
    client.seal(&packets, &mut sealed).unwrap();
    assert_eq!(sealed.len(), packets.len() + 18 * packets.len().div_ceil(11 * 1402));
    let (mut opened, mut waiting) = (Vec::new(), Vec::new());
    for piece in sealed.chunks(977) {
        waiting.extend_from_slice(piece);
        let taken = server.open(&waiting, &mut opened).unwrap();
        waiting.drain(..taken);
        assert!(waiting.len() <= MAX_RECORD + 18, "no more than one record waits");
    }
    assert!(waiting.is_empty());
    assert_eq!(opened, packets);
}

/// In any pieces, with a record that does not open at the end: in place comes out what comes out elsewhere.
#[test]
fn opening_in_place_gives_the_same_packets_and_the_same_end() {
    for suite in [Suite::ChaChaPoly, Suite::AesGcm] {
        let mut sealed = Vec::new();
        let mut client = pair(suite).0;
        for n in 0..16_u8 {
            let packets: Vec<Vec<u8>> = (0..n).map(|i| vec![n ^ i; usize::from(n) * 37]).collect();
            client.seal(&batch(&packets.iter().map(Vec::as_slice).collect::<Vec<_>>()), &mut sealed).unwrap();
        }
        *sealed.last_mut().unwrap() ^= 1;
        for size in [1, 2, 19, 1000, 16 << 10, 100_000, sealed.len()] {
            let (mut one, mut other) = (pair(suite).1, pair(suite).1);
            let (mut waiting, mut opened) = (Vec::new(), Vec::new());
            let (mut partial, mut opened_in_place) = (Vec::new(), Vec::new());
            for piece in sealed.chunks(size) {
                waiting.extend_from_slice(piece);
                let outcome = one.open(&waiting, &mut opened);
                waiting.drain(..*outcome.as_ref().unwrap_or(&waiting.len()));
                let mut bytes = [&partial[..], piece].concat();
                assert_eq!(other.open_in_place(&mut bytes, &mut partial), outcome.map(drop), "{suite:?} {size}");
                opened_in_place.extend_from_slice(&bytes);
                assert_eq!((&partial, &opened_in_place), (&waiting, &opened), "{suite:?} {size}");
            }
            assert_eq!(other.open_in_place(&mut Vec::new(), &mut partial), Err(RecordError::NotAuthentic));
        }
    }
}

/// Each bit of a record. Nothing comes of it, and nothing comes of the honest ones behind it.
#[test]
fn any_flipped_bit_ends_it() {
    for suite in [Suite::ChaChaPoly, Suite::AesGcm] {
        let [first, ..] = three(&mut pair(suite).0);
        for bit in 0..first.len() * 8 {
            let (mut client, mut server) = pair(suite);
            let [mut bad, next, _] = three(&mut client);
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut opened = Vec::new();
            let mut bytes = [bad, next.clone()].concat();
            // A length that has grown waits for more: it gets it.
            bytes.resize(2 + (16 << 10) + 16, 0);
            let outcome = server.open(&bytes, &mut opened);
            // A length that has become longer than that is refused at once, or waits and opens nothing.
            assert!(outcome != Ok(bytes.len()), "{suite:?} bit {bit}");
            assert!(opened.is_empty());
            if outcome.is_err() {
                assert_eq!(server.open(&first, &mut opened), Err(RecordError::NotAuthentic));
                assert!(opened.is_empty());
            }
        }
    }
}

#[test]
fn left_out_repeated_moved_and_foreign_records_end_it() {
    for suite in [Suite::ChaChaPoly, Suite::AesGcm] {
        let orders: [&[usize]; 5] = [&[1], &[0, 0], &[0, 2], &[1, 0], &[0, 1, 0]];
        for order in orders {
            let (mut client, mut server) = pair(suite);
            let records = three(&mut client);
            let good = order.iter().enumerate().take_while(|(at, which)| at == *which).count();
            let mut opened = Vec::new();
            let bytes: Vec<u8> = order.iter().flat_map(|which| records[*which].clone()).collect();
            assert_eq!(server.open(&bytes, &mut opened), Err(RecordError::NotAuthentic), "{order:?}");
            let expected: Vec<u8> =
                [&b"first"[..], b"second packet"][..good].iter().flat_map(|p| batch(&[p])).collect();
            assert_eq!(opened, expected, "{order:?}: what came before is good");
            assert_eq!(
                server.open(&records[good], &mut opened),
                Err(RecordError::NotAuthentic),
                "the first failure is the last"
            );
        }
        // One's own records come back, and those of another carrier.
        let (mut client, mut server) = pair(suite);
        let [own, ..] = three(&mut client);
        assert_eq!(client.open(&own, &mut Vec::new()), Err(RecordError::NotAuthentic));
        let mut other = whole(suite, 2).client.records;
        let [foreign, ..] = three(&mut other);
        assert_eq!(server.open(&foreign, &mut Vec::new()), Err(RecordError::NotAuthentic));
    }
}

#[test]
fn lengths_that_no_record_has_are_refused_before_the_rest_has_come() {
    for len in [0_u16, 1, 16, 16 + (16 << 10) + 1, u16::MAX] {
        let (_, mut server) = pair(Suite::ChaChaPoly);
        assert_eq!(server.open(&len.to_be_bytes(), &mut Vec::new()), Err(RecordError::NotAuthentic), "{len}");
    }
    let (_, mut server) = pair(Suite::ChaChaPoly);
    for part in [&b""[..], b"\x00", b"\x00\x11", b"\x00\x11short"] {
        assert_eq!(server.open(part, &mut Vec::new()), Ok(0));
    }
}

#[test]
#[should_panic(expected = "whole packets are sealed")]
fn to_seal_what_is_no_row_of_packets_is_our_own_mistake() {
    let _ = pair(Suite::ChaChaPoly).0.seal(b"\x00\x05four", &mut Vec::new());
}

#[test]
fn nothing_costs_nothing() {
    let (mut client, mut server) = pair(Suite::ChaChaPoly);
    let mut sealed = Vec::new();
    client.seal(&[], &mut sealed).unwrap();
    assert!(sealed.is_empty());
    assert_eq!(server.open(&sealed, &mut Vec::new()), Ok(0));
    assert!(!client.is_worn());
}
