use std::sync::Arc;

use async_trait::async_trait;

use crate::batch::{Batch, Committed};
use crate::draft::{Draft, begin_draft, finish_draft};
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::Signals;
use crate::store::{Store, StoreInfo};
use crate::tx::{Transactional, Tx};
use crate::{Namespace, Partition, Result, Timestamp};

/// Any store, erased: the currency between crates. Its door 2 is a [`Draft`].
///
/// Made by [`StoreExt::any`](crate::StoreExt::any), or by `into()` from a store.
#[derive(Clone, Debug)]
pub struct AnyStore {
    store: Arc<dyn Store>,
    info: Arc<StoreInfo>,
}

impl AnyStore {
    /// Erases a store.
    #[must_use]
    pub fn new(store: impl Store) -> Self {
        let info = Arc::new(store.info().clone());
        Self { store: Arc::new(store), info }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for AnyStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let info = Arc::new(self.info.with_namespace(namespace));
        Self { store: Arc::clone(&self.store), info }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.store.get(at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.store.scan(at, scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.store.read(at, read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.store.jobs(at, want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.store.lease(at, want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.store.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.store.sweep(at, now, limit).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl Transactional for AnyStore {
    type Conn = Draft;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<Draft>> {
        Ok(begin_draft(Arc::clone(&self.store), at, now))
    }

    async fn finish(&self, tx: Tx<Draft>) -> Result<Committed> {
        finish_draft(&*self.store, tx).await
    }

    async fn rollback(&self, tx: Tx<Draft>) {
        drop(tx);
    }
}
