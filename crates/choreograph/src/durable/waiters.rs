use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_core::Partition;
use tokio::sync::Notify;

type Name = (Partition, String);

/// Those who wait in this process for runs to end.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<Name, Arc<Notify>>>,
}

/// One who waits.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    name: Name,
    ended: Arc<Notify>,
}

impl Waiters {
    pub(crate) fn wait(&self, at: &Partition, run: &str) -> Waiter<'_> {
        let name = (at.clone(), run.to_owned());
        let ended = Arc::clone(self.lock().entry(name.clone()).or_default());
        Waiter { waiters: self, name, ended }
    }

    pub(crate) fn wake(&self, at: &Partition, run: &str) {
        let waiting = self.lock().get(&(at.clone(), run.to_owned())).cloned();
        if let Some(ended) = waiting {
            ended.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// A future of the next wake, from now on.
    pub(crate) fn next(&self) -> tokio::sync::futures::OwnedNotified {
        Arc::clone(&self.ended).notified_owned()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        // The map's and this one's.
        if Arc::strong_count(&self.ended) == 2 {
            waiting.remove(&self.name);
        }
    }
}
