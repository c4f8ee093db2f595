//! What a batch means: the one place where expectations are judged and operations applied.
//!
//! [`MemoryStore`](crate::MemoryStore) runs it on its whole state; a store that folds commits runs
//! it on the rows that the waiting batches name. Stores whose server judges say the same in its
//! language, and the conformance suite compares.

use uuid::Uuid;

use crate::Result;
use crate::batch::{Appended, Batch, Committed, Op};
use crate::error::{Conflict, Found};
use crate::log::{Event, ExpectStream, NewEvent};
use crate::queue::Job;
use crate::record::{Expect, Key, Record};

/// The part of a partition that a batch can see and change.
pub trait State {
    /// The record at the key, expired or not.
    fn record(&self, key: &Key) -> Option<&Record>;
    /// Writes or (with `None`) removes a record.
    fn set_record(&mut self, key: &Key, record: Option<Record>);

    /// The version of the stream's last event; 0 without one.
    fn stream_version(&self, stream: &str) -> u64;
    /// Batch id and position of an event: asked for the last event of a stream, and for the one
    /// after the version that an append expects.
    fn event_origin(&self, stream: &str, version: u64) -> Option<(Uuid, u64)>;
    /// The position of the partition's last event; 0 without one.
    fn head(&self) -> u64;
    /// Adds an event at the next position and at the next version of its stream.
    fn append(&mut self, event: Event);
    /// Forgets the events of a stream up to a version.
    fn trim(&mut self, stream: &str, through: u64);

    /// The job, leased or not.
    fn job(&self, queue: &str, id: &str) -> Option<&Job>;
    /// Writes or (with `None`) removes a job.
    fn set_job(&mut self, queue: &str, id: &str, job: Option<Job>);
}

/// Judges a valid batch and, where every expectation holds, applies it.
///
/// # Errors
/// `Conflict` or `LeaseLost` for the first operation whose expectation does not hold; nothing was
/// changed.
pub fn commit(state: &mut impl State, batch: &Batch) -> Result<Committed> {
    match judge(state, batch) {
        Verdict::Holds => {
            let appended = batch.ops().iter().filter_map(|op| apply(state, batch, op)).collect();
            Ok(Committed { version: batch.version(), appended })
        }
        Verdict::Applied(committed) => Ok(committed),
        Verdict::Fails(conflict) => Err(conflict.into()),
    }
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every expectation holds.
    Holds,
    /// Something that it names bears its id: it was sent again, and is a success already.
    Applied(Committed),
    /// The first of its expectations that does not hold.
    Fails(Conflict),
}

/// Judges a valid batch without applying it.
#[must_use]
pub fn judge(state: &impl State, batch: &Batch) -> Verdict {
    let mut was_applied = false;
    let mut appended = Vec::new();
    let mut failing = None;
    for (op, what) in batch.ops().iter().enumerate() {
        let (is_own, holds) = match what {
            // One look at the record for both, since this is what most batches consist of.
            Op::Put { key, expect, .. } => {
                let record = state.record(key);
                let is_own = record.is_some_and(|record| record.version == batch.version());
                (is_own, expect.holds(record.filter(|record| record.is_live(batch.now()))))
            }
            Op::Append { stream, expect, events } if !events.is_empty() => {
                let place = place_of_resent(state, batch.id(), stream, *expect, events);
                let is_own = place.is_some();
                appended.extend(place);
                (is_own, holds(state, batch, what))
            }
            Op::PushLeased { queue, id, hold, .. } => {
                let job = state.job(queue, id);
                (job.is_some_and(|job| job.is_held_by(hold.token)), job.is_none())
            }
            _ => (false, holds(state, batch, what)),
        };
        was_applied |= is_own;
        if !holds && failing.is_none() {
            failing = Some((op, what));
        }
    }
    if was_applied {
        return Verdict::Applied(Committed { version: batch.version(), appended });
    }
    match failing.and_then(|(op, what)| Some(Conflict { op, found: found(state, batch, what)? })) {
        Some(conflict) => Verdict::Fails(conflict),
        None => Verdict::Holds,
    }
}

fn place_of_resent(
    state: &impl State,
    batch: Uuid,
    stream: &str,
    expect: ExpectStream,
    events: &[NewEvent],
) -> Option<Appended> {
    let count = count(events);
    let appended = |version, position| Appended { stream: stream.to_owned(), version, position, count };
    if let Some(expected) = expect.version() {
        let first = expected.checked_add(1)?;
        let (origin, position) = state.event_origin(stream, first)?;
        (origin == batch).then(|| appended(first, position))
    } else {
        // Without a version to go by, the events are found only while they are the stream's last.
        let last = state.stream_version(stream);
        let (origin, position) = state.event_origin(stream, last)?;
        let place = (last + 1).checked_sub(count).zip((position + 1).checked_sub(count));
        place.filter(|_| origin == batch).map(|(version, position)| appended(version, position))
    }
}

/// Whether what an operation expects is so.
fn holds(state: &impl State, batch: &Batch, op: &Op) -> bool {
    match op {
        Op::Delete { expect: Expect::Any, .. } | Op::Check { expect: Expect::Any, .. } => true,
        Op::Put { key, expect, .. } | Op::Delete { key, expect } | Op::Check { key, expect } => {
            expect.holds(state.record(key).filter(|record| record.is_live(batch.now())))
        }
        Op::Append { stream, expect, .. } => expect.holds(state.stream_version(stream)),
        Op::PushLeased { queue, id, .. } => state.job(queue, id).is_none(),
        Op::Ack { queue, id, token }
        | Op::Retry { queue, id, token, .. }
        | Op::Extend { queue, id, token, .. } => {
            state.job(queue, id).is_some_and(|job| job.is_held_by(*token))
        }
        Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. } => true,
    }
}

/// What stands at the place that an operation expects something of.
fn found(state: &impl State, batch: &Batch, op: &Op) -> Option<Found> {
    match op {
        Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => {
            let live = state.record(key).filter(|record| record.is_live(batch.now()));
            Some(Found::Record { key: key.clone(), record: live.cloned() })
        }
        Op::Append { stream, .. } => {
            Some(Found::Stream { stream: stream.clone(), version: state.stream_version(stream) })
        }
        Op::PushLeased { queue, id, .. } => {
            let (queue, id, job) = (queue.clone(), id.clone(), state.job(queue, id).cloned()?);
            Some(Found::Occupied { queue, id, job })
        }
        Op::Ack { queue, id, .. } | Op::Retry { queue, id, .. } | Op::Extend { queue, id, .. } => {
            let job = state.job(queue, id).cloned();
            Some(Found::Job { queue: queue.clone(), id: id.clone(), job })
        }
        Op::Trim { .. } | Op::Push { .. } | Op::Cancel { .. } => None,
    }
}

fn apply(state: &mut impl State, batch: &Batch, op: &Op) -> Option<Appended> {
    match op {
        Op::Put { key, value, expires_at, .. } => {
            let record = Record { value: value.clone(), version: batch.version(), expires_at: *expires_at };
            state.set_record(key, Some(record));
        }
        Op::Delete { key, .. } => state.set_record(key, None),
        Op::Check { .. } => {}
        Op::Append { stream, events, .. } => return append(state, batch, stream, events),
        Op::Trim { stream, through } => state.trim(stream, *through),
        Op::Push { queue, id, due, payload, merge } => {
            let job = match state.job(queue, id).cloned() {
                None => Job::new(*due, payload.clone()),
                Some(mut job) => {
                    job.push(*due, payload.clone(), *merge);
                    job
                }
            };
            state.set_job(queue, id, Some(job));
        }
        Op::PushLeased { queue, id, due, payload, hold } => {
            let mut job = Job::new(*due, payload.clone());
            job.lease(*hold);
            state.set_job(queue, id, Some(job));
        }
        Op::Ack { queue, id, .. } => {
            let left = state.job(queue, id).cloned().and_then(Job::acked);
            state.set_job(queue, id, left);
        }
        Op::Retry { queue, id, due, .. } => change_job(state, queue, id, |job| job.retry(*due)),
        Op::Extend { queue, id, until, .. } => change_job(state, queue, id, |job| {
            if let Some(hold) = &mut job.lease {
                hold.until = *until;
            }
        }),
        Op::Cancel { queue, id } => state.set_job(queue, id, None),
    }
    None
}

fn change_job(state: &mut impl State, queue: &str, id: &str, change: impl FnOnce(&mut Job)) {
    if let Some(mut job) = state.job(queue, id).cloned() {
        change(&mut job);
        state.set_job(queue, id, Some(job));
    }
}

fn append(state: &mut impl State, batch: &Batch, stream: &str, events: &[NewEvent]) -> Option<Appended> {
    if events.is_empty() {
        return None;
    }
    let (version, position) = (state.stream_version(stream) + 1, state.head() + 1);
    for (event, offset) in events.iter().zip(0..) {
        state.append(Event {
            id: event.id,
            stream: stream.to_owned(),
            version: version + offset,
            position: position + offset,
            kind: event.kind.clone().into_owned(),
            payload: event.payload.clone(),
            content_type: event.content_type.clone().into_owned(),
            metadata: event.metadata.clone(),
            recorded_at: batch.now(),
            batch: batch.id(),
        });
    }
    Some(Appended { stream: stream.to_owned(), version, position, count: count(events) })
}

fn count(events: &[NewEvent]) -> u64 {
    u64::try_from(events.len()).expect("a usize fits a u64")
}
