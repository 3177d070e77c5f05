//! What the applications do with their streams, and what they are told.

use smux::StreamError;
use turbotunnel::StreamId;
use turbotunnel::tunnel::{Event, StreamFailure, Tunnel};
use turbotunnel_sim::pattern::{Pattern, Way};

use super::{Half, LAST_WORDS, MOST_BYTES, MOST_STREAMS, Pair};
use crate::tunnel_end::End;
use crate::{start, tell};

fn pattern(id: StreamId, writer: usize) -> Pattern {
    Pattern::new(1, id.value(), if writer == 0 { Way::Up } else { Way::Down })
}

impl Pair {
    pub(super) fn stream(&self, side: usize, index: u8) -> Option<StreamId> {
        let halves = &self.halves[side];
        let index = usize::from(index) % halves.len().max(1);
        halves.keys().nth(index).copied()
    }

    pub(super) fn half(&mut self, side: usize, id: StreamId) -> &mut Half {
        self.halves[side].get_mut(&id).expect("a stream that the application knows")
    }

    pub(super) fn end(&mut self, side: usize) -> &mut End {
        self.ends[side].as_mut().expect("an application has a session")
    }

    pub(super) fn open(&mut self, side: usize) {
        let now = self.now;
        if self.halves[side].len() >= 2 * MOST_STREAMS {
            return;
        }
        let Some(end) = &mut self.ends[side] else { return };
        match end.with(|tunnel| tunnel.open(now)) {
            Ok(id) => {
                assert!(self.halves[side].insert(id, Half::default()).is_none() || self.forged, "{id} opened twice");
            }
            Err(error) => assert!(self.closed[side] || end.tunnel().ended().is_some(), "{error}"),
        }
    }

    pub(super) fn accept(&mut self, side: usize) -> bool {
        let Some(end) = &mut self.ends[side] else { return false };
        let Some(id) = end.with(Tunnel::accept) else { return false };
        let half = Half { delivered: self.delivered[side].contains(&id), ..Half::default() };
        let old = self.halves[side].insert(id, half);
        assert!(self.forged || old.is_none(), "stream {id} was accepted twice");
        assert!(self.forged || self.halves[1 - side].contains_key(&id), "stream {id} was never opened");
        true
    }

    pub(super) fn write(&mut self, side: usize, id: StreamId, len: u64) {
        let (now, half) = (self.now, self.halves[side][&id]);
        let len = len.min(MOST_BYTES - half.written) as usize;
        let mut bytes = std::mem::take(&mut self.buf);
        pattern(id, side).fill(half.written, &mut bytes[..len]);
        match self.end(side).write(now, id, &bytes[..len]) {
            Ok(taken) => self.half(side, id).written += taken as u64,
            Err(error) => self.judge(side, id, &error),
        }
        self.buf = bytes;
    }

    /// `true`: there may be more.
    pub(super) fn read(&mut self, side: usize, id: StreamId, len: usize) -> bool {
        let (now, half) = (self.now, self.halves[side][&id]);
        if half.failed {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.buf);
        let outcome = self.end(side).read(now, id, &mut bytes[..len]);
        let mut more = false;
        match outcome {
            Ok(None) => {}
            Ok(Some(0)) if len > 0 => {
                let refused = self.mute && self.may_be_refused(side, id);
                let half = self.half(side, id);
                half.ended = true;
                half.refused |= refused;
                let half = *half;
                let peer = self.halves[1 - side].get(&id).copied().unwrap_or_default();
                let finished = refused || peer.finished || peer.let_go || self.closed[1 - side];
                assert!(self.forged || finished, "stream {id} ended, and nobody had ended it");
                assert!(self.forged || half.read == peer.written, "stream {id} ended too early: {half:?} {peer:?}");
            }
            Ok(Some(len)) => {
                let wrong = pattern(id, 1 - side).first_wrong(half.read, &bytes[..len]);
                assert!(self.forged || wrong.is_none(), "stream {id}: a byte that was not written there");
                assert!(self.forged || !half.ended || len == 0, "stream {id} goes on behind its end");
                self.half(side, id).read += len as u64;
                more = len > 0;
            }
            Err(error) => {
                self.judge(side, id, &error);
                self.half(side, id).failed = true;
            }
        }
        self.buf = bytes;
        more
    }

    pub(super) fn finish(&mut self, side: usize, id: StreamId) {
        let now = self.now;
        match self.end(side).finish(now, id) {
            Ok(()) => self.half(side, id).finished = true,
            Err(error) => self.judge(side, id, &error),
        }
    }

    pub(super) fn close_stream(&mut self, side: usize, id: StreamId) {
        let now = self.now;
        self.half(side, id).let_go = true;
        self.end(side).close_stream(now, id);
    }

    /// Whether a verb had reason to fail.
    pub(super) fn judge(&self, side: usize, id: StreamId, error: &StreamFailure) {
        let half = self.halves[side][&id];
        let ended = self.ends[side].as_ref().is_some_and(|end| end.tunnel().ended().is_some());
        let reason = match error {
            StreamFailure::Session(_) => ended,
            StreamFailure::Stream(StreamError::Unknown) => half.let_go,
            StreamFailure::Stream(StreamError::Finished) => half.finished || self.closed[side],
            StreamFailure::Stream(StreamError::ClosedByPeer) => {
                self.halves[1 - side].get(&id).is_some_and(|peer| peer.let_go)
            }
            StreamFailure::Stream(StreamError::Refused) => self.may_be_refused(side, id),
            _ => false,
        };
        assert!(reason || self.forged, "stream {id}: {error}");
    }

    /// Its peer refused a stream, and this may be the one.
    pub(super) fn may_be_refused(&self, side: usize, id: StreamId) -> bool {
        let peer = self.ends[1 - side].as_ref();
        let refused = peer.is_some_and(|peer| peer.tunnel().engine_stats().1.streams_refused > 0);
        refused && !self.halves[1 - side].contains_key(&id)
    }

    pub(super) fn tell(&mut self, side: usize) -> bool {
        let mut busy = false;
        while let Some(end) = &mut self.ends[side]
            && let Some(event) = end.poll_event()
        {
            busy = true;
            let forged = self.forged;
            tell(&(self.now - start(), side, &event));
            match event {
                Event::Delivered(id) => {
                    let Some(half) = self.halves[side].get_mut(&id) else {
                        assert!(self.closed[side] || forged, "stream {id} was delivered without having been accepted");
                        assert!(self.delivered[side].insert(id) || forged, "stream {id} delivered twice");
                        continue;
                    };
                    assert!(!std::mem::replace(&mut half.delivered, true) || forged, "stream {id} delivered twice");
                    let finished = half.finished || half.let_go || self.closed[side];
                    assert!(finished || forged, "stream {id} was delivered without having been finished");
                }
                Event::ClosedByPeer { id, .. } => {
                    let let_go = self.halves[1 - side].get(&id).is_some_and(|peer| peer.let_go);
                    assert!(let_go || forged, "stream {id} was not closed");
                    if let Some(half) = self.halves[side].get_mut(&id) {
                        assert!(!std::mem::replace(&mut half.closed_by_peer, true) || forged, "closed twice: {id}");
                    }
                }
                Event::Refused(id) => {
                    assert!(self.may_be_refused(side, id) || forged, "stream {id} was not refused");
                    if let Some(half) = self.halves[side].get_mut(&id) {
                        assert!(!std::mem::replace(&mut half.refused, true) || forged, "refused twice: {id}");
                    }
                }
                _ => {}
            }
        }
        busy
    }

    pub(super) fn use_streams(&mut self, side: usize) -> bool {
        let mut busy = false;
        while self.accept(side) {
            busy = true;
        }
        let over = self.ends[side].as_ref().is_none_or(|end| end.tunnel().ended().is_some());
        let ids: Vec<StreamId> = self.halves[side].keys().copied().collect();
        for id in ids {
            while !self.end(side).waits_for(id).0 && self.read(side, id, 1 << 16) {
                busy = true;
            }
            let half = self.halves[side][&id];
            let done = half.finished || half.let_go || half.closed_by_peer || half.refused || over;
            if done || self.end(side).waits_for(id).1 {
                continue;
            }
            let wanted = LAST_WORDS.min(3 * self.config.send_buffer as u64) - half.last_words;
            if wanted > 0 && half.written < MOST_BYTES {
                self.write(side, id, wanted);
                let written = self.halves[side][&id].written - half.written;
                self.half(side, id).last_words += written;
                busy |= written > 0;
            } else {
                self.finish(side, id);
                busy |= self.halves[side][&id].finished;
            }
        }
        busy
    }

    pub(super) fn read_out(&mut self, side: usize) -> bool {
        let mut busy = false;
        while self.accept(side) {
            busy = true;
        }
        let ids: Vec<StreamId> = self.halves[side].keys().copied().collect();
        for id in ids {
            while self.read(side, id, 1 << 16) {
                busy = true;
            }
        }
        busy
    }
}
