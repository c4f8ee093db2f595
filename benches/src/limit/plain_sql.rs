//! What a careful team would write by hand: plain tables, one prepared writing connection, each
//! statement a transaction of its own unless a row of the user's is to go with it, readers of their
//! own. Same file settings as the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr, SqlStr, SqliteConnection, SqlitePool};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::Result;
use crate::calls::{Effects, fresh_key};
use crate::measure::{self, Load};
use crate::work::{ANSWER, KIND, STREAMS, VALUE, Work, finished};

const TABLES: &str = "
    CREATE TABLE record (key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE event (
        position INTEGER PRIMARY KEY, stream TEXT NOT NULL, id BLOB NOT NULL, kind TEXT NOT NULL,
        content_type TEXT NOT NULL, payload TEXT NOT NULL, recorded_at INTEGER NOT NULL, batch BLOB NOT NULL
    );
    CREATE TABLE job (
        queue TEXT NOT NULL, id TEXT NOT NULL, due INTEGER NOT NULL, payload TEXT NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0, token BLOB, leased_until INTEGER, PRIMARY KEY (queue, id)
    ) WITHOUT ROWID;
    CREATE INDEX job_due ON job (queue, due);
    CREATE TABLE operation (
        key TEXT PRIMARY KEY, status TEXT NOT NULL, fingerprint BLOB NOT NULL, started_at INTEGER NOT NULL,
        lease_until INTEGER, result TEXT
    ) WITHOUT ROWID;
    CREATE INDEX operation_running ON operation (lease_until) WHERE status = 'running';
";

/// The table of the user's, the same in both.
pub(crate) const EFFECT: &str = "CREATE TABLE effect (key TEXT PRIMARY KEY, note TEXT NOT NULL)";

/// How often a second the work is done on an empty file.
pub(crate) async fn rate(work: Work, load: Load) -> Result<f64> {
    let folder = TempDir::new()?;
    let plain = PlainSql::open(&folder.path().join("plain.db")).await?;
    match work {
        Work::Put => measure::rate(load, move |_| plain.clone().put()).await,
        Work::ClaimAndFinish => measure::rate(load, move |_| plain.clone().claim_and_finish()).await,
        Work::Append(events) => {
            let insert = insert_events(events);
            let append = move |turn: measure::Turn| plain.clone().append(insert.clone(), turn.nth % STREAMS);
            measure::rate(load, append).await
        }
        Work::PushLeaseAck => {
            measure::rate(load, move |turn| plain.clone().push_lease_ack(format!("mail-{}", turn.caller)))
                .await
        }
        Work::Fresh => measure::rate(load, move |_| plain.clone().fresh(fresh_key())).await,
        Work::FreshWithRow => measure::rate(load, move |_| plain.clone().fresh_with_row()).await,
        Work::Replay => {
            for caller in 0..load.callers {
                plain.clone().fresh(finished(caller)).await?;
            }
            measure::rate(load, move |turn| plain.clone().replay(finished(turn.caller))).await
        }
    }
}

#[derive(Clone)]
struct PlainSql {
    writer: Arc<Mutex<SqliteConnection>>,
    readers: SqlitePool,
}

impl PlainSql {
    async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let mut writer = SqliteConnection::connect_with(&options).await?;
        for sql in [TABLES, EFFECT] {
            sqlx::raw_sql(sql).execute(&mut writer).await?;
        }
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer: Arc::new(Mutex::new(writer)), readers })
    }

    async fn put(self) -> Result<()> {
        sqlx::query(
            "INSERT INTO record (key, value, version) VALUES (?, ?, 1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1",
        )
        .bind(fresh_key())
        .bind(VALUE)
        .execute(&mut *self.writer.lock().await)
        .await?;
        Ok(())
    }

    async fn claim_and_finish(self) -> Result<()> {
        let key = fresh_key();
        sqlx::query("INSERT INTO record (key, value, version) VALUES (?, ?, 1) ON CONFLICT DO NOTHING")
            .bind(&key)
            .bind(VALUE)
            .execute(&mut *self.writer.lock().await)
            .await?;
        sqlx::query("UPDATE record SET value = ?, version = 2 WHERE key = ? AND version = 1")
            .bind(VALUE)
            .bind(&key)
            .execute(&mut *self.writer.lock().await)
            .await?;
        Ok(())
    }

    async fn append(self, insert: SqlStr, stream: u64) -> Result<()> {
        let id = [7; 16];
        sqlx::query(insert)
            .bind(format!("order-{stream}"))
            .bind(&id[..])
            .bind(KIND)
            .bind(VALUE)
            .execute(&mut *self.writer.lock().await)
            .await?;
        Ok(())
    }

    async fn push_lease_ack(self, queue: String) -> Result<()> {
        sqlx::query(
            "INSERT INTO job (queue, id, due, payload) VALUES (?, ?, unixepoch(), ?) ON CONFLICT DO NOTHING",
        )
        .bind(&queue)
        .bind(fresh_key())
        .bind(VALUE)
        .execute(&mut *self.writer.lock().await)
        .await?;
        let (id, token, _): (String, Vec<u8>, String) = sqlx::query_as(
            "UPDATE job SET attempt = attempt + 1, token = randomblob(16), leased_until = unixepoch() + 30
             WHERE queue = ?1 AND id = (
                 SELECT id FROM job
                 WHERE queue = ?1 AND due <= unixepoch()
                   AND (leased_until IS NULL OR leased_until <= unixepoch())
                 ORDER BY due LIMIT 1
             ) RETURNING id, token, payload",
        )
        .bind(&queue)
        .fetch_one(&mut *self.writer.lock().await)
        .await?;
        sqlx::query("DELETE FROM job WHERE queue = ? AND id = ? AND token = ?")
            .bind(&queue)
            .bind(id)
            .bind(token)
            .execute(&mut *self.writer.lock().await)
            .await?;
        Ok(())
    }

    /// Claim, work that takes no time, finish.
    async fn fresh(self, key: String) -> Result<()> {
        claim(&mut *self.writer.lock().await, &key).await?;
        finish(&mut *self.writer.lock().await, &key).await
    }

    /// The same with a row of the user's in the transaction that finishes.
    async fn fresh_with_row(self) -> Result<()> {
        let key = fresh_key();
        claim(&mut *self.writer.lock().await, &key).await?;
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        tx.effect(&key).await?;
        finish(&mut tx, &key).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A call under a finished key: one read.
    async fn replay(self, key: String) -> Result<()> {
        let found: (String, Vec<u8>, String) =
            sqlx::query_as("SELECT status, fingerprint, result FROM operation WHERE key = ?")
                .bind(key)
                .fetch_one(&self.readers)
                .await?;
        assert_eq!(found.0, "finished");
        Ok(())
    }
}

async fn claim(conn: &mut SqliteConnection, key: &str) -> Result<()> {
    let claimed = sqlx::query(
        "INSERT INTO operation (key, status, fingerprint, started_at, lease_until)
         VALUES (?, 'running', ?, 1, 2) ON CONFLICT DO NOTHING",
    )
    .bind(key)
    .bind(&[7; 32][..])
    .execute(conn)
    .await?;
    assert_eq!(claimed.rows_affected(), 1, "the key is fresh");
    Ok(())
}

async fn finish(conn: &mut SqliteConnection, key: &str) -> Result<()> {
    sqlx::query("UPDATE operation SET status = 'finished', result = ?, lease_until = NULL WHERE key = ?")
        .bind(ANSWER)
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}

/// All rows in one statement, which names what they share once.
fn insert_events(events: usize) -> SqlStr {
    let row = "(?1, ?2, ?3, 'application/json', ?4, unixepoch(), ?2)";
    AssertSqlSafe(format!(
        "INSERT INTO event (stream, id, kind, content_type, payload, recorded_at, batch) VALUES {}",
        vec![row; events].join(", ")
    ))
    .into_sql_str()
}
