//! From the wire: bytes in, frames taken to their streams.
//!
//! In: pieces of the byte stream, split anywhere. Out: data in the streams' buffers, events, refusals. Payload is handed
//! on as it comes, so half a frame of data can be read; a frame is charged to its window as a whole when its header is
//! there.

use crate::error::ProtocolError;
use crate::mux::{Event, Mux, sizing};
use crate::stream::{Hold, Stream};
use crate::table::Key;
use crate::wire::{Command, HEADER_LEN, Header, StreamId, UPD_LEN, Upd, Version};
use std::time::{Duration, Instant};

/// Refused streams beyond the taken ones after which the peer is taken for an attacker.
const MOST_REFUSED: u32 = 1_024;

/// Where in the byte stream we are.
#[derive(Debug)]
pub(crate) struct Input {
    /// A frame's beginning that came in pieces: its header, then the payload of an update.
    head: [u8; HEADER_LEN + UPD_LEN],
    have: usize,
    /// Payload bytes still to come of the data frame at hand.
    left: usize,
    /// Whose they are; `None`: nobody's.
    to: Option<Key>,
    /// When the allowance for new streams is whole again: each takes `1 / stream_rate`.
    whole_at: Instant,
    /// Streams refused, less those taken since, never below zero.
    refused: u32,
    failed: Option<ProtocolError>,
}

impl Input {
    pub(crate) fn new(now: Instant) -> Self {
        Self { head: [0; HEADER_LEN + UPD_LEN], have: 0, left: 0, to: None, whole_at: now, refused: 0, failed: None }
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// The header of a frame that comes in pieces, or has a payload to be kept (an update); `None`: more has to come.
    fn gather_frame(&mut self, version: Version, bytes: &mut &[u8]) -> Result<Option<Header>, ProtocolError> {
        if !self.gather(bytes, HEADER_LEN) {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h, ..] = self.head;
        let header = Header::decode(version, [a, b, c, d, e, f, g, h])?;
        if header.command == Command::Upd && !self.gather(bytes, HEADER_LEN + UPD_LEN) {
            return Ok(None);
        }
        self.have = 0;
        Ok(Some(header))
    }

    /// Moves bytes into `head` until it holds `wanted`.
    fn gather(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let part = bytes.len().min(wanted.saturating_sub(self.have));
        let (now, later) = bytes.split_at(part);
        self.head[self.have..self.have + part].copy_from_slice(now);
        self.have += part;
        *bytes = later;
        self.have >= wanted
    }
}

impl Mux {
    /// Takes in the next bytes from the peer, split wherever they were. All are taken: ask [`Mux::has_room`] before.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: the session is over, and every later call gives the same error. What came before the
    /// mistake can still be read.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> Result<(), ProtocolError> {
        if let Some(error) = self.input.failed {
            return Err(error);
        }
        self.arena.advance(now);
        self.take_in(now, bytes).inspect_err(|&error| self.input.failed = Some(error))
    }

    fn take_in(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let version = self.config.version;
        loop {
            if self.input.left > 0 && !bytes.is_empty() {
                let part = bytes.len().min(self.input.left);
                self.on_payload(now, &bytes[..part]);
                self.input.left -= part;
                bytes = &bytes[part..];
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let header = match bytes.first_chunk::<HEADER_LEN>() {
                Some(head) if self.input.have == 0 && head[1] != Command::Upd as u8 => {
                    bytes = &bytes[HEADER_LEN..];
                    Header::decode(version, *head)?
                }
                _ => match self.input.gather_frame(version, &mut bytes)? {
                    Some(header) => header,
                    None => return Ok(()),
                },
            };
            self.stats.frames_received += 1;
            match header.command {
                Command::Psh => self.on_psh(header.stream, header.length)?,
                Command::Syn => self.on_syn(now, header.stream)?,
                Command::Fin => self.on_fin(header.stream),
                // The peer has had nothing to say for a while.
                Command::Nop => self.trim(),
                Command::Upd => self.on_upd(header.stream),
            }
        }
    }

    #[inline]
    fn on_psh(&mut self, id: StreamId, length: u16) -> Result<(), ProtocolError> {
        if length == 0 {
            self.stats.empty_frames += 1;
            return Ok(());
        }
        let found = self.table.find_mut(id);
        self.input.to = found.as_ref().map(|&(key, _)| key);
        match found {
            Some((_, stream)) if self.config.version == Version::V2 => {
                stream.on_data(length).map_err(|excess| ProtocolError::WindowExceeded { stream: id, excess })?;
            }
            Some(_) => {}
            None => self.stats.frames_unknown_stream += 1,
        }
        self.input.left = usize::from(length);
        Ok(())
    }

    /// Part of the data frame at hand, not empty.
    #[inline]
    fn on_payload(&mut self, now: Instant, bytes: &[u8]) {
        let sizing = sizing(self.recv_allocated, self.recv_limit());
        let count = bytes.len() as u64;
        let Some(stream) = self.input.to.and_then(|key| self.table.get_mut(key)) else {
            self.stats.bytes_unknown_stream += count;
            return;
        };
        if stream.let_go {
            self.stats.bytes_unread += count;
            return;
        }
        if stream.end_told {
            self.stats.bytes_after_end += count;
            return;
        }
        self.recv_allocated += self.arena.push(&mut stream.recv, bytes, sizing);
        self.stats.bytes_received += count;
        if let Hold::QuietSince(since) = &mut stream.hold {
            *since = self.quiet_clock.moment(now);
        }
        if std::mem::take(&mut stream.wants_read) {
            self.events.push_back(Event::Readable(stream.id));
        }
    }

    fn on_syn(&mut self, now: Instant, id: StreamId) -> Result<(), ProtocolError> {
        if self.table.contains(id) {
            self.stats.syns_ignored += 1;
            return Ok(());
        }
        let step = Duration::from_secs(1) / self.config.stream_rate;
        let whole_at = self.input.whole_at.max(now) + step;
        let too_fast = whole_at.saturating_duration_since(now) > step.saturating_mul(self.config.stream_burst);
        let full = self.table.len() >= self.config.max_streams || self.backlog.len() >= self.config.accept_backlog;
        if too_fast || full {
            self.stats.streams_refused += 1;
            self.input.refused += 1;
            if self.input.refused > MOST_REFUSED {
                return Err(ProtocolError::TooManyRefused(self.input.refused));
            }
            self.output.queue_refusal(id);
            return Ok(());
        }
        self.input.whole_at = whole_at;
        self.input.refused = self.input.refused.saturating_sub(1);
        let key = self.table.insert(Stream::new(id, &self.config, self.peer_window));
        self.stats.streams_accepted += 1;
        if self.backlog.is_empty() {
            self.events.push_back(Event::Incoming);
        }
        self.backlog.push_back(key);
        self.settle(key);
        Ok(())
    }

    fn on_fin(&mut self, id: StreamId) {
        let Some(key) = self.table.find(id) else {
            self.stats.frames_unknown_stream += 1;
            return;
        };
        let Some(stream) = self.table.get_mut(key) else { return };
        if std::mem::take(&mut stream.wants_read) {
            self.events.push_back(Event::Readable(id));
        }
        if !stream.peer_fin {
            stream.peer_fin = true;
            // No answer can be lost any more.
            self.release_fin(key);
        } else if !stream.peer_closed {
            stream.peer_closed = true;
            stream.lost = !stream.send.is_empty();
            if !stream.let_go {
                self.events.push_back(Event::ClosedByPeer { id, lost: stream.lost });
            }
            if std::mem::take(&mut stream.wants_write) {
                self.events.push_back(Event::Writable(id));
            }
            self.drop_unsent(key);
            self.settle(key);
        }
    }

    /// The stream has never existed at the other end, or does so no more.
    fn on_refusal(&mut self, key: Key, reset: bool) {
        let Some(stream) = self.table.get_mut(key).filter(|stream| !stream.refused) else { return };
        let id = stream.id;
        (stream.refused, stream.lost, stream.peer_fin, stream.peer_closed) = (true, true, true, true);
        stream.reset = reset;
        if !stream.let_go {
            self.events.push_back(if reset { Event::Reset(id) } else { Event::Refused(id) });
        }
        if std::mem::take(&mut stream.wants_read) {
            self.events.push_back(Event::Readable(id));
        }
        if std::mem::take(&mut stream.wants_write) {
            self.events.push_back(Event::Writable(id));
        }
        self.stats.streams_refused_by_peer += u64::from(!reset);
        self.stats.streams_reset_by_peer += u64::from(reset);
        self.drop_unsent(key);
        self.release_fin(key);
    }

    fn on_upd(&mut self, id: StreamId) {
        let [.., a, b, c, d, e, f, g, h] = self.input.head;
        let upd = Upd::decode([a, b, c, d, e, f, g, h]);
        let Some(key) = self.table.find(id) else {
            self.stats.frames_unknown_stream += 1;
            return;
        };
        if upd.window == 0 && self.tells_refusals {
            self.on_refusal(key, upd.consumed != self.config.initial_counter);
            return;
        }
        let Some(stream) = self.table.get_mut(key) else { return };
        if stream.on_update(upd) {
            self.stats.updates_received += 1;
            self.settle(key);
        } else {
            self.stats.updates_ignored += 1;
        }
    }
}
