//! Vectors recorded from the real kcp-go (`testdata/vectors`), replayed.
//!
//! Formats, receiving rules and acknowledgements bind: every case is replayed, and after every step what was read, `rcv_nxt`,
//! `una`, the places announced and the verdict on the datagram must be kcp-go's. What goes out is compared as
//! [`Outputs`] says. Where we differ by design the case is in [`BY_DESIGN`] with the reason, and what is compared instead.

#![allow(clippy::disallowed_methods, reason = "virtual time needs one real instant to count from")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use turbotunnel_kcp::wire::Command;
use turbotunnel_kcp::{Config, DecodeError, Kcp, Retransmission, Segment, segments};

/// How a case's output is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outputs {
    /// Per step: the set of numbers acknowledged, `una` and `wnd`, WASK and WINS, and each PUSH with its number, ts and payload.
    PerStep,
    /// Over the whole case: the numbers acknowledged and every PUSH ever sent, by number and payload.
    InTotal,
    /// Over the whole case: the payloads of all PUSH, put together, as far as kcp-go's window let them go.
    Bytes,
    /// Only the verdict on each datagram; the case has a test of its own that says what happens instead.
    Verdicts,
}

/// Cases whose output differs from kcp-go's on purpose.
const BY_DESIGN: &[(&str, Outputs, &str)] = &[
    ("a2-single-send-nc0-first-flush-empty", Outputs::InTotal, "our congestion window starts at 32 segments, not at 0"),
    ("d9-ack-only-flush-side-effects@old", Outputs::InTotal, "whatever can be sent goes at once, not ACKs alone"),
    ("d9-ack-only-flush-side-effects@new", Outputs::InTotal, "whatever can be sent goes at once, not ACKs alone"),
    ("e1-zero-window-and-probe-sender@old", Outputs::InTotal, "we ask after 500 ms, not after 7 s"),
    (
        "e1-zero-window-and-probe-sender@new",
        Outputs::InTotal,
        "waits are not rounded to ms, and end at 10 s, not at 120",
    ),
    ("e4-window-field-is-16-bit", Outputs::Verdicts, "a window of 65,536 cannot be asked for"),
    ("f1-rto-backoff-nodelay0", Outputs::InTotal, TIMING),
    ("f1-rto-backoff-nodelay1", Outputs::InTotal, TIMING),
    ("f1-rto-backoff-nodelay2", Outputs::InTotal, TIMING),
    ("f2-dead-link-mark", Outputs::InTotal, TIMING),
    ("f6-fast-resend@old", Outputs::InTotal, TIMING),
    ("f7-early-retransmit-needs-no-new-data@old", Outputs::InTotal, TIMING),
    ("f7-early-retransmit-needs-no-new-data@new", Outputs::InTotal, TIMING),
    ("g3-clock-wrap", Outputs::InTotal, TIMING),
    (
        "h1-malformed-input",
        Outputs::Verdicts,
        "of a packet that does not parse nothing is taken, also not its first segment",
    ),
    ("h2-empty-push", Outputs::Verdicts, "an empty PUSH is not taken: it would stand in for the real segment"),
    ("j1-cwnd-growth", Outputs::InTotal, CONGESTION),
    ("j2-cwnd-after-loss", Outputs::InTotal, CONGESTION),
    ("j3-cwnd-after-fast-retransmit@old", Outputs::Bytes, CONGESTION_JOINS),
    ("j3-cwnd-after-fast-retransmit@new", Outputs::Bytes, CONGESTION_JOINS),
    ("j4-cwnd-after-early-retransmit-without-fastresend@old", Outputs::InTotal, CONGESTION),
    ("j4-cwnd-after-early-retransmit-without-fastresend@new", Outputs::InTotal, CONGESTION),
];

const TIMING: &str = "when to send again is our own: by proof of loss or tail probe here";
const CONGESTION: &str = "how much to send at once is our own";
const CONGESTION_JOINS: &str =
    "how much to send at once is our own, and what waits for the window is one stream, not messages";

#[derive(Deserialize)]
struct File<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    parameters: Parameters,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Parameters {
    clock_start_ms: u32,
    conv: u32,
    #[serde(default)]
    initial_rcv_nxt: u32,
    #[serde(default)]
    initial_snd_nxt: u32,
    mtu: usize,
    rcv_wnd: u32,
    snd_wnd: u32,
    stream_mode: bool,
}

#[derive(Deserialize)]
struct Step {
    op: String,
    clock_ms: u32,
    #[serde(default)]
    args: Arguments,
    #[serde(rename = "return")]
    returned: i64,
    output_datagrams: Vec<Datagram>,
    read_hex: Option<String>,
    state_after: State,
}

#[derive(Default, Deserialize)]
struct Arguments {
    data_hex: Option<String>,
    datagram_hex: Option<String>,
}

#[derive(Deserialize)]
struct Datagram {
    hex: String,
}

#[derive(Deserialize)]
struct State {
    snd_una: u32,
    rcv_nxt: u32,
    rcv_queue_len: usize,
}

fn load<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/../../testdata/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str::<File<T>>(&text).unwrap_or_else(|error| panic!("{path}: {error}")).cases
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits")).collect()
}

/// What some datagrams say, as far as it binds.
#[derive(Debug, Default, Eq, PartialEq)]
struct Said {
    acks: BTreeSet<u32>,
    windows: BTreeSet<(u32, u16)>,
    wask: bool,
    wins: bool,
    pushes: BTreeMap<u32, (u32, Vec<u8>)>,
}

impl Said {
    fn hear(&mut self, datagram: &[u8]) {
        for segment in segments(datagram).expect("an engine's own datagram") {
            assert_eq!(segment.frg * u8::from(segment.cmd != Command::Push), 0);
            self.windows.insert((segment.una.value(), segment.wnd));
            match segment.cmd {
                Command::Push => {
                    self.pushes.insert(segment.sn.value(), (segment.ts.value(), segment.payload.to_vec()));
                }
                Command::Ack => {
                    self.acks.insert(segment.sn.value());
                }
                Command::Wask => self.wask = true,
                Command::Wins => self.wins = true,
            }
        }
    }

    fn payloads(&self) -> BTreeMap<u32, &[u8]> {
        self.pushes.iter().map(|(&sn, (_, payload))| (sn, payload.as_slice())).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.pushes.values().flat_map(|(_, payload)| payload).copied().collect()
    }
}

/// Our engine in the place of the recorded one.
struct Replay {
    kcp: Kcp,
    started: Instant,
    clock_start_ms: u32,
    /// kcp-go queues without limit; we take what the window has room for and are offered the rest again.
    backlog: Vec<u8>,
    message_mode: bool,
    /// Made early, to keep messages in segments of their own.
    early: Vec<Vec<u8>>,
    /// Our numbers start alike in both directions, kcp-go's here need not: to be added to our `una`, and taken from its own.
    una_shift: u32,
    peer_una_shift: u32,
}

impl Replay {
    fn new(parameters: &Parameters) -> Self {
        let window = |wnd: u32| u16::try_from(wnd).unwrap_or(u16::MAX);
        let sends = parameters.initial_snd_nxt != 0;
        let initial_sn = if sends { parameters.initial_snd_nxt } else { parameters.initial_rcv_nxt };
        let config = Config {
            mtu: parameters.mtu,
            send_window: window(parameters.snd_wnd),
            recv_window: window(parameters.rcv_wnd),
            initial_sn,
            initial_ts_ms: parameters.clock_start_ms,
            ..Config::default()
        };
        let started = Instant::now();
        let mut kcp = Kcp::new(started, parameters.conv, config);
        // The recorded engines run without congestion window, but for cases about it.
        kcp.set_retransmission(Retransmission::TailProbe);
        Self {
            kcp,
            started,
            clock_start_ms: parameters.clock_start_ms,
            backlog: Vec::new(),
            message_mode: !parameters.stream_mode,
            early: Vec::new(),
            una_shift: parameters.initial_rcv_nxt.wrapping_sub(initial_sn),
            peer_una_shift: parameters.initial_snd_nxt.wrapping_sub(initial_sn),
        }
    }

    fn at(&self, clock_ms: u32) -> Instant {
        self.started + Duration::from_millis(u64::from(clock_ms.wrapping_sub(self.clock_start_ms)))
    }

    fn input(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DecodeError> {
        if self.peer_una_shift == 0 {
            return self.kcp.handle_packet(now, datagram).map(|_| ());
        }
        let mut shifted = Vec::new();
        for segment in segments(datagram)? {
            let una = segment.una.plus(0_u32.wrapping_sub(self.peer_una_shift));
            Segment { una, ..segment }.encode(&mut shifted);
        }
        self.kcp.handle_packet(now, &shifted).map(|_| ())
    }

    fn una(&self) -> u32 {
        self.kcp.una().value().wrapping_add(self.peer_una_shift)
    }

    fn send(&mut self, now: Instant, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        self.offer_backlog();
        if self.message_mode {
            let made = self.drain(now);
            self.early.extend(made);
        }
    }

    fn offer_backlog(&mut self) {
        let taken = self.kcp.write(&self.backlog);
        self.backlog.drain(..taken);
    }

    fn drain(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        loop {
            self.offer_backlog();
            let mut datagram = vec![0xee];
            let wanted = self.kcp.wants_transmit(now);
            assert_eq!(self.kcp.poll_transmit(now, &mut datagram), wanted);
            if !wanted {
                assert_eq!(datagram, [0xee]);
                return datagrams;
            }
            datagram.remove(0);
            datagrams.push(datagram);
        }
    }

    fn flush(&mut self, now: Instant) -> Said {
        let mut said = Said::default();
        for datagram in std::mem::take(&mut self.early).into_iter().chain(self.drain(now)) {
            said.hear(&datagram);
        }
        let shift = self.una_shift;
        said.windows = said.windows.iter().map(|&(una, wnd)| (una.wrapping_add(shift), wnd)).collect();
        said
    }

    fn timers(&mut self, now: Instant) {
        if self.kcp.poll_timeout().is_some_and(|due| due <= now) {
            self.kcp.handle_timeout(now);
        }
        assert!(self.kcp.poll_timeout().is_none_or(|due| due > now));
    }

    /// One message: in our terms, chunks up to its length.
    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            let Some(chunk) = self.kcp.peek() else { break };
            read.extend_from_slice(chunk);
            self.kcp.consume();
        }
        read
    }
}

fn verdict(result: Result<(), DecodeError>) -> i64 {
    match result {
        Ok(()) => 0,
        Err(DecodeError::Short(_) | DecodeError::OtherConv { .. }) => -1,
        Err(DecodeError::Length { .. }) => -2,
        Err(DecodeError::Command(_)) => -3,
        Err(other) => panic!("{other} has no counterpart"),
    }
}

fn outputs_of(id: &str) -> Outputs {
    BY_DESIGN.iter().find(|(case, _, _)| *case == id).map_or(Outputs::PerStep, |&(_, outputs, _)| outputs)
}

/// Returns what differs, for a message that shows all of it at once.
fn replay(case: &Case, outputs: Outputs) -> Vec<String> {
    let mut replay = Replay::new(&case.parameters);
    let mut differences = Vec::new();
    let (mut theirs_in_total, mut ours_in_total) = (Said::default(), Said::default());
    for (number, step) in case.steps.iter().enumerate() {
        let now = replay.at(step.clock_ms);
        replay.timers(now);
        let mut differs = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                differences
                    .push(format!("{} step {number} {}: {what}: ours {ours}, theirs {theirs}", case.id, step.op));
            }
        };
        match step.op.as_str() {
            "send" if step.returned == 0 => {
                replay.send(now, &unhex(step.args.data_hex.as_deref().unwrap_or_default()));
            }
            "input" => {
                let datagram = unhex(step.args.datagram_hex.as_deref().unwrap_or_default());
                let ours = verdict(replay.input(now, &datagram));
                differs("verdict", ours.to_string(), step.returned.to_string());
            }
            "recv" if step.returned >= 0 && outputs != Outputs::Verdicts => {
                let theirs = unhex(step.read_hex.as_deref().unwrap_or_default());
                let ours = replay.read(theirs.len());
                differs("read", format!("{ours:02x?}"), format!("{theirs:02x?}"));
            }
            // A message that cannot be read yet, and its size, mean nothing to a reader of bytes.
            "send" | "recv" | "flush" | "peek_size" => {}
            other => panic!("unknown op {other}"),
        }
        if outputs == Outputs::Verdicts {
            continue;
        }
        let state = &step.state_after;
        let rcv_nxt = replay.kcp.rcv_nxt().value().wrapping_add(replay.una_shift);
        differs("rcv_nxt", rcv_nxt.to_string(), state.rcv_nxt.to_string());
        differs("snd_una", replay.una().to_string(), state.snd_una.to_string());

        let mut theirs = Said::default();
        for datagram in &step.output_datagrams {
            theirs.hear(&unhex(&datagram.hex));
            theirs_in_total.hear(&unhex(&datagram.hex));
        }
        if step.op == "flush" || !step.output_datagrams.is_empty() {
            let ours = replay.flush(now);
            if outputs == Outputs::PerStep {
                differs("output", format!("{ours:02x?}"), format!("{theirs:02x?}"));
            }
            if let Some(&(_, wnd)) = ours.windows.first() {
                let free = usize::try_from(case.parameters.rcv_wnd).expect("small") - state.rcv_queue_len;
                differs("wnd", wnd.to_string(), free.to_string());
            }
            ours_in_total.acks.extend(&ours.acks);
            for (sn, push) in ours.pushes {
                ours_in_total.pushes.entry(sn).or_insert(push);
            }
        }
    }
    let mut differs = |what: &str, ours: String, theirs: String| {
        if ours != theirs {
            differences.push(format!("{} in total: {what}: ours {ours}, theirs {theirs}", case.id));
        }
    };
    match outputs {
        Outputs::PerStep | Outputs::InTotal => {
            differs("acks", format!("{:?}", ours_in_total.acks), format!("{:?}", theirs_in_total.acks));
            differs("pushes", format!("{:?}", ours_in_total.payloads()), format!("{:?}", theirs_in_total.payloads()));
        }
        Outputs::Bytes => {
            let (ours, theirs) = (ours_in_total.bytes(), theirs_in_total.bytes());
            differs("bytes", format!("{:?}", ours.get(..theirs.len())), format!("{:?}", Some(&theirs[..])));
        }
        Outputs::Verdicts => {}
    }
    differences
}

#[test]
fn every_recorded_script_gives_what_kcp_go_gave() {
    let cases: Vec<Case> = load("kcp-engine.json");
    let mut strict = 0;
    for case in &cases {
        let outputs = outputs_of(&case.id);
        strict += usize::from(outputs == Outputs::PerStep);
        let differences = replay(case, outputs);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
    assert_eq!((cases.len(), strict), (52, 30), "cases replayed, and those compared step by step");
}

/// Each case is replayed (there is no other way through [`every_recorded_script_gives_what_kcp_go_gave`]); each exception
/// names a case of the file, once, gives a reason, and is one that a step by step comparison would not pass.
#[test]
fn every_exception_is_needed_and_names_a_case() {
    let cases: Vec<Case> = load("kcp-engine.json");
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len(), "no id twice");
    let mut excepted = BTreeSet::new();
    for &(id, _, reason) in BY_DESIGN {
        assert!(excepted.insert(id), "{id} is listed twice");
        assert!(!reason.is_empty(), "{id} has no reason");
        let case = cases.iter().find(|case| case.id == id).unwrap_or_else(|| panic!("no case {id}"));
        assert!(!replay(case, Outputs::PerStep).is_empty(), "{id} needs no exception");
    }
}

/// Where kcp-go takes the first segment of a packet whose second is foreign, nothing happens here.
#[test]
fn the_malformed_datagrams_of_h1_leave_no_trace() {
    let cases: Vec<Case> = load("kcp-engine.json");
    let case = cases.iter().find(|case| case.id == "h1-malformed-input").expect("recorded");
    let mut replay = Replay::new(&case.parameters);
    let now = replay.at(case.parameters.clock_start_ms);
    let mut refused = 0;
    for step in case.steps.iter().filter(|step| step.op == "input") {
        let datagram = unhex(step.args.datagram_hex.as_deref().expect("an input has a datagram"));
        if replay.input(now, &datagram).is_err() {
            refused += 1;
            assert_eq!(replay.flush(now), Said::default());
        } else {
            // The good one, sn 1 with a rest of three bytes behind it.
            let said = replay.flush(now);
            assert_eq!((said.acks, said.windows), (BTreeSet::from([1]), BTreeSet::from([(0, 32)])));
        }
    }
    assert_eq!((refused, replay.kcp.stats().packets_malformed), (7, 7));
    assert_eq!(replay.kcp.peek(), None);
}

/// Where kcp-go takes an empty PUSH for data, and its reader stops for ever, it has no effect here and the real sn 0 can come.
#[test]
fn the_empty_push_of_h2_is_neither_taken_nor_acknowledged() {
    let cases: Vec<Case> = load("kcp-engine.json");
    let case = cases.iter().find(|case| case.id == "h2-empty-push").expect("recorded");
    let mut replay = Replay::new(&case.parameters);
    let now = replay.at(case.parameters.clock_start_ms);
    for step in case.steps.iter().filter(|step| step.op == "input") {
        let datagram = unhex(step.args.datagram_hex.as_deref().expect("an input has a datagram"));
        replay.input(now, &datagram).expect("it parses");
    }
    assert_eq!(replay.kcp.stats().dropped_empty_push, 1);
    assert_eq!(replay.flush(now).acks, BTreeSet::from([1]));
    assert_eq!((replay.kcp.rcv_nxt().value(), replay.kcp.peek()), (0, None));
}

// Two engines.

#[derive(Deserialize)]
struct Duplex {
    id: String,
    parameters: DuplexParameters,
    events: Vec<Event>,
    final_state: BTreeMap<String, State>,
}

#[derive(Deserialize)]
struct DuplexParameters {
    clock_start_ms: u32,
    clock_end_ms: u32,
    conv: u32,
    mtu: usize,
    one_way_delay_ms: u32,
    rcv_wnd: u16,
    snd_wnd: u16,
}

#[derive(Deserialize)]
struct Event {
    t_ms: u32,
    from: Option<String>,
    reader: Option<String>,
    hex: Option<String>,
    read_hex: Option<String>,
    arrives_at_ms: Option<u32>,
    #[serde(default)]
    lost: bool,
}

impl Duplex {
    fn engine(&self, started: Instant) -> Kcp {
        let p = &self.parameters;
        let config = Config {
            mtu: p.mtu,
            send_window: p.snd_wnd,
            recv_window: p.rcv_wnd,
            initial_ts_ms: p.clock_start_ms,
            ..Config::default()
        };
        Kcp::new(started, p.conv, config)
    }

    fn read_by(&self, who: &str) -> Vec<(u32, Vec<u8>)> {
        let mut reads: Vec<(u32, Vec<u8>)> = Vec::new();
        for event in self.events.iter().filter(|event| event.reader.as_deref() == Some(who)) {
            let bytes = unhex(event.read_hex.as_deref().expect("a reader reads"));
            match reads.last_mut().filter(|(at, _)| *at == event.t_ms) {
                Some((_, all)) => all.extend(bytes),
                None => reads.push((event.t_ms, bytes)),
            }
        }
        reads
    }

    /// What the two users write, and when.
    fn writes(who: &str, ms: u32) -> Option<Vec<u8>> {
        match (who, ms) {
            #[expect(clippy::cast_possible_truncation, reason = "modulo 256, as recorded")]
            ("A", 1005) => Some((0..4000_u32).map(|i| (i % 251 + 3) as u8).collect()),
            ("A", 1250) => Some(b"last".to_vec()),
            ("B", 1033) => Some(b"reply".to_vec()),
            _ => None,
        }
    }
}

fn read_all(kcp: &mut Kcp) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = kcp.peek() {
        all.extend_from_slice(chunk);
        kcp.consume();
    }
    all
}

fn transmit(kcp: &mut Kcp, now: Instant, mut sent: impl FnMut(Vec<u8>)) {
    if kcp.poll_timeout().is_some_and(|due| due <= now) {
        kcp.handle_timeout(now);
    }
    let mut packet = Vec::new();
    while kcp.poll_transmit(now, &mut packet) {
        sent(std::mem::take(&mut packet));
    }
}

/// One of ours against each recorded side: what arrives is the recording's, so what is read, and when, must be too, and
/// what it sends for the first time. Retransmissions are not compared (they are our own).
#[test]
fn each_side_of_a_recorded_conversation_can_be_ours() {
    let cases: Vec<Duplex> = load("kcp-duplex.json");
    assert_eq!(cases.len(), 6);
    for case in &cases {
        for (us, them) in [("A", "B"), ("B", "A")] {
            let started = Instant::now();
            let mut kcp = case.engine(started);
            let (mut reads, mut ours, mut theirs) = (Vec::new(), Said::default(), Said::default());
            for ms in case.parameters.clock_start_ms..=case.parameters.clock_end_ms {
                let now = started + Duration::from_millis(u64::from(ms - case.parameters.clock_start_ms));
                for event in case.events.iter().filter(|event| !event.lost && event.arrives_at_ms == Some(ms)) {
                    if event.from.as_deref() == Some(them) {
                        kcp.handle_packet(now, &unhex(event.hex.as_deref().expect("a datagram"))).expect("recorded");
                    }
                }
                let read = read_all(&mut kcp);
                if !read.is_empty() {
                    reads.push((ms, read));
                }
                if let Some(bytes) = Duplex::writes(us, ms) {
                    assert_eq!(kcp.write(&bytes), bytes.len());
                }
                transmit(&mut kcp, now, |packet| ours.hear(&packet));
            }
            for event in case.events.iter().filter(|event| event.from.as_deref() == Some(us)) {
                theirs.hear(&unhex(event.hex.as_deref().expect("a datagram")));
            }
            let id = &case.id;
            assert_eq!(reads, case.read_by(us), "{id}: what {us} read");
            assert_eq!(ours.payloads(), theirs.payloads(), "{id}: what {us} sent");
            // An ACK of theirs may cover what two of ours do: theirs wait for a timer. The last one and `una` are the same.
            assert!(
                ours.acks.is_superset(&theirs.acks),
                "{id}: {us} acknowledged {:?}, not {:?}",
                ours.acks,
                theirs.acks
            );
            assert_eq!(ours.windows.last(), theirs.windows.last(), "{id}: last una and wnd of {us}");
            let end = &case.final_state[us];
            assert_eq!((kcp.una().value(), kcp.rcv_nxt().value()), (end.snd_una, end.rcv_nxt), "{id}: end of {us}");
        }
    }
}

/// Both sides ours, the same datagrams lost by their place in the first flight: all arrives, as recorded, if at other times.
#[test]
fn two_of_ours_bring_across_what_was_recorded() {
    let cases: Vec<Duplex> = load("kcp-duplex.json");
    for case in &cases {
        let lost: Vec<usize> = case
            .events
            .iter()
            .filter(|event| event.from.is_some())
            .enumerate()
            .filter_map(|(place, event)| event.lost.then_some(place))
            .collect();
        let started = Instant::now();
        let mut engines = [case.engine(started), case.engine(started)];
        let mut air: Vec<(usize, u32, Vec<u8>)> = Vec::new();
        let mut read = [Vec::new(), Vec::new()];
        let mut sent = 0;
        for ms in case.parameters.clock_start_ms..=case.parameters.clock_end_ms + 1500 {
            let now = started + Duration::from_millis(u64::from(ms - case.parameters.clock_start_ms));
            for (who, name) in [(0, "A"), (1, "B")] {
                for (_, _, packet) in air.extract_if(.., |(to, at, _)| *to == who && *at == ms) {
                    engines[who].handle_packet(now, &packet).expect("ours");
                }
                read[who].extend(read_all(&mut engines[who]));
                if let Some(bytes) = Duplex::writes(name, ms) {
                    assert_eq!(engines[who].write(&bytes), bytes.len());
                }
                transmit(&mut engines[who], now, |packet| {
                    if !lost.contains(&sent) {
                        air.push((1 - who, ms + case.parameters.one_way_delay_ms, packet));
                    }
                    sent += 1;
                });
            }
        }
        for (who, name) in [(0, "A"), (1, "B")] {
            let recorded: Vec<u8> = case.read_by(name).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(read[who], recorded, "{}: what {name} read", case.id);
            assert!(engines[who].all_acknowledged(), "{}: {name} has everything acknowledged", case.id);
        }
    }
}
