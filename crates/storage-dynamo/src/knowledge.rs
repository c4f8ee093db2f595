//! What is known, and what is assumed, of the items that batches name.

use std::collections::HashMap;

use evenkeel_core::{Batch, Expect, ExpectStream, Key, Op, Partition, Record, Result};

use crate::bases::{JobBase, RecordBase, StreamBase};
use crate::hints::Hints;
use crate::keys::{self, ItemKey};
use crate::rows::{self, Item, LogHead, Pointer, StoredJob, StreamHead};

/// A thing that operations are about, kept in one item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Record(Key),
    Stream(String),
    Job { queue: String, id: String },
    LogHead,
}

impl Subject {
    /// What an operation is about, besides the head of the log.
    pub(crate) fn of(op: &Op) -> Self {
        match op {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => Self::Record(key.clone()),
            Op::Append { stream, .. } | Op::Trim { stream, .. } => Self::Stream(stream.clone()),
            Op::Push { queue, id, .. }
            | Op::PushLeased { queue, id, .. }
            | Op::Ack { queue, id, .. }
            | Op::Retry { queue, id, .. }
            | Op::Extend { queue, id, .. }
            | Op::Cancel { queue, id } => Self::Job { queue: queue.clone(), id: id.clone() },
        }
    }

    /// The key of its item.
    pub(crate) fn key(&self, at: &Partition) -> ItemKey {
        match self {
            Self::Record(key) => keys::record(at, key),
            Self::Stream(stream) => keys::stream_head(at, stream),
            Self::Job { queue, id } => keys::job(at, queue, id),
            Self::LogHead => keys::log_head(at),
        }
    }
}

/// Whether an operation writes to the log, or changes how much of it is trimmed.
pub(crate) fn needs_log_head(op: &Op) -> bool {
    match op {
        Op::Append { events, .. } => !events.is_empty(),
        Op::Trim { .. } => true,
        _ => false,
    }
}

/// What was read of the items of a partition since a commit began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    records: HashMap<Key, Option<Record>>,
    streams: HashMap<String, Option<StreamHead>>,
    jobs: HashMap<(String, String), Option<StoredJob>>,
    log_head: Option<LogHead>,
    pointers: HashMap<(String, u64), Pointer>,
}

impl Knowledge {
    /// Notes how an item stands.
    pub(crate) fn learn(&mut self, subject: &Subject, item: Option<&Item>) -> Result<()> {
        match subject {
            Subject::Record(key) => {
                let record = item.map(rows::record).transpose()?;
                self.records.insert(key.clone(), record);
            }
            Subject::Stream(stream) => {
                let head = item.map(rows::stream_head).transpose()?;
                self.streams.insert(stream.clone(), head);
            }
            Subject::Job { queue, id } => {
                let job = item.map(rows::job).transpose()?;
                self.jobs.insert((queue.clone(), id.clone()), job);
            }
            Subject::LogHead => {
                self.log_head = Some(item.map(rows::log_head).transpose()?.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Notes where the event of a stream at a version is.
    pub(crate) fn learn_pointer(&mut self, stream: &str, version: u64, pointer: Pointer) {
        self.pointers.insert((stream.to_owned(), version), pointer);
    }

    /// Passes on what is worth a guess in commits to come.
    pub(crate) fn tell(&self, hints: &mut Hints) {
        hints.log_head = self.log_head.or(hints.log_head);
        for (stream, head) in &self.streams {
            if let Some(head) = head {
                hints.saw_stream(stream, *head);
            }
        }
    }

    pub(crate) fn knows(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Record(key) => self.records.contains_key(key),
            Subject::Stream(stream) => self.streams.contains_key(stream),
            Subject::Job { queue, id } => self.jobs.contains_key(&(queue.clone(), id.clone())),
            Subject::LogHead => self.log_head.is_some(),
        }
    }

    pub(crate) fn pointer(&self, stream: &str, version: u64) -> Option<&Pointer> {
        self.pointers.get(&(stream.to_owned(), version))
    }

    /// The events whose pointers tell whether an append of `batch` was applied before: those that
    /// stand where its own would, and are not of the stream's last append.
    pub(crate) fn missing_pointers(&self, batch: &Batch) -> Vec<(String, u64)> {
        let missing = |op: &Op| {
            let Op::Append { stream, expect, events } = op else { return None };
            let first = expect.version()?.checked_add(1).filter(|_| !events.is_empty())?;
            let head = (*self.streams.get(stream)?)?;
            let is_missing = first < head.first && self.pointer(stream, first).is_none();
            is_missing.then(|| (stream.clone(), first))
        };
        batch.ops().iter().filter_map(missing).collect()
    }
}

/// The operations that are about one subject, with their batches, in order.
pub(crate) type Mentions<'a> = [(&'a Batch, &'a Op)];

impl Knowledge {
    /// How a record is taken to stand; `None` where it must be read first.
    pub(crate) fn record(&self, key: &Key, mentions: &Mentions<'_>) -> Option<RecordBase> {
        if let Some(known) = self.records.get(key) {
            return Some(RecordBase::Known(known.clone()));
        }
        let is_any = |(_, op): &(&Batch, &Op)| {
            matches!(op, Op::Delete { expect: Expect::Any, .. } | Op::Check { expect: Expect::Any, .. })
        };
        if mentions.iter().all(is_any) {
            return Some(RecordBase::Any);
        }
        match mentions {
            [(batch, Op::Put { expect, .. } | Op::Delete { expect, .. } | Op::Check { expect, .. })] => {
                Some(RecordBase::Expected { expect: *expect, own: batch.id(), now: batch.now() })
            }
            [(_, Op::Put { expect: Expect::Absent, .. }), ..] => Some(RecordBase::Supposed),
            _ => None,
        }
    }

    /// How a job is taken to stand; `None` where it must be read first.
    pub(crate) fn job(&self, queue: &str, id: &str, mentions: &Mentions<'_>) -> Option<JobBase> {
        if let Some(known) = self.jobs.get(&(queue.to_owned(), id.to_owned())) {
            return Some(JobBase::Known(known.clone()));
        }
        if mentions.iter().all(|(_, op)| matches!(op, Op::Cancel { .. })) {
            return Some(JobBase::Any);
        }
        match mentions {
            [(_, Op::Push { .. } | Op::PushLeased { .. }), ..] => Some(JobBase::Supposed),
            [(_, Op::Ack { token, .. } | Op::Retry { token, .. } | Op::Extend { token, .. })] => {
                Some(JobBase::HeldBy(*token))
            }
            _ => None,
        }
    }

    /// How a stream is taken to stand; `None` where it must be read first.
    pub(crate) fn stream(&self, name: &str, mentions: &Mentions<'_>, hints: &Hints) -> Option<StreamBase> {
        if let Some(known) = self.streams.get(name) {
            return Some(StreamBase::Known(*known));
        }
        let expectation = |op: &Op| match op {
            Op::Append { expect, events, .. } => Some((*expect, events.is_empty())),
            _ => None,
        };
        let expectations: Option<Vec<_>> = mentions.iter().map(|(_, op)| expectation(op)).collect();
        // What is trimmed already must be known to trim more.
        let expectations = expectations?;
        if expectations.iter().all(|expected| *expected == (ExpectStream::Any, true)) {
            return Some(StreamBase::Any);
        }
        if let Some(hinted) = hints.stream(name) {
            return Some(StreamBase::Hinted(hinted));
        }
        match &expectations[..] {
            [(ExpectStream::Exists, true)] => Some(StreamBase::Exists),
            [(expect, _), ..] => {
                // No stream is that long; but what is assumed must have room for the events.
                let has_room = |version: &u64| *version < u64::MAX / 2;
                expect.version().filter(has_room).map(StreamBase::AtVersion)
            }
            [] => None,
        }
    }

    /// How the head of the log is taken to stand; `None` where it must be read first.
    pub(crate) fn log_head(&self, hints: &Hints) -> Option<LogHead> {
        self.log_head.or(hints.log_head)
    }
}
