//! Rows as values of the contract, and back.

use evenkeel_core::{Event, Hold, Job, Key, Pending, Record, Result, Timestamp, Token, Version};

use crate::sql::{Param, Row, damaged};

/// The columns that [`record`] reads, of `evenkeel_record r`.
pub(crate) const RECORD: &str = "r.value, r.version, r.expires_at";

/// What a record is called: its `part`, `space`, `grp` and `id`.
pub(crate) fn record_name<'a>(part: &'a str, key: &'a Key) -> [Param<'a>; 4] {
    [part.into(), (&*key.space).into(), key.group.as_str().into(), key.id.as_str().into()]
}

/// Reads a record whose columns begin at `first`.
pub(crate) fn record(row: &Row, first: usize) -> Result<Record> {
    Ok(Record {
        value: row.get(first)?,
        version: Version(row.get(first + 1)?),
        expires_at: time(row, first + 2)?,
    })
}

/// The columns that [`event`] reads, of `evenkeel_event e`.
pub(crate) const EVENT: &str = "e.id, e.stream, e.version, e.position, e.kind, e.payload, e.content_type, \
     e.metadata, e.recorded_at, e.batch";

/// Reads an event that was not swept.
pub(crate) fn event(row: &Row) -> Result<Event> {
    let metadata: String = row.get(7)?;
    Ok(Event {
        id: row.get(0)?,
        stream: row.get(1)?,
        version: row.get(2)?,
        position: row.get(3)?,
        kind: row.get(4)?,
        payload: row.get(5)?,
        content_type: row.get(6)?,
        metadata: serde_json::from_str(&metadata)
            .map_err(|source| damaged("metadata").with_source(source))?,
        recorded_at: Timestamp::from_micros(row.get(8)?),
        batch: row.get(9)?,
    })
}

/// The columns that [`job`] reads, of `evenkeel_job j`.
pub(crate) const JOB: &str = "j.due, j.payload, j.attempt, j.token, j.leased_until, j.pending_due, j.pending_payload, j.pending_sooner";

/// Reads a job whose columns begin at `first`.
pub(crate) fn job(row: &Row, first: usize) -> Result<Job> {
    let lease = match (row.get(first + 3)?, time(row, first + 4)?) {
        (Some(token), Some(until)) => Some(Hold { token: Token(token), until }),
        (None, None) => None,
        _ => return Err(damaged("lease")),
    };
    let pending = match time(row, first + 5)? {
        Some(due) => Some(Pending { due, payload: row.get(first + 6)?, sooner: time(row, first + 7)? }),
        None => None,
    };
    Ok(Job {
        due: Timestamp::from_micros(row.get(first)?),
        payload: row.get(first + 1)?,
        attempt: row.get(first + 2)?,
        lease,
        pending,
    })
}

fn time(row: &Row, index: usize) -> Result<Option<Timestamp>> {
    Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
}

/// A count or place as SQLite keeps it.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A limit as SQLite takes it.
pub(crate) fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
