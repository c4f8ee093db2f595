//! Rows as values of the contract, and back.

use bytes::Bytes;
use evenkeel_core::{Error, ErrorKind, Event, Hold, Job, Pending, Record, Result, Timestamp, Token, Version};
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row, Sqlite, Type};
use uuid::Uuid;

use crate::error::SqlxResult;

/// The columns that [`record`] reads, of `evenkeel_record r`.
pub(crate) const RECORD: &str = "r.value, r.version, r.expires_at";

/// Reads a record whose columns begin at `first`.
pub(crate) fn record(row: &SqliteRow, first: usize) -> Result<Record> {
    Ok(Record {
        value: bytes(row, first)?,
        version: Version(uuid(row, first + 1)?),
        expires_at: column::<Option<i64>>(row, first + 2)?.map(Timestamp::from_micros),
    })
}

/// The columns that [`event`] reads, of `evenkeel_event e`.
pub(crate) const EVENT: &str = "e.id, e.stream, e.version, e.position, e.kind, e.payload, e.content_type, \
     e.metadata, e.recorded_at, e.batch";

/// Reads an event that was not swept.
pub(crate) fn event(row: &SqliteRow) -> Result<Event> {
    let metadata: &str = column(row, 7)?;
    Ok(Event {
        id: uuid(row, 0)?,
        stream: column(row, 1)?,
        version: unsigned(column(row, 2)?)?,
        position: unsigned(column(row, 3)?)?,
        kind: column(row, 4)?,
        payload: bytes(row, 5)?,
        content_type: column(row, 6)?,
        metadata: serde_json::from_str(metadata).map_err(|source| damaged("metadata").with_source(source))?,
        recorded_at: Timestamp::from_micros(column(row, 8)?),
        batch: uuid(row, 9)?,
    })
}

/// The columns that [`job`] reads, of `evenkeel_job j`.
pub(crate) const JOB: &str = "j.due, j.payload, j.attempt, j.token, j.leased_until, j.pending_due, j.pending_payload, j.pending_sooner";

/// Reads a job whose columns begin at `first`.
pub(crate) fn job(row: &SqliteRow, first: usize) -> Result<Job> {
    let lease = match (column::<Option<&[u8]>>(row, first + 3)?, column::<Option<i64>>(row, first + 4)?) {
        (Some(token), Some(until)) => {
            Some(Hold { token: Token(parse_uuid(token)?), until: Timestamp::from_micros(until) })
        }
        (None, None) => None,
        _ => return Err(damaged("lease")),
    };
    let pending = match column::<Option<i64>>(row, first + 5)? {
        Some(due) => Some(Pending {
            due: Timestamp::from_micros(due),
            payload: bytes(row, first + 6)?,
            sooner: column::<Option<i64>>(row, first + 7)?.map(Timestamp::from_micros),
        }),
        None => None,
    };
    Ok(Job {
        due: Timestamp::from_micros(column(row, first)?),
        payload: bytes(row, first + 1)?,
        attempt: column(row, first + 2)?,
        lease,
        pending,
    })
}

/// Reads a column as it is.
pub(crate) fn column<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
    row: &'r SqliteRow,
    index: usize,
) -> Result<T> {
    row.try_get(index).or_store_error("reading a row")
}

/// Reads an id.
pub(crate) fn uuid(row: &SqliteRow, index: usize) -> Result<Uuid> {
    parse_uuid(column(row, index)?)
}

/// A count or place as SQLite keeps it.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A limit as SQLite takes it.
pub(crate) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// A count or place as the contract has it.
pub(crate) fn unsigned(count: i64) -> Result<u64> {
    u64::try_from(count).map_err(|_| damaged("count"))
}

fn bytes(row: &SqliteRow, index: usize) -> Result<Bytes> {
    column::<Vec<u8>>(row, index).map(Bytes::from)
}

fn parse_uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|source| damaged("id").with_source(source))
}

fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "a row has an unexpected value").with("column", what)
}
