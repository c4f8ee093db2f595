//! The arguments of `commit_v1` and `commit_few_v1`: the operations of a fold as arrays, sorted by what they are about.

use std::collections::HashMap;

use evenkeel_core::{Batch, Expect, ExpectStream, Merge, NewEvent, Op, Partition, partition_index};
use uuid::Uuid;

use crate::database::Database;
use crate::rows::signed;
use crate::statement::{Schema, Statement};

/// A call of `commit_v1`, or of `commit_few_v1`.
pub(crate) struct Call<'a> {
    part: String,
    /// What the names of its locks begin with: stores may share a database, whose locks have no schema.
    scope: String,
    batches: Batches,
    records: Records<'a>,
    streams: Streams<'a>,
    events: Events<'a>,
    jobs: Jobs<'a>,
    pushes: Pushes<'a>,
    /// The wave of the last batch that names what each lock is for.
    waves: HashMap<i32, i32>,
    /// Whether the commit waits for the disk: where one of the batches is synced, all are.
    is_synced: bool,
    is_small: bool,
}

/// More locks than this and the call takes the partition as a whole: the server's table of locks has
/// room for 64 a connection by default, and shares it among all.
const MAX_LOCKS: usize = 200;

/// Up to so many operations on records, and jobs pushed leased, are quicker one by one than as sets.
const ONE_BY_ONE: usize = 8;

#[derive(Default)]
struct Batches {
    id: Vec<Uuid>,
    now: Vec<i64>,
    wave: Vec<i32>,
}

#[derive(Default)]
struct Records<'a> {
    batch: Vec<i32>,
    op: Vec<i32>,
    does: Vec<&'static str>,
    space: Vec<&'a str>,
    group: Vec<&'a str>,
    id: Vec<&'a str>,
    expect: Vec<&'static str>,
    version: Vec<Option<Uuid>>,
    value: Vec<Option<&'a [u8]>>,
    expires_at: Vec<Option<i64>>,
    /// Of jobs that stand among them.
    due: Vec<Option<i64>>,
}

#[derive(Default)]
struct Streams<'a> {
    batch: Vec<i32>,
    op: Vec<i32>,
    does: Vec<&'static str>,
    stream: Vec<&'a str>,
    expect: Vec<&'static str>,
    first: Vec<Option<i64>>,
    count: Vec<i64>,
    through: Vec<Option<i64>>,
}

#[derive(Default)]
struct Events<'a> {
    append: Vec<i32>,
    nth: Vec<i64>,
    stream: Vec<&'a str>,
    id: Vec<Uuid>,
    kind: Vec<&'a str>,
    content_type: Vec<&'a str>,
    payload: Vec<&'a [u8]>,
    metadata: Vec<String>,
}

#[derive(Default)]
struct Jobs<'a> {
    batch: Vec<i32>,
    op: Vec<i32>,
    does: Vec<&'static str>,
    queue: Vec<&'a str>,
    id: Vec<&'a str>,
    token: Vec<Option<Uuid>>,
    at: Vec<Option<i64>>,
}

#[derive(Default)]
struct Pushes<'a> {
    batch: Vec<i32>,
    does: Vec<&'static str>,
    queue: Vec<&'a str>,
    id: Vec<&'a str>,
    due: Vec<i64>,
    payload: Vec<&'a [u8]>,
    token: Vec<Option<Uuid>>,
    until: Vec<Option<i64>>,
}

impl<'a> Call<'a> {
    /// The call that commits the batches of the partition `at`.
    pub(crate) fn new(schema: &Schema, at: &Partition, batches: impl Iterator<Item = &'a Batch>) -> Self {
        let mut call = Self {
            part: at.to_string(),
            scope: format!("{} {at}", schema.name()),
            batches: Batches::default(),
            records: Records::default(),
            streams: Streams::default(),
            events: Events::default(),
            jobs: Jobs::default(),
            pushes: Pushes::default(),
            waves: HashMap::new(),
            is_synced: false,
            is_small: false,
        };
        let mut in_waves: Vec<(i32, i32, &Batch)> =
            (1..).zip(batches).map(|(place, batch)| (call.line_up(batch), place, batch)).collect();
        in_waves.sort_by_key(|(wave, place, _)| (*wave, *place));
        call.is_small = is_small(in_waves.iter().flat_map(|(.., batch)| batch.ops()));
        for (_, place, batch) in in_waves {
            for (op, what) in (1..).zip(batch.ops()) {
                call.add(place, op, what);
            }
        }
        call
    }

    /// The statement, for a store where the connection is the user's and may be to another one.
    pub(crate) fn statement(&self, database: &Database, store: Option<Uuid>) -> Statement {
        // How the user's own transaction is synced is the user's choice.
        let leaves_sync = self.is_synced || store.is_some();
        let mut locks: Vec<i32> = self.waves.keys().copied().collect();
        // In one order, so that two calls never wait for each other in a circle.
        locks.sort_unstable();
        let Self { part, scope, batches, records, streams, events, jobs, pushes, .. } = self;
        if self.is_small {
            let statement = database
                .statement(COMMIT_FEW)
                .bind(part.as_str())
                .bind(store)
                .bind(leaves_sync)
                .bind(lock(&[scope]))
                .bind(&locks[..])
                .bind(&batches.id[..])
                .bind(&batches.now[..]);
            return records.bind(statement).bind(&records.due[..]);
        }
        let takes_whole = locks.len() > MAX_LOCKS;
        if takes_whole {
            locks.clear();
        }
        let statement = database
            .statement(COMMIT)
            .bind(part.as_str())
            .bind(store)
            .bind(leaves_sync)
            .bind(takes_whole)
            .bind(lock(&[scope]))
            .bind(&locks[..])
            .bind(&batches.id[..])
            .bind(&batches.now[..])
            .bind(&batches.wave[..]);
        records
            .bind(statement)
            .bind(&streams.batch[..])
            .bind(&streams.op[..])
            .bind(&streams.does[..])
            .bind(&streams.stream[..])
            .bind(&streams.expect[..])
            .bind(&streams.first[..])
            .bind(&streams.count[..])
            .bind(&streams.through[..])
            .bind(&events.append[..])
            .bind(&events.nth[..])
            .bind(&events.stream[..])
            .bind(&events.id[..])
            .bind(&events.kind[..])
            .bind(&events.content_type[..])
            .bind(&events.payload[..])
            .bind(&events.metadata[..])
            .bind(&jobs.batch[..])
            .bind(&jobs.op[..])
            .bind(&jobs.does[..])
            .bind(&jobs.queue[..])
            .bind(&jobs.id[..])
            .bind(&jobs.token[..])
            .bind(&jobs.at[..])
            .bind(&pushes.batch[..])
            .bind(&pushes.does[..])
            .bind(&pushes.queue[..])
            .bind(&pushes.id[..])
            .bind(&pushes.due[..])
            .bind(&pushes.payload[..])
            .bind(&pushes.token[..])
            .bind(&pushes.until[..])
    }

    /// The wave that a batch goes in: after every batch before it that names something it names.
    fn line_up(&mut self, batch: &Batch) -> i32 {
        let locks: Vec<i32> = batch.ops().iter().map(|op| self.lock_of(op)).collect();
        let wave = locks.iter().filter_map(|lock| self.waves.get(lock)).max().map_or(1, |last| last + 1);
        self.waves.extend(locks.into_iter().map(|lock| (lock, wave)));
        self.batches.id.push(batch.id());
        self.batches.now.push(batch.now().as_micros());
        self.batches.wave.push(wave);
        self.is_synced |= batch.is_synced();
        wave
    }

    fn add(&mut self, batch: i32, op: i32, what: &'a Op) {
        match what {
            Op::Put { .. } | Op::Delete { .. } | Op::Check { .. } => self.records.add(batch, op, what),
            Op::Append { stream, events, .. } => {
                self.streams.add(batch, op, what);
                let append = i32::try_from(self.streams.batch.len()).expect("a fold is small");
                for (nth, event) in (0..).zip(events) {
                    self.events.add(append, nth, stream, event);
                }
            }
            Op::Trim { .. } => self.streams.add(batch, op, what),
            Op::Ack { .. } | Op::Retry { .. } | Op::Extend { .. } | Op::Cancel { .. } => {
                self.jobs.add(batch, op, what)
            }
            Op::Push { .. } => self.pushes.add(batch, what),
            Op::PushLeased { .. } if self.is_small => self.records.add(batch, op, what),
            Op::PushLeased { .. } => {
                self.jobs.add(batch, op, what);
                self.pushes.add(batch, what);
            }
        }
    }

    /// The lock for what an operation is about. Two things may share one.
    fn lock_of(&self, op: &Op) -> i32 {
        match op {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => {
                lock(&[&self.scope, "record", &key.space, &key.group, &key.id])
            }
            Op::Append { stream, .. } | Op::Trim { stream, .. } => lock(&[&self.scope, "stream", stream]),
            Op::Push { queue, id, .. }
            | Op::PushLeased { queue, id, .. }
            | Op::Ack { queue, id, .. }
            | Op::Retry { queue, id, .. }
            | Op::Extend { queue, id, .. }
            | Op::Cancel { queue, id } => lock(&[&self.scope, "job", queue, id]),
        }
    }
}

/// Whether it is about few records, jobs pushed leased, and nothing else.
fn is_small<'a>(mut ops: impl Iterator<Item = &'a Op> + Clone) -> bool {
    let is_plain =
        |op: &Op| matches!(op, Op::Put { .. } | Op::Delete { .. } | Op::Check { .. } | Op::PushLeased { .. });
    ops.clone().count() <= ONE_BY_ONE && ops.all(is_plain)
}

/// The number that names a lock. Nodes of all releases have to agree on it.
fn lock(name: &[&str]) -> i32 {
    // No part of a name has a NUL in it.
    let index = partition_index(&name.join("\0"), u32::MAX);
    i32::from_ne_bytes(index.to_ne_bytes())
}

impl<'a> Records<'a> {
    fn add(&mut self, batch: i32, op: i32, what: &'a Op) {
        if let Op::PushLeased { queue, id, due, payload, hold } = what {
            self.batch.push(batch);
            self.op.push(op);
            self.does.push("lease");
            self.space.push("");
            self.group.push(queue);
            self.id.push(id);
            self.expect.push("absent");
            self.version.push(Some(hold.token.0));
            self.value.push(Some(payload));
            self.expires_at.push(Some(hold.until.as_micros()));
            self.due.push(Some(due.as_micros()));
            return;
        }
        let (does, key, expect, value, expires_at) = match what {
            Op::Put { key, value, expect, expires_at } => ("put", key, expect, Some(&**value), *expires_at),
            Op::Delete { key, expect } => ("delete", key, expect, None, None),
            Op::Check { key, expect } => ("check", key, expect, None, None),
            _ => return,
        };
        let (expect, version) = match expect {
            Expect::Any => ("any", None),
            Expect::Absent => ("absent", None),
            Expect::Present => ("present", None),
            Expect::Version(version) => ("version", Some(version.0)),
        };
        self.batch.push(batch);
        self.op.push(op);
        self.does.push(does);
        self.space.push(&key.space);
        self.group.push(&key.group);
        self.id.push(&key.id);
        self.expect.push(expect);
        self.version.push(version);
        self.value.push(value);
        self.expires_at.push(expires_at.map(|at| at.as_micros()));
        self.due.push(None);
    }
}

impl Records<'_> {
    fn bind(&self, statement: Statement) -> Statement {
        statement
            .bind(&self.batch[..])
            .bind(&self.op[..])
            .bind(&self.does[..])
            .bind(&self.space[..])
            .bind(&self.group[..])
            .bind(&self.id[..])
            .bind(&self.expect[..])
            .bind(&self.version[..])
            .bind(&self.value[..])
            .bind(&self.expires_at[..])
    }
}

impl<'a> Streams<'a> {
    fn add(&mut self, batch: i32, op: i32, what: &'a Op) {
        let (does, stream, expect, count, through) = match what {
            Op::Append { stream, expect, events } if events.is_empty() => ("check", stream, *expect, 0, None),
            Op::Append { stream, expect, events } => ("append", stream, *expect, events.len(), None),
            Op::Trim { stream, through } => ("trim", stream, ExpectStream::Any, 0, Some(signed(*through))),
            _ => return,
        };
        self.batch.push(batch);
        self.op.push(op);
        self.does.push(does);
        self.stream.push(stream);
        self.expect.push(match expect {
            ExpectStream::Any => "any",
            ExpectStream::NoStream => "none",
            ExpectStream::Exists => "exists",
            ExpectStream::Version(_) => "version",
        });
        self.first.push(expect.version().map(|version| signed(version).saturating_add(1)));
        self.count.push(signed(count as u64));
        self.through.push(through);
    }
}

impl<'a> Events<'a> {
    fn add(&mut self, append: i32, nth: i64, stream: &'a str, event: &'a NewEvent) {
        self.append.push(append);
        self.nth.push(nth);
        self.stream.push(stream);
        self.id.push(event.id);
        self.kind.push(&event.kind);
        self.content_type.push(&event.content_type);
        self.payload.push(&event.payload);
        self.metadata.push(serde_json::to_string(&event.metadata).expect("scalars are JSON"));
    }
}

impl<'a> Jobs<'a> {
    fn add(&mut self, batch: i32, op: i32, what: &'a Op) {
        let (does, queue, id, token, at) = match what {
            Op::Ack { queue, id, token } => ("ack", queue, id, Some(token.0), None),
            Op::Retry { queue, id, token, due } => ("retry", queue, id, Some(token.0), Some(due)),
            Op::Extend { queue, id, token, until } => ("extend", queue, id, Some(token.0), Some(until)),
            Op::Cancel { queue, id } => ("cancel", queue, id, None, None),
            Op::PushLeased { queue, id, hold, .. } => ("lease", queue, id, Some(hold.token.0), None),
            _ => return,
        };
        self.batch.push(batch);
        self.op.push(op);
        self.does.push(does);
        self.queue.push(queue);
        self.id.push(id);
        self.token.push(token);
        self.at.push(at.map(|at| at.as_micros()));
    }
}

impl<'a> Pushes<'a> {
    fn add(&mut self, batch: i32, what: &'a Op) {
        let (does, queue, id, due, payload, hold) = match what {
            Op::Push { queue, id, due, payload, merge: Merge::Keep } => {
                ("keep", queue, id, due, payload, None)
            }
            Op::Push { queue, id, due, payload, merge: Merge::Sooner } => {
                ("sooner", queue, id, due, payload, None)
            }
            Op::PushLeased { queue, id, due, payload, hold } => {
                ("lease", queue, id, due, payload, Some(hold))
            }
            _ => return,
        };
        self.batch.push(batch);
        self.does.push(does);
        self.queue.push(queue);
        self.id.push(id);
        self.due.push(due.as_micros());
        self.payload.push(payload);
        self.token.push(hold.map(|hold| hold.token.0));
        self.until.push(hold.map(|hold| hold.until.as_micros()));
    }
}

const COMMIT_FEW: &str = "SELECT * FROM evenkeel.commit_few_v1($1, $2, $3, $4, $5, $6, $7, \
    $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

const COMMIT: &str = "SELECT * FROM evenkeel.commit_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, \
    $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
    $20, $21, $22, $23, $24, $25, $26, $27, \
    $28, $29, $30, $31, $32, $33, $34, $35, \
    $36, $37, $38, $39, $40, $41, $42, \
    $43, $44, $45, $46, $47, $48, $49, $50)";
