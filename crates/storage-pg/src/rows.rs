//! Rows as values of the contract, and back.

use std::fmt::Display;

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Hold, Job, Pending, Record, Result, Timestamp, Token, Version};
use sqlx::postgres::PgRow;
use sqlx::{ColumnIndex, Decode, Postgres, Row, Type};

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

/// Where a column is: its name, or its place from 0.
pub(crate) trait At: ColumnIndex<PgRow> + Display + Copy {}

impl At for &'static str {}
impl At for usize {}

/// Reads a column as it is.
pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, at: impl At) -> Result<T> {
    row.try_get(at).or_store_error("reading a row")
}

/// Reads a count, a position or a version of a stream.
pub(crate) fn count(row: &PgRow, at: impl At) -> Result<u64> {
    u64::try_from(column::<i64>(row, at)?).map_err(|_| damaged(at))
}

/// Reads a point in time.
pub(crate) fn time(row: &PgRow, at: impl At) -> Result<Timestamp> {
    column(row, at).map(Timestamp::from_micros)
}

/// Reads a point in time that may be null.
pub(crate) fn optional_time(row: &PgRow, name: &'static str) -> Result<Option<Timestamp>> {
    Ok(column::<Option<i64>>(row, name)?.map(Timestamp::from_micros))
}

/// Reads bytes.
pub(crate) fn bytes(row: &PgRow, at: impl At) -> Result<Bytes> {
    column::<Vec<u8>>(row, at).map(Bytes::from)
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
pub(crate) fn damaged(column: impl At) -> Error {
    Error::new(ErrorKind::Corrupt, "a row has an unexpected value").with("column", column)
}
