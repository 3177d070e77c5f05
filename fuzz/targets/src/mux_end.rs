//! One end of smux under observation: after every verb all its promises are checked.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use smux::wire::{HEADER_LEN, Header};
use smux::{Config, Event, Mux, OpenError, ProtocolError, Side, StreamError, StreamId, Version};

use crate::start;

/// Received data costs at most 1.25 times its size and so much for each stream.
const OVERHEAD: usize = 16 << 10;
/// With so much room `poll_transmit` finds everything a place.
pub(crate) const ROOM: usize = 1376;

/// Somebody who was turned away: a read or a write that gave or took nothing. An event is to follow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turned {
    /// How often; each time can be followed by one event.
    times: u32,
    waits: bool,
}

impl Turned {
    pub(crate) fn away(&mut self) {
        self.times += 1;
        self.waits = true;
    }

    /// The event. `false`: nobody had been turned away.
    pub(crate) fn told(&mut self) -> bool {
        self.waits = false;
        let expected = self.times > 0;
        self.times = self.times.saturating_sub(1);
        expected
    }

    /// It came by another way.
    pub(crate) fn let_in(&mut self) {
        self.waits = false;
    }

    /// A strict application does not try again before the event.
    pub(crate) fn waits(self) -> bool {
        self.waits
    }
}

/// What an application waits for.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// It opened or accepted the stream.
    begun: bool,
    read: Turned,
    write: Turned,
    /// It finished or closed the stream, and has not been told that the FIN is out.
    fin: bool,
    let_go: bool,
}

pub(crate) struct End {
    mux: Mux,
    version: Version,
    waits: HashMap<StreamId, Waits>,
    /// Former lives of ids that the peer took up again: what is told of them has still to come.
    former: Vec<StreamId>,
    /// Streams that were used by somebody who only guessed their ids.
    guessed: HashSet<StreamId>,
    /// Streams that nobody has accepted yet were finished, too.
    finished_all: bool,
    /// Bytes read, or dropped with their stream, do not count any more.
    read: u64,
    out: Vec<u8>,
    failed: Option<ProtocolError>,
    max_streams: usize,
}

impl End {
    pub(crate) fn new(side: Side, config: Config) -> Self {
        Self {
            version: config.version,
            max_streams: config.max_streams,
            mux: Mux::new(start(), side, config),
            waits: HashMap::new(),
            former: Vec::new(),
            guessed: HashSet::new(),
            finished_all: false,
            read: 0,
            out: Vec::new(),
            failed: None,
        }
    }

    pub(crate) fn mux(&self) -> &Mux {
        &self.mux
    }

    /// The application was turned away and not told since that it can read, or write.
    pub(crate) fn waits_for(&self, id: StreamId) -> (bool, bool) {
        self.waits.get(&id).map_or((false, false), |waits| (waits.read.waits(), waits.write.waits()))
    }

    /// Streams that were used without being opened or accepted.
    pub(crate) fn guessed(&self) -> Vec<StreamId> {
        self.guessed.iter().copied().collect()
    }

    /// For verbs that promise nothing but what is checked after each.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Mux) -> T) -> T {
        let outcome = act(&mut self.mux);
        self.check();
        outcome
    }

    pub(crate) fn open(&mut self) -> Result<StreamId, OpenError> {
        let before = self.mux.streams();
        let opened = self.mux.open();
        match opened {
            Ok(id) => {
                self.begin(id);
                assert_eq!(self.mux.streams(), before + 1);
            }
            Err(OpenError::TooManyStreams(limit)) => assert!(before >= limit),
            Err(_) => {}
        }
        self.check();
        opened
    }

    pub(crate) fn accept(&mut self) -> Option<StreamId> {
        let accepted = self.mux.accept();
        if let Some(id) = accepted {
            self.begin(id);
        }
        self.check();
        accepted
    }

    fn begin(&mut self, id: StreamId) {
        let waits = self.waits.entry(id).or_default();
        if waits.let_go {
            self.former.push(id);
            *waits = Waits::default();
        }
        assert!(!waits.begun || self.guessed.contains(&id), "there are two streams {id}");
        waits.begun = true;
    }

    /// What the application says of a stream.
    fn waits(&mut self, id: StreamId) -> &mut Waits {
        let waits = self.waits.entry(id).or_default();
        if !waits.begun || waits.let_go {
            self.guessed.insert(id);
        }
        waits
    }

    /// How much was taken.
    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        // Not each time: a write has to ask to be woken without it.
        let room = (bytes.len() % 2 == 1).then(|| self.mux.room(id, bytes.len()));
        let taken = self.mux.write(id, bytes);
        match (room, &taken) {
            (Some(Ok(Some(room))), Ok(taken)) => assert_eq!(*taken, bytes.len().min(room), "what there is room for"),
            (Some(Ok(None)), Ok(taken)) => {
                assert!(*taken < bytes.len(), "no room, and all was taken");
                if *taken > 0 {
                    self.waits(id).write.away();
                }
            }
            (Some(room), taken) => assert_eq!(room.err(), taken.err(), "a write fails as it was told"),
            (None, _) => {}
        }
        if let Ok(taken) = taken {
            assert!(taken <= bytes.len());
            if taken == 0 && !bytes.is_empty() {
                self.waits(id).write.away();
            }
        }
        self.check();
        taken
    }

    pub(crate) fn read(&mut self, now: Instant, id: StreamId, buf: &mut [u8]) -> Result<Option<usize>, StreamError> {
        let read = self.mux.read(now, id, buf);
        match read {
            Ok(None) => self.waits(id).read.away(),
            Ok(Some(len)) => {
                assert!(len <= buf.len());
                self.read += len as u64;
            }
            Err(_) => {}
        }
        self.check();
        read
    }

    pub(crate) fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        let outcome = self.mux.finish(id);
        if outcome.is_ok() {
            self.waits(id).fin = true;
        }
        self.check();
        outcome
    }

    pub(crate) fn finish_all(&mut self) {
        self.mux.finish_all();
        self.finished_all = true;
        self.waits.values_mut().for_each(|waits| waits.fin = true);
        self.check();
    }

    pub(crate) fn close(&mut self, id: StreamId) {
        self.waits(id).let_go = true;
        self.mux.close(id);
        self.check();
    }

    pub(crate) fn abort(&mut self, id: StreamId) {
        self.waits(id).let_go = true;
        self.mux.abort(id);
        self.check();
    }

    pub(crate) fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> Result<(), ProtocolError> {
        let outcome = self.mux.handle_bytes(now, bytes);
        if let Some(failed) = self.failed {
            assert_eq!(outcome, Err(failed), "one who broke the protocol is not understood again");
        }
        self.failed = outcome.err();
        self.check();
        outcome
    }

    /// Whole frames, together at most `room` bytes.
    pub(crate) fn poll_transmit(&mut self, now: Instant, room: usize) -> Option<Vec<u8>> {
        let wants = self.mux.wants_transmit();
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        out.extend_from_slice(b"stays");
        let made = self.mux.poll_transmit(now, &mut out, room);
        assert_eq!(out[..5], *b"stays");
        assert_eq!(made, out.len() > 5, "it says whether there were frames");
        assert!(out.len() - 5 <= room, "{} bytes in a room of {room}", out.len() - 5);
        assert!(wants || !made, "frames, though none wanted to be sent");
        assert!(made || room < ROOM || !self.mux.wants_transmit(), "something could be sent, and was not");
        let frames = made.then(|| out.split_off(5));
        self.check_frames(frames.as_deref().unwrap_or_default());
        self.out = out;
        self.check();
        frames
    }

    fn check_frames(&self, mut frames: &[u8]) {
        while let Some((head, rest)) = frames.split_first_chunk::<HEADER_LEN>() {
            let header = Header::decode(self.version, *head).expect("our own frame");
            frames = rest.get(usize::from(header.length)..).expect("whole frames");
        }
        assert!(frames.is_empty(), "whole frames");
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let early = self.mux.poll_timeout().is_none_or(|at| at > now);
        let before = (self.mux.poll_timeout(), self.mux.wants_transmit(), self.mux.stats().clone());
        self.mux.handle_timeout(now);
        let after = (self.mux.poll_timeout(), self.mux.wants_transmit(), self.mux.stats().clone());
        assert!(!early || before == after, "called early it does nothing");
        assert!(after.0.is_none_or(|at| at > now), "a timer that has fired is over");
        self.check();
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.mux.poll_event()?;
        let (Event::Readable(id) | Event::Writable(id) | Event::FinSent(id) | Event::Finished(id)) = event else {
            return Some(event);
        };
        if let Some(at) = self.former.iter().position(|former| *former == id) {
            if matches!(event, Event::Finished(_)) {
                self.former.swap_remove(at);
            }
            return Some(event);
        }
        if self.guessed.contains(&id) {
            return Some(event);
        }
        let unaccepted = self.finished_all && matches!(event, Event::FinSent(_));
        let waits = match self.waits.get_mut(&id) {
            Some(waits) => waits,
            None if unaccepted => return Some(event),
            None => panic!("{event:?}, and there is no such stream"),
        };
        let expected = match event {
            Event::Readable(_) => waits.read.told() || waits.let_go,
            Event::Writable(_) => waits.write.told() || waits.let_go,
            Event::FinSent(_) => std::mem::take(&mut waits.fin) || waits.let_go || unaccepted,
            _ => waits.let_go,
        };
        assert!(expected, "{event:?} for one who did not wait for it: {waits:?}");
        if matches!(event, Event::Finished(_)) {
            self.waits.remove(&id);
        }
        Some(event)
    }

    fn check(&self) {
        assert!(self.mux.streams() <= self.max_streams, "{} streams", self.mux.streams());
        let unread = usize::try_from(self.mux.stats().bytes_received - self.read).expect("it is in memory");
        let limit = unread + unread / 4 + self.mux.streams() * OVERHEAD;
        assert!(self.mux.buffered() <= limit, "{} bytes allocated for {unread}", self.mux.buffered());
    }
}
