use evenkeel_core::{Error, ErrorKind, Result};
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, Transaction};
use uuid::Uuid;

use crate::error::SqlResult;

/// The schema, step by step; a step never changes once released.
const MIGRATIONS: [&str; 1] = [include_str!("../migrations/0001_store.sql")];

/// Brings the schema up to date and checks the partition count; safe in several processes at once.
pub(crate) async fn migrate(writer: &SqlitePool, partitions: u32) -> Result<Uuid> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.or_store_error("migrating")?;
    let found = apply_missing(&mut tx, partitions).await?;
    check_partitions(&found, partitions)?;
    tx.commit().await.or_store_error("migrating")?;
    Ok(found.id)
}

/// Checks a database that must not be written to.
pub(crate) async fn check(conn: &mut SqliteConnection, partitions: u32) -> Result<Uuid> {
    let version = schema_version(conn).await?;
    if version < MIGRATIONS.len() {
        return Err(Error::new(
            ErrorKind::Config,
            "the database is read-only and has no current evenkeel schema",
        )
        .with("schema", version)
        .with("needed", MIGRATIONS.len()));
    }
    let found = identity(conn).await?;
    check_partitions(&found, partitions)?;
    Ok(found.id)
}

/// What tells one store from another.
pub(crate) struct Identity {
    pub(crate) id: Uuid,
    partitions: u32,
}

/// Reads which store the database behind a connection holds.
pub(crate) async fn identity(conn: &mut SqliteConnection) -> Result<Identity> {
    let row = sqlx::query("SELECT id, partitions FROM evenkeel_store")
        .fetch_one(conn)
        .await
        .or_store_error("reading the store's identity")?;
    let id: Vec<u8> = row.try_get(0).or_store_error("reading the store's identity")?;
    let id = Uuid::from_slice(&id)
        .map_err(|source| Error::new(ErrorKind::Corrupt, "the store's id is damaged").with_source(source))?;
    let partitions = row.try_get(1).or_store_error("reading the store's identity")?;
    Ok(Identity { id, partitions })
}

async fn apply_missing(tx: &mut Transaction<'static, Sqlite>, partitions: u32) -> Result<Identity> {
    let version = schema_version(tx).await?;
    if version > MIGRATIONS.len() {
        return Err(Error::new(ErrorKind::Config, "the database was written by a newer evenkeel")
            .with("schema", version)
            .with("known", MIGRATIONS.len()));
    }
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS evenkeel_migration (version INTEGER PRIMARY KEY)")
        .execute(&mut **tx)
        .await
        .or_store_error("migrating")?;
    for (step, version) in MIGRATIONS.iter().zip(1_i64..).skip(version) {
        sqlx::raw_sql(*step).execute(&mut **tx).await.or_store_error("migrating")?;
        sqlx::query("INSERT INTO evenkeel_migration (version) VALUES (?)")
            .bind(version)
            .execute(&mut **tx)
            .await
            .or_store_error("migrating")?;
    }
    sqlx::query("INSERT INTO evenkeel_store (one, id, partitions) VALUES (1, ?, ?) ON CONFLICT DO NOTHING")
        .bind(Uuid::new_v4().as_bytes().to_vec())
        .bind(partitions)
        .execute(&mut **tx)
        .await
        .or_store_error("migrating")?;
    identity(tx).await
}

async fn schema_version(conn: &mut SqliteConnection) -> Result<usize> {
    let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'evenkeel_migration'")
        .fetch_optional(&mut *conn)
        .await
        .or_store_error("reading the schema")?;
    if known.is_none() {
        return Ok(0);
    }
    let version: u32 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM evenkeel_migration")
        .fetch_one(conn)
        .await
        .or_store_error("reading the schema")?;
    Ok(version as usize)
}

fn check_partitions(found: &Identity, partitions: u32) -> Result<()> {
    if found.partitions == partitions {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "the store was created with another number of partitions")
        .with("created with", found.partitions)
        .with("opened with", partitions))
}
