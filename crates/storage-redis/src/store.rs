use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use evenkeel_core::fold::{FoldLimits, Folding};
use evenkeel_core::skew::Skew;
use evenkeel_core::{
    AnyStore, Batch, Clock, Committed, JobPage, Jobs, Key, Lease, Leased, Limits, Namespace, Partition, Read,
    Record, RecordPage, Result, Scan, SignalHub, Signals, Slice, Store, StoreInfo, Timestamp,
};
use redis::cluster_routing::Slot;
use uuid::Uuid;

use crate::commit::Committer;
use crate::config::RedisConfig;
use crate::keys::Tag;
use crate::read::Reader;
use crate::server::Server;
use crate::servers::Servers;
use crate::signals::{Listener, Listening};
use crate::{format, queue, sweep};

/// What one batch may hold. A script keeps its server from everything else while it runs.
const LIMITS: Limits = Limits { units: 1_000, bytes: 4_000_000, value: 1024 * 1024 };

/// How much goes into one call of a script.
const FOLD: FoldLimits =
    FoldLimits { batches: 256, units: 1_000, bytes: 1_000_000, in_flight: NonZeroUsize::MIN };

/// How many calls for a partition are under way: the server has the next while the answer to one is read.
/// A connection that waits for replicas or the disk can have no second.
const IN_FLIGHT: NonZeroUsize = NonZeroUsize::new(2).expect("two is not zero");

/// A store in one Redis, or in a cluster. Handles are cheap to clone and share everything.
///
/// Its connections are made when they are needed, and close with the last handle.
///
/// # Limits
/// - An append that is sent again once its events were trimmed and swept is not recognised as applied:
///   where later events follow them it is a `Conflict`. It is not applied twice.
/// - A server that becomes a replica while it is connected refuses commits at once. A process that only
///   reads may read what was so before, until the first call after a minute has had the server asked
///   what it is; with [`unchecked_clock`](RedisConfig::unchecked_clock) it is never asked.
#[derive(Clone, Debug)]
pub struct RedisStore {
    info: Arc<StoreInfo>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: Uuid,
    servers: Arc<Servers>,
    commits: Folding<Committer>,
    listening: Listening,
    skew: Arc<Skew>,
    clock: Arc<dyn Clock>,
}

impl RedisStore {
    /// Opens the store at a URL with the defaults of [`RedisConfig`], which also says what URLs
    /// there are.
    ///
    /// # Errors
    /// Those of [`RedisConfig::open`].
    pub async fn open(url: &str) -> Result<Self> {
        RedisConfig::new(url)?.open().await
    }

    pub(crate) async fn connect(config: RedisConfig) -> Result<Self> {
        config.check()?;
        let mut info = StoreInfo::new("redis", config.partitions_at_first())?;
        let servers = Arc::new(config.servers().await?);
        info.limits = LIMITS;
        info.max_skew = config.max_skew;
        info.durability = format::check(&servers, config.wait).await?;
        let skew = Arc::new(config.skew());
        for server in servers.masters() {
            compare_clocks(&skew, &*config.clock, &server).await?;
            skew.check()?;
        }
        let (id, partitions) = format::open(&servers, &config).await?;
        info.partitions = partitions;
        let prefix: Arc<str> = config.prefix.as_str().into();
        let signals = SignalHub::default();
        let sender = Uuid::new_v4();
        let committer = Committer {
            servers: match config.wait {
                None => Arc::clone(&servers),
                Some(wait) => Arc::new(config.waiting_servers(wait).await?),
            },
            prefix: Arc::clone(&prefix),
            sender,
            wait: config.wait,
            signals: signals.clone(),
        };
        let listener = Listener {
            servers: Arc::clone(&servers),
            prefix,
            partitions,
            sender,
            signals,
            clock: Arc::clone(&config.clock),
        };
        let fold = match config.wait {
            None => FoldLimits { in_flight: IN_FLIGHT, ..FOLD },
            Some(_) => FOLD,
        };
        let shared = Shared {
            id,
            servers,
            commits: Folding::new(committer, fold),
            listening: Listening::new(listener),
            skew,
            clock: config.clock,
        };
        Ok(Self { info: Arc::new(info), shared: Arc::new(shared) })
    }

    /// What tells this store from another.
    pub(crate) fn id(&self) -> Uuid {
        self.shared.id
    }

    pub(crate) fn committer(&self) -> &Committer {
        self.shared.commits.committer()
    }

    pub(crate) fn tag(&self, at: &Partition) -> Tag {
        Tag::new(&self.committer().prefix, at)
    }

    fn reader(&self, at: &Partition) -> Result<Reader<'_>> {
        self.check(at)?;
        Ok(Reader { servers: &self.shared.servers, tag: self.tag(at) })
    }

    /// What every call begins with.
    pub(crate) fn check(&self, at: &Partition) -> Result<()> {
        self.info.check_partition(at)?;
        let shared = &self.shared;
        if shared.skew.is_due() {
            let (skew, clock) = (Arc::clone(&shared.skew), Arc::clone(&shared.clock));
            let (servers, slot) = (Arc::clone(&shared.servers), self.tag(at).slot());
            tokio::spawn(async move {
                if let Err(error) = compare_clocks_at(&servers, slot, &skew, &*clock).await {
                    tracing::debug!(%error, "the clocks were not compared");
                }
                servers.leave_replicas().await;
            });
        }
        shared.skew.check()
    }
}

async fn compare_clocks_at(servers: &Servers, slot: Slot, skew: &Skew, clock: &dyn Clock) -> Result<()> {
    let server = servers.keeper(slot).await?;
    compare_clocks(skew, clock, &server).await
}

async fn compare_clocks(skew: &Skew, clock: &dyn Clock, server: &Server) -> Result<()> {
    let asked = clock.now();
    skew.observe(asked, format::time(server).await?);
    Ok(())
}

#[async_trait]
impl Store for RedisStore {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn namespace(&self, namespace: Namespace) -> Self {
        let info = Arc::new(self.info.with_namespace(namespace));
        Self { info, shared: Arc::clone(&self.shared) }
    }

    async fn get(&self, at: &Partition, now: Timestamp, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        keys.iter().try_for_each(Key::check)?;
        self.reader(at)?.get(now, keys).await
    }

    async fn scan(&self, at: &Partition, scan: Scan) -> Result<RecordPage> {
        scan.check()?;
        self.reader(at)?.scan(&scan).await
    }

    async fn read(&self, at: &Partition, read: Read) -> Result<Slice> {
        read.check()?;
        self.reader(at)?.read(&read).await
    }

    async fn jobs(&self, at: &Partition, want: Jobs) -> Result<JobPage> {
        want.check()?;
        self.reader(at)?.jobs(&want).await
    }

    async fn lease(&self, at: &Partition, want: Lease) -> Result<Leased> {
        want.check()?;
        self.check(at)?;
        queue::lease(&self.shared.servers, &self.tag(at), &want).await
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.validate(&self.info.limits)?;
        self.check(batch.at())?;
        self.shared.commits.commit(batch).await
    }

    async fn sweep(&self, at: &Partition, now: Timestamp, limit: usize) -> Result<usize> {
        self.check(at)?;
        sweep::sweep(&self.shared.servers, &self.tag(at), now - self.info.max_skew, limit).await
    }

    fn signals(&self) -> Signals {
        let signals = self.committer().signals.subscribe();
        self.shared.listening.to(&self.info.namespace);
        signals
    }
}

impl From<RedisStore> for AnyStore {
    fn from(store: RedisStore) -> Self {
        Self::new(store)
    }
}
