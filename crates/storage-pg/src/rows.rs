//! Rows as values of the contract, and back.

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Event, Hold, Job, Pending, Record, Result, Timestamp, Token, Version};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};

use crate::error::SqlxResult;

/// Reads a record from columns that are named as those of `evenkeel.record`; `None` where they are
/// null.
pub(crate) fn record(row: &PgRow) -> Result<Option<Record>> {
    let Some(version) = column(row, "version")? else { return Ok(None) };
    Ok(Some(Record {
        value: bytes(row, "value")?,
        version: Version(version),
        expires_at: optional_time(row, "expires_at")?,
    }))
}

/// Reads an event that was not swept, from columns that are named as those of `evenkeel.event`.
pub(crate) fn event(row: &PgRow) -> Result<Event> {
    let metadata: &str = column(row, "metadata")?;
    Ok(Event {
        id: column(row, "id")?,
        stream: column(row, "stream")?,
        version: count(row, "version")?,
        position: count(row, "position")?,
        kind: column(row, "kind")?,
        payload: bytes(row, "payload")?,
        content_type: column(row, "content_type")?,
        metadata: serde_json::from_str(metadata).map_err(|source| damaged("metadata").with_source(source))?,
        recorded_at: time(row, "recorded_at")?,
        batch: column(row, "batch")?,
    })
}

/// Reads a job from columns that are named as those of `evenkeel.job`, except for the two that may
/// bear another name.
pub(crate) fn job(row: &PgRow, payload: &'static str, token: &'static str) -> Result<Job> {
    let lease = match (column(row, token)?, optional_time(row, "leased_until")?) {
        (Some(token), Some(until)) => Some(Hold { token: Token(token), until }),
        (None, None) => None,
        _ => return Err(damaged("leased_until")),
    };
    let pending = match optional_time(row, "pending_due")? {
        Some(due) => Some(Pending {
            due,
            payload: bytes(row, "pending_payload")?,
            sooner: optional_time(row, "pending_sooner")?,
        }),
        None => None,
    };
    let due = time(row, "due")?;
    Ok(Job { due, payload: bytes(row, payload)?, attempt: attempt(row)?, lease, pending })
}

/// Reads how often a job was leased.
pub(crate) fn attempt(row: &PgRow) -> Result<u32> {
    u32::try_from(column::<i32>(row, "attempt")?).map_err(|_| damaged("attempt"))
}

/// Reads a column as it is.
pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    name: &'static str,
) -> Result<T> {
    row.try_get(name).or_store_error("reading a row")
}

/// Reads a count, a position or a version of a stream.
pub(crate) fn count(row: &PgRow, name: &'static str) -> Result<u64> {
    u64::try_from(column::<i64>(row, name)?).map_err(|_| damaged(name))
}

/// Reads a point in time.
pub(crate) fn time(row: &PgRow, name: &'static str) -> Result<Timestamp> {
    column(row, name).map(Timestamp::from_micros)
}

/// Reads a point in time that may be null.
pub(crate) fn optional_time(row: &PgRow, name: &'static str) -> Result<Option<Timestamp>> {
    Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_micros))
}

/// Reads bytes.
pub(crate) fn bytes(row: &PgRow, name: &'static str) -> Result<Bytes> {
    column::<Vec<u8>>(row, name).map(Bytes::from)
}

/// A count, position or version as PostgreSQL keeps it; no real one is beyond its range.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A limit as PostgreSQL takes it.
pub(crate) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The error of a row that is not as it was written.
pub(crate) fn damaged(column: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "a row has an unexpected value").with("column", column)
}
