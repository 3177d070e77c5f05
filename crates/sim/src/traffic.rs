//! What the applications at both ends say to each other on one stream.

use std::time::Duration;

use crate::network::Side;

/// Who may write when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Both as they like.
    Free,
    /// The server sends back what it gets.
    Echo,
    /// The client asks in so many bytes, and asks again after an answer of so many.
    Turns { request: u64, response: u64 },
}

/// How a reader takes what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All, at once.
    Prompt,
    /// At most `bytes` every so often.
    Slow {
        /// Bytes a time.
        bytes: u64,
        /// Pause between.
        every: Duration,
    },
    /// Nothing more after so many bytes, for a while.
    Stops {
        /// How many it reads before.
        after: u64,
        /// The pause, counted from when it comes to that.
        pause: Duration,
    },
}

/// A writer's pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) bytes: u64,
    pub(crate) every: Duration,
}

/// The conversation on one stream. See the functions that make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    pub(crate) opener: Side,
    pub(crate) manners: Manners,
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) pace: Option<Pace>,
    pub(crate) client_reads: Reading,
    pub(crate) server_reads: Reading,
    pub(crate) finishes: bool,
    /// Not before everything was read.
    pub(crate) finishes_last: bool,
    pub(crate) starts_at: Duration,
}

impl Traffic {
    /// The client sends `up` bytes and the server `down`, each as fast as it can; then they finish.
    #[must_use]
    pub fn both(up: u64, down: u64) -> Self {
        Self {
            opener: Side::Client,
            manners: Manners::Free,
            up,
            down,
            pace: None,
            client_reads: Reading::Prompt,
            server_reads: Reading::Prompt,
            finishes: true,
            finishes_last: false,
            starts_at: Duration::ZERO,
        }
    }

    /// The client sends `bytes`.
    #[must_use]
    pub fn upload(bytes: u64) -> Self {
        Self::both(bytes, 0)
    }

    /// The server sends `bytes`.
    #[must_use]
    pub fn download(bytes: u64) -> Self {
        Self::both(0, bytes)
    }

    /// The client sends `bytes`, and the server sends them back.
    #[must_use]
    pub fn echo(bytes: u64) -> Self {
        Self { manners: Manners::Echo, ..Self::both(bytes, bytes) }
    }

    /// The client asks `count` times in `request` bytes and gets `response` bytes each time before it asks again.
    #[must_use]
    pub fn turns(count: u64, request: u64, response: u64) -> Self {
        Self { manners: Manners::Turns { request, response }, ..Self::both(count * request, count * response) }
    }

    /// Bytes that go each way: up and down.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        [self.up, self.down]
    }

    /// Whoever sends (both, if both do) writes `bytes` every so often.
    #[must_use]
    pub fn paced(self, bytes: u64, every: Duration) -> Self {
        Self { pace: Some(Pace { bytes, every }), ..self }
    }

    /// How the client reads.
    #[must_use]
    pub fn client_reads(self, client_reads: Reading) -> Self {
        Self { client_reads, ..self }
    }

    /// How the server reads.
    #[must_use]
    pub fn server_reads(self, server_reads: Reading) -> Self {
        Self { server_reads, ..self }
    }

    /// Nobody finishes: the stream stays open when everything was said.
    #[must_use]
    pub fn stays_open(self) -> Self {
        Self { finishes: false, ..self }
    }

    /// Each end finishes only when it has read everything.
    #[must_use]
    pub fn finishes_last(self) -> Self {
        Self { finishes_last: true, ..self }
    }

    /// It begins so long after the start.
    #[must_use]
    pub fn starts_at(self, starts_at: Duration) -> Self {
        Self { starts_at, ..self }
    }

    /// The server opens the stream.
    #[must_use]
    pub fn opened_by_server(self) -> Self {
        Self { opener: Side::Server, ..self }
    }

    // For making a failing script smaller.

    pub(crate) fn unpaced(self) -> Self {
        Self { pace: None, ..self }
    }

    pub(crate) fn read_promptly(self) -> Self {
        Self { client_reads: Reading::Prompt, server_reads: Reading::Prompt, ..self }
    }

    /// The same conversation without its manners.
    pub(crate) fn unmannered(self) -> Self {
        Self { manners: Manners::Free, ..self }
    }

    /// `part` of `whole` of its bytes.
    pub(crate) fn scaled(self, part: u64, whole: u64) -> Self {
        let scaled = |bytes: u64| bytes * part / whole;
        let (up, down) = match self.manners {
            Manners::Turns { request, response } => {
                let count = scaled(self.up / request.max(1));
                (count * request, count * response)
            }
            Manners::Free | Manners::Echo => (scaled(self.up), scaled(self.down)),
        };
        Self { up, down, ..self }
    }

    /// Number of the `index`-th stream (from 0) that the opener opens.
    pub(crate) fn stream(&self, index: usize) -> u32 {
        let first = if self.opener == Side::Client { 3 } else { 2 };
        first + 2 * index as u32
    }
}
