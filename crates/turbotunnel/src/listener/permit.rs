//! A connection's place within the limits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::admission::{Admission, Number, Refused};
#[cfg(feature = "secure")]
use crate::session_map::Client;

/// Kept as long as the connection; its place is free again when this is dropped.
pub(super) struct Permit {
    admission: Arc<Mutex<Admission<AbortHandle>>>,
    number: Number,
}

impl Permit {
    pub(super) fn new(admission: Arc<Mutex<Admission<AbortHandle>>>, number: Number) -> Self {
        Self { admission, number }
    }

    fn admission(&self) -> MutexGuard<'_, Admission<AbortHandle>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Admission::attach`].
    pub(super) fn attach(&self, replaces: bool) -> Result<(), Refused> {
        self.admission().attach(self.number, replaces)
    }

    /// See [`Admission::begin`].
    pub(super) fn begin(&self, now: Instant, scarce: bool) -> Result<(), Refused> {
        self.admission().begin(now, self.number, scarce)
    }
}

#[cfg(feature = "secure")]
impl Permit {
    /// See [`Admission::identify`].
    pub(super) fn identify(&self, client: Client) {
        self.admission().identify(self.number, client);
    }

    /// See [`Admission::handshake`].
    pub(super) fn handshake(&self, now: Instant) -> Result<(), Refused> {
        self.admission().handshake(now, self.number)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission().leave(self.number);
    }
}
