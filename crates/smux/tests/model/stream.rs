//! A stream in the model: byte counts and flags.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use turbotunnel_smux::Version;

/// How far the own direction of a stream has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    Open,
    /// Finished, and the FIN may be held.
    Wanted,
    /// Nothing holds it.
    Due,
    Sent,
    SentTwice,
}

/// Why a FIN that is next does not go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hold {
    No,
    Unacknowledged,
    /// Since then, by the clock that stands still while nothing can arrive.
    Quiet(Duration),
}

/// A stream as one end sees it, in the table until it is `gone`. Places are counted from 0 and never go round.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) opened_here: bool,
    pub(crate) syn_sent: bool,
    pub(crate) gone: bool,

    pub(crate) written: usize,
    pub(crate) sent: usize,
    pub(crate) peer_consumed: usize,
    pub(crate) peer_window: usize,
    pub(crate) peer_window_told: bool,
    /// Bytes that other streams have sent while this one could have, since it last did, by their place in the model.
    pub(crate) overtaken: HashMap<usize, usize>,

    /// What data frames announced, whether it has come or not, and whether anybody wants it or not.
    pub(crate) announced: usize,
    pub(crate) arrived: usize,
    /// Of what has arrived, that which can be read: from where to where.
    pub(crate) unread: VecDeque<(usize, usize)>,
    pub(crate) read: usize,
    pub(crate) told: usize,
    pub(crate) window: usize,
    pub(crate) edge: usize,

    pub(crate) ending: Ending,
    pub(crate) hold: Hold,
    /// A held FIN may have been let go by an answer of the peer.
    pub(crate) may_be_let_go: bool,
    /// It was told that the stream is quiet, and that waits for an answer of the peer.
    pub(crate) quiet_told: bool,
    /// FINs that came.
    pub(crate) fins: u32,
    /// Written bytes were dropped because the peer had closed.
    pub(crate) lost: bool,
    pub(crate) let_go: bool,
    pub(crate) end_told: bool,
    pub(crate) wants_read: bool,
    pub(crate) wants_write: bool,
}

impl Stream {
    /// With the receive window that it begins with, and the peer's.
    pub(crate) fn new(id: u32, opened_here: bool, window: usize, peer_window: usize) -> Self {
        Self {
            id,
            opened_here,
            syn_sent: false,
            gone: false,
            written: 0,
            sent: 0,
            peer_consumed: 0,
            peer_window,
            peer_window_told: false,
            overtaken: HashMap::new(),
            announced: 0,
            arrived: 0,
            unread: VecDeque::new(),
            read: 0,
            told: 0,
            window,
            edge: window,
            ending: Ending::Open,
            hold: Hold::No,
            may_be_let_go: false,
            quiet_told: false,
            fins: 0,
            lost: false,
            let_go: false,
            end_told: false,
            wants_read: false,
            wants_write: false,
        }
    }

    pub(crate) fn unsent(&self) -> usize {
        self.written - self.sent
    }

    pub(crate) fn unread(&self) -> usize {
        self.unread.iter().map(|(from, to)| to - from).sum()
    }

    pub(crate) fn is_reading(&self) -> bool {
        self.fins == 0 && !self.let_go
    }

    pub(crate) fn second_fin_is_next(&self) -> bool {
        self.ending == Ending::Sent && self.let_go && self.fins == 0
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.unsent() > 0 || matches!(self.ending, Ending::Wanted | Ending::Due) || self.second_fin_is_next()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.let_go && matches!(self.ending, Ending::Sent | Ending::SentTwice) && !self.is_unsent()
    }

    pub(crate) fn sendable(&self, version: Version) -> usize {
        match version {
            Version::V1 => self.unsent(),
            Version::V2 => self.unsent().min((self.peer_consumed + self.peer_window).saturating_sub(self.sent)),
        }
    }
}
