use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Those in this process who wait for an operation to end, by the operation's hash.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<String, watch::Sender<()>>>,
}

impl Waiters {
    /// Waits from now on; leaves when dropped.
    pub(crate) fn enter(&self, id: &str) -> Waiter<'_> {
        let mut waiting = self.lock();
        let ended = match waiting.get(id) {
            Some(sender) => sender.subscribe(),
            None => waiting.entry(id.to_owned()).or_default().subscribe(),
        };
        Waiter { waiters: self, id: id.to_owned(), ended }
    }

    /// Wakes all who wait for the operation.
    pub(crate) fn wake(&self, id: &str) {
        if let Some(sender) = self.lock().get(id) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    id: String,
    ended: watch::Receiver<()>,
}

impl Waiter<'_> {
    /// Completes once an attempt has ended in this process since the last call, or since this
    /// waiter entered.
    pub(crate) async fn ended(&mut self) {
        if self.ended.changed().await.is_err() {
            // The sender stays in the map as long as somebody waits.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        if waiting.get(&self.id).is_some_and(|sender| sender.receiver_count() == 1) {
            waiting.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_misses_no_wake_up_and_leaves_nothing_behind() {
        let waiters = Waiters::default();
        let (mut one, mut other) = (waiters.enter("a"), waiters.enter("a"));
        waiters.wake("a");
        one.ended().await;
        other.ended().await;
        drop(one);
        assert_eq!(waiters.lock().len(), 1);
        drop(other);
        assert_eq!(waiters.lock().len(), 0);
    }

    #[tokio::test]
    async fn a_waiter_is_not_woken_for_another_operation() {
        let waiters = Waiters::default();
        let mut waiter = waiters.enter("a");
        waiters.wake("b");
        assert!(futures_util::FutureExt::now_or_never(waiter.ended()).is_none());
    }
}
