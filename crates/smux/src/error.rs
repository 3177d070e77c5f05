//! What can go wrong, and what to do about it.

use crate::wire::{Command, StreamId};

/// The peer broke the protocol. The session is over: what follows in its byte stream means nothing.
///
/// What arrived whole before can still be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame of another version; both ends must be configured alike.
    #[error("frame of smux version {0}, which is not the session's")]
    WrongVersion(u8),
    /// A command that does not exist.
    #[error("unknown smux command {0}")]
    UnknownCommand(u8),
    /// A length that does not go with the command.
    #[error("{command:?} frame with a payload of {length} bytes")]
    WrongLength {
        /// The frame's command.
        command: Command,
        /// The length that it said.
        length: u16,
    },
    /// A window update in version 1, which has no windows.
    #[error("window update in smux version 1")]
    UpdateInVersion1,
    /// More data than the stream's window allows, by this many bytes.
    #[error("stream {stream} got {excess} bytes more than its window")]
    WindowExceeded {
        /// The stream.
        stream: StreamId,
        /// Bytes beyond the window's right edge.
        excess: u32,
    },
    /// The peer kept opening streams though they were refused.
    #[error("peer goes on opening streams after {0} refusals")]
    TooManyRefused(u32),
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// [`crate::Config::max_streams`] are open. Close some, then try again.
    #[error("{0} streams are open, which is the limit")]
    TooManyStreams(usize),
    /// All ids were used. Only a new session helps.
    #[error("all stream ids of this session are used up")]
    IdsExhausted,
}

/// Why a stream did not do what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// No such stream, or the application has let go of it with [`crate::Mux::close`].
    #[error("no such stream")]
    Unknown,
    /// The application has finished writing with [`crate::Mux::finish`].
    #[error("the stream was finished")]
    Finished,
    /// The peer has closed the stream altogether: nothing more can be written, or what was written is lost in part.
    #[error("the peer has closed the stream")]
    ClosedByPeer,
    /// The peer has not taken the stream: it has as many as it bears. What was written is lost. Try again later, or with fewer.
    #[error("the peer takes no more streams now")]
    Refused,
    /// The peer has given the stream up ([`crate::Mux::reset`]). What it had still to say is lost, and so may be what was written.
    #[error("the peer has reset the stream")]
    Reset,
}
