//! How many streams there are, the wait until there are none, and the word that those that there are end now.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

/// A number of open streams. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    now: watch::Sender<usize>,
    cut: watch::Sender<bool>,
}

/// One of them, until dropped, however it ends.
#[derive(Debug)]
pub(crate) struct One(Open);

impl Open {
    /// One more.
    pub(crate) fn one(&self) -> One {
        self.0.now.send_modify(|open| *open += 1);
        One(self.clone())
    }

    /// How many there are.
    pub(crate) fn now(&self) -> usize {
        *self.0.now.borrow()
    }

    /// Waits until there are none. Cancel-safe.
    pub(crate) async fn none(&self) {
        // The sender is ours, so it is not gone.
        let _ = self.0.now.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Ends all that is [worked at](One::until_cut), now and from now on.
    pub(crate) fn cut(&self) {
        self.0.cut.send_replace(true);
    }
}

impl One {
    /// Does the work of this stream, which is dropped in the middle when [all are cut](Open::cut).
    pub(crate) async fn until_cut(&self, work: impl Future<Output = ()>) {
        let mut cut = self.0.0.cut.subscribe();
        tokio::select! {
            () = work => {}
            // The sender is ours, so it is not gone.
            _ = cut.wait_for(|cut| *cut) => {}
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.now.send_modify(|open| *open -= 1);
    }
}
