//! What the tests of this crate share.
#![allow(dead_code, reason = "each test target uses a part")]

use evenkeel_core::{
    Batch, Clock, Committed, Expect, Key, NewEvent, Partition, Read, Result, Store, StoreExt, SystemClock,
    Timestamp, partition_index,
};
use evenkeel_storage_pg::{PgConfig, PgStore};
use evenkeel_testkit::services;
pub(crate) use evenkeel_testkit::until;
use futures_util::FutureExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// A schema of its own on a server.
pub(crate) struct Home {
    pub(crate) url: String,
    pub(crate) schema: String,
}

impl Home {
    /// On the server of the test run.
    pub(crate) fn shared() -> Self {
        Self::on(services::pg_url().unwrap())
    }

    pub(crate) fn on(url: String) -> Self {
        Self { url, schema: format!("t_{}", Uuid::new_v4().simple()) }
    }

    pub(crate) fn config(&self) -> PgConfig {
        PgConfig::new(&self.url).unwrap().schema(&self.schema).unwrap().connections(4).transactions(4)
    }

    pub(crate) async fn open(&self) -> PgStore {
        self.config().open().await.unwrap()
    }

    /// A connection that has nothing to do with a store.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs SQL in which `evenkeel.` stands for the schema.
    pub(crate) async fn run(&self, sql: &str) {
        let sql = AssertSqlSafe(self.sql(sql));
        sqlx::raw_sql(sql).execute(&mut self.connect().await).await.unwrap();
    }

    /// The number that such SQL answers with.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(self.sql(sql));
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        sql.replace("evenkeel.", &format!("{}.", self.schema))
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn key(id: &str) -> Key {
    Key::new("test.record", "group", id)
}

pub(crate) fn partition(store: &PgStore) -> Partition {
    store.partition_of("here")
}

pub(crate) fn batch(store: &PgStore) -> Batch {
    Batch::new(partition(store), now())
}

/// A batch that creates one record.
pub(crate) fn claim(store: &PgStore, id: &str) -> Batch {
    let mut batch = batch(store);
    batch.put(key(id), "mine", Expect::Absent);
    batch
}

/// A batch that appends one event.
pub(crate) fn append(store: &PgStore, stream: &str) -> Batch {
    let mut batch = batch(store);
    batch.append_any(stream, [NewEvent::new("Happened", "{}", now())]);
    batch
}

pub(crate) async fn exists(store: &PgStore, id: &str) -> bool {
    store.get(&partition(store), now(), &[key(id)]).await.unwrap()[0].is_some()
}

pub(crate) async fn head(store: &PgStore) -> u64 {
    store.read(&partition(store), Read::partition(0, 1)).await.unwrap().head
}

/// The first of the two numbers of a partition's lock.
const PARTITION_LOCKS: i32 = 1_702_259_537;

/// How many calls a store has under way in a partition.
const IN_FLIGHT: i64 = 2;

/// Has the store commit the batches, which fit into one fold, as one; their verdicts.
pub(crate) async fn commit_as_one_fold(
    home: &Home,
    store: &PgStore,
    batches: &[Batch],
) -> Vec<Result<Committed>> {
    // While the partition is locked, the calls under way wait, and all others gather behind them.
    let at = partition(store);
    let mut gate = home.connect().await;
    let lock = i32::from_ne_bytes(partition_index(&format!("{} {at}", home.schema), u32::MAX).to_ne_bytes());
    run(&mut gate, &format!("SELECT pg_advisory_lock({PARTITION_LOCKS}, {lock})")).await;
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE '%{}%commit_%v1%'",
        home.schema
    );
    let mut fillers = Vec::new();
    for n in 1..=IN_FLIGHT {
        let mut filler = Batch::new(at.clone(), now());
        filler.put(key(&format!("filler {n}")), "", Expect::Any);
        let store = store.clone();
        fillers.push(tokio::spawn(async move { store.commit(filler).await.unwrap() }));
        until("the call waits", async || home.number(&waiting).await == n).await;
    }
    let mut commits: Vec<_> = batches.iter().map(|batch| store.commit(batch.clone())).collect();
    for commit in &mut commits {
        assert!(commit.now_or_never().is_none());
    }
    run(&mut gate, &format!("SELECT pg_advisory_unlock({PARTITION_LOCKS}, {lock})")).await;
    for filler in fillers {
        filler.await.unwrap();
    }
    futures_util::future::join_all(commits).await
}

async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}
