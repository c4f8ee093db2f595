use std::fmt;
use std::sync::Arc;

use evenkeel_core::{
    AnyStore, Appended, Batch, BoxError, Clock, Error, ErrorKind, Expect, ExpectStream, Found, Metadata,
    NewEvent, Partition, Read, Result, Scalar, Store, StoreExt, SystemClock, Timestamp,
};
use serde_json::Value;
use uuid::Uuid;

use crate::event::{self, Event};
use crate::recorded::{Recorded, metadata};
use crate::upcast::Upcasters;
use crate::{places, settle};

/// Events in streams, typed, on any store.
///
/// A stream lives in the partition that its name maps to. Handles are cheap to clone; what a handle
/// is [told](Self::with) about where its events come from is written into each of them.
///
/// Methods fail as [`Store::commit`] and [`Store::read`] do, besides what they say. Dropping the
/// future of an append does not cancel a commit that has begun.
#[derive(Clone)]
pub struct EventStore<S = AnyStore> {
    pub(crate) store: S,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) upcasters: Arc<Upcasters>,
    stamp: Arc<Metadata>,
    ids: Ids,
}

/// Whether two events of a partition may have one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    Free,
    Unique,
}

impl<S: Store + Clone> EventStore<S> {
    /// The events of `store`.
    #[must_use]
    pub fn new(store: S) -> Self {
        let (upcasters, stamp) = Default::default();
        Self { store, clock: SystemClock::shared(), upcasters, stamp, ids: Ids::Free }
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Brings payloads of `kind` from `version` to the next one when they are read. What is stored
    /// stays as it is.
    #[must_use]
    pub fn upcast(
        mut self,
        kind: impl Into<String>,
        version: u32,
        change: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.upcasters).add(kind.into(), version, None, change);
        self
    }

    /// As [`upcast`](Self::upcast), for a kind that is called `renamed` from the next version on.
    #[must_use]
    pub fn upcast_renamed(
        mut self,
        kind: impl Into<String>,
        version: u32,
        renamed: impl Into<String>,
        change: impl Fn(Value) -> Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.upcasters).add(kind.into(), version, Some(renamed.into()), change);
        self
    }

    /// Refuses an event whose id another of its partition has, with `AlreadyExists`. Each event then
    /// costs a record and one of the batch's units: some 80 an append fit on every store.
    #[must_use]
    pub fn unique_ids(mut self) -> Self {
        self.ids = Ids::Unique;
        self
    }

    /// A handle that writes this value into the metadata of each event.
    #[must_use]
    pub fn with(&self, name: impl Into<String>, value: impl Into<Scalar>) -> Self {
        let mut with = self.clone();
        Arc::make_mut(&mut with.stamp).insert(name.into(), value.into());
        with
    }

    /// A handle whose events belong to one request, which all have the same id.
    #[must_use]
    pub fn correlated(&self, id: Uuid) -> Self {
        self.with(metadata::CORRELATION, id.to_string())
    }

    /// A handle whose events were caused by this one, and belong to the request that it belongs to.
    #[must_use]
    pub fn caused_by(&self, event: &Recorded) -> Self {
        let caused = self.with(metadata::CAUSATION, event.id.to_string());
        caused.correlated(event.correlation().unwrap_or(event.id))
    }

    /// The store that it keeps the events in.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The partition of a stream.
    #[must_use]
    pub fn partition_of(&self, stream: &str) -> Partition {
        self.store.partition_of(stream)
    }

    /// The event as it would be appended, for whoever chooses its id or adds to its metadata.
    ///
    /// # Errors
    /// `InvalidInput` where it does not turn into kind and payload.
    pub fn new_event<E: Event>(&self, event: &E) -> Result<NewEvent> {
        let (kind, payload) = event::encode(event)?;
        let mut new = NewEvent::new(kind, payload, self.now());
        new.metadata.clone_from(&self.stamp);
        let version = E::version(kind);
        if version != 1 {
            new.metadata.insert(metadata::VERSION.to_owned(), version.into());
        }
        Ok(new)
    }

    /// Appends events to a stream that is as expected.
    ///
    /// - After an answer that was lost, it finds its events and succeeds. Only where the stream was
    ///   to be [any](ExpectStream::Any) or to exist, and the events are not there, the outcome stays
    ///   unknown.
    ///
    /// # Errors
    /// `Conflict` where the stream is not as expected, with its version; `NotFound` where it was
    /// [deleted](Self::delete); `AlreadyExists` for an id taken, with [unique ids](Self::unique_ids);
    /// `InvalidInput` for no events.
    pub async fn append<E: Event>(
        &self,
        stream: &str,
        expect: ExpectStream,
        events: &[E],
    ) -> Result<Appended> {
        let events = events.iter().map(|event| self.new_event(event)).collect::<Result<_>>()?;
        self.append_new(stream, expect, events).await
    }

    /// As [`append`](Self::append), for events [made](Self::new_event) before.
    pub async fn append_new(
        &self,
        stream: &str,
        expect: ExpectStream,
        events: Vec<NewEvent>,
    ) -> Result<Appended> {
        let mut batch = self.batch(stream);
        self.append_new_in(&mut batch, stream, expect, events)?;
        self.commit_append(stream, batch).await
    }

    /// Adds an [`append`](Self::append) to a batch of the stream's partition; what is not as
    /// expected is then the batch's conflict.
    ///
    /// # Errors
    /// `InvalidInput` where the batch is for another partition, or for no events.
    pub fn append_in<E: Event>(
        &self,
        batch: &mut Batch,
        stream: &str,
        expect: ExpectStream,
        events: &[E],
    ) -> Result<()> {
        let events = events.iter().map(|event| self.new_event(event)).collect::<Result<_>>()?;
        self.append_new_in(batch, stream, expect, events)
    }

    /// As [`append_in`](Self::append_in), for events [made](Self::new_event) before.
    pub fn append_new_in(
        &self,
        batch: &mut Batch,
        stream: &str,
        expect: ExpectStream,
        events: Vec<NewEvent>,
    ) -> Result<()> {
        if events.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "an append has at least one event")
                .with("stream", stream));
        }
        if let Some(event) = events.iter().find(|event| event.kind == places::TOMBSTONE) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the kind says that a stream was deleted, which only deleting it may",
            )
            .with("kind", &event.kind)
            .with("stream", stream));
        }
        let home = self.partition_of(stream);
        if *batch.at() != home {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the batch is for another partition than the stream",
            )
            .with("batch", batch.at())
            .with("stream", home));
        }
        if expect.version().is_none() {
            // Whoever expects a version is refused by the tombstone, which took the next one.
            batch.check(places::tombstone(stream), Expect::Absent);
        }
        if self.ids == Ids::Unique {
            for event in &events {
                batch.put(places::event_id(event.id), stream.to_owned(), Expect::Absent);
            }
        }
        batch.append(stream, expect, events);
        Ok(())
    }

    /// Commits a batch whose only append is to `stream`, by [`append_in`](Self::append_in) with
    /// whatever else is to be written with it, and says where its events went.
    ///
    /// Dropping the future does not cancel a commit that has begun.
    ///
    /// # Errors
    /// Those of [`append`](Self::append), and of the other expectations in the batch.
    pub async fn commit_append(&self, stream: &str, batch: Batch) -> Result<Appended> {
        let error = match settle::commit(&self.store, &*self.clock, batch.clone()).await {
            Ok(committed) => match committed.appended.into_iter().next() {
                Some(appended) => return Ok(appended),
                // It was applied by an earlier sending, and others have appended since.
                None => return self.find(stream, &batch).await?.ok_or_else(lost),
            },
            Err(error) => error,
        };
        if error.kind() == ErrorKind::OutcomeUnknown {
            return self.find(stream, &batch).await?.ok_or(error);
        }
        Err(self.explain(stream, error).await)
    }

    /// Where the events of a batch stand in a stream.
    async fn find(&self, stream: &str, batch: &Batch) -> Result<Option<Appended>> {
        // Clocks may be apart, and so may the times of events be that were appended in this order.
        let earliest = batch.now() - self.store.info().max_skew;
        let (mut before, mut found): (_, Option<Appended>) = (None, None);
        loop {
            let read = Read::stream_backwards(stream, before, 100);
            let slice = self.store.read(batch.at(), read).await?;
            for event in &slice.events {
                if event.batch == batch.id() {
                    let count = found.map_or(0, |found| found.count) + 1;
                    let (version, position) = (event.version, event.position);
                    found = Some(Appended { stream: stream.to_owned(), version, position, count });
                } else if found.is_some() || event.recorded_at < earliest {
                    return Ok(found);
                }
            }
            if slice.examined_to <= 1 {
                return Ok(found);
            }
            before = Some(slice.examined_to);
        }
    }

    /// What a conflict means to whoever appends.
    pub(crate) async fn explain(&self, stream: &str, error: Error) -> Error {
        match error.conflict().map(|conflict| &conflict.found) {
            Some(Found::Record { key, .. }) if *key == places::tombstone(stream) => deleted(stream),
            Some(Found::Record { key, .. }) if key.space == places::EVENT_IDS => {
                Error::new(ErrorKind::AlreadyExists, "another event of the partition has this id")
                    .with("id", &key.id)
                    .with("stream", stream)
            }
            Some(Found::Stream { version, .. }) if *version > 0 => match self.is_deleted(stream).await {
                Ok(true) => deleted(stream),
                _ => error,
            },
            _ => error,
        }
    }

    pub(crate) async fn is_deleted(&self, stream: &str) -> Result<bool> {
        let key = places::tombstone(stream);
        Ok(self.store.get_one(&self.partition_of(stream), self.now(), &key).await?.is_some())
    }

    pub(crate) fn batch(&self, stream: &str) -> Batch {
        Batch::new(self.partition_of(stream), self.now())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

pub(crate) fn deleted(stream: &str) -> Error {
    Error::new(ErrorKind::NotFound, "the stream was deleted").with("stream", stream)
}

fn lost() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the append was applied, and its events were forgotten since")
}

impl<S> fmt::Debug for EventStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStore")
            .field("upcasters", &self.upcasters)
            .field("stamp", &self.stamp)
            .field("ids", &self.ids)
            .finish_non_exhaustive()
    }
}
