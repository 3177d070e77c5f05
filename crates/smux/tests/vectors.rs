//! Replays what the real Go library did (`testdata/vectors`): the frames it writes and the rules it receives by.
//!
//! Three differences hold everywhere, and are checked instead of compared:
//!
//! * window updates tell of another window (ours starts at 262,144) and at other times (a sixteenth of it instead of half);
//!   one goes out at the first read, and `consumed` is always what was read;
//! * `close` sends a second FIN if the peer has not finished;
//! * a write is taken by the buffer, so "blocked" means here: not all of it is out yet.
//!
//! What differs beyond that is listed case by case, with the steps and the reason. Every case is replayed.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};
use turbotunnel_smux::wire::{Command, HEADER_LEN, Header, Upd};
use turbotunnel_smux::{ASSUMED_WINDOW, Config, Mux, Side, StreamError, StreamId, Version};

const AS_NEWEST: &str = "checks lengths as the newest library does: the session ends";
const NO_EOF_ON_WRITE: &str = "a peer that finished may still read: writes go on, as with the newest library";
const TURNS: &str = "one buffer a stream: writes that wait become one frame, SYN goes first, FIN stays behind its data";

/// Cases that differ by design: id, steps (from 0) whose outcome is another one, why.
const BY_DESIGN: &[(&str, &[usize], &str)] = &[
    ("v1-server-accept-read-write-fin@mid", &[9, 12], NO_EOF_ON_WRITE),
    ("v2-server-accept-read-write-fin@mid", &[9], NO_EOF_ON_WRITE),
    ("v1-write-to-closed-peer@mid", &[2], NO_EOF_ON_WRITE),
    ("v2-write-to-closed-peer@mid", &[2, 3], NO_EOF_ON_WRITE),
    ("v2-write-to-closed-peer@old", &[3], NO_EOF_ON_WRITE),
    ("v2-fin-while-writer-waits@old+mid", &[3, 4], NO_EOF_ON_WRITE),
    ("v1-bad-nop-with-length@old+mid", &[4, 6], AS_NEWEST),
    ("v2-bad-nop-with-length@old+mid", &[4, 6], AS_NEWEST),
    ("v1-bad-syn-with-length@old+mid", &[4, 6, 7], AS_NEWEST),
    ("v2-bad-syn-with-length@old+mid", &[4, 6, 7], AS_NEWEST),
    ("v1-bad-fin-with-length@old", &[4, 6], AS_NEWEST),
    ("v2-bad-fin-with-length@old", &[4, 6], AS_NEWEST),
    ("v1-bad-fin-with-length@mid", &[4, 5, 6], AS_NEWEST),
    ("v2-bad-fin-with-length@mid", &[4, 5, 6], AS_NEWEST),
    ("v1-bad-upd-length-0@old", &[4, 6], AS_NEWEST),
    ("v2-bad-upd-length-0@old+mid", &[4, 5, 6], AS_NEWEST),
    ("v1-bad-upd-in-v1@old", &[4, 6], AS_NEWEST),
    ("v2-consumed-more-than-sent", &[3], "an update that cannot be true is ignored, so the write goes out"),
    ("v1-order-of-queued-frames@old", &[2], TURNS),
    ("v1-order-of-queued-frames@mid+new", &[2], TURNS),
    ("v2-order-of-queued-frames@old", &[2], TURNS),
    ("v2-order-of-queued-frames@mid+new", &[2], TURNS),
    (
        "v2-half-close-then-peer-fin-with-unread-data",
        &[3, 4],
        "what the peer sent before its FIN is delivered, also after our own FIN",
    ),
];

#[allow(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/../../testdata/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut file: Value = serde_json::from_str(&text).expect("vectors are JSON");
    serde_json::from_value(file["cases"].take()).expect("vectors have cases")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

fn unhex(value: &Value) -> Vec<u8> {
    let hex = text(value);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

type Frame = (Header, Vec<u8>);

fn frames(version: Version, mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(version, *head).expect("frames that well-behaved senders write");
        let end = HEADER_LEN + usize::from(header.length);
        frames.push((header, bytes[HEADER_LEN..end].to_vec()));
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty(), "whole frames only");
    frames
}

fn without_updates(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|(header, _)| header.command != Command::Upd).collect()
}

fn version_of(case: &Value) -> Version {
    if case["parameters"]["version"] == 1 { Version::V1 } else { Version::V2 }
}

/// What a stream has been through, as far as the general differences need it.
#[derive(Default)]
struct Seen {
    read: u32,
    updated: bool,
    peer_finished: bool,
    fins_sent: usize,
}

struct Replay {
    mux: Mux,
    now: Instant,
    version: Version,
    first_counter: u32,
    most_tokens: i64,
    failed: bool,
    names: HashMap<String, StreamId>,
    seen: BTreeMap<StreamId, Seen>,
    /// Steps that ended differently.
    differs: BTreeSet<usize>,
}

impl Replay {
    fn new(case: &Value) -> Self {
        let parameters = &case["parameters"];
        let version = version_of(case);
        let client = parameters["side_under_test"] == "client";
        let first_counter = if text(&case["id"]) == "v2-counter-wrap" { 0xffff_fffe } else { 0 };
        let first_id = case["steps"][0]["result"]["id"].as_u64().filter(|_| text(&case["id"]).contains("exhaustion"));
        let config = Config {
            version,
            max_frame_size: number(&parameters["max_frame_size"]),
            max_buffered: number(&parameters["max_receive_buffer"]),
            send_buffer: 1 << 20,
            first_stream_id: first_id.map(|id| id as u32),
            initial_counter: first_counter,
            ..Config::default()
        };
        let now = start();
        let mut mux = Mux::new(now, if client { Side::Client } else { Side::Server }, config);
        if let Some(interval) = parameters["keepalive_interval_ms"].as_u64() {
            mux.set_keepalive(now, Some(Duration::from_millis(interval)));
        }
        Self {
            mux,
            now,
            version,
            first_counter,
            most_tokens: parameters["max_receive_buffer"].as_i64().expect("a number"),
            failed: false,
            names: HashMap::new(),
            seen: BTreeMap::new(),
            differs: BTreeSet::new(),
        }
    }

    fn transmit(&mut self) -> Vec<Frame> {
        let mut out = Vec::new();
        while self.mux.poll_transmit(self.now, &mut out, usize::MAX) {}
        frames(self.version, &out)
    }

    /// Takes out what differs everywhere, and checks it.
    fn strip(&mut self, sent: Vec<Frame>, closing: Option<StreamId>) -> Vec<Frame> {
        let mut kept = Vec::new();
        for (header, payload) in sent {
            let seen = self.seen.entry(header.stream).or_default();
            match header.command {
                Command::Upd => {
                    let upd = Upd::decode(payload.try_into().expect("eight bytes"));
                    assert_eq!(upd.consumed, self.first_counter.wrapping_add(seen.read), "consumed is what was read");
                    assert_eq!(upd.window, ASSUMED_WINDOW);
                    seen.updated = true;
                    continue;
                }
                Command::Fin => {
                    seen.fins_sent += 1;
                    if closing == Some(header.stream) && kept.last() == Some(&(header, Vec::new())) {
                        assert!(seen.fins_sent == 2 && !seen.peer_finished, "the second FIN");
                        continue;
                    }
                }
                _ => {}
            }
            kept.push((header, payload));
        }
        kept
    }

    /// Does one step and says whether it ended as recorded.
    fn step(&mut self, step: &Value) -> bool {
        let id = step["stream"].as_str().and_then(|name| self.names.get(name).copied());
        let result = &step["result"];
        let error = result["error"].as_str();
        let blocked = result["blocked"] == true;
        let mut closing = None;
        let mut same = match text(&step["op"]) {
            "open_stream" => match self.mux.open() {
                Ok(id) => {
                    self.names.insert(text(&step["stream"]).to_owned(), id);
                    result["id"].as_u64() == Some(u64::from(id.value()))
                }
                Err(_) => error.is_some(),
            },
            "accept_stream" => match self.mux.accept() {
                Some(id) => {
                    self.names.insert(text(&step["stream"]).to_owned(), id);
                    result["id"].as_u64() == Some(u64::from(id.value()))
                }
                None => {
                    if self.failed {
                        error == Some("invalid protocol")
                    } else {
                        blocked
                    }
                }
            },
            "receive_from_peer" => {
                let bytes = unhex(&step["hex"]);
                self.failed |= self.mux.handle_bytes(self.now, &bytes).is_err();
                if !self.failed {
                    for (header, _) in frames(self.version, &bytes) {
                        let seen = self.seen.entry(header.stream).or_default();
                        match header.command {
                            Command::Fin => seen.peer_finished = true,
                            Command::Syn if seen.fins_sent > 0 => *seen = Seen::default(),
                            _ => {}
                        }
                    }
                }
                true
            }
            "write" => {
                let bytes = match step["data_hex"].as_str() {
                    Some(_) => unhex(&step["data_hex"]),
                    None => (0..number(&step["bytes"])).map(|n| (n % 251) as u8).collect(),
                };
                match self.mux.write(id.expect("a stream"), &bytes) {
                    Ok(taken) => {
                        assert_eq!(taken, bytes.len(), "the buffer is large enough");
                        blocked || error.is_none()
                    }
                    Err(StreamError::Unknown | StreamError::Finished) => error == Some("io: read/write on closed pipe"),
                    Err(other) => panic!("{other}"),
                }
            }
            "read" => self.read(id.expect("a stream"), step),
            "close_write" => match self.mux.finish(id.expect("a stream")) {
                // Doing it again is no error with us.
                Ok(()) => {
                    error.is_none() || self.seen.get(&id.expect("a stream")).is_some_and(|seen| seen.fins_sent > 0)
                }
                Err(_) => error.is_some(),
            },
            "close_stream" => {
                closing = id;
                self.mux.close(id.expect("a stream"));
                true
            }
            "status" => {
                let nothing_unread = step["receive_tokens_left"].as_i64() == Some(self.most_tokens);
                assert_eq!(step["session_closed"], false);
                self.mux.streams() == number(&step["num_streams"]) && (self.mux.buffered() == 0) == nothing_unread
            }
            "close_session" => true,
            "wait_650ms" => {
                let began = self.now;
                let mut sent = Vec::new();
                while let Some(due) = self.mux.poll_timeout().filter(|&due| due <= began + Duration::from_millis(650)) {
                    self.now = due;
                    self.mux.handle_timeout(due);
                    sent.extend(self.transmit());
                }
                return sent == recorded(self.version, step);
            }
            "release_all" => return self.queue_and_release(step),
            other => panic!("no such step: {other}"),
        };
        let sent = self.transmit();
        let sent = self.strip(sent, closing);
        same &= sent == without_updates(recorded(self.version, step));
        if blocked && text(&step["op"]) == "write" {
            same &= !self.mux.is_quiet();
        }
        if let Some(call) = step.get("earlier_call_returned") {
            same &= call["error"].is_null() && self.mux.is_quiet();
        }
        same
    }

    fn read(&mut self, id: StreamId, step: &Value) -> bool {
        let result = &step["result"];
        let error = result["error"].as_str();
        // Go reads one frame at a time, we read across frames: so read as much as Go did.
        let recorded = result["n"].as_u64().unwrap_or(0) as usize;
        let size = if recorded > 0 { recorded } else { number(&step["buffer_bytes"]) };
        let mut buf = vec![0; size];
        match self.mux.read(self.now, id, &mut buf) {
            Ok(None) => {
                if self.failed {
                    error == Some("invalid protocol")
                } else {
                    result["blocked"] == true
                }
            }
            Ok(Some(0)) | Err(StreamError::Unknown) => error == Some("EOF"),
            Ok(Some(n)) => {
                let sent = self.transmit();
                let seen = self.seen.entry(id).or_default();
                seen.read = seen.read.wrapping_add(n as u32);
                let expects_update = self.version == Version::V2 && !seen.updated && !seen.peer_finished;
                let told = sent.iter().any(|(header, _)| header.command == Command::Upd);
                assert!(told || !expects_update, "the first read is told at once");
                assert!(self.strip(sent, None).is_empty());
                error.is_none() && buf[..n] == unhex(&result["hex"])
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// The recorded calls came from several callers while the connection was stuck.
    fn queue_and_release(&mut self, step: &Value) -> bool {
        let (a, b) = (self.names["a"], self.names["b"]);
        for (id, bytes) in [(a, b"a1"), (a, b"a2"), (a, b"a3"), (b, b"b1")] {
            assert_eq!(self.mux.write(id, bytes), Ok(2));
        }
        let c = self.mux.open().expect("a third stream");
        self.mux.close(b);
        let sent = self.transmit();
        let sent = self.strip(sent, Some(b));
        // Delivered: the same to each stream, whatever the order between them.
        assert_eq!(delivered(&sent, a), b"a1a2a3");
        assert_eq!(delivered(&sent, b), b"b1");
        let theirs = recorded(self.version, step);
        let sorted = |bytes: Vec<u8>| {
            let mut pairs: Vec<[u8; 2]> = bytes.chunks(2).map(|pair| [pair[0], pair[1]]).collect();
            pairs.sort_unstable();
            pairs
        };
        for id in [a, b, c] {
            assert_eq!(sorted(delivered(&sent, id)), sorted(delivered(&theirs, id)));
        }
        let order: Vec<(Command, StreamId)> = sent.iter().map(|(header, _)| (header.command, header.stream)).collect();
        assert_eq!(order, [(Command::Syn, c), (Command::Psh, a), (Command::Psh, b), (Command::Fin, b)]);
        sent == theirs
    }
}

fn delivered(frames: &[Frame], id: StreamId) -> Vec<u8> {
    frames.iter().filter(|(header, _)| header.stream == id).flat_map(|(_, payload)| payload.clone()).collect()
}

/// What the library wrote. Frames listed without payload carry the pattern byte i = i mod 251 of one write.
fn recorded(version: Version, step: &Value) -> Vec<Frame> {
    let writes = step["written_to_conn"].as_array().map_or(&[][..], Vec::as_slice);
    let mut frames_read = Vec::new();
    let mut pattern = (0..).map(|n: usize| (n % 251) as u8);
    for write in writes {
        if write.get("hex").is_some() {
            frames_read.extend(frames(version, &unhex(&write["hex"])));
            continue;
        }
        for frame in write["frames"].as_array().expect("frames") {
            let length = number(&frame["length"]);
            let stream = StreamId::new(number(&frame["stream_id"]) as u32);
            assert_eq!(frame["cmd_name"], "PSH");
            let header = Header { version, command: Command::Psh, length: length as u16, stream };
            frames_read.push((header, pattern.by_ref().take(length).collect()));
        }
    }
    frames_read
}

#[test]
fn every_scripted_case_is_replayed() {
    let mut listed: BTreeMap<&str, (&[usize], &str)> =
        BY_DESIGN.iter().map(|&(id, steps, reason)| (id, (steps, reason))).collect();
    let cases = cases("smux-scripted.json");
    assert_eq!(cases.len(), 66);
    let mut wrong = Vec::new();
    for case in &cases {
        let id = text(&case["id"]);
        let mut replay = Replay::new(case);
        for (number, step) in case["steps"].as_array().expect("steps").iter().enumerate() {
            if !replay.step(step) {
                replay.differs.insert(number);
            }
        }
        let (expected, reason) = listed.remove(id).unwrap_or((&[], "must be as recorded"));
        if replay.differs != expected.iter().copied().collect() {
            wrong.push(format!("{id}: steps {:?} differ, not {expected:?} ({reason})", replay.differs));
        }
        assert_eq!(replay.failed, id.contains("-bad-"), "{id}: only broken frames end a session");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(listed.is_empty(), "listed, but not recorded: {:?}", listed.keys());
}

/// The reader's half of `v2-counter-wrap` as recorded: its counter was set to fffffff0, so 16 bytes end at 0.
#[test]
fn the_readers_counter_wraps() {
    let now = start();
    let config = Config { initial_counter: 0xffff_fff0, ..Config::default() };
    let mut mux = Mux::new(now, Side::Client, config);
    let id = mux.open().expect("a stream");
    let mut out = Vec::new();
    for (length, consumed) in [(16_u8, Some(0)), (5, None)] {
        mux.handle_bytes(now, &[2, 2, length, 0, 3, 0, 0, 0]).expect("a header");
        mux.handle_bytes(now, &vec![7; usize::from(length)]).expect("data");
        assert_eq!(mux.read(now, id, &mut [0; 16]), Ok(Some(usize::from(length))));
        out.clear();
        mux.poll_transmit(now, &mut out, usize::MAX);
        let update = frames(Version::V2, &out).into_iter().find(|(header, _)| header.command == Command::Upd);
        let told = update.map(|(_, payload)| Upd::decode(payload.try_into().expect("eight bytes")).consumed);
        assert_eq!(told, consumed);
    }
}

/// One side of a recorded session is ours; the other one's frames come from the record.
struct Half {
    mux: Mux,
    out: Vec<u8>,
    ours: Option<StreamId>,
    read: Vec<u8>,
}

impl Half {
    fn act(&mut self, side: Side, now: Instant, action: &str) {
        let me = if side == Side::Client { "client " } else { "server " };
        let first = |half: &Self| half.ours.expect("the stream is open");
        let Some(action) = action.strip_prefix(me) else { return };
        match action {
            "opens a stream" => self.ours = self.mux.open().ok(),
            "accepts it" => self.ours = self.mux.accept(),
            "writes 3000 bytes (byte i = i mod 251)" => {
                let bytes: Vec<u8> = (0..3_000).map(|n| (n % 251) as u8).collect();
                assert_eq!(self.mux.write(first(self), &bytes), Ok(3_000));
            }
            "reads with a 1000-byte buffer" => self.read(now, 1_000),
            "reads" => self.read(now, 100),
            "writes 'thanks'" => assert_eq!(self.mux.write(first(self), b"thanks"), Ok(6)),
            "opens a stream of its own and writes 'hi' on it" => {
                let id = self.mux.open().expect("a stream");
                assert_eq!(self.mux.write(id, b"hi"), Ok(2));
            }
            "closes its stream" | "closes that stream" => self.mux.close(first(self)),
            "session is closed: nothing more on the wire" => {}
            _ if action.starts_with("writes 'too late'") => {
                assert_eq!(self.mux.write(first(self), b"too late"), Ok(8));
            }
            other => panic!("no such action: {other}"),
        }
    }

    fn read(&mut self, now: Instant, size: usize) {
        let mut buf = vec![0; size];
        let id = self.ours.expect("the stream is open");
        let n = self.mux.read(now, id, &mut buf).expect("an open stream").expect("data is there");
        self.read.extend_from_slice(&buf[..n]);
    }
}

#[test]
fn every_transcript_is_played_by_both_sides() {
    let cases = cases("smux-transcripts.json");
    assert_eq!(cases.len(), 4);
    for case in &cases {
        for side in [Side::Client, Side::Server] {
            play(case, side);
        }
    }
}

fn play(case: &Value, side: Side) {
    let id = text(&case["id"]);
    let version = version_of(case);
    let (outwards, key) = match side {
        Side::Client => ("client->server", "all_bytes_client_to_server_hex"),
        Side::Server => ("server->client", "all_bytes_server_to_client_hex"),
    };
    let mut now = start();
    let mux = Mux::new(now, side, Config { version, ..Config::default() });
    let mut half = Half { mux, out: Vec::new(), ours: None, read: Vec::new() };
    for event in case["events"].as_array().expect("events") {
        match event["action"].as_str() {
            Some(idle) if idle.starts_with("both sides idle") => {
                half.mux.set_keepalive(now, Some(Duration::from_secs(1)));
                now += Duration::from_secs(1);
                half.mux.handle_timeout(now);
            }
            Some(action) => half.act(side, now, action),
            None if event["direction"] == outwards => {}
            None => half.mux.handle_bytes(now, &unhex(&event["hex"])).expect("the library's frames"),
        }
        while half.mux.poll_transmit(now, &mut half.out, usize::MAX) {}
    }
    let mut ours = without_updates(frames(version, &half.out));
    let theirs = without_updates(frames(version, &unhex(&case[key])));
    match side {
        Side::Client => {
            assert_eq!(half.read, b"thanks");
            let second_fin = ours.pop().expect("frames");
            assert_eq!(Some(&second_fin), ours.last(), "closed while the server could still write: FIN twice");
        }
        Side::Server => {
            let bytes: Vec<u8> = (0..3_000).map(|n| (n % 251) as u8).collect();
            assert_eq!(half.read, bytes);
            if id.ends_with("@mid") {
                // Its writes fail after a FIN; ours go on, as with old and new.
                ours.retain(|(_, payload)| payload != b"too late");
            }
        }
    }
    assert_eq!(ours, theirs, "{id} as {side:?}");
}
