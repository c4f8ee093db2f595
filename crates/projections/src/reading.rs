use std::collections::VecDeque;

use evenkeel_core::{Filter, Order, Partition, Read, Result, Source, Store};
use futures_util::stream::{Stream, TryStreamExt, try_unfold};

use crate::event_store::{EventStore, deleted};
use crate::places;
use crate::recorded::Recorded;

/// How many events a streaming read takes at a time.
const PAGE: usize = 500;

/// Events in the order asked for, and how to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct EventPage {
    /// The events. May be fewer than the limit with more to come.
    pub events: Vec<Recorded>,
    /// How far was looked; a further read goes on after it.
    pub examined_to: u64,
    /// The last position of the partition, or the last version of the stream; 0 where empty.
    pub head: u64,
}

impl<S: Store + Clone> EventStore<S> {
    /// A run of events of a stream, forwards or backwards, of a stream's or a partition's.
    ///
    /// # Errors
    /// Those of [`Store::read`]; so `Corrupt` after a position beyond the head.
    pub async fn read(&self, at: &Partition, read: Read) -> Result<EventPage> {
        let slice = self.store.read(at, read).await?;
        let events = slice.events.into_iter().map(|raw| Recorded::new(raw, &self.upcasters)).collect();
        Ok(EventPage { events, examined_to: slice.examined_to, head: slice.head })
    }

    /// Up to `limit` events of a stream after version `after`, oldest first; none where it does not
    /// exist.
    ///
    /// # Errors
    /// `NotFound` where it was deleted.
    pub async fn load(&self, stream: &str, after: u64, limit: usize) -> Result<EventPage> {
        let page = self.read(&self.partition_of(stream), Read::stream(stream, after, limit)).await?;
        self.without_tombstones(stream, page).await
    }

    /// Up to `limit` events of a stream before version `before` (or from its end), newest first.
    ///
    /// # Errors
    /// `NotFound` where it was deleted.
    pub async fn load_backwards(&self, stream: &str, before: Option<u64>, limit: usize) -> Result<EventPage> {
        let read = Read::stream_backwards(stream, before, limit);
        let page = self.read(&self.partition_of(stream), read).await?;
        self.without_tombstones(stream, page).await
    }

    /// The events of a stream from version `after` on that match, a page at a time; nothing is held
    /// between pages. Ends at the event that is the last when it is reached.
    ///
    /// # Errors
    /// Those of [`Store::read`], which end it.
    pub fn stream(
        &self,
        stream: &str,
        after: u64,
        filter: Filter,
    ) -> impl Stream<Item = Result<Recorded>> + Send + Unpin {
        let read = Read::stream(stream, after, PAGE).filter(filter);
        let tombstone = |event: &Recorded| event.kind == places::TOMBSTONE;
        Box::pin(
            self.pages(self.partition_of(stream), read)
                .try_filter(move |event| std::future::ready(!tombstone(event))),
        )
    }

    /// The events of a partition from position `after` on that match, a page at a time; nothing is
    /// held between pages. Ends at the event that is the last when it is reached.
    ///
    /// # Errors
    /// Those of [`Store::read`], which end it.
    pub fn log(
        &self,
        at: Partition,
        after: u64,
        filter: Filter,
    ) -> impl Stream<Item = Result<Recorded>> + Send + Unpin {
        Box::pin(self.pages(at, Read::partition(after, PAGE).filter(filter)))
    }

    fn pages(&self, at: Partition, read: Read) -> impl Stream<Item = Result<Recorded>> + Send {
        let reader = Reader { events: self.clone(), at, next: Some(read), page: VecDeque::new() };
        try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|event| (event, reader))) })
    }

    async fn without_tombstones(&self, stream: &str, mut page: EventPage) -> Result<EventPage> {
        let before = page.events.len();
        page.events.retain(|event| event.kind != places::TOMBSTONE);
        if page.events.len() < before && self.is_deleted(stream).await? {
            return Err(deleted(stream));
        }
        Ok(page)
    }
}

struct Reader<S> {
    events: EventStore<S>,
    at: Partition,
    /// `None` once the end was reached.
    next: Option<Read>,
    page: VecDeque<Recorded>,
}

impl<S: Store + Clone> Reader<S> {
    async fn next(&mut self) -> Result<Option<Recorded>> {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Ok(Some(event));
            }
            let Some(mut read) = self.next.take() else { return Ok(None) };
            let page = self.events.read(&self.at, read.clone()).await?;
            self.page.extend(page.events);
            if page.examined_to < page.head {
                read.source = further(read.source, page.examined_to);
                self.next = Some(read);
            }
        }
    }
}

fn further(source: Source, examined_to: u64) -> Source {
    match source {
        Source::Partition { .. } => Source::Partition { after: examined_to },
        Source::Stream { name, .. } => {
            Source::Stream { name, after: Some(examined_to), order: Order::Ascending }
        }
    }
}
