//! What a careful team would write by hand: one table, one prepared writing connection, one
//! transaction to claim and one to finish, readers of their own. Same file settings as the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection, SqlitePool};
use tokio::sync::Mutex;

use crate::Result;

#[derive(Clone)]
pub(crate) struct PlainSql {
    writer: Arc<Mutex<SqliteConnection>>,
    readers: SqlitePool,
}

impl PlainSql {
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let mut writer = SqliteConnection::connect_with(&options).await?;
        sqlx::raw_sql(
            "CREATE TABLE operation (key TEXT PRIMARY KEY, status TEXT NOT NULL, fingerprint BLOB NOT NULL, \
             started_at INTEGER NOT NULL, lease_until INTEGER, result BLOB) WITHOUT ROWID; \
             CREATE INDEX operation_running ON operation (lease_until) WHERE status = 'running'; \
             CREATE TABLE effect (key TEXT PRIMARY KEY, note TEXT NOT NULL)",
        )
        .execute(&mut writer)
        .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer: Arc::new(Mutex::new(writer)), readers })
    }

    /// Claims the key, and whether it was free.
    async fn claim(&self, key: &str, fingerprint: &[u8]) -> Result<bool> {
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        let claimed = sqlx::query(
            "INSERT INTO operation (key, status, fingerprint, started_at, lease_until) \
             VALUES (?, 'running', ?, 1, 2) ON CONFLICT DO NOTHING",
        )
        .bind(key)
        .bind(fingerprint)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(claimed.rows_affected() == 1)
    }

    /// A call under a fresh key: claim, work that takes no time, finish.
    pub(crate) async fn fresh(&self, key: &str, fingerprint: &[u8], answer: &[u8]) -> Result<()> {
        assert!(self.claim(key, fingerprint).await?, "the key is fresh");
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        finish(&mut tx, key, answer).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The same with a row of the user's in the transaction that finishes.
    pub(crate) async fn fresh_with_row(&self, key: &str, fingerprint: &[u8], answer: &[u8]) -> Result<()> {
        assert!(self.claim(key, fingerprint).await?, "the key is fresh");
        let mut writer = self.writer.lock().await;
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
        insert_effect(&mut tx, key).await?;
        finish(&mut tx, key, answer).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A call under a finished key: one read.
    pub(crate) async fn replay(&self, key: &str) -> Result<()> {
        let found: (String, Vec<u8>, Vec<u8>) =
            sqlx::query_as("SELECT status, fingerprint, result FROM operation WHERE key = ?")
                .bind(key)
                .fetch_one(&self.readers)
                .await?;
        assert_eq!(found.0, "finished");
        Ok(())
    }
}

/// The user's row, the same in both.
pub(crate) async fn insert_effect(conn: &mut SqliteConnection, key: &str) -> Result<()> {
    sqlx::query("INSERT INTO effect (key, note) VALUES (?, 'done')").bind(key).execute(conn).await?;
    Ok(())
}

async fn finish(conn: &mut SqliteConnection, key: &str, answer: &[u8]) -> Result<()> {
    sqlx::query("UPDATE operation SET status = 'finished', result = ?, lease_until = NULL WHERE key = ?")
        .bind(answer)
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}
