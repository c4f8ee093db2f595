use std::fmt;

use evenkeel_core::{
    AnyStore, Appended, Batch, Error, ErrorKind, Expect, ExpectStream, Found, Read, Result, Store, StoreExt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event_store::deleted;
use crate::snapshot::Snapshots;
use crate::{Aggregate, EventStore, Recorded, places};

/// How many events are read at a time.
const PAGE: usize = 500;

/// Aggregates of one kind, kept as events.
///
/// Handles are cheap to clone.
pub struct Repository<A, S = AnyStore> {
    events: EventStore<S>,
    attempts: u32,
    snapshots: Option<Snapshots<A>>,
}

/// An aggregate as it was at a version of its stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<A> {
    /// Its state.
    pub state: A,
    /// The version of its stream's last event; 0 where nothing has happened to it.
    pub version: u64,
    /// The version of the snapshot that it was built on; 0 without one.
    snapshot: u64,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed<A> {
    /// The aggregate after it.
    pub aggregate: Loaded<A>,
    /// Where its events went; `None` where it led to none.
    pub appended: Option<Appended>,
}

/// Why a command came to nothing.
#[derive(Debug)]
pub enum CommandError<E> {
    /// The aggregate refused it.
    Refused(E),
    /// The store failed, or was contended for too long.
    Store(Error),
}

impl<E> From<Error> for CommandError<E> {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl<E: fmt::Display> fmt::Display for CommandError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "refused: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CommandError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Store(error) => error.source(),
        }
    }
}

impl<A: Aggregate, S: Store + Clone> Repository<A, S> {
    /// The aggregates whose events are in `events`. A command is decided up to 10 times where
    /// others are faster, and there are no snapshots.
    #[must_use]
    pub fn new(events: EventStore<S>) -> Self {
        Self { events, attempts: 10, snapshots: None }
    }

    /// How often a command is decided at most, where others append to the aggregate meanwhile.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Keeps the state with every `every` events, in the commit that appends them. `schema` says
    /// what the state looks like: a snapshot of another schema, or one that cannot be read, counts
    /// for nothing, and neither is one kept that does not fit the store.
    #[must_use]
    pub fn snapshots(mut self, every: u64, schema: u32) -> Self
    where
        A: Serialize + DeserializeOwned,
    {
        self.snapshots = Some(Snapshots::new(every, schema));
        self
    }

    /// A repository of the same aggregates whose events are appended through `events`, which says
    /// where they [come](EventStore::with) from.
    #[must_use]
    pub fn through(&self, events: EventStore<S>) -> Self {
        Self { events, ..self.clone() }
    }

    /// The stream of an aggregate.
    #[must_use]
    pub fn stream_of(id: &str) -> String {
        format!("{}-{id}", A::NAME)
    }

    /// The aggregate as it is now; the default at version 0 where nothing has happened to it.
    ///
    /// # Errors
    /// Those of [`Store::read`]; `NotFound` where its stream was deleted; `Corrupt` for an event
    /// of a kind that it does not know, and where its first events were forgotten and there is no
    /// snapshot after them.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>> {
        let mut loaded = self.load_snapshot(id).await?;
        self.catch_up(id, &mut loaded).await?;
        Ok(loaded)
    }

    /// Decides a command and appends what it leads to. Where others append meanwhile, it is decided
    /// again on what they did.
    ///
    /// # Errors
    /// `Refused` with the aggregate's error; otherwise those of [`load`](Self::load) and
    /// [`EventStore::append`], so `Conflict` where others were faster each time.
    pub async fn execute(
        &self,
        id: &str,
        command: &A::Command,
    ) -> Result<Executed<A>, CommandError<A::Error>> {
        let stream = Self::stream_of(id);
        let mut aggregate = self.load(id).await?;
        let mut attempt = 1;
        loop {
            let mut batch = self.events.batch(&stream);
            let after = self.decide_in(&mut batch, id, &aggregate, command)?;
            if after.version == aggregate.version {
                return Ok(Executed { aggregate, appended: None });
            }
            match self.events.commit_append(&stream, batch).await {
                Ok(appended) => return Ok(Executed { aggregate: after, appended: Some(appended) }),
                Err(error) if attempt < self.attempts && is_about_a_stream(&error) => {
                    tracing::debug!(%error, attempt, "a command is decided again");
                }
                Err(error) => return Err(error.into()),
            }
            attempt += 1;
            self.catch_up(id, &mut aggregate).await?;
        }
    }

    /// Decides a command and adds what it leads to to a batch of the aggregate's partition, which
    /// conflicts where others append to it before that is committed. Returns the aggregate as it
    /// will be.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); `InvalidInput` where the batch is for another partition.
    pub async fn execute_in(
        &self,
        batch: &mut Batch,
        id: &str,
        command: &A::Command,
    ) -> Result<Loaded<A>, CommandError<A::Error>> {
        let aggregate = self.load(id).await?;
        self.decide_in(batch, id, &aggregate, command)
    }

    fn decide_in(
        &self,
        batch: &mut Batch,
        id: &str,
        aggregate: &Loaded<A>,
        command: &A::Command,
    ) -> Result<Loaded<A>, CommandError<A::Error>> {
        let mut after = aggregate.clone();
        let events = aggregate.state.decide(command).map_err(CommandError::Refused)?;
        if events.is_empty() {
            return Ok(after);
        }
        self.events.append_in(
            batch,
            &Self::stream_of(id),
            ExpectStream::Version(aggregate.version),
            &events,
        )?;
        for event in &events {
            after.state.apply(event);
            after.version += 1;
        }
        self.put_snapshot(batch, id, &mut after);
        Ok(after)
    }

    /// Applies what was appended since the aggregate was loaded.
    async fn catch_up(&self, id: &str, loaded: &mut Loaded<A>) -> Result<()> {
        let stream = Self::stream_of(id);
        let at = self.events.partition_of(&stream);
        let (mut after, mut ends_in_tombstone) = (loaded.version, false);
        loop {
            let page = self.events.read(&at, Read::stream(&*stream, after, PAGE)).await?;
            for event in &page.events {
                ends_in_tombstone = event.kind == places::TOMBSTONE;
                loaded.take(&stream, event)?;
            }
            after = page.examined_to;
            if after < page.head {
                continue;
            }
            if loaded.version < page.head {
                return Err(forgotten(&stream, loaded.version));
            }
            if ends_in_tombstone && self.events.is_deleted(&stream).await? {
                return Err(deleted(&stream));
            }
            return Ok(());
        }
    }

    async fn load_snapshot(&self, id: &str) -> Result<Loaded<A>> {
        let nothing = Loaded { state: A::default(), version: 0, snapshot: 0 };
        let Some(snapshots) = &self.snapshots else { return Ok(nothing) };
        let at = self.events.partition_of(&Self::stream_of(id));
        let found = self.events.store.get_one(&at, self.events.now(), &places::snapshot(A::NAME, id)).await?;
        let read = found.and_then(|record| snapshots.read(&record.value));
        Ok(read.map_or(nothing, |(state, version)| Loaded { state, version, snapshot: version }))
    }

    fn put_snapshot(&self, batch: &mut Batch, id: &str, aggregate: &mut Loaded<A>) {
        let Some(snapshots) = &self.snapshots else { return };
        if aggregate.version - aggregate.snapshot < snapshots.every {
            return;
        }
        let limits = self.events.store.info().limits;
        match snapshots.write(&aggregate.state, aggregate.version) {
            Some(value) if value.len() <= limits.value && batch.bytes() + value.len() < limits.bytes => {
                batch.put(places::snapshot(A::NAME, id), value, Expect::Any);
                aggregate.snapshot = aggregate.version;
            }
            _ => tracing::warn!(aggregate = A::NAME, id, "a snapshot does not fit the store and is left out"),
        }
    }
}

impl<A: Aggregate> Loaded<A> {
    fn take(&mut self, stream: &str, event: &Recorded) -> Result<()> {
        let version = event.version;
        if event.kind == places::TOMBSTONE {
            // What comes after it, where the stream was reopened, is another life.
            *self = Self { state: A::default(), version, snapshot: version };
            return Ok(());
        }
        if version != self.version + 1 {
            return Err(forgotten(stream, self.version));
        }
        let known = event.decode::<A::Event>()?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "the aggregate does not know a kind of event in its stream")
                .with("stream", stream)
                .with("kind", &event.kind)
        })?;
        self.state.apply(&known);
        self.version = version;
        Ok(())
    }
}

fn forgotten(stream: &str, known: u64) -> Error {
    Error::new(ErrorKind::Corrupt, "events of the aggregate were forgotten that no snapshot holds")
        .with("stream", stream)
        .with("after", known)
}

/// Whether somebody else has appended to a stream.
fn is_about_a_stream(error: &Error) -> bool {
    error.conflict().is_some_and(|conflict| matches!(conflict.found, Found::Stream { .. }))
}

impl<A, S: Clone> Clone for Repository<A, S> {
    fn clone(&self) -> Self {
        Self { events: self.events.clone(), attempts: self.attempts, snapshots: self.snapshots.clone() }
    }
}

impl<A, S> fmt::Debug for Repository<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("events", &self.events).finish_non_exhaustive()
    }
}
