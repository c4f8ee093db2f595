use std::fmt;

use clap::ValueEnum;
use evenkeel::core::{AnyStore, MemoryStore, StoreExt, Timestamp, Transactional};
use evenkeel::dynamo::{DynamoConfig, DynamoStore, TableOptions};
use evenkeel::pg::PgStore;
use evenkeel::redis::RedisStore;
use evenkeel::sqlite::SqliteStore;
use evenkeel_testkit::services::{Dynamo, Postgres, Redis};
use serde::Serialize;
use tempfile::TempDir;

use crate::limit::pgbench::PgBench;
use crate::limit::redis_benchmark::RedisBenchmark;
use crate::limit::{plain_dynamo, plain_sql};
use crate::measure::Load;
use crate::work::Work;
use crate::{Result, calls};

/// A store's one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreName {
    Memory,
    Sqlite,
    Pg,
    Redis,
    Dynamo,
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value().expect("no store is hidden");
        f.pad(name.get_name())
    }
}

/// What a store and its limit run on, for as long as they are measured.
pub(crate) enum Server {
    Memory,
    /// A file of its own for each run.
    Sqlite,
    Pg {
        postgres: Postgres,
        pgbench: PgBench,
    },
    Redis {
        redis: Redis,
        benchmark: RedisBenchmark,
    },
    /// An emulator of its own for each run.
    Dynamo,
}

impl Server {
    pub(crate) async fn start(store: StoreName) -> Result<Self> {
        Ok(match store {
            StoreName::Memory => Self::Memory,
            StoreName::Sqlite => Self::Sqlite,
            StoreName::Pg => {
                let postgres = Postgres::start()?;
                let pgbench = PgBench::of(postgres.url()).await?;
                Self::Pg { postgres, pgbench }
            }
            StoreName::Redis => {
                let redis = Redis::start(&[])?;
                let benchmark = RedisBenchmark::of(redis.port());
                Self::Redis { redis, benchmark }
            }
            StoreName::Dynamo => Self::Dynamo,
        })
    }

    /// What the numbers depend on.
    pub(crate) const fn conditions(&self) -> &'static str {
        match self {
            Self::Memory => "in the process",
            Self::Sqlite => "synchronous=FULL; the limit is plain SQL",
            Self::Pg { .. } => "a private server with its defaults (fsync on); the limit is pgbench",
            Self::Redis { .. } => "a private server that keeps nothing on disk; the limit is redis-benchmark",
            Self::Dynamo => "an emulator in this process, over HTTP; the limit is plain requests to it",
        }
    }

    /// A store with nothing in it.
    pub(crate) async fn empty(&self) -> Result<Empty> {
        let (mut folder, mut emulator) = (None, None);
        let store = match self {
            Self::Memory => MemoryStore::new().any(),
            Self::Sqlite => SqliteStore::open(&sqlite_url(folder.insert(TempDir::new()?))).await?.any(),
            Self::Pg { postgres, pgbench } => {
                pgbench.clear().await?;
                PgStore::open(&postgres.url()).await?.any()
            }
            Self::Redis { redis, benchmark } => {
                benchmark.clear().await?;
                RedisStore::open(&redis.url()).await?.any()
            }
            Self::Dynamo => dynamo_store(emulator.insert(Dynamo::start()?)).await?.any(),
        };
        Ok(Empty { store, _folder: folder, _emulator: emulator })
    }

    /// How often a second evenkeel does the work, on a store with nothing in it.
    pub(crate) async fn rate(&self, work: Work, load: Load) -> Result<f64> {
        match self {
            Self::Memory => calls::rate(MemoryStore::new(), work, load).await,
            Self::Sqlite => {
                let folder = TempDir::new()?;
                let store = SqliteStore::open(&sqlite_url(&folder)).await?;
                let mut tx = store.begin(store.partition_of("setup"), Timestamp::EPOCH).await?;
                sqlx::query(plain_sql::EFFECT).execute(tx.conn().await?).await?;
                store.finish(tx).await?;
                calls::rate(store, work, load).await
            }
            Self::Pg { postgres, pgbench } => {
                pgbench.clear().await?;
                calls::rate(PgStore::open(&postgres.url()).await?, work, load).await
            }
            Self::Redis { redis, benchmark } => {
                benchmark.clear().await?;
                calls::rate(RedisStore::open(&redis.url()).await?.any(), work, load).await
            }
            Self::Dynamo => {
                let emulator = Dynamo::start()?;
                calls::rate(dynamo_store(&emulator).await?.any(), work, load).await
            }
        }
    }

    /// How often a second the work is done by hand; `None` where nothing is beneath the store.
    pub(crate) async fn limit(&self, work: Work, load: Load) -> Result<Option<f64>> {
        Ok(Some(match self {
            Self::Memory => return Ok(None),
            Self::Sqlite => plain_sql::rate(work, load).await?,
            Self::Pg { pgbench, .. } => pgbench.rate(work, load).await?,
            Self::Redis { benchmark, .. } => benchmark.rate(work, load).await?,
            Self::Dynamo => {
                let emulator = Dynamo::start()?;
                plain_dynamo::rate(dynamo_store(&emulator).await?.client(), work, load).await?
            }
        }))
    }
}

/// A store, and what only it is kept in.
pub(crate) struct Empty {
    pub(crate) store: AnyStore,
    _folder: Option<TempDir>,
    _emulator: Option<Dynamo>,
}

pub(crate) fn sqlite_url(folder: &TempDir) -> String {
    format!("sqlite://{}", folder.path().join("store.db").display())
}

async fn dynamo_store(emulator: &Dynamo) -> Result<DynamoStore> {
    let config = DynamoConfig::new(&format!("dynamo://bench?endpoint={}", emulator.url()))?;
    config.create_table(&TableOptions::new()).await?;
    Ok(config.open().await?)
}
