//! What a session may cost: how long one may stay of which nothing comes, and what memory it has.
//!
//! How much it may hold is decided further down: [`Config::first_buffered`] and its kin, in smux and the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kcp::Sn;
use smux::Side;

use super::Tunnel;
use crate::config::Config;
use crate::control::ByeReason;
use crate::embryo::Embryo;
use crate::engine::Engine;
use crate::error::SessionError;

/// A peer that speaks for so long and acknowledges nothing of what it was sent is none: a receiver acknowledges what arrives whether or not anybody
/// reads it. So a reader who pauses for days is not meant; what waits for him is bounded. Much longer than any resend.
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// What a pause between two packets of such a peer counts at most: keepalives come more often, and a machine that slept has heard nothing.
const STALL_STEP: Duration = Duration::from_secs(30);
/// A session of which nothing has come but its first packet ends so long after its carrier: as long as a stranger may take to say who he is.
const EMBRYONIC_LIMIT: Duration = Duration::from_secs(10);

impl Tunnel {
    // Nothing comes of it.

    /// Server: the session goes on that has ended with [`SessionError::Abandoned`] ([`Tunnel::embryo`]), or one of which its client cannot tell that it did
    /// not.
    #[must_use]
    pub fn reborn(now: Instant, config: impl Into<Arc<Config>>, embryo: Embryo) -> Self {
        let mut tunnel = Self::server(now, config, embryo.conv, embryo.token);
        if embryo.opened {
            tunnel.engine.take_opening_for_taken(now);
        }
        tunnel
    }

    pub(super) fn embryonic_deadline(&self) -> Option<Instant> {
        let left = self.contact_lost.filter(|_| self.path.current().is_none() && self.is_embryonic())?;
        Some(left + EMBRYONIC_LIMIT)
    }

    /// Server: of the session nothing has come but its first segment. No stream was opened from either side, and the client has never shown that it hears
    /// us.
    pub(crate) fn is_embryonic(&self) -> bool {
        let (kcp, smux) = (self.engine.kcp(), self.engine.mux().stats());
        let first = Sn::new(self.config.counters.sn);
        !self.path.is_client()
            && self.ended.is_none()
            && !self.token_confirmed
            && smux.streams_accepted + smux.streams_refused + smux.streams_opened == 0
            && kcp.rcv_nxt().distance_from(first) <= 1
            && kcp.una() == first
    }

    /// What has to be remembered of a session that ended with [`SessionError::Abandoned`], so that its client can go on: [`Tunnel::reborn`]. `None`: it ended
    /// otherwise, or in the middle of a frame, as no client of ours does and no Go client.
    #[must_use]
    pub fn embryo(&self) -> Option<Embryo> {
        let token = self
            .token
            .filter(|_| self.ended == Some(SessionError::Abandoned) && self.engine.mux().is_between_frames())?;
        let opened = self.engine.kcp().rcv_nxt() != Sn::new(self.config.counters.sn);
        Some(Embryo { conv: self.conv, token, opened })
    }

    /// Ends a session that [is embryonic](Tunnel::is_embryonic).
    pub(crate) fn abandon(&mut self, now: Instant) {
        if self.is_embryonic() {
            self.end(now, SessionError::Abandoned);
        }
    }

    // It does not move.

    /// The peer was heard. Watches whether it acknowledges, too: somebody who only speaks would never expire. His silence is the path's business, and
    /// while this machine sleeps nobody can be heard.
    pub(super) fn note_stalled(&mut self, now: Instant) {
        let kcp = self.engine.kcp();
        if kcp.all_acknowledged() || kcp.una() != self.stalled_at {
            self.stalled_at = kcp.una();
            self.stalled = Duration::ZERO;
            return;
        }
        self.stalled += now.saturating_duration_since(self.path.last_heard()).min(STALL_STEP);
        if self.stalled >= STALL_LIMIT {
            self.fail(now, SessionError::Stalled(STALL_LIMIT));
        }
    }

    // Memory.

    /// Bytes allocated for data: sent and not acknowledged, received and not read, written and not sent.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.engine.memory()
    }

    /// When the peer last brought or acknowledged something; at first, when the session began.
    #[must_use]
    pub fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// Memory is scarce at this end, or is so no longer. While it is, nothing more is taken in or written than a session may hold at first
    /// ([`Config::first_buffered`], [`Config::first_unsent`]); what it holds stays.
    pub fn set_scarce(&mut self, now: Instant, scarce: bool) {
        if let Err(error) = self.engine.set_scarce(now, scarce) {
            self.fail(now, error);
        }
        self.advance(now);
    }

    /// Ends the session at once with [`SessionError::OutOfMemory`], and gives back all memory: what has arrived and was not read is lost, too.
    pub fn shed(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.say_bye(ByeReason::OutOfMemory);
            self.end_at_once(SessionError::OutOfMemory);
            self.engine = Engine::new(now, Side::Server, self.conv, &self.config);
        }
    }
}
