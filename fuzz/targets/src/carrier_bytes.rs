//! All bytes of a carrier, as somebody else wrote them, go to an end of ours: at a server behind the session id, at a client from the start.
//!
//! Held to: in whatever pieces they come, the same comes of it, to the last packet, event and byte of a stream; no more than its windows is taken in;
//! what opens no session gets none; and nothing that comes keeps an end busy without time advancing.

use std::time::Instant;

use arbitrary::Unstructured;
use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::tunnel::{Action, CarrierId, Event, StreamFailure, Tunnel, opening_conv};
use turbotunnel::{CarrierEnd, Config, SessionId};

use crate::pieces::Pieces;
use crate::tunnel_end::{End, Facts};
use crate::{ms, start};

/// Packets that one packet can cause at most, and then some.
const MOST_ANSWERS: usize = 2_000;

/// What was seen from outside.
#[derive(Debug, PartialEq)]
enum Seen {
    Packet(Vec<u8>),
    Event(Event),
    Action(Action),
    Read(u32, Result<Option<usize>, StreamFailure>, Vec<u8>),
    Facts(Box<Facts>),
}

/// See the [module](self).
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let is_server = u.arbitrary::<u8>().is_ok_and(|kind| kind & 1 == 0);
    let Ok(pieces) = Pieces::take(&mut u) else { return };
    let whole = play(is_server, &mut std::iter::once(pieces.whole()));
    let split = play(is_server, &mut pieces.iter());
    for (whole, split) in whole.iter().zip(&split) {
        assert_eq!(whole, split, "in one piece, and in pieces");
    }
    assert_eq!(whole.len(), split.len());
}

/// A connection as the driver sees it: pieces come in, packets go to the tunnel.
fn play(is_server: bool, pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut now = start();
    let mut end: Option<(End, CarrierId)> = None;
    let mut partial = Vec::new();
    let mut id_left = if is_server { SessionId::LEN } else { 0 };
    let mut early: Vec<Vec<u8>> = Vec::new();
    for piece in pieces {
        let (id, piece) = piece.split_at(id_left.min(piece.len()));
        id_left -= id.len();
        let mut batch = PacketBatch::new();
        batch.bytes_mut().extend_from_slice(&partial);
        batch.bytes_mut().extend_from_slice(piece);
        let outcome = batch.cut_incomplete(&mut partial);
        for packet in batch.packets() {
            now += ms(1);
            if let Some((end, carrier)) = &mut end {
                feed(end, *carrier, now, packet, &mut seen);
                continue;
            }
            early.push(packet.to_vec());
            let conv = if is_server { opening_conv(packet, 0) } else { kcp::conv_of(packet) };
            if let Some(conv) = conv {
                let (mut new, carrier) = begin(is_server, now, conv, &mut seen);
                early.drain(..).for_each(|packet| feed(&mut new, carrier, now, &packet, &mut seen));
                end = Some((new, carrier));
            }
        }
        if outcome.is_err() {
            break;
        }
    }
    if let Some((mut end, carrier)) = end {
        now += ms(1);
        end.with(|tunnel| tunnel.handle_ended(now, carrier, CarrierEnd::Closed));
        look(&mut end, carrier, now, &mut seen);
        seen.push(Seen::Facts(Box::new(Facts::of(end.tunnel(), now))));
    }
    seen
}

fn begin(is_server: bool, now: Instant, conv: u32, seen: &mut Vec<Seen>) -> (End, CarrierId) {
    let mut config = Config::default();
    config.window = 64;
    config.max_buffered = 100_000;
    config.send_buffer = 4_096;
    config.max_streams = 64;
    if is_server {
        let mut end = End::new(Tunnel::server(now, config, conv, [7; 8]));
        let carrier = end.with(|tunnel| tunnel.attach(now));
        return (end, carrier);
    }
    let mut end = End::new(Tunnel::client(now, config, conv, 1));
    let action = end.with(Tunnel::poll_action);
    let Some(Action::Dial(carrier)) = action else { panic!("the first dial is due at once") };
    seen.extend(action.map(Seen::Action));
    end.with(|tunnel| tunnel.handle_dialed(now, carrier));
    (end, carrier)
}

fn feed(end: &mut End, carrier: CarrierId, now: Instant, packet: &[u8], seen: &mut Vec<Seen>) {
    end.handle_packet(now, carrier, packet);
    end.handle_timeout(now);
    look(end, carrier, now, seen);
}

/// An application that echoes, and everything that can be seen of it.
fn look(end: &mut End, carrier: CarrierId, now: Instant, seen: &mut Vec<Seen>) {
    let mut buf = [0; 2_000];
    let before = seen.len();
    loop {
        let quiet = seen.len();
        let mut streams = Vec::new();
        while let Some(event) = end.poll_event() {
            if let Event::Readable(id) = event {
                streams.push(id);
            }
            seen.push(Seen::Event(event));
        }
        seen.extend(std::iter::from_fn(|| end.with(Tunnel::poll_action)).map(Seen::Action));
        streams.extend(std::iter::from_fn(|| end.with(Tunnel::accept)));
        for id in streams {
            let read = end.read(now, id, &mut buf);
            let len = read.as_ref().map_or(0, |read| read.unwrap_or(0));
            seen.push(Seen::Read(id.value(), read, buf[..len].to_vec()));
            let _ = end.write(now, id, &buf[..len]);
            if len.is_multiple_of(3) {
                let _ = end.finish(now, id);
            }
        }
        seen.extend(std::iter::from_fn(|| end.poll_transmit(now, carrier)).map(Seen::Packet));
        if seen.len() == quiet {
            break;
        }
        assert!(seen.len() < before + MOST_ANSWERS, "busy for ever");
    }
}
