//! Carriers with keys: the library's handshake and records between an end of ours and the bytes of its connections.
//!
//! ```text
//! client   connected -> Asking, for 8 s at most -> Sealed: message 3 goes with the first packets
//! server   accepted  -> Gate: silent until message 1 verifies, closed at once if message 3 does not -> Sealed
//! ```
//!
//! In: what arrives. Out: packets, and what is to be written. It does what `carrier/secure.rs` and `listener/gate.rs` of the library do with a clock and the operating
//! system's randomness; here both come from the simulation, so that a seed gives the same bytes each time. What is verified, sealed, opened and counted is the library's.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use turbotunnel::encapsulation::PacketBatch;
use turbotunnel::lifetime::{LIFETIME, Lifetime};
use turbotunnel::secure::{
    ANSWER_LIMIT, HEADER_LEN, Initiator, InitiatorRandom, MESSAGE_3_LEN, PublicKey, Recognised, RecordError, Records,
    Responder, ResponderRandom, Route, StaticKey, Suite,
};
use turbotunnel::{CarrierEnd, SessionId};

use crate::network::{Side, WireId};
use crate::random::{Random, mix};
use crate::sim::SESSION_ID;

/// A length and a tag: what a record adds to its packets.
const RECORD_OVERHEAD: usize = 18;

/// What one carrier with keys bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wear {
    /// How old it may become before the client dials another.
    pub lifetime: Duration,
    /// So many records have gone each way before its first one.
    pub used: u64,
}

impl Default for Wear {
    fn default() -> Self {
        Self { lifetime: LIFETIME, used: 0 }
    }
}

type WearPlan = Box<dyn Fn(u32) -> Wear>;

/// The keys of both ends, and everything random that their handshakes take.
pub(crate) struct Keys {
    seed: u64,
    suite: Suite,
    client: StaticKey,
    server: [StaticKey; 1],
    /// What the server wants carriers to begin with.
    wanted_route: Route,
    /// What the client was asked for last.
    route: Cell<Route>,
    plan: RefCell<WearPlan>,
    /// By number of the connection: both ends have to have the same.
    wear: RefCell<Vec<Wear>>,
}

fn bytes<const N: usize>(random: &mut Random) -> [u8; N] {
    std::array::from_fn(|_| random.number() as u8)
}

impl Keys {
    pub(crate) fn new(seed: u64, suite: Suite, plan: WearPlan) -> Self {
        // Apart from the simulation's own random numbers: what goes wrong in a run is the same with keys and without.
        let mut random = Random::new(mix(!seed));
        Self {
            seed,
            suite,
            client: StaticKey::from_bytes(&bytes(&mut random)),
            server: [StaticKey::from_bytes(&bytes(&mut random))],
            wanted_route: Route::new(&bytes::<2>(&mut random)).expect("two bytes are a route"),
            route: Cell::new(Route::ANY),
            plan: RefCell::new(plan),
            wear: RefCell::default(),
        }
    }

    /// Carriers from now on bear what real ones do.
    pub(crate) fn calm(&self) {
        *self.plan.borrow_mut() = Box::new(|_| Wear::default());
    }

    fn wear(&self, wire: WireId) -> Wear {
        let mut wear = self.wear.borrow_mut();
        while wear.len() <= wire {
            let number = wear.len() as u32 + 1;
            wear.push((self.plan.borrow())(number));
        }
        wear[wire]
    }

    fn random(&self, wire: WireId, side: Side) -> Random {
        Random::new(mix(self.seed ^ mix((wire as u64) << 1 | u64::from(side == Side::Server))))
    }

    fn sealed(&self, now: Instant, wire: WireId, side: Side, mut records: Records, unsent: Vec<u8>) -> Sealed {
        let wear = self.wear(wire);
        records.skip(wear.used);
        let lifetime = Lifetime::new(now, wear.lifetime, side == Side::Client);
        Sealed { records, partial: Vec::new(), unsent, lifetime }
    }
}

/// The client's end of a connection whose server has not answered yet.
pub(crate) struct Asking {
    initiator: Initiator,
    answer: Vec<u8>,
    /// When it is given up.
    pub(crate) deadline: Instant,
}

/// What came is no answer of the server's.
#[derive(Debug)]
pub(crate) struct NoValidAnswer;

impl Asking {
    /// Begins a carrier: `out` is the first that is written.
    pub(crate) fn start(now: Instant, keys: &Keys, wire: WireId, out: &mut Vec<u8>) -> Self {
        let mut random = keys.random(wire, Side::Client);
        let random = InitiatorRandom {
            route: bytes(&mut random),
            ephemeral: bytes(&mut random).into(),
            ml_kem: bytes(&mut random).into(),
        };
        let server = keys.server[0].public();
        let initiator = Initiator::start(&server, &keys.client, keys.suite, keys.route.get(), &random, out);
        Self { initiator, answer: Vec::new(), deadline: now + ANSWER_LIMIT }
    }

    pub(crate) fn handle_bytes(
        mut self: Box<Self>,
        now: Instant,
        keys: &Keys,
        wire: WireId,
        bytes: &[u8],
    ) -> Result<Asked, NoValidAnswer> {
        self.answer.extend_from_slice(bytes);
        let Some((answer, rest)) = self.answer.split_at_checked(self.initiator.answer_len()) else {
            return Ok(Asked::Waits(self));
        };
        let mut third = Vec::new();
        let established = self.initiator.handle_answer(answer, SessionId(SESSION_ID), &mut third);
        let established = established.map_err(|_| NoValidAnswer)?;
        keys.route.set(established.route);
        let mut sealed = keys.sealed(now, wire, Side::Client, established.records, third);
        sealed.partial.extend_from_slice(rest);
        Ok(Asked::Answered(Box::new(sealed)))
    }

    /// Something has come, but not all.
    pub(crate) fn is_partial(&self) -> bool {
        !self.answer.is_empty()
    }
}

/// What became of asking.
pub(crate) enum Asked {
    /// More has to come.
    Waits(Box<Asking>),
    /// The handshake is done.
    Answered(Box<Sealed>),
}

/// The server's end of a connection until it is known whose it is.
pub(crate) enum Gate {
    /// Nothing was said to whoever it is.
    Silent(Vec<u8>),
    /// Message 2 is on its way.
    Answered(Box<Responder>, Vec<u8>),
    /// No first message: it is read and forgotten.
    NotUnderstood,
    /// The holder of this key has a session here, or wants one.
    Passed(PublicKey, Box<Sealed>),
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::Silent(Vec::new())
    }

    /// Takes in what came, and appends what is to be written to `out`. Packets, with their lengths, are appended to `packets`.
    pub(crate) fn handle_bytes(
        &mut self,
        now: Instant,
        keys: &Keys,
        wire: WireId,
        bytes: &[u8],
        out: &mut Vec<u8>,
        packets: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match std::mem::replace(self, Self::NotUnderstood) {
            Self::NotUnderstood => Ok(()),
            Self::Silent(mut received) => {
                received.extend_from_slice(bytes);
                let Some(header) = received.first_chunk::<HEADER_LEN>() else {
                    *self = Self::Silent(received);
                    return Ok(());
                };
                let Some(recognised) = Recognised::new(&keys.server, header) else { return Ok(()) };
                let end = HEADER_LEN + recognised.suite().message_1_len();
                let Some((first, rest)) = received.split_at_checked(end) else {
                    *self = Self::Silent(received);
                    return Ok(());
                };
                let mut random = keys.random(wire, Side::Server);
                let random = ResponderRandom {
                    ephemeral: self::bytes(&mut random).into(),
                    ml_kem: self::bytes(&mut random).into(),
                };
                let message = &first[HEADER_LEN..];
                let Ok(responder) = recognised.handle_message(message, keys.wanted_route, &random, out) else {
                    return Ok(());
                };
                *self = Self::Answered(Box::new(responder), Vec::new());
                self.handle_bytes(now, keys, wire, rest, out, packets)
            }
            Self::Answered(responder, mut received) => {
                received.extend_from_slice(bytes);
                let Some((message, rest)) = received.split_at_checked(MESSAGE_3_LEN) else {
                    *self = Self::Answered(responder, received);
                    return Ok(());
                };
                let accepted = responder.handle_message(message).map_err(|_| Refused::Handshake)?;
                assert_eq!(accepted.session, SessionId(SESSION_ID), "there is one session only");
                let sealed = keys.sealed(now, wire, Side::Server, accepted.records, Vec::new());
                *self = Self::Passed(accepted.client, Box::new(sealed));
                self.handle_bytes(now, keys, wire, rest, out, packets)
            }
            Self::Passed(client, mut sealed) => {
                let mut batch = PacketBatch::new();
                let outcome = sealed.open(bytes, &mut batch);
                packets.extend_from_slice(batch.as_bytes());
                *self = Self::Passed(client, sealed);
                outcome.map_err(|_| Refused::Records)
            }
        }
    }
}

/// Why a connection is closed at the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Message 3 does not verify.
    Handshake,
    /// A record does not open.
    Records,
}

impl Refused {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "third message refused",
            Self::Records => "stranger's record refused",
        }
    }
}

/// A carrier with keys, after the handshake.
pub(crate) struct Sealed {
    records: Records,
    /// The beginning of a record whose rest has not come yet.
    partial: Vec<u8>,
    /// Message 3, until the first packets go.
    unsent: Vec<u8>,
    pub(crate) lifetime: Lifetime,
}

impl Sealed {
    /// What came, and what was left of it the last time, to whole packets. Those are good also if it fails.
    pub(crate) fn open(&mut self, bytes: &[u8], packets: &mut PacketBatch) -> Result<(), CarrierEnd> {
        let buffer = packets.bytes_mut();
        buffer.clear();
        buffer.extend_from_slice(&self.partial);
        buffer.extend_from_slice(bytes);
        self.records.open_in_place(buffer, &mut self.partial).map_err(why)
    }

    /// What is to be written for these packets.
    pub(crate) fn seal(&mut self, packets: &PacketBatch) -> Result<Vec<u8>, CarrierEnd> {
        let mut out = self.take_unsent();
        self.records.seal(packets.as_bytes(), &mut out).map_err(why)?;
        Ok(out)
    }

    /// What of the handshake is still to be written.
    pub(crate) fn take_unsent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Bytes that the next record takes beside its packets.
    pub(crate) fn overhead(&self) -> usize {
        RECORD_OVERHEAD + self.unsent.len()
    }

    pub(crate) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(crate) fn is_worn(&self) -> bool {
        self.records.is_worn()
    }
}

fn why(error: RecordError) -> CarrierEnd {
    match error {
        RecordError::UsedUp => CarrierEnd::UsedUp,
        _ => CarrierEnd::NotAuthentic,
    }
}
