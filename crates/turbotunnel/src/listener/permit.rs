//! A connection's place within the limits.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::AbortHandle;

use super::admission::{Admission, Number, Refused};

/// Kept as long as the connection; its place is free again when this is dropped.
pub(crate) struct Permit {
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

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission().leave(self.number);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.number).finish()
    }
}
