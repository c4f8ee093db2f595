//! The rows that waiting batches name: loaded together, judged in memory, written together.

use std::collections::{HashMap, HashSet};

use evenkeel_core::judge::State;
use evenkeel_core::{Batch, Event, Expect, Job, Key, Op, Partition, Record, Result, Timestamp};
use uuid::Uuid;

use crate::rows::{self, JOB, RECORD, record_name, signed};
use crate::sql::{Param, Sql};

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
        conn: &mut impl Sql,
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
    pub(crate) async fn flush(&self, conn: &mut impl Sql) -> Result<()> {
        self.flush_records(conn).await?;
        self.flush_jobs(conn).await?;
        self.flush_log(conn).await
    }

    async fn load_records(
        &mut self,
        conn: &mut impl Sql,
        wanted: &HashSet<(&Partition, &Key)>,
    ) -> Result<()> {
        let sql = format!(
            "SELECT {RECORD} FROM evenkeel_record r WHERE part = ? AND space = ? AND grp = ? AND id = ?"
        );
        let wanted: Vec<_> = wanted.iter().map(|(at, key)| (at.to_string(), *at, *key)).collect();
        let params: Vec<_> = wanted.iter().map(|(part, _, key)| record_name(part, key)).collect();
        let found = conn.find_each(&sql, &params, "judging records").await?;
        for ((_, at, key), row) in wanted.iter().zip(found) {
            if let Some(row) = row {
                let value = Some(rows::record(&row, 0)?);
                self.partition(at).records.insert((*key).clone(), Row { value, changed: false });
            }
        }
        Ok(())
    }

    async fn load_jobs(
        &mut self,
        conn: &mut impl Sql,
        wanted: &HashSet<(&Partition, &str, &str)>,
    ) -> Result<()> {
        let sql = format!("SELECT {JOB} FROM evenkeel_job j WHERE part = ? AND queue = ? AND id = ?");
        let wanted: Vec<_> =
            wanted.iter().map(|(at, queue, id)| (at.to_string(), *at, *queue, *id)).collect();
        let params: Vec<_> = wanted
            .iter()
            .map(|(part, _, queue, id)| [part.as_str().into(), (*queue).into(), (*id).into()])
            .collect();
        let found = conn.find_each(&sql, &params, "judging jobs").await?;
        for ((_, at, queue, id), row) in wanted.iter().zip(found) {
            if let Some(row) = row {
                let value = Some(rows::job(&row, 0)?);
                let queue = self.partition(at).jobs.entry((*queue).to_owned()).or_default();
                queue.insert((*id).to_owned(), Row { value, changed: false });
            }
        }
        Ok(())
    }

    async fn load_streams(&mut self, conn: &mut impl Sql, wanted: &[WantedStream<'_>]) -> Result<()> {
        // Beside each stream's head, the event that tells whether an append was applied before.
        let sql = "SELECT s.version, s.trimmed, e.version, e.batch, e.position \
             FROM evenkeel_stream s LEFT JOIN evenkeel_event e \
             ON e.part = s.part AND e.stream = s.stream AND e.version = coalesce(?, s.version) \
             WHERE s.part = ? AND s.stream = ?";
        let parts: Vec<_> = wanted.iter().map(|wanted| wanted.at.to_string()).collect();
        let params: Vec<_> = wanted
            .iter()
            .zip(&parts)
            .map(|(wanted, part)| {
                [wanted.first.map(signed).into(), part.as_str().into(), wanted.stream.into()]
            })
            .collect();
        let found = conn.find_each(sql, &params, "judging streams").await?;
        for (wanted, row) in wanted.iter().zip(found) {
            let Some(row) = row else { continue };
            let stream = self.partition(wanted.at).streams.entry(wanted.stream.to_owned()).or_default();
            (stream.version, stream.trimmed) = (row.get(0)?, row.get(1)?);
            if let Some(version) = row.get(2)? {
                stream.origins.insert(version, (row.get(3)?, row.get(4)?));
            }
        }
        Ok(())
    }

    async fn load_heads(&mut self, conn: &mut impl Sql) -> Result<()> {
        let sql = "SELECT position FROM evenkeel_head WHERE part = ?";
        for (at, partition) in &mut self.partitions {
            let found = conn.query(sql, &[at.to_string().as_str().into()], "judging positions").await?;
            if let Some(row) = found.first() {
                partition.head = row.get(0)?;
            }
        }
        Ok(())
    }

    async fn flush_records(&self, conn: &mut impl Sql) -> Result<()> {
        let mut written = Vec::new();
        let mut deleted = Vec::new();
        let partitions = self.named();
        for (at, partition) in &partitions {
            for (key, row) in partition.records.iter().filter(|(_, row)| row.changed) {
                let name = record_name(at, key);
                let Some(record) = &row.value else {
                    deleted.push(name);
                    continue;
                };
                let [part, space, group, id] = name;
                let expires_at = record.expires_at.map(Timestamp::as_micros).into();
                let version = record.version.0.as_bytes().as_slice().into();
                written.push([part, space, group, id, (&*record.value).into(), version, expires_at]);
            }
        }
        let sql = "INSERT INTO evenkeel_record (part, space, grp, id, value, version, expires_at) \
            VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value, \
            version = excluded.version, expires_at = excluded.expires_at";
        conn.execute_each(sql, &written, "writing records").await?;
        let sql = "DELETE FROM evenkeel_record WHERE part = ? AND space = ? AND grp = ? AND id = ?";
        conn.execute_each(sql, &deleted, "deleting records").await.map(drop)
    }

    async fn flush_jobs(&self, conn: &mut impl Sql) -> Result<()> {
        let mut written = Vec::new();
        let mut deleted = Vec::new();
        let partitions = self.named();
        for (at, partition) in &partitions {
            for (queue, jobs) in &partition.jobs {
                for (id, row) in jobs.iter().filter(|(_, row)| row.changed) {
                    match &row.value {
                        Some(job) => written.push(JobRow { at, queue, id, job }),
                        None => deleted.push([at.as_str().into(), queue.as_str().into(), id.as_str().into()]),
                    }
                }
            }
        }
        write_jobs(conn, &written).await?;
        let sql = "DELETE FROM evenkeel_job WHERE part = ? AND queue = ? AND id = ?";
        conn.execute_each(sql, &deleted, "deleting jobs").await.map(drop)
    }

    async fn flush_log(&self, conn: &mut impl Sql) -> Result<()> {
        let mut streams = Vec::new();
        let mut events = Vec::new();
        let mut heads = Vec::new();
        let partitions = self.named();
        for (at, partition) in &partitions {
            for (name, stream) in partition.streams.iter().filter(|(_, stream)| stream.changed) {
                let (version, trimmed) = (signed(stream.version), signed(stream.trimmed));
                streams.push([at.as_str().into(), name.as_str().into(), version.into(), trimmed.into()]);
            }
            if !partition.appended.is_empty() {
                heads.push([at.as_str().into(), signed(partition.head).into()]);
            }
            events.extend(partition.appended.iter().map(|event| {
                let metadata = serde_json::to_string(&event.metadata).expect("scalars are JSON");
                (at, event, metadata)
            }));
        }
        let sql = "INSERT INTO evenkeel_stream (part, stream, version, trimmed) VALUES (?, ?, ?, ?) \
            ON CONFLICT DO UPDATE SET version = excluded.version, trimmed = excluded.trimmed";
        conn.execute_each(sql, &streams, "writing streams").await?;
        let events: Vec<[Param<'_>; 11]> = events
            .iter()
            .map(|(at, event, metadata)| {
                [
                    at.as_str().into(),
                    signed(event.position).into(),
                    event.stream.as_str().into(),
                    signed(event.version).into(),
                    event.id.as_bytes().as_slice().into(),
                    event.kind.as_str().into(),
                    event.content_type.as_str().into(),
                    (&*event.payload).into(),
                    metadata.as_str().into(),
                    event.recorded_at.as_micros().into(),
                    event.batch.as_bytes().as_slice().into(),
                ]
            })
            .collect();
        let sql = "INSERT INTO evenkeel_event (part, position, stream, version, id, kind, content_type, \
            payload, metadata, recorded_at, batch) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        conn.execute_each(sql, &events, "writing events").await?;
        let sql = "INSERT INTO evenkeel_head (part, position) VALUES (?, ?) \
            ON CONFLICT DO UPDATE SET position = excluded.position";
        conn.execute_each(sql, &heads, "writing positions").await.map(drop)
    }

    /// The partitions as they are called in the database.
    fn named(&self) -> Vec<(String, &PartitionSet)> {
        self.partitions.iter().map(|(at, partition)| (at.to_string(), partition)).collect()
    }
}

/// A job and where it belongs.
#[derive(Debug)]
pub(crate) struct JobRow<'a> {
    pub(crate) at: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) id: &'a str,
    pub(crate) job: &'a Job,
}

/// Creates or replaces jobs.
pub(crate) async fn write_jobs(conn: &mut impl Sql, jobs: &[JobRow<'_>]) -> Result<()> {
    let sql = "INSERT INTO evenkeel_job (part, queue, id, due, payload, attempt, token, leased_until, pending_due, \
        pending_payload, pending_sooner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
        ON CONFLICT DO UPDATE SET due = excluded.due, payload = excluded.payload, attempt = excluded.attempt, \
        token = excluded.token, leased_until = excluded.leased_until, pending_due = excluded.pending_due, \
        pending_payload = excluded.pending_payload, pending_sooner = excluded.pending_sooner";
    let rows: Vec<[Param<'_>; 11]> = jobs
        .iter()
        .map(|JobRow { at, queue, id, job }| {
            let (lease, pending) = (job.lease.as_ref(), job.pending.as_ref());
            let sooner = pending.and_then(|pending| pending.sooner);
            [
                (*at).into(),
                (*queue).into(),
                (*id).into(),
                job.due.as_micros().into(),
                (&*job.payload).into(),
                i64::from(job.attempt).into(),
                lease.map(|hold| hold.token.0.as_bytes().as_slice()).into(),
                lease.map(|hold| hold.until.as_micros()).into(),
                pending.map(|pending| pending.due.as_micros()).into(),
                pending.map(|pending| &*pending.payload).into(),
                sooner.map(Timestamp::as_micros).into(),
            ]
        })
        .collect();
    conn.execute_each(sql, &rows, "writing jobs").await.map(drop)
}

/// What to load.
#[derive(Default)]
struct Wanted<'a> {
    records: HashSet<(&'a Partition, &'a Key)>,
    jobs: HashSet<(&'a Partition, &'a str, &'a str)>,
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
                self.records.insert((at, key));
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
            | Op::PushLeased { queue, id, .. }
            | Op::Ack { queue, id, .. }
            | Op::Retry { queue, id, .. }
            | Op::Extend { queue, id, .. } => {
                self.jobs.insert((at, queue, id));
            }
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
