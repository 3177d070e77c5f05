//! How a session ends: closed once all is acknowledged, given up, or broken off.
//!
//! A session that closes waits for the peer's acknowledgements as long as it comes nearer to its end, and [`Config::close_limit`](crate::Config::close_limit) without
//! that. Not here: who decides that the time to live is over ([`crate::path`]) and limits that end sessions (`bounds.rs`).

use std::time::{Duration, Instant};

use kcp::Sn;

use super::{Event, Tunnel};
use crate::control::ByeReason;
use crate::error::SessionError;

#[derive(Debug)]
pub(super) struct Closing {
    /// [`Engine::said`](crate::engine::Engine::said), when last looked at.
    said: u64,
    /// Where the segments with all that end; what follows is about the carrier or the other direction.
    end: Sn,
    una: Sn,
    /// How long nothing was said or acknowledged although a carrier was up that could be trusted, until `running`.
    stuck: Duration,
    /// Since when that is so again.
    running: Option<Instant>,
}

impl Tunnel {
    /// Ends the session once the peer has acknowledged everything written. Streams that were not finished are finished; what the peer
    /// still sends is not waited for.
    pub fn close(&mut self, now: Instant) {
        if self.closing.is_none() && self.ended.is_none() {
            self.engine.finish_all(now);
            let (una, end) = (self.engine.kcp().una(), self.engine.kcp().end());
            self.closing = Some(Closing { said: self.engine.said(), end, una, stuck: Duration::ZERO, running: None });
            self.advance(now);
        }
    }

    /// Watches whether a closing session comes nearer to its end. Keepalives and window updates do not bring it nearer, and a new carrier alone
    /// does not either.
    fn note_closing(&mut self, now: Instant) {
        let runs = self.path.current().is_some() && !self.path.is_in_doubt();
        let (said, una, end) = (self.engine.said(), self.engine.kcp().una(), self.engine.kcp().end());
        let Some(closing) = &mut self.closing else { return };
        let acknowledged = closing.una != una && closing.una.distance_from(closing.end) < 0;
        if closing.said != said {
            *closing = Closing { said, end, una, stuck: Duration::ZERO, running: None };
        } else if acknowledged {
            *closing = Closing { una, stuck: Duration::ZERO, running: None, ..*closing };
        }
        if runs {
            closing.running.get_or_insert(now);
        } else if let Some(since) = closing.running.take() {
            closing.stuck += now.saturating_duration_since(since);
        }
    }

    /// True if that ended the session.
    pub(super) fn finish_closing(&mut self, now: Instant) -> bool {
        self.note_closing(now);
        let Some(closing) = &self.closing else { return false };
        let done = self.engine.mux().is_quiet() && self.engine.kcp().una().distance_from(closing.end) >= 0;
        // With nobody there yet and nothing to say there is nothing to wait for.
        let pointless = !self.heard && self.engine.mux().stats().streams_opened == 0;
        if !done && !pointless {
            return false;
        }
        self.say_bye(ByeReason::Done);
        self.end(now, SessionError::Closed);
        true
    }

    /// Ends the session at once with [`SessionError::Aborted`]: nothing more is sent but a BYE. For a program that goes away: what has arrived and
    /// found no room yet ([`Config::max_buffered`](crate::Config::max_buffered)) may stay unread.
    pub fn abort(&mut self) {
        if self.ended.is_none() {
            self.say_bye(ByeReason::Shutdown);
            self.end_at_once(SessionError::Aborted);
        }
    }

    /// Server: the session's client is not admitted any more. The session is over at once; the client is told so.
    pub fn expel(&mut self) {
        if self.ended.is_none() {
            self.say_bye(ByeReason::NotAdmitted);
            self.end_at_once(SessionError::NotAdmitted);
        }
    }

    /// The peer broke the protocol: nothing more can be understood.
    pub(super) fn fail(&mut self, now: Instant, error: SessionError) {
        if self.ended.is_none() {
            self.say_bye(ByeReason::Protocol);
            self.end(now, error);
        }
    }

    pub(super) fn end(&mut self, now: Instant, error: SessionError) {
        self.engine.take_in_rest(now);
        self.end_at_once(error);
    }

    pub(super) fn end_at_once(&mut self, error: SessionError) {
        self.path.stop();
        self.ended = Some(error.clone());
        self.events.push_back(Event::Ended(error));
    }

    /// Why the session is over, if it is. What has arrived can still be read.
    #[must_use]
    pub fn ended(&self) -> Option<&SessionError> {
        self.ended.as_ref()
    }

    pub(super) fn close_deadline(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        Some(closing.running? + self.config.close_limit.saturating_sub(closing.stuck))
    }

    pub(super) fn alive(&self) -> Result<(), SessionError> {
        self.ended.clone().map_or(Ok(()), Err)
    }
}
