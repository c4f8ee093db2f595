use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};

use super::Layer;
use crate::batch::{Batch, Committed};
use crate::clock::{Clock, SystemClock};
use crate::error::RetryHint;
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::Signals;
use crate::store::{Store, StoreInfo};
use crate::tx::{Transactional, Tx};
use crate::{AnyStore, Error, ErrorKind, Namespace, Partition, Result, Timestamp};

/// Repeats calls that failed for a passing reason, with exponential back-off and jitter.
///
/// - `Unavailable` means that nothing was written: every call is repeated.
/// - `OutcomeUnknown` of a commit: a [fenced](Batch::is_fenced) batch is sent again, id and all,
///   which does not apply it twice; any other error is the caller's to judge.
/// - A transaction of door 2 is not repeated, since the user's writes are gone with it.
/// - A retry hint with a delay is honoured where it is longer than the back-off.
#[derive(Clone, Debug)]
pub struct Retry {
    clock: Arc<dyn Clock>,
    times: usize,
    min_delay: Duration,
    max_delay: Duration,
}

impl Default for Retry {
    /// Up to 5 repetitions, 10 ms apart at first and 1 s at most, by the system clock.
    fn default() -> Self {
        Self {
            clock: SystemClock::shared(),
            times: 5,
            min_delay: Duration::from_millis(10),
            max_delay: Duration::from_secs(1),
        }
    }
}

impl Retry {
    /// Sleeps on this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How often a call is repeated at most.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// The first delay and the longest.
    #[must_use]
    pub fn delays(mut self, min: Duration, max: Duration) -> Self {
        (self.min_delay, self.max_delay) = (min, max);
        self
    }

    async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        mut call: impl FnMut() -> F,
        may_repeat: impl Fn(&Error) -> bool,
    ) -> Result<T> {
        let mut delays = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(self.min_delay)
            .with_max_delay(self.max_delay)
            .with_max_times(self.times)
            .build();
        loop {
            let error = match call().await {
                Err(error) if may_repeat(&error) => error,
                result => return result,
            };
            let Some(delay) = delays.next() else { return Err(error) };
            let delay = match error.retry() {
                RetryHint::Never => return Err(error),
                RetryHint::Now => delay,
                RetryHint::After(at_least) => delay.max(at_least),
            };
            tracing::debug!(%error, ?delay, "repeating a store call");
            self.clock.sleep(delay).await;
        }
    }
}

fn wrote_nothing(error: &Error) -> bool {
    error.kind() == ErrorKind::Unavailable
}

impl<S> Layer<S> for Retry {
    type Store = RetryStore<S>;

    fn layer(self, store: S) -> RetryStore<S> {
        RetryStore { store, retry: self }
    }
}

/// A store behind a [`Retry`] layer.
#[derive(Clone, Debug)]
pub struct RetryStore<S> {
    store: S,
    retry: Retry,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Store> Store for RetryStore<S> {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), retry: self.retry.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.retry.run(|| self.store.get(at, now, keys), wrote_nothing).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.retry.run(|| self.store.scan(at, scan.clone()), wrote_nothing).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.retry.run(|| self.store.read(at, read.clone()), wrote_nothing).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.retry.run(|| self.store.jobs(at, want.clone()), wrote_nothing).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.retry.run(|| self.store.lease(at, want.clone()), wrote_nothing).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let may_repeat = |error: &Error| match error.kind() {
            ErrorKind::Unavailable => true,
            ErrorKind::OutcomeUnknown => batch.is_fenced(),
            _ => false,
        };
        self.retry.run(|| self.store.commit(batch.clone()), may_repeat).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.retry.run(|| self.store.sweep(at, now, limit), wrote_nothing).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl<S: Transactional> Transactional for RetryStore<S> {
    type Conn = S::Conn;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<S::Conn>> {
        self.store.begin(at, now).await
    }

    async fn finish(&self, tx: Tx<S::Conn>) -> Result<Committed> {
        self.store.finish(tx).await
    }

    async fn rollback(&self, tx: Tx<S::Conn>) {
        self.store.rollback(tx).await;
    }
}

impl<S: Store> From<RetryStore<S>> for AnyStore {
    fn from(store: RetryStore<S>) -> Self {
        Self::new(store)
    }
}
