//! Streams that go somewhere: what `server` and `client` put into the streams of a session.
//!
//! ```text
//!  a program -> local port -> [inlet] -> stream: request, bytes ...  -> [outlet] -> target
//!                 or SOCKS                        answer, bytes ...  <-
//! ```
//!
//! The request names the target, the answer says what became of it ([`request`]; the bytes are in `docs/wire.md`). What a server reaches for whom is the matter of `allow`. The plain
//! format has neither: there a stream goes to the one place that the server was started with.

pub(crate) mod allow;
pub(crate) mod borrow;
pub(crate) mod failing;
pub(crate) mod inlet;
pub(crate) mod open;
pub(crate) mod outlet;
pub(crate) mod program;
pub(crate) mod pump;
pub mod request;
pub(crate) mod reverse;
pub(crate) mod socks;
pub(crate) mod spec;
pub(crate) mod uplink;
