mod partition;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::partition::PartitionState;
use crate::any::AnyStore;
use crate::batch::{Batch, Committed};
use crate::draft::{Draft, begin_draft, finish_draft};
use crate::log::{Read, Slice};
use crate::queue::{JobPage, Jobs, Lease, Leased};
use crate::record::{Key, Record, RecordPage, Scan};
use crate::signal::{SignalHub, Signals};
use crate::store::{Store, StoreInfo};
use crate::tx::{Transactional, Tx};
use crate::{Namespace, Partition, Result, Timestamp, judge};

/// Keeps everything in memory: the executable specification of the contract, and a store for tests
/// and caches. Everything is gone with the last handle.
///
/// ```
/// # use evenkeel_core::{Batch, Expect, Key, MemoryStore, Store, StoreExt, Timestamp};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> evenkeel_core::Result<()> {
/// # let now = Timestamp::EPOCH;
/// let store = MemoryStore::new();
/// let at = store.partition_of("order-17");
/// let key = Key::new("shop.order", "open", "17");
///
/// let mut batch = Batch::new(at.clone(), now);
/// batch.put(key.clone(), "mine", Expect::Absent);
/// store.commit(batch).await?;
///
/// // Claim it or see who has it, in one call.
/// let mut batch = Batch::new(at, now);
/// batch.put(key, "yours", Expect::Absent);
/// let conflict = store.commit(batch).await.unwrap_err().into_conflict()?;
/// println!("{:?}", conflict.found);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    info: Arc<StoreInfo>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    partitions: RwLock<HashMap<Partition, Arc<Mutex<PartitionState>>>>,
    signals: SignalHub,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// A store with one partition.
    #[must_use]
    pub fn new() -> Self {
        Self::with_partitions(1).expect("one partition is a valid count")
    }

    /// A store with this many partitions.
    ///
    /// # Errors
    /// `Config` where the count is not within 1 to 65,536.
    pub fn with_partitions(partitions: u32) -> Result<Self> {
        Ok(Self { info: Arc::new(StoreInfo::new("memory", partitions)?), shared: Arc::default() })
    }

    /// Lets `sweep` reclaim only what expired this much earlier; 30 s by default. For this handle
    /// and those made from it.
    #[must_use]
    pub fn max_skew(mut self, max_skew: Duration) -> Self {
        Arc::make_mut(&mut self.info).max_skew = max_skew;
        self
    }

    fn partition(&self, at: &Partition) -> Result<Arc<Mutex<PartitionState>>> {
        self.info.check_partition(at)?;
        let known = self.shared.partitions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = known.get(at) {
            return Ok(Arc::clone(state));
        }
        drop(known);
        let mut known = self.shared.partitions.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(known.entry(at.clone()).or_default()))
    }
}

fn lock(state: &Mutex<PartitionState>) -> MutexGuard<'_, PartitionState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for MemoryStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let info = Arc::new(self.info.with_namespace(namespace));
        Self { info, shared: Arc::clone(&self.shared) }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        keys.iter().try_for_each(Key::check)?;
        let state = self.partition(at)?;
        let state = lock(&state);
        Ok(keys.iter().map(|key| state.live(key, now).cloned()).collect())
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        scan.check()?;
        Ok(lock(&*self.partition(at)?).scan(&scan))
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        read.check()?;
        lock(&*self.partition(at)?).read(&read)
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        want.check()?;
        Ok(lock(&*self.partition(at)?).jobs(&want))
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        want.check()?;
        Ok(lock(&*self.partition(at)?).lease(&want))
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.validate(&self.info.limits)?;
        let state = self.partition(batch.at())?;
        let committed = judge::commit(&mut *lock(&state), &batch)?;
        self.shared.signals.committed(&batch);
        Ok(committed)
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        Ok(lock(&*self.partition(at)?).sweep(now - self.info.max_skew, limit))
    }

    fn signals(&self) -> Signals {
        self.shared.signals.subscribe()
    }
}

impl Transactional for MemoryStore {
    type Conn = Draft;

    async fn begin(&self, at: Partition, now: Timestamp) -> Result<Tx<Draft>> {
        Ok(begin_draft(Arc::new(self.clone()), at, now))
    }

    async fn finish(&self, tx: Tx<Draft>) -> Result<Committed> {
        finish_draft(self, tx).await
    }

    async fn rollback(&self, tx: Tx<Draft>) {
        drop(tx);
    }
}

impl From<MemoryStore> for AnyStore {
    fn from(store: MemoryStore) -> Self {
        Self::new(store)
    }
}
