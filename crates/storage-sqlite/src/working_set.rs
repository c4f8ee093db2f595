//! The rows that waiting batches name: loaded together, judged in memory, written together.

use std::collections::HashMap;

use evenkeel_core::judge::State;
use evenkeel_core::{Batch, Event, Expect, Job, Key, Op, Partition, Record, Result, Timestamp};
use sqlx::{AssertSqlSafe, QueryBuilder, Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::error::SqlxResult;
use crate::read::{names, place};
use crate::rows::{self, JOB, RECORD, column, signed, unsigned};

/// What a set of batches can see and change, over all partitions that they name.
#[derive(Debug, Default)]
pub(crate) struct WorkingSet {
    partitions: HashMap<Partition, PartitionSet>,
}

/// The part of it in one partition.
#[derive(Debug, Default)]
pub(crate) struct PartitionSet {
    records: HashMap<Key, Row<Record>>,
    streams: HashMap<String, Stream>,
    jobs: HashMap<String, HashMap<String, Row<Job>>>,
    head: u64,
    appended: Vec<Event>,
}

/// A row that may not exist, and whether the one in the database is another.
#[derive(Debug)]
struct Row<T> {
    value: Option<T>,
    changed: bool,
}

#[derive(Debug, Default)]
struct Stream {
    version: u64,
    trimmed: u64,
    /// Batch and position of the events that an append may recognise as its own, by version.
    origins: HashMap<u64, (Uuid, u64)>,
    changed: bool,
}

impl WorkingSet {
    /// Loads what the batches name.
    pub(crate) async fn load<'a>(
        conn: &mut SqliteConnection,
        batches: impl Iterator<Item = &'a Batch> + Clone,
    ) -> Result<Self> {
        let mut set = Self::default();
        let mut wanted = Wanted::default();
        for batch in batches {
            set.partitions.entry(batch.at().clone()).or_default();
            batch.ops().iter().for_each(|op| wanted.add(batch.at(), op));
        }
        set.load_records(conn, &wanted.records).await?;
        set.load_jobs(conn, &wanted.jobs).await?;
        set.load_streams(conn, &wanted.streams).await?;
        if wanted.head {
            set.load_heads(conn).await?;
        }
        Ok(set)
    }

    /// What the batches of one partition see.
    pub(crate) fn partition(&mut self, at: &Partition) -> &mut PartitionSet {
        self.partitions.entry(at.clone()).or_default()
    }

    /// Whether there is anything to write.
    pub(crate) fn is_changed(&self) -> bool {
        self.partitions.values().any(PartitionSet::is_changed)
    }

    /// Writes what was changed.
    pub(crate) async fn flush(&self, conn: &mut SqliteConnection) -> Result<()> {
        self.flush_records(conn).await?;
        self.flush_jobs(conn).await?;
        self.flush_log(conn).await
    }

    async fn load_records(
        &mut self,
        conn: &mut SqliteConnection,
        wanted: &[(&Partition, &Key)],
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT w.key, {RECORD} FROM json_each(?1) w CROSS JOIN evenkeel_record r \
             WHERE r.part = w.value ->> 0 AND r.space = w.value ->> 1 AND r.grp = w.value ->> 2 \
             AND r.id = w.value ->> 3"
        );
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(names(wanted.iter().map(|(at, key)| (at.to_string(), &key.space, &key.group, &key.id))))
            .fetch_all(conn)
            .await
            .or_store_error("judging records")?;
        for row in found {
            let (at, key) = wanted[place(&row)?];
            let value = Some(rows::record(&row, 1)?);
            self.partition(at).records.insert(key.clone(), Row { value, changed: false });
        }
        Ok(())
    }

    async fn load_jobs(
        &mut self,
        conn: &mut SqliteConnection,
        wanted: &[(&Partition, &str, &str)],
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT w.key, {JOB} FROM json_each(?1) w CROSS JOIN evenkeel_job j \
             WHERE j.part = w.value ->> 0 AND j.queue = w.value ->> 1 AND j.id = w.value ->> 2"
        );
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(names(wanted.iter().map(|(at, queue, id)| (at.to_string(), queue, id))))
            .fetch_all(conn)
            .await
            .or_store_error("judging jobs")?;
        for row in found {
            let (at, queue, id) = wanted[place(&row)?];
            let value = Some(rows::job(&row, 1)?);
            let queue = self.partition(at).jobs.entry(queue.to_owned()).or_default();
            queue.insert(id.to_owned(), Row { value, changed: false });
        }
        Ok(())
    }

    async fn load_streams(&mut self, conn: &mut SqliteConnection, wanted: &[WantedStream<'_>]) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        // Beside each stream's head, the event that tells whether an append was applied before.
        let sql = "SELECT w.key, s.version, s.trimmed, e.version, e.batch, e.position \
             FROM json_each(?1) w CROSS JOIN evenkeel_stream s LEFT JOIN evenkeel_event e \
             ON e.part = s.part AND e.stream = s.stream \
             AND e.version = coalesce(w.value ->> 2, s.version) \
             WHERE s.part = w.value ->> 0 AND s.stream = w.value ->> 1";
        let found = sqlx::query(sql)
            .bind(names(wanted.iter().map(|w| (w.at.to_string(), w.stream, w.first.map(signed)))))
            .fetch_all(conn)
            .await
            .or_store_error("judging streams")?;
        for row in found {
            let wanted = &wanted[place(&row)?];
            let stream = self.partition(wanted.at).streams.entry(wanted.stream.to_owned()).or_default();
            stream.version = unsigned(column(&row, 1)?)?;
            stream.trimmed = unsigned(column(&row, 2)?)?;
            if let Some(version) = column::<Option<i64>>(&row, 3)? {
                let origin = (rows::uuid(&row, 4)?, unsigned(column(&row, 5)?)?);
                stream.origins.insert(unsigned(version)?, origin);
            }
        }
        Ok(())
    }

    async fn load_heads(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        let wanted: Vec<Partition> = self.partitions.keys().cloned().collect();
        let found = sqlx::query(
            "SELECT w.key, h.position FROM json_each(?1) w CROSS JOIN evenkeel_head h WHERE h.part = w.value",
        )
        .bind(names(wanted.iter().map(ToString::to_string)))
        .fetch_all(conn)
        .await
        .or_store_error("judging positions")?;
        for row in found {
            self.partition(&wanted[place(&row)?]).head = unsigned(column(&row, 1)?)?;
        }
        Ok(())
    }

    async fn flush_records(&self, conn: &mut SqliteConnection) -> Result<()> {
        let mut written = Vec::new();
        let mut deleted = Vec::new();
        for (at, partition) in &self.partitions {
            let at = at.to_string();
            for (key, row) in partition.records.iter().filter(|(_, row)| row.changed) {
                match &row.value {
                    Some(record) => written.push((at.clone(), key, record)),
                    None => deleted.push((at.clone(), &key.space, &key.group, &key.id)),
                }
            }
        }
        insert(
            conn,
            "INSERT INTO evenkeel_record (part, space, grp, id, value, version, expires_at) ",
            &written,
            " ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version, \
             expires_at = excluded.expires_at",
            |mut row, (at, key, record)| {
                row.push_bind(at.clone())
                    .push_bind(key.space.to_string())
                    .push_bind(key.group.clone())
                    .push_bind(key.id.clone())
                    .push_bind(record.value.to_vec())
                    .push_bind(record.version.0.as_bytes().to_vec())
                    .push_bind(record.expires_at.map(Timestamp::as_micros));
            },
        )
        .await?;
        delete(
            conn,
            "DELETE FROM evenkeel_record WHERE (part, space, grp, id) IN \
             (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?))",
            &deleted,
        )
        .await
    }

    async fn flush_jobs(&self, conn: &mut SqliteConnection) -> Result<()> {
        let mut written = Vec::new();
        let mut deleted = Vec::new();
        for (at, partition) in &self.partitions {
            let at = at.to_string();
            for (queue, jobs) in &partition.jobs {
                for (id, row) in jobs.iter().filter(|(_, row)| row.changed) {
                    match &row.value {
                        Some(job) => written.push(JobRow { at: at.clone(), queue, id, job }),
                        None => deleted.push((at.clone(), queue, id)),
                    }
                }
            }
        }
        write_jobs(conn, &written).await?;
        delete(
            conn,
            "DELETE FROM evenkeel_job WHERE (part, queue, id) IN \
             (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?))",
            &deleted,
        )
        .await
    }

    async fn flush_log(&self, conn: &mut SqliteConnection) -> Result<()> {
        let mut streams = Vec::new();
        let mut events = Vec::new();
        let mut heads = Vec::new();
        for (at, partition) in &self.partitions {
            let at = at.to_string();
            let changed = partition.streams.iter().filter(|(_, stream)| stream.changed);
            streams.extend(changed.map(|(name, stream)| (at.clone(), name, stream)));
            if !partition.appended.is_empty() {
                heads.push((at.clone(), partition.head));
            }
            events.extend(partition.appended.iter().map(|event| (at.clone(), event)));
        }
        insert(
            conn,
            "INSERT INTO evenkeel_stream (part, stream, version, trimmed) ",
            &streams,
            " ON CONFLICT DO UPDATE SET version = excluded.version, trimmed = excluded.trimmed",
            |mut row, (at, name, stream)| {
                row.push_bind(at.clone())
                    .push_bind((*name).clone())
                    .push_bind(signed(stream.version))
                    .push_bind(signed(stream.trimmed));
            },
        )
        .await?;
        insert(
            conn,
            "INSERT INTO evenkeel_event (part, position, stream, version, id, kind, content_type, payload, \
             metadata, recorded_at, batch) ",
            &events,
            "",
            |mut row, (at, event)| {
                let metadata = serde_json::to_string(&event.metadata).expect("scalars are JSON");
                row.push_bind(at.clone())
                    .push_bind(signed(event.position))
                    .push_bind(event.stream.clone())
                    .push_bind(signed(event.version))
                    .push_bind(event.id.as_bytes().to_vec())
                    .push_bind(event.kind.clone())
                    .push_bind(event.content_type.clone())
                    .push_bind(event.payload.to_vec())
                    .push_bind(metadata)
                    .push_bind(event.recorded_at.as_micros())
                    .push_bind(event.batch.as_bytes().to_vec());
            },
        )
        .await?;
        insert(
            conn,
            "INSERT INTO evenkeel_head (part, position) ",
            &heads,
            " ON CONFLICT DO UPDATE SET position = excluded.position",
            |mut row, (at, head)| {
                row.push_bind(at.clone()).push_bind(signed(*head));
            },
        )
        .await
    }
}

/// A job and where it belongs.
#[derive(Debug)]
pub(crate) struct JobRow<'a> {
    pub(crate) at: String,
    pub(crate) queue: &'a str,
    pub(crate) id: &'a str,
    pub(crate) job: &'a Job,
}

/// Creates or replaces jobs.
pub(crate) async fn write_jobs(conn: &mut SqliteConnection, jobs: &[JobRow<'_>]) -> Result<()> {
    insert(
        conn,
        "INSERT INTO evenkeel_job (part, queue, id, due, payload, attempt, token, leased_until, pending_due, \
         pending_payload, pending_sooner) ",
        jobs,
        " ON CONFLICT DO UPDATE SET due = excluded.due, payload = excluded.payload, attempt = excluded.attempt, \
         token = excluded.token, leased_until = excluded.leased_until, pending_due = excluded.pending_due, \
         pending_payload = excluded.pending_payload, pending_sooner = excluded.pending_sooner",
        |mut row, JobRow { at, queue, id, job }| {
            let pending = job.pending.as_ref();
            row.push_bind(at.clone())
                .push_bind((*queue).to_owned())
                .push_bind((*id).to_owned())
                .push_bind(job.due.as_micros())
                .push_bind(job.payload.to_vec())
                .push_bind(job.attempt)
                .push_bind(job.lease.map(|hold| hold.token.0.as_bytes().to_vec()))
                .push_bind(job.lease.map(|hold| hold.until.as_micros()))
                .push_bind(pending.map(|pending| pending.due.as_micros()))
                .push_bind(pending.map(|pending| pending.payload.to_vec()))
                .push_bind(pending.and_then(|pending| pending.sooner).map(Timestamp::as_micros));
        },
    )
    .await
}

/// How many rows one statement inserts. A statement costs a trip to the connection's thread, and
/// each size one to prepare, once.
const INSERT_SIZES: [usize; 8] = [64, 32, 16, 8, 4, 3, 2, 1];

/// Inserts rows by as few statements as there are sizes for.
async fn insert<T>(
    conn: &mut SqliteConnection,
    head: &str,
    mut rows: &[T],
    tail: &str,
    mut bind: impl FnMut(sqlx::query_builder::Separated<'_, Sqlite, &'static str>, &T),
) -> Result<()> {
    while !rows.is_empty() {
        let fits = |size: &usize| *size <= rows.len();
        let size = INSERT_SIZES.into_iter().find(fits).expect("1 is at most any length");
        let (chunk, rest) = rows.split_at(size);
        let mut sql = QueryBuilder::<Sqlite>::new(head);
        sql.push_values(chunk, &mut bind).push(tail);
        sql.build().execute(&mut *conn).await.or_store_error("writing")?;
        rows = rest;
    }
    Ok(())
}

/// Deletes the rows that `sql` finds by the names bound to it.
async fn delete(
    conn: &mut SqliteConnection,
    sql: &'static str,
    rows: &[impl serde::Serialize],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(sql).bind(names(rows)).execute(conn).await.or_store_error("writing")?;
    Ok(())
}

/// What to load.
#[derive(Default)]
struct Wanted<'a> {
    records: Vec<(&'a Partition, &'a Key)>,
    jobs: Vec<(&'a Partition, &'a str, &'a str)>,
    streams: Vec<WantedStream<'a>>,
    head: bool,
}

struct WantedStream<'a> {
    at: &'a Partition,
    stream: &'a str,
    /// The version that the append's first event would have, where the append expects one.
    first: Option<u64>,
}

impl<'a> Wanted<'a> {
    fn add(&mut self, at: &'a Partition, op: &'a Op) {
        match op {
            Op::Delete { expect: Expect::Any, .. } | Op::Cancel { .. } => {}
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => {
                self.records.push((at, key))
            }
            Op::Append { stream, expect, events } => {
                self.head |= !events.is_empty();
                let first = expect.version().map(|version| version.saturating_add(1));
                self.streams.push(WantedStream { at, stream, first });
            }
            Op::Trim { stream, .. } => {
                self.streams.push(WantedStream { at, stream, first: None });
            }
            Op::Push { queue, id, .. }
            | Op::Ack { queue, id, .. }
            | Op::Retry { queue, id, .. }
            | Op::Extend { queue, id, .. } => self.jobs.push((at, queue, id)),
        }
    }
}

impl PartitionSet {
    fn is_changed(&self) -> bool {
        self.records.values().any(|row| row.changed)
            || self.streams.values().any(|stream| stream.changed)
            || self.jobs.values().flat_map(HashMap::values).any(|row| row.changed)
    }
}

impl State for PartitionSet {
    fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)?.value.as_ref()
    }

    fn set_record(&mut self, key: &Key, record: Option<Record>) {
        self.records.insert(key.clone(), Row { value: record, changed: true });
    }

    fn stream_version(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |stream| stream.version)
    }

    fn event_origin(&self, stream: &str, version: u64) -> Option<(Uuid, u64)> {
        self.streams.get(stream)?.origins.get(&version).copied()
    }

    fn head(&self) -> u64 {
        self.head
    }

    fn append(&mut self, event: Event) {
        let stream = self.streams.entry(event.stream.clone()).or_default();
        stream.version = event.version;
        stream.origins.insert(event.version, (event.batch, event.position));
        stream.changed = true;
        self.head = event.position;
        self.appended.push(event);
    }

    fn trim(&mut self, stream: &str, through: u64) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.trimmed = stream.trimmed.max(through.min(stream.version));
            stream.changed = true;
        }
    }

    fn job(&self, queue: &str, id: &str) -> Option<&Job> {
        self.jobs.get(queue)?.get(id)?.value.as_ref()
    }

    fn set_job(&mut self, queue: &str, id: &str, job: Option<Job>) {
        let row = Row { value: job, changed: true };
        self.jobs.entry(queue.to_owned()).or_default().insert(id.to_owned(), row);
    }
}
