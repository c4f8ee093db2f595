//! Reclaiming, within the writer's transaction.

use evenkeel_core::{Partition, Result, Timestamp};

use crate::rows::sql_limit;
use crate::sql::Sql;

/// Removes expired records and the contents of trimmed events, at most `limit`.
pub(crate) async fn sweep(
    conn: &mut impl Sql,
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
    conn: &mut impl Sql,
    at: &Partition,
    expired_before: Timestamp,
    limit: usize,
) -> Result<usize> {
    let sql = "DELETE FROM evenkeel_record WHERE (part, space, grp, id) IN (\
        SELECT part, space, grp, id FROM evenkeel_record WHERE part = ? AND expires_at < ? \
        ORDER BY expires_at LIMIT ?)";
    let at = at.to_string();
    let params = [at.as_str().into(), expired_before.as_micros().into(), sql_limit(limit).into()];
    conn.execute_each(sql, &[params], "sweeping records").await
}

/// Empties trimmed events of one stream; returns how many.
async fn sweep_events(conn: &mut impl Sql, at: &Partition, limit: usize) -> Result<usize> {
    let at = at.to_string();
    let sql = "SELECT stream, swept, min(trimmed, swept + ?) FROM evenkeel_stream \
        WHERE part = ? AND swept < trimmed LIMIT 1";
    let unswept = conn.query(sql, &[sql_limit(limit).into(), at.as_str().into()], "sweeping events").await?;
    let Some(row) = unswept.first() else { return Ok(0) };
    let (stream, swept, through): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let sql = "UPDATE evenkeel_event SET payload = NULL, metadata = NULL \
        WHERE part = ? AND stream = ? AND version > ? AND version <= ?";
    let params = [at.as_str().into(), stream.as_str().into(), swept.into(), through.into()];
    let events = conn.execute_each(sql, &[params], "sweeping events").await?;
    let sql = "UPDATE evenkeel_stream SET swept = ? WHERE part = ? AND stream = ?";
    conn.execute_each(
        sql,
        &[[through.into(), at.as_str().into(), stream.as_str().into()]],
        "sweeping events",
    )
    .await?;
    Ok(events)
}
