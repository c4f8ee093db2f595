//! Committing together what waits at the same moment; for stores to use.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::batch::{Batch, Committed};
use crate::{Error, ErrorKind, Partition, Result};

/// One physical commit of several batches of a partition; for stores to implement.
#[async_trait]
pub trait CommitFold: Send + Sync + 'static {
    /// Judges the valid `batches` in order, each against the state that those before it leave,
    /// writes the ones that hold as one physical commit, and returns a verdict for each.
    ///
    /// # Errors
    /// One for the whole fold. `Unavailable` and `OutcomeUnknown` are every member's answer. After
    /// any other, nothing was written, and each member is committed alone.
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>>;
}

/// How much goes into one fold, and how many of a partition are under way at once.
#[derive(Clone, Copy, Debug)]
pub struct FoldLimits {
    /// The most batches.
    pub batches: usize,
    /// The most [units](Batch::units), except that a batch may always go alone.
    pub units: usize,
    /// The most [bytes](Batch::bytes), except that a batch may always go alone.
    pub bytes: usize,
    /// The most folds of one partition at the same time.
    pub in_flight: NonZeroUsize,
}

/// Collects the commits that wait, partition by partition, and commits them as folds.
///
/// A commit that meets no other goes at once. A task runs only while there is something to commit.
pub struct Folding<C> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    committer: C,
    limits: FoldLimits,
    lanes: Mutex<HashMap<Partition, Lane>>,
}

/// The commits of one partition.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    in_flight: usize,
}

struct Waiting {
    batch: Batch,
    then: Option<Then>,
    reply: oneshot::Sender<Result<Committed>>,
}

/// What follows a commit.
type Then = Box<dyn FnOnce(Result<(), ErrorKind>) + Send>;

impl<C: CommitFold> Folding<C> {
    /// Commits through `committer`.
    #[must_use]
    pub fn new(committer: C, limits: FoldLimits) -> Self {
        Self { shared: Arc::new(Shared { committer, limits, lanes: Mutex::default() }) }
    }

    /// What it commits through.
    #[must_use]
    pub fn committer(&self) -> &C {
        &self.shared.committer
    }

    /// Commits a valid batch with those that wait beside it. Dropping the future does not cancel
    /// the commit.
    ///
    /// # Errors
    /// The batch's own verdict, or what befell the whole fold.
    pub async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.line_up(batch, None).await
    }

    /// As [`commit`](Self::commit); after the caller `then` is told what became of it, also where the
    /// future was dropped meanwhile. It must neither block nor panic.
    ///
    /// # Errors
    /// As those of [`commit`](Self::commit).
    pub async fn commit_then(
        &self,
        batch: Batch,
        then: impl FnOnce(Result<(), ErrorKind>) + Send + 'static,
    ) -> Result<Committed> {
        self.line_up(batch, Some(Box::new(then))).await
    }

    async fn line_up(&self, batch: Batch, then: Option<Then>) -> Result<Committed> {
        let (reply, verdict) = oneshot::channel();
        let at = batch.at().clone();
        let waiting = Waiting { batch, then, reply };
        if self.shared.line_up(&at, waiting) {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.work_off(&at).await });
        }
        let cut_off = |_| Err(Error::new(ErrorKind::OutcomeUnknown, "the commit was cut off by a shutdown"));
        verdict.await.unwrap_or_else(cut_off)
    }
}

impl<C> Clone for Folding<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for Folding<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folding").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl<C: CommitFold> Shared<C> {
    /// Adds to the partition's line; whether that line needs another worker.
    fn line_up(&self, at: &Partition, waiting: Waiting) -> bool {
        let mut lanes = self.lanes();
        let lane = lanes.entry(at.clone()).or_default();
        lane.waiting.push_back(waiting);
        let needs_worker = lane.in_flight < self.limits.in_flight.get();
        lane.in_flight += usize::from(needs_worker);
        needs_worker
    }

    /// Commits fold after fold until nothing waits.
    async fn work_off(&self, at: &Partition) {
        let mut follows: Vec<(Then, _)> = Vec::new();
        loop {
            // Callers that wait to line up, or were just answered, do so first: one fold of many is
            // cheaper than one of one and another of the rest.
            tokio::task::yield_now().await;
            follows.drain(..).for_each(|(then, outcome)| then(outcome));
            let Some(fold) = self.next_fold(at) else { return };
            let (batches, callers): (Vec<_>, Vec<_>) =
                fold.into_iter().map(|waiting| (waiting.batch, (waiting.then, waiting.reply))).unzip();
            for ((then, reply), verdict) in callers.into_iter().zip(self.commit(at, &batches).await) {
                let outcome = verdict.as_ref().map(|_| ()).map_err(Error::kind);
                // A caller that went away does not hear of it.
                let _ = reply.send(verdict);
                follows.extend(then.map(|then| (then, outcome)));
            }
        }
    }

    fn next_fold(&self, at: &Partition) -> Option<Vec<Waiting>> {
        let mut lanes = self.lanes();
        let lane = lanes.get_mut(at)?;
        let fold = lane.take_fold(&self.limits);
        if !fold.is_empty() {
            return Some(fold);
        }
        lane.in_flight -= 1;
        if lane.in_flight == 0 {
            lanes.remove(at);
        }
        None
    }

    async fn commit(&self, at: &Partition, batches: &[Batch]) -> Vec<Result<Committed>> {
        match self.commit_fold(at, batches).await {
            Ok(verdicts) => verdicts,
            Err(error) if batches.len() == 1 => vec![Err(error)],
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {
                batches.iter().map(|_| Err(error.repeated())).collect()
            }
            Err(_) => {
                let mut verdicts = Vec::with_capacity(batches.len());
                for batch in batches {
                    let alone = self.commit_fold(at, std::slice::from_ref(batch)).await;
                    verdicts.push(alone.and_then(|mut verdicts| verdicts.pop().expect(A_VERDICT_EACH)));
                }
                verdicts
            }
        }
    }

    /// A committer that panics must not keep those who come after waiting.
    async fn commit_fold(&self, at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
        let fold = AssertUnwindSafe(self.committer.commit_fold(at, batches)).catch_unwind();
        let panicked = |_| Err(Error::new(ErrorKind::OutcomeUnknown, "the commit panicked"));
        fold.await.unwrap_or_else(panicked)
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Partition, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const A_VERDICT_EACH: &str = "a fold has a verdict for each batch";

impl Lane {
    fn take_fold(&mut self, limits: &FoldLimits) -> Vec<Waiting> {
        let (mut units, mut bytes) = (0, 0);
        let fits = |waiting: &&Waiting| {
            units += waiting.batch.units();
            bytes += waiting.batch.bytes();
            units <= limits.units && bytes <= limits.bytes
        };
        let count = self.waiting.iter().take(limits.batches).take_while(fits).count();
        let at_least_one = usize::from(!self.waiting.is_empty());
        self.waiting.drain(..count.max(at_least_one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{Expect, Key, MemoryStore, Namespace, Store, Timestamp};

    /// Commits to a store in memory, a fold for each permit, and notes how large the folds were.
    struct Recording {
        store: MemoryStore,
        permits: Semaphore,
        sizes: Mutex<Vec<usize>>,
        /// What befalls a fold of more than one batch.
        fails: Option<ErrorKind>,
    }

    #[async_trait]
    impl CommitFold for Recording {
        async fn commit_fold(&self, _at: &Partition, batches: &[Batch]) -> Result<Vec<Result<Committed>>> {
            self.permits.acquire().await.expect("the permits stay open").forget();
            self.sizes.lock().unwrap().push(batches.len());
            assert!(batches[0].ops().len() < 2, "as told");
            if let (Some(kind), 2..) = (self.fails, batches.len()) {
                return Err(Error::new(kind, "as told"));
            }
            let mut verdicts = Vec::new();
            for batch in batches {
                verdicts.push(self.store.commit(batch.clone()).await);
            }
            Ok(verdicts)
        }
    }

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn folding(batches: usize, fails: Option<ErrorKind>) -> Folding<Recording> {
        let committer = Recording {
            store: MemoryStore::new(),
            permits: Semaphore::new(0),
            sizes: Mutex::default(),
            fails,
        };
        Folding::new(committer, FoldLimits { batches, units: 100, bytes: 1000, in_flight: NonZeroUsize::MIN })
    }

    fn put(id: &str, value: &'static str) -> Batch {
        let mut batch = Batch::new(Partition::new(Namespace::default(), 0), NOW);
        batch.put(Key::new("space", "group", id), value, Expect::Absent);
        batch
    }

    /// Lets the first go alone, the others line up behind it, and commits all; verdicts in order.
    async fn commit_all(folding: &Folding<Recording>, batches: Vec<Batch>) -> Vec<Result<Committed>> {
        let mut callers = Vec::new();
        for batch in batches {
            let folding = folding.clone();
            callers.push(tokio::spawn(async move { folding.commit(batch).await }));
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        folding.committer().permits.add_permits(100);
        futures_util::future::join_all(callers).await.into_iter().map(|caller| caller.unwrap()).collect()
    }

    #[tokio::test]
    async fn what_waits_is_committed_together_and_each_has_its_own_verdict() {
        let folding = folding(10, None);
        let verdicts =
            commit_all(&folding, vec![put("a", "1"), put("b", "1"), put("a", "2"), put("c", "1")]).await;
        assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, true]);
        assert_eq!(*folding.committer().sizes.lock().unwrap(), [1, 3]);
        while !folding.shared.lanes().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_fold_stays_within_its_limits_but_takes_at_least_one() {
        let folding = folding(2, None);
        let large = "x".repeat(2000).leak();
        let batches = vec![put("a", "1"), put("b", large), put("c", "1"), put("d", "1"), put("e", "1")];
        assert!(commit_all(&folding, batches).await.iter().all(Result::is_ok));
        assert_eq!(*folding.committer().sizes.lock().unwrap(), [1, 1, 2, 1]);
    }

    #[tokio::test]
    async fn after_an_unexpected_error_each_member_is_committed_alone() {
        let folding = folding(10, Some(ErrorKind::Unexpected));
        let verdicts = commit_all(&folding, vec![put("a", "1"), put("b", "1"), put("a", "2")]).await;
        assert_eq!(verdicts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(*folding.committer().sizes.lock().unwrap(), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn what_befalls_the_whole_fold_is_the_answer_to_each_member() {
        for kind in [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown] {
            let folding = folding(10, Some(kind));
            let verdicts = commit_all(&folding, vec![put("a", "1"), put("b", "1"), put("c", "1")]).await;
            let kinds: Vec<_> = verdicts.into_iter().map(|verdict| verdict.err().map(|e| e.kind())).collect();
            assert_eq!(kinds, [None, Some(kind), Some(kind)]);
            assert_eq!(*folding.committer().sizes.lock().unwrap(), [1, 2]);
        }
    }

    #[tokio::test]
    async fn a_committer_that_panics_keeps_nobody_waiting() {
        let folding = folding(1, None);
        let mut panics = put("a", "1");
        panics.check(Key::new("space", "group", "b"), Expect::Absent);
        let verdicts = commit_all(&folding, vec![panics, put("a", "1")]).await;
        let kinds: Vec<_> = verdicts.into_iter().map(|verdict| verdict.err().map(|e| e.kind())).collect();
        assert_eq!(kinds, [Some(ErrorKind::OutcomeUnknown), None]);
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_cancels_nothing() {
        let folding = folding(10, None);
        let impatient = folding.clone();
        let caller = tokio::spawn(async move { impatient.commit(put("a", "1")).await });
        tokio::task::yield_now().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert!(commit_all(&folding, vec![put("a", "2")]).await[0].is_err());
    }

    #[tokio::test]
    async fn what_follows_a_commit_does_so_without_its_caller() {
        let folding = folding(10, None);
        folding.committer().permits.add_permits(2);
        for holds in [true, false] {
            let (told, verdict) = oneshot::channel();
            let then = move |outcome: Result<(), _>| told.send(outcome.is_ok()).unwrap();
            let impatient = folding.clone();
            let caller = tokio::spawn(async move { impatient.commit_then(put("a", "1"), then).await });
            tokio::task::yield_now().await;
            caller.abort();
            assert_eq!(verdict.await, Ok(holds));
        }
    }
}
