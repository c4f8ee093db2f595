use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Batch, Clock, Expect, Partition, Record, Scan, Store, StoreExt, Timestamp};

use crate::engine::{Engine, Idempotency};
use crate::error::Result;
use crate::operation::Place;
use crate::record::{Pointer, Sight};
use crate::send::{Insist, Sent, send};
use crate::state::{Ending, Failure, INDEX, INDEX_SPACE, padded};
use crate::{Status, Tracked};

/// Keeps house: fails operations that nobody will finish, and makes room.
///
/// Every call is bounded by the number of operations that it changes, may run at any time in any
/// number of processes, and leaves alone whatever changes under its hands.
#[derive(Clone, Debug)]
pub struct Maintenance<S> {
    engine: Arc<Engine<S>>,
    every: Duration,
    limit: usize,
}

/// When operations that have ended are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpired {
    /// A retention after their expiration: a finished one replays until then.
    Retain,
    /// As soon as they are expired and maintenance comes by. What ends is listed by its expiration
    /// for that, which writes one record more when it ends.
    Delete,
}

/// What one round of maintenance did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Maintained {
    /// Running operations beyond their timeout that are now failed.
    pub timed_out: usize,
    /// Running operations beyond their expiration that are now failed.
    pub expired: usize,
    /// Operations that were deleted because they are expired.
    pub deleted: usize,
    /// Records that the store reclaimed.
    pub swept: usize,
}

/// How many entries of the index are read at once.
const PAGE: usize = 100;

impl<S: Store + Clone> Idempotency<S> {
    /// The housekeeping of this handle's store; see [`Maintenance::run`].
    #[must_use]
    pub fn maintenance(&self) -> Maintenance<S> {
        Maintenance { engine: Arc::clone(&self.engine), every: Duration::from_mins(1), limit: 1000 }
    }
}

impl<S: Store + Clone> Maintenance<S> {
    /// How long to rest between two rounds; a minute by default.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// How many operations each call of a round changes at most; 1,000 by default.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Goes one round at once and another after every rest, until `shutdown` completes; a round
    /// that has begun is brought to its end. A failing store is logged and tried again.
    ///
    /// Dropping the future ends it at any point, without harm.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let clock = Arc::clone(&self.engine.settings.clock);
        loop {
            match self.run_once(self.limit).await {
                Ok(done) => tracing::debug!(?done, "maintained"),
                Err(error) => tracing::warn!(%error, "a round of maintenance was cut short"),
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = clock.sleep(self.every) => {}
            }
        }
    }

    /// Goes one round: every other call once, each with this limit.
    ///
    /// # Errors
    /// `Store`; what was done stays done.
    pub async fn run_once(&self, limit: usize) -> Result<Maintained> {
        let timed_out = self.fail_timed_out(limit).await?;
        let expired = self.fail_expired(limit).await?;
        let deleted = self.delete_expired_finished(limit).await? + self.delete_expired_failed(limit).await?;
        let swept = self.sweep(limit).await?;
        Ok(Maintained { timed_out, expired, deleted, swept })
    }

    /// Fails running operations that have reached their timeout, at most `limit`.
    ///
    /// # Errors
    /// `Store`.
    pub async fn fail_timed_out(&self, limit: usize) -> Result<usize> {
        let message = "the attempt reached its timeout, and its owner did not say so";
        self.fail_running(limit, message, |it, now| it.renewable_until() <= now).await
    }

    /// Fails running operations that have expired and whose lease has lapsed, at most `limit`.
    ///
    /// # Errors
    /// `Store`.
    pub async fn fail_expired(&self, limit: usize) -> Result<usize> {
        let message = "the operation expired while it ran, and its owner did not say so";
        self.fail_running(limit, message, |it, now| it.is_expired(now) && it.lease_until <= now).await
    }

    /// Deletes finished operations that have expired, at most `limit`, of those that ended under
    /// [`OnExpired::Delete`].
    ///
    /// # Errors
    /// `Store`.
    pub async fn delete_expired_finished(&self, limit: usize) -> Result<usize> {
        self.delete_expired(Status::Finished, limit).await
    }

    /// Deletes failed operations that have expired, at most `limit`, of those that ended under
    /// [`OnExpired::Delete`].
    ///
    /// # Errors
    /// `Store`.
    pub async fn delete_expired_failed(&self, limit: usize) -> Result<usize> {
        self.delete_expired(Status::Failed, limit).await
    }

    /// Has the store reclaim what is past its retention, at most `limit` records of each
    /// partition, of the second store too.
    ///
    /// # Errors
    /// `Store`.
    pub async fn sweep(&self, limit: usize) -> Result<usize> {
        let Engine { store, settings, .. } = &*self.engine;
        let now = self.engine.now();
        let mut swept = sweep_all(store, now, limit).await?;
        if let Some(offload) = &settings.offload {
            swept += sweep_all(offload.store(), now, limit).await?;
        }
        Ok(swept)
    }

    async fn fail_running(
        &self,
        limit: usize,
        message: &str,
        is_over: impl Fn(&Tracked, Timestamp) -> bool,
    ) -> Result<usize> {
        let failure = Failure { ending: Ending::Interrupted, message };
        let mut failed = 0;
        for at in self.engine.store.partitions() {
            let mut entries = Entries::new(&self.engine, at, Status::Running, None);
            while failed < limit
                && let Some((entry, place)) = entries.next().await?
            {
                match self.engine.look(&place).await? {
                    Some(Sight { tracked, .. }) if tracked.status != Status::Running => {}
                    Some(sight) if is_over(&sight.tracked, self.engine.now()) => {
                        failed += usize::from(self.engine.fail(&place, &sight, failure).await?.is_some());
                    }
                    Some(_) => {}
                    // Its owner and its record are gone; only the entry is left.
                    None => drop(self.forget(&entry, &place, Status::Running, None).await?),
                }
            }
        }
        Ok(failed)
    }

    async fn delete_expired(&self, status: Status, limit: usize) -> Result<usize> {
        let now = self.engine.now();
        let mut deleted = 0;
        for at in self.engine.store.partitions() {
            let expired = Some(padded(now + Duration::from_micros(1)));
            let mut entries = Entries::new(&self.engine, at, status, expired);
            while deleted < limit
                && let Some((entry, place)) = entries.next().await?
            {
                let sight = self.engine.look(&place).await?;
                let listed = |sight: &Sight| sight.tracked.status == status && sight.tracked.is_expired(now);
                let sight = sight.filter(listed);
                deleted += self.forget(&entry, &place, status, sight.as_ref()).await?;
            }
        }
        Ok(deleted)
    }

    /// Removes an entry of the index with the operation that it stands for, where that is still as
    /// it was seen. Returns how many operations went.
    async fn forget(
        &self,
        entry: &str,
        place: &Place,
        status: Status,
        sight: Option<&Sight>,
    ) -> Result<usize> {
        let mut batch = Batch::new(place.at.clone(), self.engine.now());
        match sight {
            Some(sight) => batch.delete(place.key.clone(), Expect::Version(sight.version)),
            None => batch.check(place.key.clone(), Expect::Absent),
        };
        INDEX.leave(&mut batch, status.group(), entry);
        let clock: &dyn Clock = &*self.engine.settings.clock;
        let sent = send(&self.engine.store, clock, place, batch, Insist::OnOutcome).await?;
        Ok(usize::from(sight.is_some() && matches!(sent, Sent::Applied)))
    }
}

async fn sweep_all(store: &impl Store, now: Timestamp, limit: usize) -> Result<usize> {
    let mut swept = 0;
    for at in store.partitions() {
        swept += store.sweep(&at, now, limit).await?;
    }
    Ok(swept)
}

/// The entries of one status in one partition, page by page.
struct Entries<'a, S> {
    engine: &'a Engine<S>,
    at: Partition,
    scan: Scan,
    page: std::vec::IntoIter<(String, Record)>,
    at_end: bool,
}

impl<'a, S: Store + Clone> Entries<'a, S> {
    fn new(engine: &'a Engine<S>, at: Partition, status: Status, until: Option<String>) -> Self {
        let scan = Scan { until, ..Scan::new(INDEX_SPACE, status.group(), PAGE, engine.now()) };
        Self { engine, at, scan, page: Vec::new().into_iter(), at_end: false }
    }

    /// The next entry's id, and the place of the operation.
    async fn next(&mut self) -> Result<Option<(String, Place)>> {
        loop {
            if let Some((id, record)) = self.page.next() {
                let hash = id.rsplit('.').next().unwrap_or(&id);
                let place = Pointer::place(&self.at, hash, &record)?;
                return Ok(Some((id, place)));
            }
            if self.at_end {
                return Ok(None);
            }
            let page = self.engine.store.scan(&self.at, self.scan.clone()).await?;
            self.at_end = page.cursor.is_none();
            self.scan.after = page.cursor;
            self.page = page.records.into_iter();
        }
    }
}
