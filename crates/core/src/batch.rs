use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::log::{ExpectStream, NewEvent, Scalar};
use crate::queue::{Hold, Merge, Token};
use crate::record::{Expect, Key, Version};
use crate::{Error, ErrorKind, Partition, Result, Timestamp};

/// What one commit does, all or nothing, in one partition.
///
/// Every expectation is judged against the state before the batch. A batch names each key, job and
/// stream at most once. Clones are cheap.
///
/// ```
/// # use evenkeel_core::{Batch, Expect, Key, MemoryStore, NewEvent, StoreExt, Timestamp};
/// # let store = MemoryStore::new();
/// # let now = Timestamp::EPOCH;
/// let mut batch = Batch::new(store.partition_of("order-17"), now);
/// batch
///     .put(Key::new("shop.order", "open", "17"), "{}", Expect::Absent)
///     .append_any("order-17", [NewEvent::new("OrderPlaced", "{}", now)])
///     .push("shop.mail", "17", now, "thanks", evenkeel_core::Merge::Keep);
/// assert!(batch.is_fenced());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    at: Partition,
    id: Uuid,
    now: Timestamp,
    is_synced: bool,
    /// Shared, so that keeping a copy to send again costs next to nothing.
    ops: Arc<Vec<Op>>,
}

/// One operation of a [`Batch`].
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes a record.
    Put {
        /// Where.
        key: Key,
        /// The new value.
        value: Bytes,
        /// What must stand there.
        expect: Expect,
        /// When the record reads as absent again.
        expires_at: Option<Timestamp>,
    },
    /// Removes a record; an absent one is removed already.
    Delete {
        /// Where.
        key: Key,
        /// What must stand there.
        expect: Expect,
    },
    /// Only expects.
    Check {
        /// Where.
        key: Key,
        /// What must stand there.
        expect: Expect,
    },
    /// Adds events to a stream; none makes it a check on the stream.
    Append {
        /// The stream's name.
        stream: String,
        /// What must be true of the stream.
        expect: ExpectStream,
        /// At most [`Batch::MAX_EVENTS`].
        events: Vec<NewEvent>,
    },
    /// Forgets the events of a stream up to a version; positions stay taken.
    Trim {
        /// The stream's name.
        stream: String,
        /// The last version to forget; beyond the end means all.
        through: u64,
    },
    /// Creates a job, or merges into the one there.
    Push {
        /// The queue's name.
        queue: String,
        /// The job's id within it.
        id: String,
        /// When it may be leased.
        due: Timestamp,
        /// What it is about.
        payload: Bytes,
        /// What to do where it exists.
        merge: Merge,
    },
    /// Creates a job that is leased from its birth, for the first time. It expects that there is none.
    PushLeased {
        /// The queue's name.
        queue: String,
        /// The job's id within it.
        id: String,
        /// When it was due.
        due: Timestamp,
        /// What it is about.
        payload: Bytes,
        /// Who holds it, by a token that no other lease has, and until when.
        hold: Hold,
    },
    /// Ends a lease and its job.
    Ack {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
        /// The lease.
        token: Token,
    },
    /// Ends a lease; its job falls due again.
    Retry {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
        /// The lease.
        token: Token,
        /// When.
        due: Timestamp,
    },
    /// Moves the end of a lease.
    Extend {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
        /// The lease.
        token: Token,
        /// Its new end.
        until: Timestamp,
    },
    /// Removes a job whoever holds it; an absent one is removed already.
    Cancel {
        /// The queue's name.
        queue: String,
        /// The job's id.
        id: String,
    },
}

impl Batch {
    /// The most events in one append.
    pub const MAX_EVENTS: usize = 500;

    /// An empty batch with a fresh id, for the partition `at`. Expiry is judged at `now`, which also
    /// becomes the events' `recorded_at`.
    #[must_use]
    pub fn new(at: Partition, now: Timestamp) -> Self {
        Self { at, id: time_ordered_id(now), now, is_synced: true, ops: Arc::default() }
    }

    /// Its id: the version of the records it writes, and what its events carry.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// The version that the records it writes will have.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version(self.id)
    }

    /// The partition it is for.
    #[must_use]
    pub const fn at(&self) -> &Partition {
        &self.at
    }

    /// The instant at which expiry is judged.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Moves the instant at which expiry is judged, for a batch that was filled over some time.
    pub const fn set_now(&mut self, now: Timestamp) -> &mut Self {
        self.now = now;
        self
    }

    /// Lets the store answer before what the batch writes is on disk.
    ///
    /// It is as atomic as any other, and whoever looks sees it. A crash of the machine, or of the
    /// database's server, may undo it with what was committed after it: for what can be derived again
    /// from what is safe. A batch that is synced and committed after it takes it along. Stores that
    /// cannot tell the two apart sync both.
    pub const fn set_unsynced(&mut self) -> &mut Self {
        self.is_synced = false;
        self
    }

    /// Takes [`set_unsynced`](Self::set_unsynced) back.
    pub const fn set_synced(&mut self) -> &mut Self {
        self.is_synced = true;
        self
    }

    /// Whether it is to be as safe as the store can make it when the commit returns; it is, unless
    /// that was [given up](Self::set_unsynced).
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Its operations, in the order they were added.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Whether it has no operation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds an operation.
    pub fn op(&mut self, op: Op) -> &mut Self {
        Arc::make_mut(&mut self.ops).push(op);
        self
    }

    /// Writes a record.
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>, expect: Expect) -> &mut Self {
        self.op(Op::Put { key, value: value.into(), expect, expires_at: None })
    }

    /// Writes a record that reads as absent from `expires_at` on.
    pub fn put_until(
        &mut self,
        key: Key,
        value: impl Into<Bytes>,
        expect: Expect,
        expires_at: Timestamp,
    ) -> &mut Self {
        self.op(Op::Put { key, value: value.into(), expect, expires_at: Some(expires_at) })
    }

    /// Removes a record.
    pub fn delete(&mut self, key: Key, expect: Expect) -> &mut Self {
        self.op(Op::Delete { key, expect })
    }

    /// Expects something of a record without writing it.
    pub fn check(&mut self, key: Key, expect: Expect) -> &mut Self {
        self.op(Op::Check { key, expect })
    }

    /// Adds events to a stream that is as expected.
    pub fn append(
        &mut self,
        stream: impl Into<String>,
        expect: ExpectStream,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> &mut Self {
        let events = events.into_iter().collect();
        self.op(Op::Append { stream: stream.into(), expect, events })
    }

    /// Adds events to a stream, whatever its version.
    pub fn append_any(
        &mut self,
        stream: impl Into<String>,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> &mut Self {
        self.append(stream, ExpectStream::Any, events)
    }

    /// Forgets a stream's events up to and with version `through`.
    pub fn trim(&mut self, stream: impl Into<String>, through: u64) -> &mut Self {
        self.op(Op::Trim { stream: stream.into(), through })
    }

    /// Creates a job, or merges into the one there.
    pub fn push(
        &mut self,
        queue: impl Into<String>,
        id: impl Into<String>,
        due: Timestamp,
        payload: impl Into<Bytes>,
        merge: Merge,
    ) -> &mut Self {
        let (queue, id, payload) = (queue.into(), id.into(), payload.into());
        self.op(Op::Push { queue, id, due, payload, merge })
    }

    /// Creates a job that the caller holds from its birth, as if it had been pushed and then leased
    /// at once, so that no other can come in between and no call of [`lease`](crate::Store::lease)
    /// is needed. Where the job exists already, the batch is a `Conflict`.
    pub fn push_leased(
        &mut self,
        queue: impl Into<String>,
        id: impl Into<String>,
        due: Timestamp,
        payload: impl Into<Bytes>,
        hold: Hold,
    ) -> &mut Self {
        let (queue, id, payload) = (queue.into(), id.into(), payload.into());
        self.op(Op::PushLeased { queue, id, due, payload, hold })
    }

    /// Ends a job that the token's lease holds.
    pub fn ack(&mut self, queue: impl Into<String>, id: impl Into<String>, token: Token) -> &mut Self {
        self.op(Op::Ack { queue: queue.into(), id: id.into(), token })
    }

    /// Gives a job back; it falls due again at `due`.
    pub fn retry(
        &mut self,
        queue: impl Into<String>,
        id: impl Into<String>,
        token: Token,
        due: Timestamp,
    ) -> &mut Self {
        self.op(Op::Retry { queue: queue.into(), id: id.into(), token, due })
    }

    /// Moves the end of a lease.
    pub fn extend(
        &mut self,
        queue: impl Into<String>,
        id: impl Into<String>,
        token: Token,
        until: Timestamp,
    ) -> &mut Self {
        self.op(Op::Extend { queue: queue.into(), id: id.into(), token, until })
    }

    /// Removes a job whoever holds it.
    pub fn cancel(&mut self, queue: impl Into<String>, id: impl Into<String>) -> &mut Self {
        self.op(Op::Cancel { queue: queue.into(), id: id.into() })
    }

    /// Whether one of its operations consumes what it expects, so that it cannot apply twice and
    /// may be sent again, id and all, after [`ErrorKind::OutcomeUnknown`].
    ///
    /// One exception: where a batch created a record or a leased job and somebody else removed it
    /// before the batch was sent again, it creates it again.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.ops.iter().any(|op| match op {
            Op::Put { expect, .. } => matches!(expect, Expect::Absent | Expect::Version(_)),
            Op::Delete { expect, .. } => matches!(expect, Expect::Version(_)),
            Op::Append { expect, events, .. } => expect.version().is_some() && !events.is_empty(),
            Op::PushLeased { .. } | Op::Ack { .. } | Op::Retry { .. } => true,
            Op::Check { .. } | Op::Trim { .. } | Op::Push { .. } | Op::Extend { .. } | Op::Cancel { .. } => {
                false
            }
        })
    }

    /// What it counts against [`Limits::units`]: 4 for an append, 1 for any other operation.
    #[must_use]
    pub fn units(&self) -> usize {
        self.ops.iter().map(|op| if matches!(op, Op::Append { .. }) { 4 } else { 1 }).sum()
    }

    /// What it counts against [`Limits::bytes`]: names, values, payloads and metadata.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Checks everything that can be checked without the store. Every store calls it first.
    ///
    /// # Errors
    /// `InvalidInput` for a malformed name, a number in metadata that is not finite, or a second
    /// mention of a key, job or stream; `TooLarge` beyond a limit.
    pub fn validate(&self, limits: &Limits) -> Result<()> {
        let mut mentions = HashSet::with_capacity(self.ops.len());
        for op in &*self.ops {
            op.validate(limits)?;
            if !mentions.insert(op.subject()) {
                return Err(Error::new(ErrorKind::InvalidInput, "a batch names a key, job or stream once")
                    .with("again", op.subject()));
            }
        }
        at_most("the batch has too many operations", "units", self.units(), limits.units)?;
        at_most("the batch is too large", "bytes", self.bytes(), limits.bytes)
    }
}

/// What an operation is about; a batch may name each once.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Subject<'a> {
    Record(&'a Key),
    Stream(&'a str),
    Job(&'a str, &'a str),
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(key) => write!(f, "record {key}"),
            Self::Stream(stream) => write!(f, "stream {stream:?}"),
            Self::Job(queue, id) => write!(f, "job {id:?} of queue {queue:?}"),
        }
    }
}

impl Op {
    fn subject(&self) -> Subject<'_> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => {
                Subject::Record(key)
            }
            Self::Append { stream, .. } | Self::Trim { stream, .. } => Subject::Stream(stream),
            Self::Push { queue, id, .. }
            | Self::PushLeased { queue, id, .. }
            | Self::Ack { queue, id, .. }
            | Self::Retry { queue, id, .. }
            | Self::Extend { queue, id, .. }
            | Self::Cancel { queue, id } => Subject::Job(queue, id),
        }
    }

    fn bytes(&self) -> usize {
        let payload = match self {
            Self::Put { value, .. } => value.len(),
            Self::Append { events, .. } => events.iter().map(event_bytes).sum(),
            Self::Push { payload, .. } | Self::PushLeased { payload, .. } => payload.len(),
            Self::Delete { .. }
            | Self::Check { .. }
            | Self::Trim { .. }
            | Self::Ack { .. }
            | Self::Retry { .. }
            | Self::Extend { .. }
            | Self::Cancel { .. } => 0,
        };
        let name = match self.subject() {
            Subject::Record(key) => key.len(),
            Subject::Stream(stream) => stream.len(),
            Subject::Job(queue, id) => queue.len() + id.len(),
        };
        name + payload
    }

    fn validate(&self, limits: &Limits) -> Result<()> {
        match self.subject() {
            Subject::Record(key) => key.check()?,
            Subject::Stream(stream) => check_name("stream", stream, Key::MAX_PART)?,
            Subject::Job(queue, id) => {
                check_name("queue", queue, Key::MAX_PART)?;
                check_name("id", id, Key::MAX_PART)?;
            }
        }
        match self {
            Self::Put { key, value, .. } => {
                at_most("the value is too large", "bytes", value.len(), limits.value)
                    .map_err(|error| error.with("key", key))
            }
            Self::Push { payload, .. } | Self::PushLeased { payload, .. } => {
                at_most("the job's payload is too large", "bytes", payload.len(), limits.value)
            }
            Self::Append { events, .. } => {
                at_most("the append has too many events", "events", events.len(), Batch::MAX_EVENTS)?;
                events.iter().try_for_each(|event| check_event(event, limits))
            }
            _ => Ok(()),
        }
    }
}

fn event_bytes(event: &NewEvent) -> usize {
    let metadata = event.metadata.iter().map(|(key, value)| {
        key.len()
            + match value {
                Scalar::Text(text) => text.len(),
                Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Float(_) => 8,
            }
    });
    event.kind.len() + event.payload.len() + event.content_type.len() + metadata.sum::<usize>()
}

fn check_event(event: &NewEvent, limits: &Limits) -> Result<()> {
    check_name("event kind", &event.kind, Key::MAX_PART)?;
    check_name("content type", &event.content_type, Key::MAX_PART)?;
    for (key, value) in &event.metadata {
        if matches!(value, Scalar::Float(float) if !float.is_finite()) {
            return Err(
                Error::new(ErrorKind::InvalidInput, "a number in metadata is finite").with("key", key)
            );
        }
    }
    at_most("the event is too large", "bytes", event_bytes(event), limits.value)
        .map_err(|error| error.with("kind", &event.kind))
}

/// What a store takes in one batch. Every store takes at least [`Limits::MIN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most [units](Batch::units) of one batch.
    pub units: usize,
    /// The most [bytes](Batch::bytes) of one batch.
    pub bytes: usize,
    /// The longest record value, job payload, or event (with its metadata), in bytes.
    pub value: usize,
}

impl Limits {
    /// What code that is to run on every store may count on.
    pub const MIN: Self = Self { units: 90, bytes: 1_000_000, value: 350 * 1024 };
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The version that every record put by the batch has now.
    pub version: Version,
    /// Where the events of each non-empty append went, in the batch's order.
    ///
    /// Where a batch was recognised as already applied, a stream that others appended to since is
    /// left out unless the batch expected its version; [`Event::batch`](crate::Event::batch) tells.
    pub appended: Vec<Appended>,
}

/// Where the events of one append went; they are contiguous in the stream and in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stream's name.
    pub stream: String,
    /// The version of the first event.
    pub version: u64,
    /// The position of the first event.
    pub position: u64,
    /// How many events.
    pub count: u64,
}

/// A UUIDv7 at `now`, so that ids made later sort later and pages fill in order.
pub(crate) fn time_ordered_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes()).into_uuid()
}

fn random_bytes() -> [u8; 10] {
    let random = Uuid::new_v4();
    let mut bytes = [0; 10];
    bytes[..6].copy_from_slice(&random.as_bytes()[..6]);
    // Bytes 6 and 8 of a v4 id carry its version and variant.
    bytes[6..].copy_from_slice(&random.as_bytes()[9..13]);
    bytes
}

pub(crate) fn check_name(what: &'static str, name: &str, longest: usize) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > longest {
        "is too long"
    } else if name.contains('\0') {
        "contains a NUL"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(80).collect();
    Err(Error::new(ErrorKind::InvalidInput, format!("the {what} {problem}"))
        .with("name", format_args!("{shown:?}"))
        .with("bytes", name.len())
        .with("limit", longest))
}

pub(crate) fn check_limit(limit: usize) -> Result<()> {
    if limit == 0 { Err(Error::new(ErrorKind::InvalidInput, "a limit is at least 1")) } else { Ok(()) }
}

fn at_most(message: &'static str, unit: &'static str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::new(ErrorKind::TooLarge, message).with(unit, count).with("limit", limit))
}
