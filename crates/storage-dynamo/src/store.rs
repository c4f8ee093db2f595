use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use evenkeel_core::fold::{FoldLimits, Folding};
use evenkeel_core::{
    AnyStore, Batch, Committed, Durability, JobPage, Jobs, Key, Lease, Leased, Limits, Namespace, Partition,
    Read, Record, RecordPage, Result, Scan, SignalHub, Signals, Slice, Store, StoreInfo, Timestamp,
};

use crate::client::Dynamo;
use crate::commit::Committer;
use crate::config::{DynamoConfig, Expiry};
use crate::hints::AllHints;
use crate::{identity, queue, read, sweep, table};

/// What is folded into one physical commit: never more than a transaction holds.
const FOLD: FoldLimits = FoldLimits {
    batches: 64,
    units: Limits::MIN.units,
    bytes: Limits::MIN.bytes,
    in_flight: NonZeroUsize::new(4).expect("4 is not 0"),
};

/// How old a payload apart from its job is before it is asked whether the job refers to it: by then
/// nearly every commit is through, and nearly every lease has ended.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(10 * 60);

/// A store in one DynamoDB table. Handles are cheap to clone and share everything.
///
/// Its [`signals`](Store::signals) tell of what is committed through the same handle and its clones;
/// what other processes commit is found by polling.
#[derive(Clone, Debug)]
pub struct DynamoStore {
    info: Arc<StoreInfo>,
    commits: Folding<Committer>,
    expiry: Expiry,
}

impl DynamoStore {
    /// Opens the store at a URL with the defaults of [`DynamoConfig`], which also says what URLs
    /// there are.
    ///
    /// # Errors
    /// Those of [`DynamoConfig::open`].
    pub async fn open(url: &str) -> Result<Self> {
        DynamoConfig::new(url)?.open().await
    }

    pub(crate) async fn connect(config: &DynamoConfig) -> Result<Self> {
        let mut info = StoreInfo::new("dynamo", config.partitions)?;
        info.max_skew = config.max_skew;
        info.durability = Durability::Machine;
        let dynamo = Arc::new(config.dynamo().await);
        identity::verify(&dynamo, config.partitions).await?;
        dynamo.skew.check()?;
        if config.expiry == Expiry::Native {
            table::check_time_to_live(&dynamo).await?;
        }
        let committer = Committer {
            dynamo,
            hints: Arc::new(AllHints::default()),
            signals: SignalHub::default(),
            reclaim: (config.expiry == Expiry::Native).then_some(config.max_skew),
        };
        let commits = Folding::new(committer, FOLD);
        Ok(Self { info: Arc::new(info), commits, expiry: config.expiry })
    }

    /// The client that it makes requests with, for requests of the user's own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.dynamo().client
    }

    /// The name of its table.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.dynamo().table
    }

    pub(crate) fn dynamo(&self) -> &Arc<Dynamo> {
        &self.committer().dynamo
    }

    pub(crate) fn committer(&self) -> &Committer {
        self.commits.committer()
    }

    /// Checks what can be checked before a commit is sent.
    pub(crate) fn check(&self, batch: &Batch) -> Result<()> {
        self.info.check_partition(batch.at())?;
        batch.validate(&self.info.limits)?;
        self.dynamo().skew.check()
    }

    fn at(&self, at: &Partition) -> Result<&Dynamo> {
        self.info.check_partition(at)?;
        self.dynamo().skew.check()?;
        Ok(self.dynamo())
    }
}

#[async_trait]
impl Store for DynamoStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        Self { info: Arc::new(self.info.with_namespace(namespace)), ..self.clone() }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        keys.iter().try_for_each(Key::check)?;
        read::get(self.at(at)?, at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        scan.check()?;
        read::scan(self.at(at)?, at, &scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        read.check()?;
        read::read(self.at(at)?, at, &read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        want.check()?;
        read::jobs(self.at(at)?, at, &want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        want.check()?;
        queue::lease(self.at(at)?, at, &want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.check(&batch)?;
        self.commits.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        let dynamo = self.at(at)?;
        let events = sweep::events(dynamo, at, limit).await?;
        let swept = events + sweep::payloads(dynamo, at, now - LEFT_OVER_AFTER, limit - events).await?;
        match self.expiry {
            Expiry::Native => Ok(swept),
            Expiry::Swept => {
                let records = sweep::records(dynamo, at, now - self.info.max_skew, limit - swept).await?;
                Ok(swept + records)
            }
        }
    }

    fn signals(&self) -> Signals {
        self.committer().signals.subscribe()
    }
}

impl From<DynamoStore> for AnyStore {
    fn from(store: DynamoStore) -> Self {
        Self::new(store)
    }
}
