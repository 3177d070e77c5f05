//! Peers that behave like the worked example's Go programs where it matters, on engines of ours:
//!
//! * no HELLO; packets below 24 bytes are ignored;
//! * queues of 32 packets that drop what overruns them: outgoing at both, incoming (of all sessions) at the server;
//! * lost packets are sent again by timeout and by overtaking; nothing stops while there is no carrier;
//! * no half-close: a program closes when it has read and written everything; what a FIN does to its writer depends on the version;
//! * the client dials at once when a carrier has ended, and is dead after a failed dial;
//! * the server makes a session of any packet of an unknown id (a ghost, after a restart), and uses all carriers at random.
//!
//! Not modelled: kcp-go's exact timers, its flush interval, its entropy.

mod client;
mod server;
mod session;

pub(crate) use client::GoClient;
pub(crate) use server::GoServer;

/// What a FIN from the peer does to a program that still writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fin {
    /// smux before 1.5.28: writes fail when the window is used up.
    Old,
    /// 1.5.28 to 1.5.53: every later write fails at once.
    Mid,
    /// Since 1.5.54: nothing.
    New,
}

/// Which Go program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Go {
    pub(crate) fin: Fin,
}

impl Go {
    /// With this version's behaviour at a FIN.
    #[must_use]
    pub fn new(fin: Fin) -> Self {
        Self { fin }
    }
}
