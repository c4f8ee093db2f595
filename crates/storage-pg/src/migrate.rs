use evenkeel_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::database::Database;
use crate::error::SqlxResult;
use crate::rows::column;
use crate::statement::Schema;

/// The schema, step by step; a step never changes once released. A function that changes gets a new
/// name and keeps the old one, so that nodes of the release before go on beside the new.
const MIGRATIONS: [&[&str]; 1] = [&[
    include_str!("../migrations/0001_store.sql"),
    include_str!("../migrations/enter_v1.sql"),
    include_str!("../migrations/commit_v1.sql"),
    include_str!("../migrations/commit_few_v1.sql"),
    include_str!("../migrations/get_v1.sql"),
    include_str!("../migrations/lease_v1.sql"),
    include_str!("../migrations/sweep_v1.sql"),
    include_str!("../migrations/unswept_v1.sql"),
    include_str!("../migrations/0001_views.sql"),
]];

/// Brings the schema up to date and checks the partition count; safe in many processes at once.
pub(crate) async fn migrate(database: &Database, partitions: u32) -> Result<Uuid> {
    let schema = &database.schema;
    let mut connection = database.connections.lend().await.or_store_error("connecting")?;
    let found = match identity(&mut connection, schema).await {
        Ok(Some(found)) if found.format >= MIGRATIONS.len() => found,
        Ok(_) => apply_missing(&mut connection, schema, partitions).await?,
        Err(error) => return Err(error),
    };
    connection.give_back();
    if found.format > MIGRATIONS.len() {
        return Err(Error::new(
            ErrorKind::Config,
            "the store was written by a newer evenkeel: open it with that release or a later one",
        )
        .with("format", found.format)
        .with("known", MIGRATIONS.len()));
    }
    if found.partitions != partitions {
        return Err(Error::new(ErrorKind::Config, "the store was created with another number of partitions")
            .with("created with", found.partitions)
            .with("opened with", partitions));
    }
    Ok(found.id)
}

/// What tells one store from another.
struct Identity {
    id: Uuid,
    format: usize,
    partitions: u32,
}

const READING: &str = "reading the store's identity";
const MIGRATING: &str = "migrating";

/// Which store the schema holds; `None` where it holds none yet.
async fn identity(conn: &mut PgConnection, schema: &Schema) -> Result<Option<Identity>> {
    let known =
        format!("SELECT 1 FROM pg_tables WHERE schemaname = '{}' AND tablename = 'store'", schema.name());
    let known = sqlx::raw_sql(AssertSqlSafe(known)).fetch_optional(&mut *conn).await;
    if known.or_store_error(READING)?.is_none() {
        return Ok(None);
    }
    let sql = schema.sql("SELECT id, format, partitions FROM evenkeel.store");
    let row = sqlx::raw_sql(sql).fetch_optional(conn).await.or_store_error(READING)?;
    let Some(row) = row else { return Ok(None) };
    let (format, partitions): (i32, i32) = (column(&row, "format")?, column(&row, "partitions")?);
    let damaged = |_| Error::new(ErrorKind::Corrupt, "the store's identity is damaged");
    Ok(Some(Identity {
        id: column(&row, "id")?,
        format: usize::try_from(format).map_err(damaged)?,
        partitions: u32::try_from(partitions).map_err(damaged)?,
    }))
}

/// Applies the steps that the schema lacks. All of it travels as text, which any proxy lets through.
async fn apply_missing(conn: &mut PgConnection, schema: &Schema, partitions: u32) -> Result<Identity> {
    let name = schema.name();
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.or_store_error(MIGRATING)?;
    // The others wait here until the first is done; the lock goes with the transaction.
    execute(&mut tx, format!("SELECT pg_advisory_xact_lock(hashtextextended('evenkeel {name}', 0))")).await?;
    // `IF NOT EXISTS` needs the privilege to create schemas even where it is there.
    let schema_exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = '{name}'");
    let schema_exists = sqlx::raw_sql(AssertSqlSafe(schema_exists)).fetch_optional(&mut *tx).await;
    if schema_exists.or_store_error(MIGRATING)?.is_none() {
        execute(&mut tx, format!("CREATE SCHEMA \"{name}\"")).await?;
    }
    let format = identity(&mut tx, schema).await?.map_or(0, |found| found.format);
    for step in MIGRATIONS.iter().skip(format) {
        for script in *step {
            sqlx::raw_sql(schema.sql(script)).execute(&mut *tx).await.or_store_error(MIGRATING)?;
        }
    }
    let latest = MIGRATIONS.len().max(format);
    let note = format!(
        "INSERT INTO \"{name}\".store (format, partitions) VALUES ({latest}, {partitions}) \
         ON CONFLICT (one) DO UPDATE SET format = excluded.format"
    );
    execute(&mut tx, note).await?;
    let found = identity(&mut tx, schema).await?;
    tx.commit().await.or_store_error(MIGRATING)?;
    found.ok_or_else(|| Error::new(ErrorKind::Corrupt, "the store has no identity"))
}

async fn execute(conn: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.or_store_error(MIGRATING)?;
    Ok(())
}
