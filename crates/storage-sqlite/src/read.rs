//! Queries on the readers.

use evenkeel_core::{
    Error, ErrorKind, Event, JobPage, Jobs, Key, Order, Partition, Read, Record, RecordPage, Result, Scan,
    Slice, Source, Timestamp,
};
use rusqlite::Connection;
use serde::Serialize;

use crate::error::SqlResult;
use crate::rows::{self, EVENT, JOB, RECORD, record_name, signed, sql_limit};
use crate::sql::{Row, find_each, query};

/// How many events one read examines at most, so that a filter that drops nearly all of them costs
/// several short reads rather than one long one.
const MAX_EXAMINED: usize = 10_000;

pub(crate) fn get(
    conn: &Connection,
    at: &Partition,
    now: Timestamp,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let sql =
        format!("SELECT {RECORD} FROM evenkeel_record r WHERE part = ? AND space = ? AND grp = ? AND id = ?");
    let at = at.to_string();
    let params: Vec<_> = keys.iter().map(|key| record_name(&at, key)).collect();
    // In one transaction, since a connection forgets the pages that it has read when it begins another.
    let transaction = (keys.len() > 1).then(|| conn.unchecked_transaction()).transpose();
    let _transaction = transaction.or_store_error("getting records")?;
    let found = find_each(conn, &sql, &params, "getting records")?;
    let record = |row: Option<Row>| row.map(|row| rows::record(&row, 0)).transpose();
    let live = |record: Option<Record>| record.filter(|record| record.is_live(now));
    found.into_iter().map(|row| record(row).map(live)).collect()
}

pub(crate) fn scan(conn: &Connection, at: &Partition, scan: &Scan) -> Result<RecordPage> {
    let (beyond, before, order) = match scan.order {
        Order::Ascending => (">", "<", "ASC"),
        Order::Descending => ("<", ">", "DESC"),
    };
    let after = scan.after.as_ref().map_or_else(String::new, |_| format!("AND id {beyond} ?5"));
    let until = scan.until.as_ref().map_or_else(String::new, |_| format!("AND id {before} ?6"));
    let sql = format!(
        "SELECT r.id, {RECORD} FROM evenkeel_record r \
         WHERE part = ?1 AND space = ?2 AND grp = ?3 AND (expires_at IS NULL OR expires_at > ?4) {after} {until} \
         ORDER BY id {order} LIMIT ?7"
    );
    // One more than asked for tells whether the page is the last.
    let at = at.to_string();
    let params = [
        at.as_str().into(),
        scan.space.as_ref().into(),
        scan.group.as_str().into(),
        scan.now.as_micros().into(),
        scan.after.as_deref().into(),
        scan.until.as_deref().into(),
        sql_limit(scan.limit.saturating_add(1)).into(),
    ];
    let found = query(conn, &sql, &params, "scanning records")?;
    let more = found.len() > scan.limit;
    let records: Vec<(String, Record)> = found
        .iter()
        .take(scan.limit)
        .map(|row| Ok((row.get(0)?, rows::record(row, 1)?)))
        .collect::<Result<_>>()?;
    let cursor = records.last().filter(|_| more).map(|(id, _)| id.clone());
    Ok(RecordPage { records, cursor })
}

pub(crate) fn jobs(conn: &Connection, at: &Partition, want: &Jobs) -> Result<JobPage> {
    match want {
        Jobs::ByIds { queue, ids } => jobs_by_ids(conn, at, queue, ids),
        Jobs::Page { queue, after, limit } => jobs_page(conn, at, queue, after.as_deref(), *limit),
    }
}

fn jobs_by_ids(conn: &Connection, at: &Partition, queue: &str, ids: &[String]) -> Result<JobPage> {
    let sql = format!(
        "SELECT j.id, {JOB} FROM json_each(?3) w CROSS JOIN evenkeel_job j \
         WHERE j.part = ?1 AND j.queue = ?2 AND j.id = w.value ORDER BY w.key"
    );
    let (at, ids) = (at.to_string(), names(ids));
    let params = [at.as_str().into(), queue.into(), ids.as_str().into()];
    let found = query(conn, &sql, &params, "looking at jobs")?;
    let jobs = found.iter().map(|row| Ok((row.get(0)?, rows::job(row, 1)?))).collect::<Result<_>>()?;
    Ok(JobPage { jobs, cursor: None })
}

fn jobs_page(
    conn: &Connection,
    at: &Partition,
    queue: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<JobPage> {
    // No id is empty, so the empty one stands before all.
    let sql = format!(
        "SELECT j.id, {JOB} FROM evenkeel_job j WHERE part = ?1 AND queue = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
    );
    let at = at.to_string();
    let params = [
        at.as_str().into(),
        queue.into(),
        after.unwrap_or_default().into(),
        sql_limit(limit.saturating_add(1)).into(),
    ];
    let found = query(conn, &sql, &params, "looking at jobs")?;
    let more = found.len() > limit;
    let jobs: Vec<_> = found
        .iter()
        .take(limit)
        .map(|row| Ok((row.get::<String>(0)?, rows::job(row, 1)?)))
        .collect::<Result<_>>()?;
    let cursor = jobs.last().filter(|_| more).map(|(id, _)| id.clone());
    Ok(JobPage { jobs, cursor })
}

pub(crate) fn read(conn: &Connection, at: &Partition, read: &Read) -> Result<Slice> {
    match &read.source {
        Source::Partition { after } => read_partition(conn, at, *after, read),
        Source::Stream { name, after, order } => read_stream(conn, at, name, *after, *order, read),
    }
}

fn read_partition(conn: &Connection, at: &Partition, after: u64, read: &Read) -> Result<Slice> {
    let sql = "SELECT position FROM evenkeel_head WHERE part = ?";
    let found = query(conn, sql, &[at.to_string().as_str().into()], "reading the log")?;
    let head: u64 = found.first().map_or(Ok(0), |row| row.get(0))?;
    if after > head {
        return Err(Error::new(ErrorKind::Corrupt, "the log ends before the position asked for")
            .with("after", after)
            .with("head", head));
    }
    let run = Run { place: "position", order: Order::Ascending, stream: None, beyond: after, end: head };
    let (events, examined_to) = run.read(conn, at, read)?;
    Ok(Slice { events, examined_to, head })
}

fn read_stream(
    conn: &Connection,
    at: &Partition,
    name: &str,
    after: Option<u64>,
    order: Order,
    read: &Read,
) -> Result<Slice> {
    let sql = "SELECT version FROM evenkeel_stream WHERE part = ? AND stream = ?";
    let found = query(conn, sql, &[at.to_string().as_str().into(), name.into()], "reading a stream")?;
    let Some(row) = found.first() else { return Ok(Slice { events: Vec::new(), examined_to: 0, head: 0 }) };
    let head: u64 = row.get(0)?;
    let (beyond, end) = match order {
        Order::Ascending => (after.unwrap_or(0), head.max(after.unwrap_or(0))),
        Order::Descending => (after.unwrap_or(u64::MAX).min(head + 1), 0),
    };
    let run = Run { place: "version", order, stream: Some(name), beyond, end };
    let (events, examined_to) = run.read(conn, at, read)?;
    Ok(Slice { events, examined_to, head })
}

/// A run of events by position or by version, from beyond one place to an end.
struct Run<'a> {
    place: &'static str,
    order: Order,
    stream: Option<&'a str>,
    beyond: u64,
    end: u64,
}

impl Run<'_> {
    /// The events that match, and how far the run was examined.
    fn read(&self, conn: &Connection, at: &Partition, read: &Read) -> Result<(Vec<Event>, u64)> {
        let mut events = Vec::new();
        let mut examined = 0;
        let mut beyond = self.beyond;
        loop {
            let page_size = read.limit.clamp(1, 1_000);
            let page = self.page(conn, at, beyond, read, page_size)?;
            let last_page = page.len() < page_size;
            for row in &page {
                let event = rows::event(row)?;
                beyond = if self.stream.is_some() { event.version } else { event.position };
                if read.filter.matches(&event) {
                    events.push(event);
                    if events.len() == read.limit {
                        return Ok((events, beyond));
                    }
                }
            }
            if last_page {
                return Ok((events, self.end));
            }
            examined += page.len();
            if examined >= MAX_EXAMINED {
                return Ok((events, beyond));
            }
        }
    }

    fn page(
        &self,
        conn: &Connection,
        at: &Partition,
        beyond: u64,
        read: &Read,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let place = self.place;
        let bounds = match self.order {
            Order::Ascending => format!("e.{place} > ?2 AND e.{place} <= ?3"),
            Order::Descending => format!("e.{place} < ?2 AND e.{place} > ?3"),
        };
        let order = match self.order {
            Order::Ascending => "ASC",
            Order::Descending => "DESC",
        };
        let stream = self.stream.map_or("", |_| "AND e.stream = ?5");
        let kinds = if read.filter.kinds().is_empty() {
            ""
        } else {
            "AND e.kind IN (SELECT value FROM json_each(?6))"
        };
        let sql = format!(
            "SELECT {EVENT} FROM evenkeel_event e CROSS JOIN evenkeel_stream s \
             WHERE e.part = ?1 AND {bounds} {stream} {kinds} \
             AND s.part = e.part AND s.stream = e.stream AND e.version > s.trimmed \
             ORDER BY e.{place} {order} LIMIT ?4"
        );
        let (at, kinds) = (at.to_string(), names(read.filter.kinds()));
        let params = [
            at.as_str().into(),
            signed(beyond).into(),
            signed(self.end).into(),
            sql_limit(limit).into(),
            self.stream.into(),
            kinds.as_str().into(),
        ];
        query(conn, &sql, &params, "reading events")
    }
}

/// Names as the JSON array that `json_each` unfolds, so that one prepared statement serves any
/// number of them.
fn names(names: impl IntoIterator<Item = impl Serialize>) -> String {
    let names: Vec<_> = names.into_iter().collect();
    serde_json::to_string(&names).expect("strings and numbers are JSON")
}
