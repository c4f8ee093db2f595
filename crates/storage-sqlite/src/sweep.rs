//! Reclaiming, within the writer's transaction.

use evenkeel_core::{Partition, Result, Timestamp};
use sqlx::SqliteConnection;

use crate::error::SqlxResult;
use crate::rows::sql_limit;

/// Removes expired records and the contents of trimmed events, at most `limit`.
pub(crate) async fn sweep(
    conn: &mut SqliteConnection,
    at: &Partition,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let records = sweep_records(conn, at, expired_before, limit).await?;
    let mut swept = records;
    while swept < limit {
        match sweep_events(conn, at, limit - swept).await? {
            0 => break,
            events => swept += events,
        }
    }
    Ok(swept)
}

async fn sweep_records(
    conn: &mut SqliteConnection,
    at: &Partition,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let done = sqlx::query(
        "DELETE FROM evenkeel_record WHERE part = ?1 AND (space, grp, id) IN (\
             SELECT space, grp, id FROM evenkeel_record WHERE part = ?1 AND expires_at < ?2 \
             ORDER BY expires_at LIMIT ?3)",
    )
    .bind(at.to_string())
    .bind(expired_before.as_micros())
    .bind(sql_limit(limit))
    .execute(conn)
    .await
    .or_store_error("sweeping records")?;
    Ok(count(done.rows_affected()))
}

/// Empties trimmed events of one stream; returns how many.
async fn sweep_events(conn: &mut SqliteConnection, at: &Partition, limit: usize) -> Result<usize> {
    let unswept: Option<(String, i64, i64)> = sqlx::query_as(
        "SELECT stream, swept, min(trimmed, swept + ?2) FROM evenkeel_stream \
         WHERE part = ?1 AND swept < trimmed LIMIT 1",
    )
    .bind(at.to_string())
    .bind(sql_limit(limit))
    .fetch_optional(&mut *conn)
    .await
    .or_store_error("sweeping events")?;
    let Some((stream, swept, through)) = unswept else { return Ok(0) };
    let done = sqlx::query(
        "UPDATE evenkeel_event SET payload = NULL, metadata = NULL \
         WHERE part = ?1 AND stream = ?2 AND version > ?3 AND version <= ?4",
    )
    .bind(at.to_string())
    .bind(stream.as_str())
    .bind(swept)
    .bind(through)
    .execute(&mut *conn)
    .await
    .or_store_error("sweeping events")?;
    sqlx::query("UPDATE evenkeel_stream SET swept = ?3 WHERE part = ?1 AND stream = ?2")
        .bind(at.to_string())
        .bind(stream)
        .bind(through)
        .execute(conn)
        .await
        .or_store_error("sweeping events")?;
    Ok(count(done.rows_affected()))
}

fn count(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
