use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A request to stop, seen by everybody who has a clone.
#[derive(Clone, Debug, Default)]
pub struct Cancellation {
    shared: Arc<Flag>,
}

impl Cancellation {
    /// Nobody has asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop, for good.
    pub fn cancel(&self) {
        self.shared.raise();
    }

    /// Whether somebody has asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_raised()
    }

    /// Completes once somebody has asked. Dropping the future changes nothing.
    pub async fn cancelled(&self) {
        self.shared.raised().await;
    }
}

/// A flag to wait for.
#[derive(Debug, Default)]
pub(crate) struct Flag {
    raised: AtomicBool,
    notify: Notify,
}

impl Flag {
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    pub(crate) async fn raised(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Enabled before the flag is read, so that nothing falls between.
        notified.as_mut().enable();
        if !self.is_raised() {
            notified.await;
        }
    }
}
