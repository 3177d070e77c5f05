//! How many streams there are, and the wait until there are none.

use std::sync::Arc;

use tokio::sync::watch;

/// A number of open streams. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<watch::Sender<usize>>);

/// One of them, until dropped, however it ends.
#[derive(Debug)]
pub(crate) struct One(Open);

impl Open {
    /// One more.
    pub(crate) fn one(&self) -> One {
        self.0.send_modify(|open| *open += 1);
        One(self.clone())
    }

    /// How many there are.
    pub(crate) fn now(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there are none. Cancel-safe.
    pub(crate) async fn none(&self) {
        // The sender is ours, so it is not gone.
        let _ = self.0.subscribe().wait_for(|open| *open == 0).await;
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}
