//! New runs that begin where they are started, since a worker of the same process has room for them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use evenkeel_core::{Leased, Partition, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

/// Where one worker takes new runs in.
pub(crate) struct Intake {
    free: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
    backlogs: HashMap<Partition, Arc<Backlog>>,
    /// What was taken in; `None` once the worker takes in no more.
    under_way: Mutex<Option<JoinSet<()>>>,
}

/// What a worker knows of the jobs that wait in a queue.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// The last look left nothing that was due.
    is_cleared: AtomicBool,
    /// How many runs were taken in since.
    taken_in: AtomicUsize,
}

impl Backlog {
    /// A look is about to be made.
    pub(super) fn look(&self) {
        self.taken_in.store(0, Ordering::Relaxed);
    }

    /// What a look found; `None` where it failed.
    pub(super) fn looked(&self, found: Option<&Leased>, now: Timestamp) {
        let is_cleared = found.is_some_and(|found| found.next_due.is_none_or(|due| due > now));
        self.is_cleared.store(is_cleared, Ordering::Relaxed);
    }

    pub(super) fn is_cleared(&self) -> bool {
        self.is_cleared.load(Ordering::Relaxed)
    }

    /// Whether a hint is likely to be about runs that were taken in.
    pub(super) fn took_runs_in(&self) -> bool {
        self.taken_in.load(Ordering::Relaxed) > 0
    }
}

impl Intake {
    pub(super) fn new(
        free: Arc<Semaphore>,
        closing: watch::Receiver<bool>,
        backlogs: HashMap<Partition, Arc<Backlog>>,
    ) -> Self {
        Self { free, closing, backlogs, under_way: Mutex::new(Some(JoinSet::new())) }
    }

    /// A place, where one is free and nobody waits for one: neither here nor in the queue.
    fn place(&self, at: &Partition) -> Option<OwnedSemaphorePermit> {
        let backlog = self.backlogs.get(at)?;
        if !backlog.is_cleared() {
            return None;
        }
        let place = Arc::clone(&self.free).try_acquire_owned().ok()?;
        backlog.taken_in.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }

    fn under_way(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers of a process that take new runs in.
#[derive(Default)]
pub(crate) struct Intakes {
    open: RwLock<Vec<Arc<Intake>>>,
}

impl Intakes {
    /// Takes new runs in until what it returns is closed or dropped.
    pub(super) fn open(&self, intake: Intake) -> Open<'_> {
        let intake = Arc::new(intake);
        self.open.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&intake));
        Open { intakes: self, intake }
    }

    /// Hands a new run to a worker that has room: what `begin` makes of it belongs to that worker.
    /// `None` where there is none.
    pub(super) fn take_in<F, T>(
        &self,
        at: &Partition,
        begin: impl FnOnce(watch::Receiver<bool>) -> (F, T),
    ) -> Option<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let (intake, place) = open.iter().find_map(|intake| Some((intake, intake.place(at)?)))?;
        let mut under_way = intake.under_way();
        let under_way = under_way.as_mut()?;
        while under_way.try_join_next().is_some() {}
        let (work, handle) = begin(intake.closing.clone());
        under_way.spawn(async move {
            work.await;
            drop(place);
        });
        Some(handle)
    }
}

/// An intake that is open. Dropping it stops at once what was taken in.
pub(super) struct Open<'a> {
    intakes: &'a Intakes,
    intake: Arc<Intake>,
}

impl Open<'_> {
    /// Takes in no more; what is left to be waited for.
    pub(super) fn close(&self) -> JoinSet<()> {
        let mut open = self.intakes.open.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|intake| !Arc::ptr_eq(intake, &self.intake));
        drop(open);
        self.intake.under_way().take().unwrap_or_default()
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
