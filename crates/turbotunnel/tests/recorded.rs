//! TCP sessions recorded between the Go programs of the worked example: our code decodes every byte as recorded, makes the same bytes again,
//! and in the place of either program it delivers what that program delivered.
//!
//! What binds is format, receiving and acknowledging. How bytes are cut into segments, and when something is sent again, is each side's own:
//! so a recorded `una` and ACK, which speak of the segments of the recorded program, say nothing about ours and are taken out before
//! the packets are played to us.

#![allow(clippy::disallowed_methods, reason = "a point to count virtual time from")]

use std::time::{Duration, Instant};

use kcp::wire::Command;
use kcp::{Segment, Sn};
use serde::Deserialize;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::tunnel::{Action, CarrierId, Event, opening_conv};
use turbotunnel::{Config, PeerKind, SessionId, StreamId, Tunnel};

#[derive(Deserialize)]
struct Recording {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    standard_input_hex: String,
    standard_output_hex: String,
    all_tcp_bytes_hex: std::collections::BTreeMap<String, String>,
    decoded_packets: Vec<Decoded>,
}

#[derive(Deserialize)]
struct Decoded {
    connection: u32,
    direction: String,
    session_id: Option<String>,
    #[serde(default)]
    segments: Vec<DecodedSegment>,
}

#[derive(Deserialize)]
struct DecodedSegment {
    conv: String,
    cmd: u8,
    frg: u8,
    wnd: u16,
    ts: u32,
    sn: u32,
    una: u32,
    #[serde(default)]
    data_hex: String,
}

const UP: &str = "client->server";
const DOWN: &str = "server->client";

fn recorded() -> Vec<Session> {
    let text = include_str!("../../../testdata/vectors/turbotunnel-tcp.json");
    let sessions = serde_json::from_str::<Recording>(text).expect("the file is as described in its README").sessions;
    assert_eq!(sessions.len(), 9, "a session that is not looked at proves nothing");
    sessions
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hex")).collect()
}

impl Session {
    /// All packets of one direction, over all connections, taken from the raw bytes in pieces of seven.
    fn packets(&self, direction: &str) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        for (name, bytes) in self.all_tcp_bytes_hex.iter().filter(|(name, _)| name.ends_with(direction)) {
            let mut bytes = hex(bytes);
            if direction == UP {
                let id: [u8; 8] = bytes.drain(..SessionId::LEN).collect::<Vec<_>>().try_into().expect("8 bytes");
                let recorded = self.decoded_packets.iter().find_map(|packet| packet.session_id.clone());
                assert_eq!(Some(SessionId(id).to_string()), recorded, "{} {name}", self.id);
            }
            let mut partial = Vec::new();
            for piece in bytes.chunks(7) {
                let mut batch = PacketBatch::new();
                batch.bytes_mut().extend_from_slice(&partial);
                batch.bytes_mut().extend_from_slice(piece);
                batch.cut_incomplete(&mut partial).expect("Go's packets are short");
                packets.extend(batch.packets().map(<[u8]>::to_vec));
            }
            assert!(partial.is_empty(), "{} {name}: half a packet is left", self.id);
        }
        packets
    }

    fn decoded(&self, direction: &str) -> Vec<&Decoded> {
        let mut packets: Vec<_> =
            self.decoded_packets.iter().filter(|p| p.direction == direction && p.session_id.is_none()).collect();
        packets.sort_by_key(|packet| packet.connection);
        packets
    }
}

#[test]
fn every_recorded_byte_is_decoded_as_recorded_and_made_again() {
    for session in recorded() {
        for direction in [UP, DOWN] {
            let packets = session.packets(direction);
            let decoded = session.decoded(direction);
            assert_eq!(packets.len(), decoded.len(), "{} {direction}", session.id);
            for (packet, decoded) in packets.iter().zip(decoded) {
                let mut again = Vec::new();
                let segments: Vec<_> = kcp::segments(packet).expect("Go's own packet").collect();
                assert_eq!(segments.len(), decoded.segments.len());
                for (segment, expected) in segments.iter().zip(&decoded.segments) {
                    assert_eq!(format!("{:x}", segment.conv), expected.conv.trim_start_matches('0'));
                    assert_eq!(segment.cmd as u8, expected.cmd);
                    assert_eq!((segment.frg, segment.wnd), (expected.frg, expected.wnd));
                    assert_eq!(segment.ts.value(), expected.ts);
                    assert_eq!((segment.sn.value(), segment.una.value()), (expected.sn, expected.una));
                    assert_eq!(segment.payload, hex(&expected.data_hex));
                    segment.encode(&mut again);
                }
                assert_eq!(&again, packet, "{} {direction}", session.id);
            }
        }
    }
}

/// The PUSH segments of `packet` alone, with a `una` that claims nothing.
fn data_only(packet: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in kcp::segments(packet).expect("Go's own packet").filter(|s| s.cmd == Command::Push) {
        Segment { una: Sn::new(0), ..segment }.encode(&mut out);
    }
    out
}

/// What the tunnel sends now.
fn sent(tunnel: &mut Tunnel, now: Instant, carrier: CarrierId) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    loop {
        let mut packet = Vec::new();
        if !tunnel.poll_transmit(now, carrier, &mut packet) {
            return packets;
        }
        packets.push(packet);
    }
}

fn read_all(tunnel: &mut Tunnel, now: Instant, stream: StreamId, into: &mut Vec<u8>) {
    let mut buf = [0; 4096];
    while let Ok(Some(n)) = tunnel.read(now, stream, &mut buf) {
        if n == 0 {
            return;
        }
        into.extend_from_slice(&buf[..n]);
    }
}

/// Plays the data of one recorded program to `tunnel`, each packet twice, and checks each time that everything so far is acknowledged.
fn play(
    tunnel: &mut Tunnel,
    mut now: Instant,
    carrier: CarrierId,
    packets: &[Vec<u8>],
    mut heard: impl FnMut(&mut Tunnel, Instant),
) {
    let mut expected = 0;
    for packet in packets.iter().map(|packet| data_only(packet)).filter(|data| !data.is_empty()) {
        for again in [false, true] {
            now += Duration::from_millis(1);
            tunnel.handle_packet(now, carrier, &packet);
            if !again {
                let highest = kcp::segments(&packet).expect("made above").map(|s| s.sn.value() + 1).max();
                expected = expected.max(highest.unwrap_or(0));
            }
            let answers = sent(tunnel, now, carrier);
            let una = answers
                .iter()
                .filter_map(|answer| kcp::segments(answer).ok())
                .flatten()
                .map(|segment| segment.una.value())
                .max();
            assert_eq!(una, Some(expected), "acknowledged when it came {}", if again { "again" } else { "first" });
            heard(tunnel, now);
        }
    }
}

#[test]
fn in_the_place_of_the_go_server_ours_delivers_what_the_client_sent() {
    for session in recorded() {
        let now = Instant::now();
        let packets = session.packets(UP);
        let conv = packets.iter().find_map(|packet| opening_conv(packet, 0)).expect("a session begins with sn 0");
        let mut server = Tunnel::server(now, Config::default(), conv, [7; 8]);
        let carrier = server.attach(now);
        let (mut stream, mut got) = (None, Vec::new());
        play(&mut server, now, carrier, &packets, |server, now| {
            stream = stream.or_else(|| server.accept());
            stream.iter().for_each(|stream| read_all(server, now, *stream, &mut got));
        });
        assert_eq!(stream.map(StreamId::value), Some(3), "{}", session.id);
        assert!(got == hex(&session.standard_input_hex), "{}", session.id);
        assert_eq!(server.stats().peer, PeerKind::Go, "{}", session.id);
        assert_eq!(server.ended(), None, "{}", session.id);
    }
}

#[test]
fn in_the_place_of_the_go_client_ours_delivers_what_the_server_sent() {
    for session in recorded() {
        let now = Instant::now();
        let packets = session.packets(DOWN);
        let Some(conv) = packets.first().and_then(|packet| kcp::conv_of(packet)) else {
            assert!(session.id.starts_with("eof-at-once"), "only there the server says nothing: {}", session.id);
            continue;
        };
        let mut client = Tunnel::client(now, Config::default(), conv, 1);
        let Some(Action::Dial(carrier)) = client.poll_action() else { panic!("a client dials at once") };
        client.handle_dialed(now, carrier);
        let stream = client.open(now).expect("the session lives");
        assert_eq!(stream.value(), 3);
        sent(&mut client, now, carrier);
        let mut got = Vec::new();
        play(&mut client, now, carrier, &packets, |client, now| read_all(client, now, stream, &mut got));
        assert!(got == hex(&session.standard_output_hex), "{}", session.id);
        assert_eq!(client.stats().peer, PeerKind::Go, "{}", session.id);
        assert!(!std::iter::from_fn(|| client.poll_event()).any(|event| matches!(event, Event::Ended(_))));
    }
}
