//! The items that a fold names, as they are taken to stand: judged in memory, then written under
//! guards that hold only where they do stand so.

use std::collections::HashMap;

use evenkeel_core::judge::{self, State, Verdict};
use evenkeel_core::{
    Batch, Committed, Event, Expect, ExpectStream, Job, Key, Op, Partition, Record, Result, Timestamp,
};
use uuid::Uuid;

use crate::apart::Payloads;
use crate::bases::{JobBase, RecordBase, StreamBase};
use crate::hints::Hints;
use crate::keys::{self, ItemKey};
use crate::knowledge::{Knowledge, Mentions, Subject, needs_log_head};
use crate::pages;
use crate::rows::{self, LogHead, Reclaim, StoredJob, StreamHead, binary_id, number};
use crate::write::{Action, Guard, Resent, Write};

/// What the batches of a fold see and change.
#[derive(Debug)]
pub(crate) struct WorkingSet<'k> {
    knowledge: &'k Knowledge,
    /// The latest time of the batches.
    now: Timestamp,
    records: HashMap<Key, Row<RecordBase, Record>>,
    jobs: HashMap<(String, String), Row<JobBase, Job>>,
    streams: HashMap<String, Stream>,
    log_head: Option<(LogHead, LogHead)>,
    appended: Vec<Event>,
}

/// What an item is taken to hold, and what it is to hold.
#[derive(Debug)]
struct Row<B, T> {
    base: B,
    value: Option<T>,
    changed: bool,
}

#[derive(Debug)]
struct Stream {
    base: StreamBase,
    head: StreamHead,
    /// Batch and position of the events that were appended by this fold, by version.
    appended: HashMap<u64, (Uuid, u64)>,
}

/// What a fold comes to.
#[derive(Debug)]
pub(crate) struct Writes {
    /// What each write is about; what is not about anything is new.
    pub(crate) subjects: Vec<Option<Subject>>,
    pub(crate) writes: Vec<Write>,
    /// What is written before, and removed after.
    pub(crate) payloads: Payloads,
}

/// What can be said of a batch before anything is written.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Its verdict is certain.
    Verdict(Result<Committed>),
    /// Its verdict is certain once these are known.
    Look(Vec<Subject>),
    /// It depends on what is to be written.
    Open,
}

impl<'k> WorkingSet<'k> {
    /// What `batches` see, or what must be read before that can be said.
    pub(crate) fn new(
        batches: &[&Batch],
        knowledge: &'k Knowledge,
        hints: &Hints,
    ) -> Result<Self, Vec<Subject>> {
        let mut mentions: HashMap<Subject, Vec<(&Batch, &Op)>> = HashMap::new();
        for batch in batches {
            for op in batch.ops() {
                mentions.entry(Subject::of(op)).or_default().push((batch, op));
                if needs_log_head(op) {
                    mentions.entry(Subject::LogHead).or_default();
                }
            }
        }
        let mut set = Self {
            knowledge,
            now: batches.iter().map(|batch| batch.now()).max().unwrap_or(Timestamp::EPOCH),
            records: HashMap::new(),
            jobs: HashMap::new(),
            streams: HashMap::new(),
            log_head: None,
            appended: Vec::new(),
        };
        let mut unknown = Vec::new();
        for (subject, mentions) in mentions {
            if !set.take(&subject, &mentions, hints) {
                unknown.push(subject);
            }
        }
        if unknown.is_empty() { Ok(set) } else { Err(unknown) }
    }

    /// Takes in how a subject stands; whether that can be said.
    fn take(&mut self, subject: &Subject, mentions: &Mentions<'_>, hints: &Hints) -> bool {
        match subject {
            Subject::Record(key) => {
                let Some(base) = self.knowledge.record(key, mentions) else { return false };
                let row = Row { value: base.taken(), base, changed: false };
                self.records.insert(key.clone(), row);
            }
            Subject::Job { queue, id } => {
                let Some(base) = self.knowledge.job(queue, id, mentions) else { return false };
                let row = Row { value: base.taken(), base, changed: false };
                self.jobs.insert((queue.clone(), id.clone()), row);
            }
            Subject::Stream(name) => {
                let Some(base) = self.knowledge.stream(name, mentions, hints) else { return false };
                let stream = Stream { base, head: base.taken(), appended: HashMap::new() };
                self.streams.insert(name.clone(), stream);
            }
            Subject::LogHead => {
                let Some(head) = self.knowledge.log_head(hints) else { return false };
                self.log_head = Some((head, head));
            }
        }
        true
    }

    /// What can be said of a batch from what was read alone, whatever the others of its fold write.
    pub(crate) fn settle(&self, batch: &Batch) -> Settled {
        let (verdict, failing) = match judge::judge(self, batch) {
            Verdict::Holds => return Settled::Open,
            Verdict::Applied(committed) => (Ok(committed), 0),
            Verdict::Fails(conflict) => {
                let subject = Subject::of(&batch.ops()[conflict.op]);
                if !self.knowledge.knows(&subject) {
                    return match subject {
                        Subject::Stream(_) => Settled::Look(vec![subject]),
                        // Another batch of the fold is the first to name it.
                        _ => Settled::Open,
                    };
                }
                let failing = conflict.op;
                (Err(conflict.into()), failing)
            }
        };
        // What could show that the batch was applied before must have been looked at, and what an
        // operation before the failing one expects.
        let ops = batch.ops().iter().enumerate();
        let matters = |(place, op): &(usize, &Op)| shows_batch(op) || *place < failing && expects(op);
        let matter = ops.filter(matters).map(|(_, op)| Subject::of(op));
        let unseen: Vec<_> = matter.filter(|subject| !self.knowledge.knows(subject)).collect();
        if unseen.is_empty() { Settled::Verdict(verdict) } else { Settled::Look(unseen) }
    }

    /// Everything that is to be written or to be so.
    ///
    /// # Errors
    /// `TooLarge` where an event does not fit a page, or where what is pushed to a job that is leased from
    /// its birth has no room in its item: alone, that push comes later, and its payload has one of its own.
    pub(crate) fn writes(&self, at: &Partition, reclaim: Reclaim) -> Result<Writes> {
        let (mut writes, mut payloads) = (Vec::new(), Payloads::default());
        for (key, row) in &self.records {
            let subject = Subject::Record(key.clone());
            push(&mut writes, at, subject, row.base.guard(), record_action(at, key, row, reclaim));
        }
        let revision = Uuid::new_v4();
        for ((queue, id), row) in &self.jobs {
            let subject = Subject::Job { queue: queue.clone(), id: id.clone() };
            let key = subject.key(at);
            let after = row.after(&key, revision)?;
            if let JobBase::Known(Some(before)) = &row.base {
                payloads.note(at, &key, before, after.as_ref(), self.now);
            }
            let action = job_action(&key, row, after.as_ref());
            push(&mut writes, at, subject, row.guard(), action);
        }
        for (name, stream) in &self.streams {
            let action = (stream.action(at), Resent::Unclear);
            push(&mut writes, at, Subject::Stream(name.clone()), stream.guard(), action);
        }
        if let Some((before, after)) = &self.log_head {
            let mut item = keys::log_head(at).attributes();
            rows::set(&mut item, "pos", number(after.position));
            rows::set(&mut item, "cuts", number(after.trims));
            let action = if before == after { Action::Check } else { Action::Put(item) };
            push(&mut writes, at, Subject::LogHead, Some(log_guard(*before)), (action, Resent::Unclear));
        }
        writes.extend(pages::writes(at, &self.appended)?.into_iter().map(|write| (None, write)));
        let (subjects, writes) = writes.into_iter().unzip();
        Ok(Writes { subjects, writes, payloads })
    }

    /// Notes how the logs stand once all is written.
    pub(crate) fn note(&self, hints: &mut Hints) {
        if let Some((_, after)) = self.log_head {
            hints.log_head = Some(after);
        }
        for (name, stream) in &self.streams {
            if !stream.appended.is_empty() {
                hints.saw_stream(name, stream.head);
            }
        }
    }
}

/// Whether what an operation writes bears the id of its batch, or a token that no other has.
fn shows_batch(op: &Op) -> bool {
    match op {
        Op::Put { .. } | Op::PushLeased { .. } => true,
        Op::Append { events, .. } => !events.is_empty(),
        _ => false,
    }
}

/// Whether an operation can fail.
fn expects(op: &Op) -> bool {
    match op {
        Op::Put { expect, .. } | Op::Delete { expect, .. } | Op::Check { expect, .. } => {
            *expect != Expect::Any
        }
        Op::Append { expect, .. } => *expect != ExpectStream::Any,
        Op::PushLeased { .. } | Op::Ack { .. } | Op::Retry { .. } | Op::Extend { .. } => true,
        Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. } => false,
    }
}

/// Adds a write, unless there is nothing to write and nothing to guard.
fn push(
    writes: &mut Vec<(Option<Subject>, Write)>,
    at: &Partition,
    subject: Subject,
    guard: Option<Guard>,
    (action, resent): (Action, Resent),
) {
    if guard.is_some() || !matches!(action, Action::Check) {
        let key = subject.key(at);
        writes.push((Some(subject), Write { key, action, guard, resent }));
    }
}

fn record_action(
    at: &Partition,
    key: &Key,
    row: &Row<RecordBase, Record>,
    reclaim: Reclaim,
) -> (Action, Resent) {
    match &row.value {
        _ if !row.changed => (Action::Check, Resent::Unclear),
        None => (Action::Delete, Resent::Unclear),
        Some(record) => {
            let resent = match row.base {
                RecordBase::Any | RecordBase::Expected { expect: Expect::Any, .. } => Resent::Unclear,
                // It may be written over, and what was written over it must not be.
                RecordBase::Expected { expect: Expect::Present, .. } => Resent::Unclear,
                _ => Resent::Recognised(record.version.0),
            };
            (Action::Put(rows::record_item(at, key, record, reclaim)), resent)
        }
    }
}

impl Row<JobBase, Job> {
    /// What is stored of the job once all is written.
    fn after(&self, key: &ItemKey, revision: Uuid) -> Result<Option<StoredJob>> {
        let Some(job) = self.value.clone() else { return Ok(None) };
        match &self.base {
            JobBase::Known(Some(before)) => Ok(Some(before.becoming(key, job, revision))),
            JobBase::Any | JobBase::HeldBy(_) | JobBase::Supposed | JobBase::Known(None) => {
                StoredJob::whole(key, job, revision).map(Some)
            }
        }
    }

    fn guard(&self) -> Option<Guard> {
        (self.changed || !matches!(self.base, JobBase::Any)).then(|| self.base.guard())
    }
}

fn job_action(key: &ItemKey, row: &Row<JobBase, Job>, after: Option<&StoredJob>) -> (Action, Resent) {
    let unchanged = match &row.base {
        JobBase::Known(before) => before.as_ref().map(|stored| &stored.job) == row.value.as_ref(),
        JobBase::Supposed => row.value.is_none(),
        JobBase::Any | JobBase::HeldBy(_) => !row.changed,
    };
    if unchanged {
        return (Action::Check, Resent::Unclear);
    }
    let Some(after) = after else { return (Action::Delete, Resent::Unclear) };
    let StoredJob { job, revision, .. } = after;
    let revision = *revision;
    let recognised = Resent::Recognised(revision);
    let ver = (":new", binary_id(revision));
    match &row.base {
        // What is not known of the job, its payload above all, stays.
        JobBase::HeldBy(_) => match job.lease {
            Some(hold) => {
                let until = (":til", number(hold.until.as_micros()));
                let update = "SET til = :til, ready = :til, ver = :new";
                // Whoever holds it may have moved the end of the lease again.
                (Action::Update(update.into(), vec![until, ver]), Resent::Unclear)
            }
            None => {
                let due = (":due", number(job.due.as_micros()));
                let update = "SET due = :due, ready = :due, ver = :new REMOVE tok, til";
                (Action::Update(update.into(), vec![due, ver]), recognised)
            }
        },
        JobBase::Known(Some(before)) => {
            let (update, values) = rows::job_update(key, before, after);
            (Action::Update(update.into(), values), recognised)
        }
        JobBase::Any | JobBase::Supposed | JobBase::Known(None) => {
            // A job that was created may be gone again, and must not come back; but whoever holds it from
            // its birth is told that this may be.
            let is_fenced = job.lease.is_some() && job.pending.is_none();
            let resent = if is_fenced { recognised } else { Resent::Unclear };
            (Action::Put(rows::job_item(key, after)), resent)
        }
    }
}

impl Stream {
    fn before(&self) -> StreamHead {
        self.base.taken()
    }

    fn is_trimmed(&self) -> bool {
        self.head.trimmed != self.before().trimmed
    }

    fn guard(&self) -> Option<Guard> {
        let before = match self.base {
            StreamBase::Any => return None,
            StreamBase::Exists => return Some(Guard::new("attribute_exists(pk)", [])),
            StreamBase::AtVersion(0) | StreamBase::Known(None) => return Some(Guard::no_item()),
            StreamBase::AtVersion(_) | StreamBase::Hinted(_) | StreamBase::Known(Some(_)) => self.before(),
        };
        let version = (":was", number(before.version));
        Some(match (self.is_trimmed(), before.trimmed) {
            (false, _) => Guard::new("n = :was", [version]),
            (true, 0) => Guard::new("n = :was AND attribute_not_exists(cut)", [version]),
            (true, trimmed) => Guard::new(
                "n = :was AND cut = :wascut AND swept = :wasswept",
                [version, (":wascut", number(trimmed)), (":wasswept", number(before.swept))],
            ),
        })
    }

    fn action(&self, at: &Partition) -> Action {
        let head = &self.head;
        let of_append = || {
            vec![
                (":n", number(head.version)),
                (":fst", number(head.first)),
                (":pos", number(head.position)),
                (":bat", binary_id(head.batch)),
            ]
        };
        let of_trim = || {
            let queue = aws_sdk_dynamodb::types::AttributeValue::S(keys::trims(at));
            vec![(":cut", number(head.trimmed)), (":zero", number(0)), (":queue", queue)]
        };
        match (self.appended.is_empty(), self.is_trimmed()) {
            (true, false) => Action::Check,
            (false, false) => {
                Action::Update("SET n = :n, fst = :fst, pos = :pos, bat = :bat".into(), of_append())
            }
            (true, true) => Action::Update(
                "SET cut = :cut, swept = if_not_exists(swept, :zero), queue = :queue, ready = :zero".into(),
                of_trim(),
            ),
            (false, true) => Action::Update(
                "SET n = :n, fst = :fst, pos = :pos, bat = :bat, \
                 cut = :cut, swept = if_not_exists(swept, :zero), queue = :queue, ready = :zero"
                    .into(),
                of_append().into_iter().chain(of_trim()).collect(),
            ),
        }
    }
}

fn log_guard(head: LogHead) -> Guard {
    if head == LogHead::default() {
        return Guard::no_item();
    }
    Guard::new(
        "pos = :pos AND cuts = :cuts",
        [(":pos", number(head.position)), (":cuts", number(head.trims))],
    )
}

impl State for WorkingSet<'_> {
    fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)?.value.as_ref()
    }

    fn set_record(&mut self, key: &Key, record: Option<Record>) {
        if let Some(row) = self.records.get_mut(key) {
            row.value = record;
            row.changed = true;
        }
    }

    fn stream_version(&self, stream: &str) -> u64 {
        self.streams.get(stream).map_or(0, |stream| stream.head.version)
    }

    fn event_origin(&self, stream: &str, version: u64) -> Option<(Uuid, u64)> {
        let Stream { head, appended, .. } = self.streams.get(stream)?;
        if let Some(origin) = appended.get(&version) {
            return Some(*origin);
        }
        if (head.first..=head.version).contains(&version) {
            return Some((head.batch, head.position - (head.version - version)));
        }
        let pointer = self.knowledge.pointer(stream, version)?;
        Some((pointer.batch, pointer.position + (version - pointer.first)))
    }

    fn head(&self) -> u64 {
        self.log_head.map_or(0, |(_, head)| head.position)
    }

    fn append(&mut self, event: Event) {
        if let (Some(stream), Some((_, log))) = (self.streams.get_mut(&event.stream), &mut self.log_head) {
            let is_of_last =
                stream.head.batch == event.batch && stream.appended.contains_key(&stream.head.version);
            if !is_of_last {
                stream.head.first = event.version;
            }
            stream.head.version = event.version;
            stream.head.position = event.position;
            stream.head.batch = event.batch;
            stream.appended.insert(event.version, (event.batch, event.position));
            log.position = event.position;
            self.appended.push(event);
        }
    }

    fn trim(&mut self, stream: &str, through: u64) {
        if let (Some(stream), Some((_, log))) = (self.streams.get_mut(stream), &mut self.log_head) {
            let before = stream.head;
            stream.head.trimmed = before.trimmed.max(through.min(before.version));
            let is_first = before.trimmed == before.swept && stream.head.trimmed > before.trimmed;
            log.trims += u64::from(is_first);
        }
    }

    fn job(&self, queue: &str, id: &str) -> Option<&Job> {
        self.jobs.get(&(queue.to_owned(), id.to_owned()))?.value.as_ref()
    }

    fn set_job(&mut self, queue: &str, id: &str, job: Option<Job>) {
        if let Some(row) = self.jobs.get_mut(&(queue.to_owned(), id.to_owned())) {
            row.value = job;
            row.changed = true;
        }
    }
}
