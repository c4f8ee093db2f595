use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evenkeel_core::Partition;
use tokio::sync::watch;

use super::inspect::Run;

/// How many runs that were started here are remembered, for whoever waits for them.
const MOST_STARTED: usize = 1024;

type Name = (Partition, String);

/// Those who wait in this process for runs to end.
#[derive(Default)]
pub(crate) struct Waiters {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<Name, Waiting>,
    /// The last runs that were started here and did not end here.
    started: HashSet<Name>,
    order: VecDeque<Name>,
}

/// Those who wait for one run.
struct Waiting {
    count: usize,
    ended: watch::Sender<Option<Arc<Run>>>,
}

/// One who waits.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    name: Name,
    ended: watch::Receiver<Option<Arc<Run>>>,
}

impl Waiters {
    pub(crate) fn wait(&self, at: &Partition, run: &str) -> Waiter<'_> {
        let name = (at.clone(), run.to_owned());
        let mut inner = self.lock();
        let waiting = inner
            .waiting
            .entry(name.clone())
            .or_insert_with(|| Waiting { count: 0, ended: watch::Sender::default() });
        waiting.count += 1;
        let ended = waiting.ended.subscribe();
        drop(inner);
        Waiter { waiters: self, name, ended }
    }

    /// Remembers that a run is started here, so that it is likely to end here.
    pub(crate) fn expect(&self, at: &Partition, run: &str) {
        let name = (at.clone(), run.to_owned());
        let mut inner = self.lock();
        if inner.started.insert(name.clone()) {
            inner.order.push_back(name);
        }
        if inner.order.len() > MOST_STARTED
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.started.remove(&oldest);
        }
    }

    /// Forgets that a run was to be started here.
    pub(crate) fn expect_no_more(&self, at: &Partition, run: &str) {
        self.lock().started.remove(&(at.clone(), run.to_owned()));
    }

    /// Tells those who wait for a run how it ended.
    pub(crate) fn tell(&self, at: &Partition, run: &str, ended: impl FnOnce() -> Run) {
        let name = (at.clone(), run.to_owned());
        let mut inner = self.lock();
        inner.started.remove(&name);
        let waiting = inner.waiting.get(&name).map(|waiting| waiting.ended.clone());
        drop(inner);
        if let Some(waiting) = waiting {
            waiting.send_replace(Some(Arc::new(ended())));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    /// Whether the run was started here a short while ago, and did not end here.
    pub(crate) fn is_expected(&self) -> bool {
        self.waiters.lock().started.contains(&self.name)
    }

    /// The run, once it ended or was parked in this process. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Run {
        loop {
            self.ended.changed().await.expect("who waits keeps the sender");
            if let Some(ended) = self.ended.borrow_and_update().clone() {
                return Arc::unwrap_or_clone(ended);
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut inner = self.waiters.lock();
        if let Some(waiting) = inner.waiting.get_mut(&self.name) {
            waiting.count -= 1;
            if waiting.count == 0 {
                inner.waiting.remove(&self.name);
            }
        }
    }
}
