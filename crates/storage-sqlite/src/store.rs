use std::sync::Arc;

use async_trait::async_trait;
use evenkeel_core::{
    AnyStore, Batch, Clock, Committed, Durability, Error, ErrorKind, JobPage, Jobs, Key, Lease, Leased,
    Namespace, Partition, Read, Record, RecordPage, Result, Scan, SignalHub, Signals, Slice, Store,
    StoreInfo, Timestamp, Writers,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::config::{Mode, SqliteConfig, Synchronous};
use crate::readers::{Readers, start_thread};
use crate::writer::{Asked, Request, Sweep, Writer, stopped};
use crate::{migrate, read};

/// A store in one SQLite file, or in memory. Handles are cheap to clone and share everything.
///
/// Its writer is a thread that serves all handles, and ends with the last.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    info: Arc<StoreInfo>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: Uuid,
    readers: Readers,
    /// `None` where the file was opened read-only.
    requests: Option<mpsc::UnboundedSender<Request>>,
    signals: SignalHub,
    clock: Arc<dyn Clock>,
}

/// How many units a batch may have. It is judged in memory, where that is no more than a vector.
const MOST_UNITS: usize = 1_000;

impl SqliteStore {
    /// Opens the store at a URL with the defaults of [`SqliteConfig`], which also says what URLs
    /// there are.
    ///
    /// # Errors
    /// Those of [`SqliteConfig::open`].
    pub async fn open(url: &str) -> Result<Self> {
        SqliteConfig::new(url)?.open().await
    }

    pub(crate) async fn connect(config: SqliteConfig) -> Result<Self> {
        let mut info = StoreInfo::new("sqlite", config.partitions)?;
        info.max_skew = config.max_skew;
        info.limits.units = MOST_UNITS;
        info.writers = Writers::One;
        info.durability = match (config.mode(), config.synchronous) {
            (Mode::Memory, _) => Durability::None,
            (_, Synchronous::Full) => Durability::Machine,
            (_, Synchronous::Normal) => Durability::Process,
        };
        let signals = SignalHub::default();
        let clock = Arc::clone(&config.clock);
        let (id, readers, requests) = if config.mode() == Mode::ReadOnlyFile {
            let id = migrate::check(&mut config.inspector().await?, config.partitions).await?;
            (id, Readers::start(config.reader_connections())?, None)
        } else {
            let lent = config.writer_pool().await?;
            let id = migrate::migrate(&lent, config.partitions).await?;
            let readers = Readers::start(config.reader_connections())?;
            let (sender, requests) = mpsc::unbounded_channel();
            let writer = Writer {
                connection: config.writer_connection()?,
                mode: config.mode(),
                level: config.synchronous,
                synchronous: config.synchronous,
                log: config.log(),
                lent,
                readers: readers.clone(),
                signals: signals.clone(),
                clock: Arc::clone(&clock),
                max_hold: config.max_hold,
                requests,
            };
            let runtime = Handle::current();
            start_thread("evenkeel-sqlite", move || runtime.block_on(writer.run()))?;
            (id, readers, Some(sender))
        };
        Ok(Self { info: Arc::new(info), shared: Arc::new(Shared { id, readers, requests, signals, clock }) })
    }

    pub(crate) fn id(&self) -> Uuid {
        self.shared.id
    }

    pub(crate) fn hub(&self) -> &SignalHub {
        &self.shared.signals
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    pub(crate) fn requests(&self) -> Result<&mpsc::UnboundedSender<Request>> {
        self.shared
            .requests
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "the database was opened read-only"))
    }

    async fn ask<W, T>(&self, what: W, request: fn(Asked<W, T>) -> Request) -> Result<T> {
        let (reply, verdict) = oneshot::channel();
        let request = request(Asked { what, reply });
        self.requests()?.send(request).map_err(|_| stopped(ErrorKind::Unavailable))?;
        verdict.await.unwrap_or_else(|_| Err(stopped(ErrorKind::OutcomeUnknown)))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let info = Arc::new(self.info.with_namespace(namespace));
        Self { info, shared: Arc::clone(&self.shared) }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.info.check_partition(at)?;
        keys.iter().try_for_each(Key::check)?;
        let (at, keys) = (at.clone(), keys.to_vec());
        self.shared.readers.ask(move |conn| read::get(conn, &at, now, &keys)).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        self.info.check_partition(at)?;
        scan.check()?;
        let at = at.clone();
        self.shared.readers.ask(move |conn| read::scan(conn, &at, &scan)).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        self.info.check_partition(at)?;
        read.check()?;
        let at = at.clone();
        self.shared.readers.ask(move |conn| read::read(conn, &at, &read)).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        self.info.check_partition(at)?;
        want.check()?;
        let at = at.clone();
        self.shared.readers.ask(move |conn| read::jobs(conn, &at, &want)).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        self.info.check_partition(at)?;
        want.check()?;
        self.ask((at.clone(), want), Request::Lease).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.info.check_partition(batch.at())?;
        batch.validate(&self.info.limits)?;
        self.ask(batch, Request::Commit).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.info.check_partition(at)?;
        let expired_before = now - self.info.max_skew;
        self.ask(Sweep { at: at.clone(), expired_before, limit }, Request::Sweep).await
    }

    fn signals(&self) -> Signals {
        self.shared.signals.subscribe()
    }
}

impl From<SqliteStore> for AnyStore {
    fn from(store: SqliteStore) -> Self {
        Self::new(store)
    }
}
