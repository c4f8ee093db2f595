use std::collections::HashSet;

use bytes::Bytes;
use evenkeel_core::{
    Appended, Batch, Committed, Conflict, ErrorKind, Event, Expect, ExpectStream, Found, Hold, Job, Key,
    Lease, Leased, Merge, Op, Pending, Record, Timestamp, Token,
};

/// What a partition holds, kept as plainly as can be: lists that are searched from end to end, and
/// a leased job's pushes as they came. Written from the contract, not from the stores.
#[derive(Debug, Default)]
pub(super) struct Reference {
    /// Expired ones too, until they are swept.
    records: Vec<(Key, Record)>,
    /// All that was ever appended, with whether it was trimmed.
    events: Vec<(Event, Trimmed)>,
    jobs: Vec<PlainJob>,
    tokens: Vec<(String, String, Token)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trimmed {
    No,
    Yes,
    Swept,
}

#[derive(Clone, Debug)]
struct PlainJob {
    queue: String,
    id: String,
    due: Timestamp,
    payload: Bytes,
    attempt: u32,
    lease: Option<Hold>,
    pushed: Vec<(Timestamp, Bytes, Merge)>,
}

/// A verdict that nothing was committed.
pub(super) type Refused = Box<(ErrorKind, Option<Conflict>)>;

impl Reference {
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Committed, Refused> {
        if names_something_twice(batch) {
            return Err(Box::new((ErrorKind::InvalidInput, None)));
        }
        if let Some(committed) = self.already_applied(batch) {
            return Ok(committed);
        }
        for (op, what) in batch.ops().iter().enumerate() {
            if let Some((kind, found)) = self.refuse(batch, what) {
                return Err(Box::new((kind, Some(Conflict { op, found }))));
            }
        }
        let appended = batch.ops().iter().filter_map(|op| self.apply(batch, op)).collect();
        Ok(Committed { version: batch.version(), appended })
    }

    fn already_applied(&self, batch: &Batch) -> Option<Committed> {
        let mut bears_its_id = false;
        let mut appended = Vec::new();
        for op in batch.ops() {
            match op {
                Op::Put { key, .. } => {
                    bears_its_id |= self
                        .records
                        .iter()
                        .any(|(at, record)| at == key && record.version == batch.version());
                }
                Op::Append { stream, expect, events } if !events.is_empty() => {
                    let its_own: Vec<&Event> = self
                        .events
                        .iter()
                        .map(|(event, _)| event)
                        .filter(|event| event.stream == *stream && event.batch == batch.id())
                        .collect();
                    // A batch that is not fenced may have been applied more than once: its last time.
                    let its_last = &its_own[its_own.len().saturating_sub(events.len())..];
                    let (Some(first), Some(last)) = (its_last.first(), its_last.last()) else { continue };
                    let names_version = matches!(expect, ExpectStream::NoStream | ExpectStream::Version(_));
                    if names_version || last.version == self.stream_version(stream) {
                        bears_its_id = true;
                        appended.push(place(first, its_last.len()));
                    }
                }
                Op::PushLeased { queue, id, hold, .. } => {
                    bears_its_id |= self.current_token(queue, id) == Some(hold.token);
                }
                _ => {}
            }
        }
        bears_its_id.then(|| Committed { version: batch.version(), appended })
    }

    fn refuse(&self, batch: &Batch, op: &Op) -> Option<(ErrorKind, Found)> {
        match op {
            Op::Put { key, expect, .. } | Op::Delete { key, expect } | Op::Check { key, expect } => {
                let record = self.live(key, batch.now());
                let fine = match expect {
                    Expect::Any => true,
                    Expect::Absent => record.is_none(),
                    Expect::Present => record.is_some(),
                    Expect::Version(version) => {
                        record.as_ref().is_some_and(|record| record.version == *version)
                    }
                };
                (!fine).then(|| (ErrorKind::Conflict, Found::Record { key: key.clone(), record }))
            }
            Op::Append { stream, expect, .. } => {
                let version = self.stream_version(stream);
                let fine = match expect {
                    ExpectStream::Any => true,
                    ExpectStream::NoStream => version == 0,
                    ExpectStream::Exists => version != 0,
                    ExpectStream::Version(expected) => version == *expected,
                };
                (!fine).then(|| (ErrorKind::Conflict, Found::Stream { stream: stream.clone(), version }))
            }
            Op::Ack { queue, id, token }
            | Op::Retry { queue, id, token, .. }
            | Op::Extend { queue, id, token, .. } => {
                let job = self.jobs(queue).into_iter().find(|(at, _)| at == id).map(|(_, job)| job);
                let fine = self.current_token(queue, id) == Some(*token);
                (!fine)
                    .then(|| (ErrorKind::LeaseLost, Found::Job { queue: queue.clone(), id: id.clone(), job }))
            }
            Op::PushLeased { queue, id, .. } => {
                let job = self.jobs(queue).into_iter().find(|(at, _)| at == id).map(|(_, job)| job);
                let occupied = |job| Found::Occupied { queue: queue.clone(), id: id.clone(), job };
                job.map(|job| (ErrorKind::Conflict, occupied(job)))
            }
            Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. } => None,
        }
    }

    fn apply(&mut self, batch: &Batch, op: &Op) -> Option<Appended> {
        match op {
            Op::Put { key, value, expires_at, .. } => {
                self.records.retain(|(at, _)| at != key);
                let record =
                    Record { value: value.clone(), version: batch.version(), expires_at: *expires_at };
                self.records.push((key.clone(), record));
            }
            Op::Delete { key, .. } => self.records.retain(|(at, _)| at != key),
            Op::Check { .. } => {}
            Op::Append { stream, events, .. } => {
                for event in events {
                    let (version, position) = (self.stream_version(stream) + 1, self.head() + 1);
                    let event = Event {
                        id: event.id,
                        stream: stream.clone(),
                        version,
                        position,
                        kind: event.kind.to_string(),
                        payload: event.payload.clone(),
                        content_type: event.content_type.to_string(),
                        metadata: event.metadata.clone(),
                        recorded_at: batch.now(),
                        batch: batch.id(),
                    };
                    self.events.push((event, Trimmed::No));
                }
                let first = self.events.len() - events.len();
                return self.events.get(first).map(|(event, _)| place(event, events.len()));
            }
            Op::Trim { stream, through } => {
                for (event, trimmed) in &mut self.events {
                    if event.stream == *stream && event.version <= *through && *trimmed == Trimmed::No {
                        *trimmed = Trimmed::Yes;
                    }
                }
            }
            Op::Push { queue, id, due, payload, merge } => match self.job_mut(queue, id) {
                Some(job) if job.lease.is_some() => job.pushed.push((*due, payload.clone(), *merge)),
                Some(job) => job.merge(*due, payload.clone(), *merge),
                None => self.jobs.push(PlainJob::new(queue, id, *due, payload.clone())),
            },
            Op::PushLeased { queue, id, due, payload, hold } => {
                let job = PlainJob::new(queue, id, *due, payload.clone());
                self.jobs.push(PlainJob { attempt: 1, lease: Some(*hold), ..job });
                self.tokens.push((queue.clone(), id.clone(), hold.token));
            }
            Op::Ack { queue, id, .. } => {
                let ended = self.remove_job(queue, id);
                self.jobs.extend(ended.and_then(|job| created_by(&job)));
            }
            Op::Retry { queue, id, due, .. } => {
                let job = self.job_mut(queue, id).expect("its token was current");
                job.due = *due;
                job.end_lease();
            }
            Op::Extend { queue, id, until, .. } => {
                let job = self.job_mut(queue, id).expect("its token was current");
                job.lease = job.lease.map(|hold| Hold { until: *until, ..hold });
            }
            Op::Cancel { queue, id } => drop(self.remove_job(queue, id)),
        }
        None
    }

    /// Checks what a store leased, and takes it over.
    pub(super) fn lease(&mut self, want: &Lease, leased: &Leased) -> Result<(), String> {
        let ready = |job: &PlainJob| job.lease.map_or(job.due, |hold| hold.until) <= want.now;
        let count = self.jobs.iter().filter(|job| job.queue == want.queue && ready(job)).count();
        if leased.jobs.len() != count.min(want.max) {
            return Err(format!(
                "{} leased of {count} that are ready: {want:?} {leased:?}",
                leased.jobs.len()
            ));
        }
        for answer in &leased.jobs {
            if self.tokens.iter().any(|(.., token)| *token == answer.token) {
                return Err(format!("a token was given out twice: {answer:?}"));
            }
            self.tokens.push((want.queue.clone(), answer.id.clone(), answer.token));
            let Some(job) = self.job_mut(&want.queue, &answer.id).filter(|job| ready(job)) else {
                return Err(format!("leased what is not ready: {answer:?}"));
            };
            let until = want.now + want.hold_for;
            job.end_lease();
            job.attempt += 1;
            job.lease = Some(Hold { token: answer.token, until });
            let expected = (job.due, &job.payload, job.attempt, until);
            if (answer.due, &answer.payload, answer.attempt, answer.until) != expected {
                return Err(format!("leased {answer:?}, which stands as {job:?}"));
            }
        }
        let others = self
            .jobs
            .iter()
            .filter(|job| job.queue == want.queue && leased.jobs.iter().all(|answer| answer.id != job.id));
        match (others.count(), leased.next_due) {
            (0, None) | (1.., Some(_)) => Ok(()),
            (others, next_due) => Err(format!("{others} other jobs, and the next is due at {next_due:?}")),
        }
    }

    /// Forgets what nobody can see any more; how much that is.
    pub(super) fn sweep(&mut self, expired_before: Timestamp) -> usize {
        let before = self.records.len();
        self.records.retain(|(_, record)| record.expires_at.is_none_or(|at| at >= expired_before));
        let mut swept = before - self.records.len();
        for (_, trimmed) in self.events.iter_mut().filter(|(_, trimmed)| *trimmed == Trimmed::Yes) {
            *trimmed = Trimmed::Swept;
            swept += 1;
        }
        swept
    }

    pub(super) fn live(&self, key: &Key, now: Timestamp) -> Option<Record> {
        let (_, record) = self.records.iter().find(|(at, _)| at == key)?;
        let expired = record.expires_at.is_some_and(|at| at <= now);
        (!expired).then(|| record.clone())
    }

    pub(super) fn group(&self, group: &str, now: Timestamp) -> Vec<(String, Record)> {
        let mut found: Vec<_> = self
            .records
            .iter()
            .filter(|(key, _)| key.group == group)
            .filter_map(|(key, _)| Some((key.id.clone(), self.live(key, now)?)))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        found
    }

    pub(super) fn head(&self) -> u64 {
        count(self.events.len())
    }

    pub(super) fn stream_version(&self, stream: &str) -> u64 {
        count(self.events.iter().filter(|(event, _)| event.stream == stream).count())
    }

    pub(super) fn log(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let kept = self.events.iter().filter(|(event, trimmed)| *trimmed == Trimmed::No && wanted(event));
        kept.map(|(event, _)| event.clone()).collect()
    }

    pub(super) fn jobs(&self, queue: &str) -> Vec<(String, Job)> {
        let here = self.jobs.iter().filter(|job| job.queue == queue);
        let mut found: Vec<_> = here.map(|job| (job.id.clone(), job.as_it_stands())).collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    /// The token of the job's lease, where it has one.
    pub(super) fn current_token(&self, queue: &str, id: &str) -> Option<Token> {
        let job = self.jobs.iter().find(|job| job.queue == queue && job.id == id)?;
        job.lease.map(|hold| hold.token)
    }

    /// The first token that the job ever had.
    pub(super) fn first_token(&self, queue: &str, id: &str) -> Option<Token> {
        let (.., token) = self.tokens.iter().find(|(at, of, _)| at == queue && of == id)?;
        Some(*token)
    }

    fn job_mut(&mut self, queue: &str, id: &str) -> Option<&mut PlainJob> {
        self.jobs.iter_mut().find(|job| job.queue == queue && job.id == id)
    }

    fn remove_job(&mut self, queue: &str, id: &str) -> Option<PlainJob> {
        let place = self.jobs.iter().position(|job| job.queue == queue && job.id == id)?;
        Some(self.jobs.remove(place))
    }
}

impl PlainJob {
    fn new(queue: &str, id: &str, due: Timestamp, payload: Bytes) -> Self {
        Self { queue: queue.into(), id: id.into(), due, payload, attempt: 0, lease: None, pushed: Vec::new() }
    }

    fn merge(&mut self, due: Timestamp, payload: Bytes, merge: Merge) {
        match merge {
            Merge::Keep => {}
            Merge::Sooner => (self.due, self.payload) = (self.due.min(due), payload),
        }
    }

    /// Ends the lease; what was pushed during it arrives now.
    fn end_lease(&mut self) {
        self.lease = None;
        for (due, payload, merge) in std::mem::take(&mut self.pushed) {
            self.merge(due, payload, merge);
        }
    }

    fn as_it_stands(&self) -> Job {
        let sooner = self.pushed.iter().filter(|(.., merge)| *merge == Merge::Sooner);
        let sooner = sooner.map(|(due, ..)| *due).min();
        let created = created_by(self);
        let pending = created.map(|Self { due, payload, .. }| Pending { due, payload, sooner });
        let Self { due, attempt, lease, .. } = *self;
        Job { due, payload: self.payload.clone(), attempt, lease, pending }
    }
}

/// The job that the pushes during this one's lease create where there is none any more.
fn created_by(job: &PlainJob) -> Option<PlainJob> {
    let mut pushed = job.pushed.iter().cloned();
    let (due, payload, _) = pushed.next()?;
    let mut created = PlainJob::new(&job.queue, &job.id, due, payload);
    pushed.for_each(|(due, payload, merge)| created.merge(due, payload, merge));
    Some(created)
}

fn names_something_twice(batch: &Batch) -> bool {
    let name = |op: &Op| match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => format!("record {key:?}"),
        Op::Append { stream, .. } | Op::Trim { stream, .. } => format!("stream {stream:?}"),
        Op::Push { queue, id, .. }
        | Op::PushLeased { queue, id, .. }
        | Op::Ack { queue, id, .. }
        | Op::Retry { queue, id, .. }
        | Op::Extend { queue, id, .. }
        | Op::Cancel { queue, id } => format!("job {queue:?} {id:?}"),
    };
    let names: HashSet<String> = batch.ops().iter().map(name).collect();
    names.len() < batch.ops().len()
}

fn place(first: &Event, events: usize) -> Appended {
    let Event { stream, version, position, .. } = first;
    Appended { stream: stream.clone(), version: *version, position: *position, count: count(events) }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).expect("a usize fits a u64")
}
