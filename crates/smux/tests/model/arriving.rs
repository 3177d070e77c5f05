//! What the peer's bytes do, in the model.

use std::time::Duration;

use turbotunnel_smux::wire::Command;
use turbotunnel_smux::{Event, LARGEST_WINDOW, ProtocolError, StreamId, Version};

use crate::end::End;
use crate::stream::Hold;
use crate::{FIN, HEADER, NOP, PSH, SYN, UPD, u32_at};

/// Whoever is refused more often than that, beyond the streams that are taken, is an attacker.
const MOST_REFUSED: u32 = 1_024;

/// Where in the peer's byte stream the session is.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Of a header, or of an update as a whole.
    pub(crate) head: [u8; HEADER + 8],
    pub(crate) have: usize,
    /// Still to come of a data frame.
    pub(crate) left: usize,
    pub(crate) to: Option<usize>,
    /// Streams refused, less those taken since.
    refused: u32,
    pub(crate) failed: Option<ProtocolError>,
}

impl End {
    /// The session gets the next bytes, cut into pieces.
    pub(crate) fn take_in<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<(), ProtocolError> {
        let mut result = Ok(());
        for piece in pieces {
            result = self.expect(piece);
            assert_eq!(self.mux.handle_bytes(self.now, piece), result);
        }
        result
    }

    /// What the next bytes do, in the model.
    fn expect(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        if let Some(error) = self.input.failed {
            return Err(error);
        }
        let mut result = Ok(());
        while !bytes.is_empty() && result.is_ok() {
            if self.input.left > 0 {
                let part = bytes.len().min(self.input.left);
                self.input.left -= part;
                bytes = &bytes[part..];
                self.on_payload(part);
            } else {
                // Byte by byte is slow, and cannot be wrong.
                self.input.head[self.input.have] = bytes[0];
                self.input.have += 1;
                bytes = &bytes[1..];
                result = self.on_head();
            }
        }
        self.input.failed = result.err();
        result
    }

    /// One more byte of a header, or of an update.
    fn on_head(&mut self) -> Result<(), ProtocolError> {
        let head = self.input.head;
        if self.input.have == HEADER {
            self.check_header()?;
        }
        let whole = if head[1] == UPD { HEADER + 8 } else { HEADER };
        if self.input.have < HEADER || self.input.have < whole {
            return Ok(());
        }
        self.input.have = 0;
        self.stats.frames_received += 1;
        let id = u32_at(&head, 4);
        match head[1] {
            SYN => return self.on_syn(id),
            FIN => self.on_fin(id),
            PSH => return self.on_data(id, usize::from(u16::from_le_bytes([head[2], head[3]]))),
            UPD => self.on_update(id, u32_at(&head, 8), u32_at(&head, 12)),
            _ => {}
        }
        Ok(())
    }

    fn check_header(&self) -> Result<(), ProtocolError> {
        let head = &self.input.head;
        let length = u16::from_le_bytes([head[2], head[3]]);
        if head[0] != self.config.version as u8 {
            return Err(ProtocolError::WrongVersion(head[0]));
        }
        let (command, fits) = match head[1] {
            SYN => (Command::Syn, length == 0),
            FIN => (Command::Fin, length == 0),
            PSH => (Command::Psh, true),
            NOP => (Command::Nop, length == 0),
            UPD if self.config.version == Version::V1 => return Err(ProtocolError::UpdateInVersion1),
            UPD => (Command::Upd, length == 8),
            other => return Err(ProtocolError::UnknownCommand(other)),
        };
        if fits { Ok(()) } else { Err(ProtocolError::WrongLength { command, length }) }
    }

    fn on_syn(&mut self, id: u32) -> Result<(), ProtocolError> {
        if self.find(id).is_some() {
            self.stats.syns_ignored += 1;
            return Ok(());
        }
        let step = Duration::from_secs(1) / self.config.stream_rate;
        let too_fast = self.used_up + step > step * self.config.stream_burst;
        let full = self.table().count() >= self.config.max_streams || self.backlog.len() >= self.config.accept_backlog;
        if too_fast || full {
            self.stats.streams_refused += 1;
            self.input.refused += 1;
            if self.input.refused > MOST_REFUSED {
                return Err(ProtocolError::TooManyRefused(self.input.refused));
            }
            self.refusals.push_back(id);
            return Ok(());
        }
        self.used_up += step;
        self.stats.streams_accepted += 1;
        let at = self.insert(id, false);
        if self.backlog.is_empty() {
            self.events.push(Event::Incoming);
        }
        self.backlog.push_back(at);
        self.input.refused = self.input.refused.saturating_sub(1);
        Ok(())
    }

    fn on_data(&mut self, id: u32, length: usize) -> Result<(), ProtocolError> {
        if length == 0 {
            self.stats.empty_frames += 1;
            return Ok(());
        }
        self.input.to = self.find(id);
        if let Some(at) = self.input.to {
            let stream = &mut self.streams[at];
            if self.config.version == Version::V2 && stream.announced + length > stream.edge {
                let excess = (stream.announced + length - stream.edge) as u32;
                return Err(ProtocolError::WindowExceeded { stream: StreamId::new(id), excess });
            }
            stream.announced += length;
        } else {
            self.stats.frames_unknown_stream += 1;
        }
        self.input.left = length;
        Ok(())
    }

    fn on_payload(&mut self, len: usize) {
        let count = len as u64;
        let Some(stream) = self.input.to.map(|at| &mut self.streams[at]).filter(|stream| !stream.gone) else {
            self.stats.bytes_unknown_stream += count;
            return;
        };
        let from = stream.arrived;
        stream.arrived += len;
        if stream.let_go {
            self.stats.bytes_unread += count;
            return;
        }
        if stream.end_told {
            self.stats.bytes_after_end += count;
            return;
        }
        self.stats.bytes_received += count;
        match stream.unread.back_mut() {
            Some((_, to)) if *to == from => *to += len,
            _ => stream.unread.push_back((from, from + len)),
        }
        if let Hold::Quiet(since) = &mut stream.hold {
            *since = self.quiet_clock;
        }
        if std::mem::take(&mut stream.wants_read) {
            self.events.push(Event::Readable(StreamId::new(stream.id)));
        }
    }

    fn on_fin(&mut self, id: u32) {
        let Some(at) = self.find(id) else {
            self.stats.frames_unknown_stream += 1;
            return;
        };
        let stream = &mut self.streams[at];
        if std::mem::take(&mut stream.wants_read) {
            self.events.push(Event::Readable(StreamId::new(id)));
        }
        stream.fins += 1;
        match stream.fins {
            1 => self.let_fin_go(at),
            2 => {
                stream.lost = stream.unsent() > 0;
                if !stream.let_go {
                    self.events.push(Event::ClosedByPeer { id: StreamId::new(id), lost: stream.lost });
                }
                if std::mem::take(&mut stream.wants_write) {
                    self.events.push(Event::Writable(StreamId::new(id)));
                }
                self.drop_unsent(at);
            }
            _ => {}
        }
        self.settle(at);
    }

    fn on_update(&mut self, id: u32, consumed: u32, window: u32) {
        let Some(at) = self.find(id) else {
            self.stats.frames_unknown_stream += 1;
            return;
        };
        let stream = &mut self.streams[at];
        let known = self.config.initial_counter.wrapping_add(stream.peer_consumed as u32);
        let progress = consumed.wrapping_sub(known) as usize;
        if progress > stream.sent - stream.peer_consumed || window > LARGEST_WINDOW {
            self.stats.updates_ignored += 1;
            return;
        }
        self.stats.updates_received += 1;
        stream.peer_consumed += progress;
        stream.peer_window = window as usize;
        stream.peer_window_told = true;
        if stream.sendable(self.config.version) == 0 {
            stream.overtaken.clear();
        }
    }
}
