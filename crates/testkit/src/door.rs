use async_trait::async_trait;
use evenkeel_core::layer::{Around, AroundStore, Call};
use evenkeel_core::{
    Batch, Committed, JobPage, Jobs, Key, Lease, Leased, Namespace, Partition, Read, Record, RecordPage,
    Result, Scan, Signals, Slice, Store, StoreInfo, Timestamp, Transactional,
};

/// A store whose commits go through door 2: each begins a transaction, takes its connection, and
/// finishes it with the batch.
#[derive(Clone, Debug)]
pub struct ViaTx<S>(pub S);

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: Transactional> Store for ViaTx<S> {
    fn info(&self) -> &StoreInfo {
        self.0.info()
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self(self.0.namespace(namespace))
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.0.get(at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.0.scan(at, scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.0.read(at, read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.0.jobs(at, want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.0.lease(at, want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let mut tx = self.0.begin(batch.at().clone(), batch.now()).await?;
        tx.conn().await?;
        *tx.batch() = batch;
        self.0.finish(tx).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.0.sweep(at, now, limit).await
    }

    fn signals(&self) -> Signals {
        self.0.signals()
    }
}

/// A layer that adds nothing: what a store does, it does behind a layer too.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassThrough;

impl Around for PassThrough {
    async fn call<T: Send>(&self, _: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        made.await
    }
}

/// A store behind a [`PassThrough`] layer.
pub type PassThroughStore<S> = AroundStore<S, PassThrough>;
