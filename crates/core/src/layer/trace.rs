use std::sync::Arc;

use async_trait::async_trait;
use tracing::{Instrument, Span, field};

use super::Layer;
use crate::batch::{Batch, Committed};
use crate::clock::{Clock, SystemClock};
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::Signals;
use crate::store::{Store, StoreInfo};
use crate::tx::{Transactional, Tx};
use crate::{AnyStore, Error, Namespace, Partition, Result, Timestamp};

/// A tracing span and two metrics for every call.
///
/// | name | kind | fields or labels |
/// |---|---|---|
/// | `store` | span, level debug | `store`, `call`, `partition`, `outcome` |
/// | `evenkeel_store_calls_total` | counter | `store`, `call`, `outcome` |
/// | `evenkeel_store_call_seconds` | histogram, in seconds | `store`, `call` |
///
/// `call` is the method of the contract, `outcome` is `ok` or the error's kind. The metrics go to
/// the recorder that the application installed for the `metrics` crate; without one they cost
/// next to nothing.
#[derive(Clone, Debug)]
pub struct Trace {
    clock: Arc<dyn Clock>,
}

impl Default for Trace {
    /// Measures by the system clock.
    fn default() -> Self {
        Self { clock: SystemClock::shared() }
    }
}

impl Trace {
    /// Measures by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }
}

impl<S> Layer<S> for Trace {
    type Store = TraceStore<S>;

    fn layer(self, store: S) -> TraceStore<S> {
        TraceStore { store, clock: self.clock }
    }
}

/// A store behind a [`Trace`] layer.
#[derive(Clone, Debug)]
pub struct TraceStore<S> {
    store: S,
    clock: Arc<dyn Clock>,
}

impl<S: Store> TraceStore<S> {
    async fn traced<T>(
        &self,
        call: &'static str,
        at: &Partition,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let store = self.store.info().name;
        let partition = field::display(at);
        let span = tracing::debug_span!("store", store, call, partition, outcome = field::Empty);
        let began = self.clock.now();
        let result = future.instrument(span.clone()).await;
        self.record(store, call, &span, began, result.as_ref().err());
        result
    }

    fn record(
        &self,
        store: &'static str,
        call: &'static str,
        span: &Span,
        began: Timestamp,
        error: Option<&Error>,
    ) {
        let outcome = error.map_or_else(|| "ok".to_owned(), |error| error.kind().to_string());
        span.record("outcome", &outcome);
        let seconds = self.clock.now().since(began).as_secs_f64();
        metrics::counter!("evenkeel_store_calls_total", "store" => store, "call" => call, "outcome" => outcome)
            .increment(1);
        metrics::histogram!("evenkeel_store_call_seconds", "store" => store, "call" => call).record(seconds);
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Store> Store for TraceStore<S> {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), clock: Arc::clone(&self.clock) }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.traced("get", at, self.store.get(at, now, keys)).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.traced("scan", at, self.store.scan(at, scan)).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.traced("read", at, self.store.read(at, read)).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.traced("jobs", at, self.store.jobs(at, want)).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.traced("lease", at, self.store.lease(at, want)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let at = batch.at().clone();
        self.traced("commit", &at, self.store.commit(batch)).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.traced("sweep", at, self.store.sweep(at, now, limit)).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl<S: Transactional> Transactional for TraceStore<S> {
    type Conn = S::Conn;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<S::Conn>> {
        self.store.begin(at, now).await
    }

    async fn finish(&self, tx: Tx<S::Conn>) -> Result<Committed> {
        let at = tx.partition().clone();
        self.traced("finish", &at, self.store.finish(tx)).await
    }

    async fn rollback(&self, tx: Tx<S::Conn>) {
        self.store.rollback(tx).await;
    }
}

impl<S: Store> From<TraceStore<S>> for AnyStore {
    fn from(store: TraceStore<S>) -> Self {
        Self::new(store)
    }
}
