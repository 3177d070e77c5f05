//! Carriers that only the holders of keys can use: one Noise handshake for each, then every message sealed. Below KCP, so that nothing of it can be
//! touched from outside.
//!
//! ```text
//! client                                   server
//!   route 8, mark 8, message 1   -------->            is it for one of our keys? else silence
//!                                <--------  message 2
//!   message 3, records           -------->            whose key is it, which session?
//!                                <--------  records
//! ```
//!
//! The pattern is `Noise_XKpsk3` with X25519 and BLAKE2s ([the Noise framework](https://noiseprotocol.org/noise.html), revision 34): the client knows the
//! server's static key before, the server learns the client's in message 3, encrypted. `psk3` takes in the secret of ML-KEM-768 (FIPS 203), so that who
//! records today and has a quantum computer tomorrow reads nothing. `docs/secure-wire.md` has all of it to the byte.
//!
//! What is here is without I/O, without a clock, and without randomness but that which the caller brings:
//!
//! * [`StaticKey`], [`PublicKey`]: who somebody is, and how that is written down; [`Link`]: a server's key and addresses in one string.
//! * [`Initiator`], [`Recognised`], [`Responder`]: the handshake, one type a state. Each step takes what came and appends what is to be sent.
//! * [`Records`]: seals and opens what comes after it.
//!
//! The first failure is the last: every step takes its state along, and records that did not open are followed by none that do. Limits of one carrier:
//! [`Records::MAX_RECORDS`], [`Records::MAX_BYTES`], and an age that whoever has a clock has to see to.

use std::time::Duration;

mod aead;
mod handshake;
mod keys;
mod link;
mod primitives;
mod record;

pub use self::handshake::{
    Accepted, Established, HEADER_LEN, HandshakeError, Initiator, InitiatorRandom, MESSAGE_3_LEN, ROUTE_LEN,
    Recognised, Responder, ResponderRandom, Route, Suite,
};
pub use self::keys::{KEY_LEN, ParseKeyError, PublicKey, StaticKey};
pub use self::link::{Link, ParseLinkError};
pub use self::record::{MAX_RECORD, RecordError, Records};

/// A server has so long to answer message 1: less than a dial may take, so that this is what is told. For whoever has a clock.
#[doc(hidden)]
pub const ANSWER_LIMIT: Duration = Duration::from_secs(8);
