use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use evenkeel_core::{
    Batch, Committed, Error, ErrorKind, JobPage, Jobs, Key, Lease, Leased, Namespace, Partition, Read,
    Record, RecordPage, Result, Scan, Signals, Slice, Store, StoreInfo, Timestamp,
};

/// A store whose records of one space cannot be got while its switch is on.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable<S> {
    pub(crate) store: S,
    pub(crate) space: &'static str,
    pub(crate) switch: Arc<AtomicBool>,
}

#[async_trait]
impl<S: Store> Store for Unreadable<S> {
    fn info(&self) -> &StoreInfo {
        self.store.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let (space, switch) = (self.space, Arc::clone(&self.switch));
        Self { store: self.store.namespace(namespace), space, switch }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        if self.switch.load(Ordering::SeqCst) && keys.iter().any(|key| key.space == self.space) {
            return Err(Error::new(ErrorKind::Corrupt, "a page cannot be read"));
        }
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
