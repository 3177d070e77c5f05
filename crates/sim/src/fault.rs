//! What can happen to carriers and to dials.

use std::collections::BTreeMap;
use std::time::Duration;

/// What happens to a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Somebody in between closes it in order, both ways. What was on the way in one direction is lost.
    Fin,
    /// Both ends get an error; everything on the way is lost.
    Rst,
    /// The server reads an end; the other direction lives on.
    HalfUp,
    /// The client reads an end; the other direction lives on.
    HalfDown,
    /// Nothing arrives any more, nothing fails.
    Stall,
    /// Nothing arrives at the server any more.
    StallUp,
    /// Nothing arrives at the client any more.
    StallDown,
    /// Nothing arrives for a while. Then everything does, late.
    Freeze(Duration),
    /// Nothing arrives any more; after a while both ends get an error.
    DeadLate(Duration),
    /// A bit of the next byte is changed on its way. For carriers with keys: the others have no means to notice.
    Flip,
}

impl How {
    /// Each of them once but [`How::Flip`], for tests that go through all. Freezes and late deaths last `while_`.
    #[must_use]
    pub fn all(while_: Duration) -> [Self; 9] {
        [
            Self::Fin,
            Self::Rst,
            Self::HalfUp,
            Self::HalfDown,
            Self::Stall,
            Self::StallUp,
            Self::StallDown,
            Self::Freeze(while_),
            Self::DeadLate(while_),
        ]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::HalfUp => "half up",
            Self::HalfDown => "half down",
            Self::Stall => "stall",
            Self::StallUp => "stall up",
            Self::StallDown => "stall down",
            Self::Freeze(_) => "freeze",
            Self::DeadLate(_) => "dead late",
            Self::Flip => "bit flipped",
        }
    }
}

/// When it happens to a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// When so many bytes have arrived at the server, the 8 of the session id or the handshake among them. Not one byte more arrives.
    Up(u64),
    /// When so many bytes have arrived at the client.
    Down(u64),
    /// So long after it was connected.
    After(Duration),
}

/// Something that is going to happen to a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub when: When,
    /// What.
    pub how: How,
}

impl Fault {
    /// `how` happens `when`.
    #[must_use]
    pub fn new(when: When, how: How) -> Self {
        Self { when, how }
    }
}

/// What becomes of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Connected after a round trip.
    Connect,
    /// Refused after a round trip.
    Refused,
    /// No answer at all.
    BlackHole,
    /// Connected after a round trip, and closed at once; the server hears nothing of it.
    AcceptAndClose,
    /// A relay right here accepts at once, and connects itself only then; what is sent meanwhile waits in it.
    Relay,
    /// The same, and it finds out after a round trip that the server refuses it, and resets.
    RelayRefused,
    /// Connected, but to a server that does not know the session: a load balancer sent it astray.
    Astray,
}

impl Dial {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refused => "refused",
            Self::BlackHole => "black hole",
            Self::AcceptAndClose => "accept and close",
            Self::Relay => "relay",
            Self::RelayRefused => "relay refused",
            Self::Astray => "astray",
        }
    }
}

/// How often each kind of fault has happened, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Kinds of faults, all of them; a random run in which one never happened proves nothing about it.
    pub const KINDS: [&'static str; 22] = [
        "fin",
        "rst",
        "half up",
        "half down",
        "stall",
        "stall up",
        "stall down",
        "freeze",
        "dead late",
        "refused",
        "black hole",
        "accept and close",
        "relay",
        "relay refused",
        "astray",
        "twin",
        "half a packet",
        "asleep",
        "packet lost",
        "packet overtaken",
        "packet doubled",
        "server restart",
    ];

    pub(crate) fn note(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn note_times(&mut self, kind: &'static str, times: u64) {
        *self.0.entry(kind).or_default() += times;
    }

    /// How often `kind` happened.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(kind, count)| *self.0.entry(kind).or_default() += count);
    }

    /// Kinds that never happened.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        Self::KINDS.into_iter().filter(|kind| self.of(kind) == 0)
    }
}
