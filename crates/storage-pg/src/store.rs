use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use evenkeel_core::fold::{FoldLimits, Folding};
use evenkeel_core::skew::Skew;
use evenkeel_core::{
    AnyStore, Batch, Committed, Durability, Error, ErrorKind, JobPage, Jobs, Key, Lease, Leased, Namespace,
    Partition, Read, Record, RecordPage, Result, Scan, Signals, Slice, Store, StoreInfo, Timestamp, Writers,
};
use uuid::Uuid;

use crate::commit::Committer;
use crate::config::PgConfig;
use crate::connections::Connections;
use crate::database::Database;
use crate::rows::column;
use crate::signals::Announcer;
use crate::{migrate, queue, read, sweep};

/// A store in a PostgreSQL schema. Handles are cheap to clone and share their connections.
#[derive(Clone, Debug)]
pub struct PgStore {
    info: Arc<StoreInfo>,
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: Uuid,
    pub(crate) database: Arc<Database>,
    pub(crate) announcer: Arc<Announcer>,
    /// The connections of door 2.
    pub(crate) transactions: Arc<Connections>,
    pub(crate) max_hold: std::time::Duration,
    folding: Folding<Committer>,
}

/// How much goes into one call of the commit function. Two of a partition may be under way: one is
/// judged and written while the other waits for the disk.
const FOLD: FoldLimits = FoldLimits {
    batches: 128,
    units: 2_000,
    bytes: 512_000,
    in_flight: NonZeroUsize::new(2).expect("two is not zero"),
};

/// How many units a batch may have: as many as keep a call of the commit function short.
const MOST_UNITS: usize = 500;

impl PgStore {
    /// Opens the store at a URL with the defaults of [`PgConfig`].
    ///
    /// # Errors
    /// Those of [`PgConfig::open`].
    pub async fn open(url: &str) -> Result<Self> {
        PgConfig::new(url)?.open().await
    }

    pub(crate) async fn connect(config: PgConfig) -> Result<Self> {
        let mut info = StoreInfo::new("pg", config.partitions)?;
        info.max_skew = config.max_skew;
        info.limits.units = MOST_UNITS;
        info.writers = Writers::Many;
        let skew = if config.checks_clock() {
            Skew::at_most(config.max_skew, Arc::clone(&config.clock))
        } else {
            Skew::unchecked(Arc::clone(&config.clock))
        };
        let database = Arc::new(Database {
            connections: config.connections_for_calls(),
            protocol: config.protocol,
            schema: config.schema.clone(),
            clock: Arc::clone(&config.clock),
            skew,
            statement_timeout: config.statement_timeout,
        });
        info.durability = check_server(&database).await?;
        let id = migrate::migrate(&database, config.partitions).await?;
        database.compare_clocks().await?;
        database.skew.check()?;
        let announcer = Arc::new(Announcer::new(Arc::clone(&database), config.listener_pool()));
        let committer = Committer { database: Arc::clone(&database), announcer: Arc::clone(&announcer) };
        let shared = Shared {
            id,
            database,
            announcer,
            transactions: config.connections_for_transactions(),
            max_hold: config.max_hold,
            folding: Folding::new(committer, FOLD),
        };
        Ok(Self { info: Arc::new(info), shared: Arc::new(shared) })
    }

    /// The database, for a call about the partition `at`.
    fn database(&self, at: &Partition) -> Result<&Database> {
        self.info.check_partition(at)?;
        self.shared.database.check_clock()?;
        Ok(&self.shared.database)
    }
}

/// Refuses a server that cannot keep the contract; what it keeps data through.
async fn check_server(database: &Database) -> Result<Durability> {
    let sql = "SELECT current_setting('server_version_num')::integer AS version, \
        current_setting('server_encoding') AS encoding, \
        current_setting('transaction_isolation') AS isolation, \
        current_setting('fsync') AS fsync, \
        current_setting('synchronous_commit') AS synchronous_commit";
    let found = database.query(database.statement(sql), "connecting").await?;
    let row = found.first().ok_or_else(|| Error::new(ErrorKind::Unexpected, "the server has no settings"))?;
    let refused = |message, setting: &str| {
        Err(Error::new(ErrorKind::Config, message).with("found", format_args!("{setting:?}")))
    };
    let version: i32 = column(row, "version")?;
    if version < 140_000 {
        return refused("PostgreSQL 14 or later is needed", &version.to_string());
    }
    let encoding: &str = column(row, "encoding")?;
    if encoding != "UTF8" {
        return refused("the database's encoding has to be UTF8", encoding);
    }
    let isolation: &str = column(row, "isolation")?;
    if !isolation.starts_with("read ") {
        return refused("the role's default_transaction_isolation has to be read committed", isolation);
    }
    let (fsync, synchronous_commit): (&str, &str) =
        (column(row, "fsync")?, column(row, "synchronous_commit")?);
    Ok(if fsync == "on" && synchronous_commit != "off" { Durability::Machine } else { Durability::Process })
}

#[async_trait]
impl Store for PgStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let info = Arc::new(self.info.with_namespace(namespace));
        Self { info, shared: Arc::clone(&self.shared) }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        keys.iter().try_for_each(Key::check)?;
        read::get(self.database(at)?, at, now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        scan.check()?;
        read::scan(self.database(at)?, at, &scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        read.check()?;
        read::read(self.database(at)?, at, &read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        want.check()?;
        read::jobs(self.database(at)?, at, &want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        want.check()?;
        queue::lease(self.database(at)?, at, &want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.validate(&self.info.limits)?;
        self.database(batch.at())?;
        self.shared.folding.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        sweep::sweep(self.database(at)?, at, now - self.info.max_skew, limit).await
    }

    fn signals(&self) -> Signals {
        self.shared.announcer.subscribe()
    }
}

impl From<PgStore> for AnyStore {
    fn from(store: PgStore) -> Self {
        Self::new(store)
    }
}
