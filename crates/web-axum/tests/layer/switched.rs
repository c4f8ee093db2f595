use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Committed, Draft, Error, ErrorKind, JobPage, Jobs, Key, Lease, Leased, MemoryStore, Namespace,
    Partition, Read, Record, RecordPage, Result, Scan, Signals, Slice, Store, StoreInfo, Timestamp,
    Transactional, Tx,
};

/// A memory store that can be switched off or made to hang, and that counts the transactions begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switched {
    store: MemoryStore,
    pub(crate) off: Arc<AtomicBool>,
    /// Whether reading a record never comes to an end.
    pub(crate) hangs: Arc<AtomicBool>,
    pub(crate) begun: Arc<AtomicUsize>,
}

impl Switched {
    fn on(&self) -> Result<&MemoryStore> {
        if self.off.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "switched off"));
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl Store for Switched {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { store: self.store.namespace(namespace), ..self.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending().await
        }
        self.on()?.get(at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.on()?.scan(at, scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.on()?.read(at, read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.on()?.jobs(at, want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.on()?.lease(at, want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.on()?.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.on()?.sweep(at, now, limit).await
    }

    fn signals(&self) -> Signals {
        self.store.signals()
    }
}

impl Transactional for Switched {
    type Conn = Draft;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<Draft>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.on()?.begin(at, now).await
    }

    async fn finish(&self, tx: Tx<Draft>) -> Result<Committed> {
        self.on()?.finish(tx).await
    }

    async fn rollback(&self, tx: Tx<Draft>) {
        self.store.rollback(tx).await;
    }
}
