//! Queries. Each is one statement, and so sees one moment.

use evenkeel_core::{
    Error, ErrorKind, Event, Filter, Job, JobPage, Jobs, Key, Order, Partition, Read, Record, RecordPage,
    Result, Scan, Slice, Source, Timestamp,
};
use sqlx::postgres::PgRow;

use crate::database::Database;
use crate::rows::{self, column, signed, sql_limit};

/// Over how many positions or versions one read goes at most, so that a filter that drops nearly all
/// of them costs several short statements rather than one long one.
const WINDOW: i64 = 10_000;

/// How many events one read takes at most from the server, and at least where a filter may drop some.
const MAX_EVENTS: usize = 2_000;
const MIN_FILTERED: usize = 200;

pub(crate) async fn get(
    database: &Database,
    at: &Partition,
    now: Timestamp,
    keys: &[Key],
) -> Result<Vec<Option<Record>>> {
    let mut records = vec![None; keys.len()];
    if keys.is_empty() {
        return Ok(records);
    }
    let spaces: Vec<&str> = keys.iter().map(|key| &*key.space).collect();
    let groups: Vec<&str> = keys.iter().map(|key| key.group.as_str()).collect();
    let ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
    let statement = database
        .statement("SELECT * FROM evenkeel.get_v1($1, $2, $3, $4)")
        .bind(at.to_string())
        .bind(&spaces[..])
        .bind(&groups[..])
        .bind(&ids[..]);
    for row in database.query(statement, "getting records").await? {
        let nth = usize::try_from(rows::count(&row, "nth")?).map_err(|_| rows::damaged("nth"))?;
        records[nth - 1] = rows::record(&row)?.filter(|record| record.is_live(now));
    }
    Ok(records)
}

/// The records of a group between two ids, both exclusive.
macro_rules! scan {
    ($order:literal) => {
        concat!(
            "SELECT id, value, version, expires_at FROM evenkeel.record \
             WHERE part = $1 AND space = $2 AND grp = $3 AND id > $4 AND id < $5 \
             AND coalesce(expires_at > $6, true) ORDER BY id ",
            $order,
            " LIMIT $7"
        )
    };
}

pub(crate) async fn scan(database: &Database, at: &Partition, scan: &Scan) -> Result<RecordPage> {
    let (sql, low, high) = match scan.order {
        Order::Ascending => (scan!("ASC"), &scan.after, &scan.until),
        Order::Descending => (scan!("DESC"), &scan.until, &scan.after),
    };
    let beyond_every_id = char::MAX.to_string().repeat(Key::MAX_PART / char::MAX.len_utf8() + 1);
    // One more than asked for tells whether the page is the last.
    let statement = database
        .statement(sql)
        .bind(at.to_string())
        .bind(&*scan.space)
        .bind(scan.group.as_str())
        .bind(low.as_deref().unwrap_or_default())
        .bind(high.as_deref().unwrap_or(&beyond_every_id))
        .bind(scan.now.as_micros())
        .bind(sql_limit(scan.limit.saturating_add(1)));
    let found = database.query(statement, "scanning records").await?;
    let mut records = Vec::with_capacity(found.len().min(scan.limit));
    for row in found.iter().take(scan.limit) {
        let record = rows::record(row)?.ok_or_else(|| rows::damaged("version"))?;
        records.push((column::<String>(row, "id")?, record));
    }
    let cursor = records.last().filter(|_| found.len() > scan.limit).map(|(id, _)| id.clone());
    Ok(RecordPage { records, cursor })
}

macro_rules! job_columns {
    () => {
        "j.id, j.due, j.payload, j.attempt, j.token, j.leased_until, j.pending_due, j.pending_payload, \
         j.pending_sooner"
    };
}

pub(crate) async fn jobs(database: &Database, at: &Partition, want: &Jobs) -> Result<JobPage> {
    match want {
        Jobs::ByIds { queue, ids } => jobs_by_ids(database, at, queue, ids).await,
        Jobs::Page { queue, after, limit } => jobs_page(database, at, queue, after.as_deref(), *limit).await,
    }
}

async fn jobs_by_ids(database: &Database, at: &Partition, queue: &str, ids: &[String]) -> Result<JobPage> {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let sql = concat!(
        "SELECT j.* FROM unnest($3) WITH ORDINALITY AS k (id, nth) CROSS JOIN LATERAL (SELECT ",
        job_columns!(),
        " FROM evenkeel.job j WHERE part = $1 AND queue = $2 AND j.id = k.id LIMIT 1) j ORDER BY k.nth"
    );
    let statement = database.statement(sql).bind(at.to_string()).bind(queue).bind(&ids[..]);
    let found = database.query(statement, "looking at jobs").await?;
    Ok(JobPage { jobs: found.iter().map(job).collect::<Result<_>>()?, cursor: None })
}

async fn jobs_page(
    database: &Database,
    at: &Partition,
    queue: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<JobPage> {
    let sql = concat!(
        "SELECT ",
        job_columns!(),
        " FROM evenkeel.job j WHERE part = $1 AND queue = $2 AND id > $3 ORDER BY id LIMIT $4"
    );
    // No id is empty, so the empty one stands before all.
    let statement = database
        .statement(sql)
        .bind(at.to_string())
        .bind(queue)
        .bind(after.unwrap_or_default())
        .bind(sql_limit(limit.saturating_add(1)));
    let found = database.query(statement, "looking at jobs").await?;
    let jobs: Vec<_> = found.iter().take(limit).map(job).collect::<Result<_>>()?;
    let cursor = jobs.last().filter(|_| found.len() > limit).map(|(id, _)| id.clone());
    Ok(JobPage { jobs, cursor })
}

fn job(row: &PgRow) -> Result<(String, Job)> {
    Ok((column(row, "id")?, rows::job(row, "payload", "token")?))
}

/// Reads a run of the log: `$1` the partition, `$2` the place to go on from, `$3` the size of the
/// window, `$4` the limit, `$5` the kinds, `$6` the stream.
///
/// `$span` selects `head`, and the places `low` (exclusive) to `high` that are examined; `$events` are
/// its events between them. Without any, there is one row of nulls beside the span.
macro_rules! run {
    ($span:literal, $events:literal, $order:literal) => {
        concat!(
            "SELECT e.*, span.* FROM (",
            $span,
            ") span LEFT JOIN LATERAL (\
             SELECT e.id, e.stream, e.version, e.position, e.kind, e.payload, e.content_type, e.metadata, \
             e.recorded_at, e.batch FROM evenkeel.event e WHERE ",
            $events,
            " AND (cardinality($5) = 0 OR e.kind = ANY ($5)) ORDER BY ",
            $order,
            " LIMIT $4) e ON true ORDER BY ",
            $order
        )
    };
}

/// Positions are given out under the lock of the head row, which is held until the commit: so they
/// become visible in their order, and the events up to the head that a statement sees are all there.
///
/// What was swept has no payload. Only where something is trimmed that is not swept yet, the streams
/// are looked at, event by event.
const PARTITION: &str = run!(
    "SELECT h.head, $2 AS low, least($2 + $3, h.head) AS high FROM (\
     SELECT coalesce((SELECT position FROM evenkeel.head WHERE part = $1), 0) AS head) h",
    "e.part = $1 AND e.position > span.low AND e.position <= span.high AND e.payload IS NOT NULL AND (\
     NOT (SELECT evenkeel.unswept_v1($1)) OR e.version > (\
     SELECT s.trimmed FROM evenkeel.stream s WHERE s.part = e.part AND s.stream = e.stream))",
    "e.position"
);

const STREAM_FORWARDS: &str = run!(
    "SELECT s.version AS head, l.low, least(l.low + $3, s.version) AS high FROM evenkeel.stream s \
     CROSS JOIN LATERAL (SELECT greatest($2, s.trimmed) AS low) l WHERE s.part = $1 AND s.stream = $6",
    "e.part || '/' || e.stream = $1 || '/' || $6 AND e.version > span.low AND e.version <= span.high",
    "e.version"
);

const STREAM_BACKWARDS: &str = run!(
    "SELECT s.version AS head, CASE WHEN h.high - $3 > s.trimmed THEN h.high - $3 ELSE 0 END AS low, h.high, \
     s.trimmed FROM evenkeel.stream s CROSS JOIN LATERAL (SELECT least($2 - 1, s.version) AS high) h \
     WHERE s.part = $1 AND s.stream = $6",
    "e.part || '/' || e.stream = $1 || '/' || $6 AND e.version > greatest(span.low, span.trimmed) AND e.version <= span.high",
    "e.version DESC"
);

pub(crate) async fn read(database: &Database, at: &Partition, read: &Read) -> Result<Slice> {
    match &read.source {
        Source::Partition { after } => {
            let run = Run { sql: PARTITION, stream: "", from: *after };
            let slice = run.read(database, at, read).await?;
            if *after > slice.head {
                return Err(Error::new(ErrorKind::Corrupt, "the log ends before the position asked for")
                    .with("after", after)
                    .with("head", slice.head));
            }
            Ok(slice)
        }
        Source::Stream { name, after, order: Order::Ascending } => {
            let run = Run { sql: STREAM_FORWARDS, stream: name, from: after.unwrap_or(0) };
            run.read(database, at, read).await
        }
        Source::Stream { name, after, order: Order::Descending } => {
            let run = Run { sql: STREAM_BACKWARDS, stream: name, from: after.unwrap_or(u64::MAX) };
            run.read(database, at, read).await
        }
    }
}

/// Reads an event that was not swept from the columns of a run, by their places: there are many of
/// them, and looking for a name takes as long as reading what it names. `None` where they are null.
fn event(row: &PgRow) -> Result<Option<Event>> {
    let Some(id) = column(row, 0)? else { return Ok(None) };
    let metadata: &str = column(row, 7)?;
    Ok(Some(Event {
        id,
        stream: column(row, 1)?,
        version: rows::count(row, 2)?,
        position: rows::count(row, 3)?,
        kind: column(row, 4)?,
        payload: rows::bytes(row, 5)?,
        content_type: column(row, 6)?,
        metadata: serde_json::from_str(metadata)
            .map_err(|source| rows::damaged("metadata").with_source(source))?,
        recorded_at: rows::time(row, 8)?,
        batch: column(row, 9)?,
    }))
}

struct Run<'a> {
    sql: &'static str,
    stream: &'a str,
    from: u64,
}

impl Run<'_> {
    async fn read(&self, database: &Database, at: &Partition, read: &Read) -> Result<Slice> {
        let wanted = if read.filter == Filter::all() { read.limit } else { read.limit.max(MIN_FILTERED) };
        let wanted = wanted.min(MAX_EVENTS);
        let kinds: Vec<&str> = read.filter.kinds().iter().map(String::as_str).collect();
        let statement = database
            .statement(self.sql)
            .bind(at.to_string())
            .bind(signed(self.from).min(i64::MAX - WINDOW))
            .bind(WINDOW)
            .bind(sql_limit(wanted))
            .bind(&kinds[..])
            .bind(self.stream);
        let found = database.query(statement, "reading events").await?;
        let Some(span) = found.first() else {
            return Ok(Slice { events: Vec::new(), examined_to: 0, head: 0 });
        };
        let head = rows::count(span, "head")?;

        let mut events = Vec::new();
        let mut last = None;
        for row in &found {
            let Some(event) = event(row)? else { break };
            last = Some(if self.sql == PARTITION { event.position } else { event.version });
            if read.filter.matches(&event) {
                events.push(event);
                if events.len() == read.limit {
                    break;
                }
            }
        }
        let is_cut = events.len() == read.limit || found.len() == wanted;
        let examined_to = match last.filter(|_| is_cut) {
            Some(last) => last,
            None if self.sql == STREAM_BACKWARDS => rows::count(span, "low")? + 1,
            None => rows::count(span, "high")?.max(self.from),
        };
        Ok(Slice { events, examined_to, head })
    }
}
