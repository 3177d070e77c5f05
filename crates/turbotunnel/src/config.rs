//! What can be set about a session, and its limits.

use std::sync::Arc;
use std::time::Duration;

/// Settings of one end of a session. Every buffer has a limit here; nothing that the peer does goes beyond them.
///
/// What makes no sense is replaced by the nearest that does: times are 1 s to a year (which is how to say "never"), stream windows 256 KiB
/// to 1 GiB, KCP windows 32 segments and more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How long the session lives without hearing anything from the peer, over however many carriers. Default 120 s.
    ///
    /// Go peers have a rule of their own: they give a session up after 60 to 120 s.
    pub time_to_live: Duration,
    /// Pause after which an idle session sends a keepalive. Default 25 s; towards a Go peer it is at most 10 s. `None`: off; then the
    /// session still asks for a sign of life after half its time to live. A server leaves it to clients of ours, whose keepalives it acknowledges, and sends one when it has heard nothing for twice as long.
    pub keepalive: Option<Duration>,
    /// Receive window of each new stream in bytes, at least 262,144 (what a peer may rightly assume). Default 1 MiB.
    pub stream_window: u32,
    /// A stream whose reader keeps up gets a window of up to so many bytes. Default 32 MiB.
    pub max_stream_window: u32,
    /// Received bytes waiting for readers, all streams of the session together, as allocated. Default 64 MiB. Beyond it the session
    /// takes in nothing until somebody reads, or it ends.
    ///
    /// So much has to be earned: a session of which nothing has been read yet holds [`Config::first_buffered`], and twice what has been read is added to that.
    pub max_buffered: usize,
    /// What a session of which nothing was read may hold for its readers, and a server's while memory is scarce. Default 2 MiB.
    pub first_buffered: usize,
    /// Written bytes waiting to be sent, of each stream. Default 256 KiB. Where several have something waiting, each may have its part of 4 MiB, 64 KiB at least, if that is less.
    pub send_buffer: usize,
    /// The same, all streams of the session together, as allocated. Default 48 MiB, earned as `max_buffered` is: [`Config::first_unsent`] and
    /// twice what was sent.
    pub max_unsent: usize,
    /// What a session of which nothing was sent may hold for its peer, and a server's while memory is scarce. Default 512 KiB. Beyond it each stream may
    /// still have its part of that waiting, so that none is starved by those that came first: three times as much in the worst case.
    pub first_unsent: usize,
    /// KCP windows in places of 1,376 bytes. Default 32,768 (43 MiB). To receive as much has to be earned, too: at first it
    /// is a quarter of [`Config::first_buffered`], and three halves of what has been read are added to that.
    pub window: u16,
    /// Open streams of the session, both sides together. Default 2,500: at a server one that nothing comes on costs some 600 bytes with the task that waits for it, and who only
    /// opens streams is to get no more than 2 MiB. The peer has a limit of its own.
    pub max_streams: usize,
    /// How long [`close`](crate::Tunnel::close) waits for the peer to acknowledge what was sent, without any progress and while a carrier is
    /// up. Default 10 s. It is the same when the last handle is dropped: a peer whose application reads nothing for so long does not get what was
    /// written beyond its window, and the session ends with [`ClosedUnacknowledged`](crate::SessionError::ClosedUnacknowledged).
    pub close_limit: Duration,
    /// Client: longest pause between dials while the server is out of reach, each shortened by up to a quarter at random. 100 ms to an hour. Default 4 s.
    pub max_backoff: Duration,
    /// Client: how long a carrier may be silent, though something is owed, before another is dialled beside it. 2 s to 10 min; never less than four round trips, twice as long towards Go
    /// peers, at most a quarter of the time to live. Default 2 s: a second until it is asked for a sign of life, and one for the answer.
    pub stall: Duration,
    /// Client: keep a second carrier beside the one in use, dialled and greeted, which takes over at once when that one is
    /// lost: a dial and its handshakes are not waited for. It costs both ends a connection more, which is greeted every 25 s whatever
    /// [`Config::keepalive`] is. Where carriers end at a regular age the spare is dialled shortly before that, so there is one dial for each
    /// carrier as without it. Only with servers of ours. Default: no.
    pub spare: bool,
    /// The very first dial decides: if it fails, the session is over. Default: no, it is repeated like any other.
    pub fail_fast: bool,
    /// Where counters start. Both ends alike.
    pub counters: Counters,
}

/// Where the counters of a session start: at zero, and Go peers know nothing else. Tests of what happens when they go round start elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The first segment number, both ways.
    pub sn: u32,
    /// Our clock in KCP's packets, in milliseconds.
    pub ts_ms: u32,
    /// Bytes of each stream, both ways.
    pub stream_bytes: u32,
    /// Stream ids that are taken for used.
    pub streams: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            time_to_live: Duration::from_secs(120),
            keepalive: Some(Duration::from_secs(25)),
            stream_window: 1 << 20,
            max_stream_window: 32 << 20,
            max_buffered: 64 << 20,
            first_buffered: 2 << 20,
            send_buffer: 256 << 10,
            max_unsent: 48 << 20,
            first_unsent: 512 << 10,
            window: 32_768,
            max_streams: 2500,
            close_limit: Duration::from_secs(10),
            max_backoff: crate::backoff::LONGEST,
            stall: 2 * crate::silence::PATIENCE,
            spare: false,
            fail_fast: false,
            counters: Counters::default(),
        }
    }
}

/// Longest of all times: far enough to mean "never", and near enough to be counted with.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl Config {
    /// As [`Config::normalized`], and the same object if nothing had to be changed: thousands of sessions share it.
    pub(crate) fn shared(config: impl Into<Arc<Self>>) -> Arc<Self> {
        let config = config.into();
        let normalized = Self::clone(&config).normalized();
        if normalized == *config { config } else { Arc::new(normalized) }
    }

    /// The nearest settings that make sense: times of 1 s to a year, windows within what the wire can say, no buffer of nothing.
    fn normalized(mut self) -> Self {
        const LARGEST_WINDOW: u32 = 1 << 30;
        for time in [&mut self.time_to_live, &mut self.close_limit].into_iter().chain(&mut self.keepalive) {
            *time = (*time).clamp(Duration::from_secs(1), LONGEST);
        }
        self.max_backoff = self.max_backoff.clamp(Duration::from_millis(100), Duration::from_secs(3600));
        self.stall = self.stall.clamp(Duration::from_secs(2), Duration::from_secs(600));
        self.stream_window = self.stream_window.clamp(LEAST_STREAM_WINDOW, LARGEST_WINDOW);
        self.max_stream_window = self.max_stream_window.clamp(self.stream_window, LARGEST_WINDOW);
        for bytes in [
            &mut self.max_buffered,
            &mut self.first_buffered,
            &mut self.send_buffer,
            &mut self.max_unsent,
            &mut self.first_unsent,
        ] {
            *bytes = (*bytes).max(1);
        }
        self.window = self.window.max(32);
        self.max_streams = self.max_streams.max(1);
        self
    }
}

/// Keepalive towards Go programs, which end a session after 60 s without a smux frame: their own default (smux 1.5).
pub(crate) const GO_KEEPALIVE: Duration = Duration::from_secs(10);

/// Least window of a stream: smux senders start with it, whatever the receiver's is (smux 1.5, `initialPeerWindow`).
pub(crate) const LEAST_STREAM_WINDOW: u32 = 262_144;
