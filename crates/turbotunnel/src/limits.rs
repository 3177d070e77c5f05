//! What a server on the open internet bears: its limits, and what they have kept out.
//!
//! Not here: how they are applied (`listener/admission.rs`), and the limits of one session ([`Config`](crate::Config)).

/// So many in the long run, and a few more at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run. 0 is taken for 1.
    pub per_second: u32,
    /// At once, after a while without any. 0 is taken for 1.
    pub burst: u32,
}

/// Limits of a [`Listener`](crate::Listener) over all of its connections and sessions. Each has its counter in [`ListenerStats`].
///
/// A *source* is an IPv4 address or the first 64 bits of an IPv6 address: what one customer of a provider gets. Connections without an address
/// (Unix sockets, [`Listener::attach`](crate::Listener::attach) with `None`) have no source, and no limits of one.
///
/// A *client* is a key, with [`ListenerBuilder::server_keys`](crate::ListenerBuilder) only: in plain mode nobody knows whose a session is. These limits keep apart clients
/// that are known. Who admits anybody has as many clients as they make keys.
///
/// Whoever is refused is not closed but held in silence until its 10 s are over: a Go client that is closed dials again at once, thousands of
/// times a second.
///
/// Memory: about 64 bytes for each source that is here or has begun a session in the last seconds; 2 MB with all of them at their limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Strangers: connections that belong to no session (yet). They have 10 s for it. One more, and the oldest is closed: who speaks at once
    /// is not kept out by those who don't. Default 1,024; at most a quarter of the descriptors that the process may open.
    pub strangers: usize,
    /// The same for the strangers of one source. Default 64.
    pub strangers_per_source: usize,
    /// Carriers: connections that belong to a session. Default 16,384; at most what is left of the descriptors that the process may open, less
    /// those for strangers and 256 (or a quarter of all, if that is less) for everything else.
    pub carriers: usize,
    /// The same for one source. Default 1,024.
    pub carriers_per_source: usize,
    /// The same for one client. Default 256.
    pub carriers_per_client: usize,
    /// Sessions, with a carrier or without. Default 65,536.
    pub sessions: usize,
    /// The same for one client. Default 64: a client that begins anew every few seconds, and says goodbye to none, is not kept out by its own.
    pub sessions_per_client: usize,
    /// New sessions. Default 500 a second, 2,000 at once.
    pub new_sessions: Rate,
    /// New sessions of one source. Default 50 a second, 500 at once.
    pub new_sessions_per_source: Rate,
    /// Handshakes of a listener with keys that are answered, one for each carrier: each costs half a millisecond of a core. Default 1,000 a second, 4,000 at once.
    pub handshakes: Rate,
    /// The same for one source. Default 100 a second, 1,000 at once.
    pub handshakes_per_source: Rate,
    /// Memory of all sessions together, in bytes, as allocated for data and 8 KiB for each. From nine tenths on new ones are refused, and none gets more
    /// than [`Config::first_buffered`](crate::Config::first_buffered) and [`Config::first_unsent`](crate::Config::first_unsent); at the limit those that have stood
    /// still for longest end. `None`, the default: half of what the machine, or the process' control group, has, 2 GiB at most.
    pub memory: Option<usize>,
    /// Memory of all sessions of one client, in bytes. From nine tenths on none of them gets more than at first, as if it were scarce for all. `None`, the default: a quarter of
    /// [`Limits::memory`].
    pub memory_per_client: Option<usize>,
    /// Sessions without a carrier of which nothing but the first packet has come. They end by themselves 10 s after their carrier; one more
    /// than this, and the oldest ends. Default 2,048.
    pub embryonic: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            strangers: 1024,
            strangers_per_source: 64,
            carriers: 16_384,
            carriers_per_source: 1024,
            carriers_per_client: 256,
            sessions: 65_536,
            sessions_per_client: 64,
            new_sessions: Rate { per_second: 500, burst: 2000 },
            new_sessions_per_source: Rate { per_second: 50, burst: 500 },
            handshakes: Rate { per_second: 1000, burst: 4000 },
            handshakes_per_source: Rate { per_second: 100, burst: 1000 },
            memory: None,
            memory_per_client: None,
            embryonic: 2048,
        }
    }
}

impl Limits {
    /// As many of everything as there are descriptors and memory: for measuring, and for a server that something else guards.
    #[must_use]
    pub fn none() -> Self {
        let any = Rate { per_second: u32::MAX, burst: u32::MAX };
        Self {
            strangers: usize::MAX,
            strangers_per_source: usize::MAX,
            carriers: usize::MAX,
            carriers_per_source: usize::MAX,
            carriers_per_client: usize::MAX,
            sessions: usize::MAX,
            sessions_per_client: usize::MAX,
            new_sessions: any,
            new_sessions_per_source: any,
            handshakes: any,
            handshakes_per_source: any,
            memory: Some(usize::MAX),
            memory_per_client: Some(usize::MAX),
            embryonic: usize::MAX,
        }
    }

    /// Descriptors for everything that is not a connection of ours.
    const RESERVE: usize = 256;

    /// With a process that may open so many descriptors.
    pub(crate) fn within(mut self, descriptors: usize) -> Self {
        let quarter = descriptors / 4;
        self.strangers = self.strangers.min(quarter).max(1);
        // Where there is no limit to carriers nothing is kept for strangers: accepting pauses when all are used.
        let for_strangers = if self.carriers == usize::MAX { 0 } else { self.strangers.min(quarter) };
        self.carriers = self.carriers.min(descriptors - quarter.min(Self::RESERVE) - for_strangers).max(1);
        self
    }
}

/// What a [`Listener`](crate::Listener) has seen since it was made. Numbers of now are named so, all others only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Strangers now.
    pub strangers_now: usize,
    /// Carriers now.
    pub carriers_now: usize,
    /// Sessions now.
    pub sessions_now: usize,
    /// Bytes that sessions have allocated now, as far as they have told.
    pub memory_now: usize,
    /// Sources that something is remembered of now.
    pub sources_now: usize,
    /// With keys: clients that have a carrier or a session now.
    pub clients_now: usize,

    /// Connections that came.
    pub connections: u64,
    /// Pauses because a connection could not be accepted, for want of descriptors mostly: 10 ms if a stranger could be closed for it, else 100 ms.
    pub accept_pauses: u64,
    /// Strangers whose 10 s were over, those who were refused among them.
    pub strangers_timed_out: u64,
    /// Strangers closed because more came than [`Limits::strangers`], or than the process has descriptors.
    pub strangers_dropped: u64,
    /// Strangers closed because more came from their source than [`Limits::strangers_per_source`].
    pub strangers_dropped_of_source: u64,
    /// Strangers that sent what is no packet; with keys: what is no first message to this server, or behind a handshake, where no session
    /// could count it, what the client has not sealed.
    pub strangers_not_understood: u64,
    /// Connections with the id of a session that is over.
    pub strangers_too_late: u64,

    /// With keys: handshakes that were finished by clients who are admitted.
    pub handshakes: u64,
    /// With keys: handshakes that were answered, and whose third message did not verify. Replays end here.
    pub handshakes_failed: u64,
    /// Handshakes put off because of [`Limits::handshakes`].
    pub handshakes_refused_by_rate: u64,
    /// Handshakes put off because of [`Limits::handshakes_per_source`].
    pub handshakes_refused_by_rate_of_source: u64,
    /// With keys: connections of clients that are not on the list.
    pub clients_refused: u64,

    /// Connections held because there were [`Limits::carriers`].
    pub carriers_refused: u64,
    /// Connections held because their source had [`Limits::carriers_per_source`].
    pub carriers_refused_of_source: u64,
    /// Connections held because their client had [`Limits::carriers_per_client`].
    pub carriers_refused_of_client: u64,

    /// Sessions that began.
    pub sessions_begun: u64,
    /// Sessions that are over, for whatever reason.
    pub sessions_ended: u64,
    /// Openings refused because there were [`Limits::sessions`]. Whoever is refused asks again until his 10 s are over, and is counted once, by the
    /// first limit that he met.
    pub sessions_refused: u64,
    /// Openings refused because their client had [`Limits::sessions_per_client`].
    pub sessions_refused_of_client: u64,
    /// Openings refused because nine tenths of [`Limits::memory`] were used.
    pub sessions_refused_by_memory: u64,
    /// Openings refused because of [`Limits::new_sessions`].
    pub sessions_refused_by_rate: u64,
    /// Openings refused because of [`Limits::new_sessions_per_source`].
    pub sessions_refused_by_rate_of_source: u64,
    /// Of the ended ones: nothing came of them within 10 s after their carrier ([`SessionError::Abandoned`](crate::SessionError)).
    pub sessions_abandoned: u64,
    /// Of those: ended before that, because more came than [`Limits::embryonic`].
    pub sessions_abandoned_early: u64,
    /// Of the ended ones: all of [`Limits::memory`] was used, and they had stood still ([`SessionError::OutOfMemory`](crate::SessionError)).
    pub sessions_shed: u64,
    /// Of the ended ones: the peer acknowledged nothing for 300 s ([`SessionError::Stalled`](crate::SessionError)).
    pub sessions_stalled: u64,
    /// Sessions that were not offered to `accept_session` any more, because 1,024 others were waiting.
    pub sessions_not_offered: u64,
    /// Ended sessions whose streams were not offered to `accept` any more, because 1,024 others were waiting.
    pub sessions_ended_unaccepted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (descriptors, strangers, carriers)
    #[test]
    fn descriptors_are_left_for_everything_else() {
        for expected in
            [(1 << 20, 1024, 16_384), (20_000, 1024, 16_384), (4096, 1024, 2816), (1024, 256, 512), (64, 16, 32)]
        {
            let limits = Limits::default().within(expected.0);
            assert_eq!((expected.0, limits.strangers, limits.carriers), expected);
            assert!(limits.strangers + limits.carriers < expected.0);
        }
        let few = Limits::default().within(0);
        assert_eq!((few.strangers, few.carriers), (1, 1), "the system will say no");
        let own = Limits { carriers: 10, ..Limits::default() }.within(1024);
        assert_eq!(own.carriers, 10);
        let none = Limits::none().within(20_000);
        assert_eq!((none.strangers, none.carriers), (5_000, 20_000 - Limits::RESERVE));
    }
}
