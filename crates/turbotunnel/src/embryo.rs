//! All that is to be remembered of a session of which nothing has come.
//!
//! A flood of sessions that are begun and left costs 42 bytes each to send, and to hold each for its time to live costs us kilobytes. But who began it may
//! be honest and come back: his first packet came, the answer may have reached him or not, then the network was gone for a minute. So the session ends,
//! and these few bytes of it stay for the rest of the time. Who comes back finds the same session.

use crate::control::Token;

/// All that is to be remembered of a session that ended with [`SessionError::Abandoned`](crate::SessionError): [`Tunnel::embryo`](crate::Tunnel::embryo),
/// [`Tunnel::reborn`](crate::Tunnel::reborn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embryo {
    pub(crate) conv: u32,
    pub(crate) token: Token,
    /// The first segment was taken, and has to be taken for taken.
    pub(crate) opened: bool,
}

impl Embryo {
    /// The session's conversation: who says another one is somebody else.
    #[must_use]
    pub fn conv(&self) -> u32 {
        self.conv
    }
}
