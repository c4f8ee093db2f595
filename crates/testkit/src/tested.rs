use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{
    AnyStore, Batch, Clock, Committed, Event, Expect, Job, Jobs, Key, Lease, Leased, LeasedJob, ManualClock,
    Namespace, NewEvent, Partition, Read, Record, Result, Scan, Slice, Store, StoreExt, Timestamp,
};

use crate::fixture::Hints;

/// How long the leases taken by [`Tested::lease`] hold.
pub(crate) const HOLD: Duration = Duration::from_secs(60);

/// The store under test, with a partition in a clean namespace and a time that stands still.
#[derive(Clone, Debug)]
pub(crate) struct Tested {
    pub(crate) store: AnyStore,
    pub(crate) at: Partition,
    pub(crate) hints: Hints,
    pub(crate) histories: u32,
    clock: ManualClock,
}

impl Tested {
    pub(crate) fn new(store: AnyStore, clock: ManualClock, hints: Hints, histories: u32) -> Self {
        let at = store.partition_of("the partition under test");
        Self { store, at, hints, histories, clock }
    }

    /// The same store and time in another namespace.
    pub(crate) fn elsewhere(&self, namespace: Namespace) -> Self {
        let at = Partition::new(namespace.clone(), self.at.index());
        Self { store: self.store.namespace(namespace), at, ..self.clone() }
    }

    /// Puts something of every kind into the other partitions, so that a store which mixes them up
    /// shows.
    pub(crate) async fn furnish_neighbours(&self) -> Result<()> {
        for at in self.store.partitions().into_iter().filter(|at| *at != self.at) {
            let mut batch = Batch::new(at, self.now());
            for id in ["a", "b", "c"] {
                batch
                    .put(key(id), "a neighbour's", Expect::Any)
                    .append_any(id, [self.event("Neighbourly"), self.event("Neighbourly")])
                    .push("queue", id, self.now(), "a neighbour's", evenkeel_core::Merge::Keep);
            }
            self.store.commit(batch).await?;
        }
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn in_seconds(&self, seconds: u64) -> Timestamp {
        self.now() + Duration::from_secs(seconds)
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    pub(crate) fn advance_to(&self, at: Timestamp) {
        self.clock.advance(at.since(self.now()));
    }

    /// A batch of what `fill` adds.
    pub(crate) fn batch(&self, fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
        let mut batch = Batch::new(self.at.clone(), self.now());
        fill(&mut batch);
        batch
    }

    pub(crate) async fn commit(&self, fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Result<Committed> {
        self.send(&self.batch(fill)).await
    }

    pub(crate) async fn send(&self, batch: &Batch) -> Result<Committed> {
        self.store.commit(batch.clone()).await
    }

    /// Puts a record in the common group, whatever stands there.
    pub(crate) async fn put(&self, id: &str, value: impl Into<Bytes> + Send) -> Result<Committed> {
        self.commit(|batch| batch.put(key(id), value, Expect::Any)).await
    }

    pub(crate) async fn record(&self, key: &Key) -> Result<Option<Record>> {
        self.store.get_one(&self.at, self.now(), key).await
    }

    /// The value of a record in the common group.
    pub(crate) async fn value(&self, id: &str) -> Result<Option<Bytes>> {
        Ok(self.record(&key(id)).await?.map(|record| record.value))
    }

    /// The ids that a scan finds, page by page to its end.
    pub(crate) async fn ids(&self, scan: Scan) -> Result<Vec<String>> {
        let records = self.scan_to_end(scan).await?;
        Ok(records.into_iter().map(|(id, _)| id).collect())
    }

    pub(crate) async fn scan_to_end(&self, mut scan: Scan) -> Result<Vec<(String, Record)>> {
        let mut found = Vec::new();
        loop {
            let page = self.store.scan(&self.at, scan.clone()).await?;
            assert!(page.records.len() <= scan.limit, "a page of {} for {scan:?}", page.records.len());
            found.extend(page.records);
            match page.cursor {
                Some(cursor) => {
                    assert_ne!(scan.after.as_ref(), Some(&cursor), "a scan gets on");
                    scan = scan.after(cursor);
                }
                None => return Ok(found),
            }
        }
    }

    /// A scan of the common group at this instant.
    pub(crate) fn scan(&self, limit: usize) -> Scan {
        Scan::new("test", "group", limit, self.now())
    }

    pub(crate) fn event(&self, kind: &'static str) -> NewEvent {
        NewEvent::new(kind, kind, self.now())
    }

    /// `count` events.
    pub(crate) fn events(&self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.event("Happened")).collect()
    }

    pub(crate) async fn append(&self, stream: &str, count: usize) -> Result<Committed> {
        let events = self.events(count);
        self.commit(|batch| batch.append_any(stream, events)).await
    }

    pub(crate) async fn read(&self, read: Read) -> Result<Slice> {
        self.store.read(&self.at, read).await
    }

    /// Everything in the log, page by page from after `position`.
    pub(crate) async fn log_after(&self, position: u64) -> Result<Vec<Event>> {
        self.read_to_end(position, |after| Read::partition(after, 7)).await
    }

    /// Everything in a stream, page by page.
    pub(crate) async fn stream_to_end(&self, stream: &str) -> Result<Vec<Event>> {
        self.read_to_end(0, |after| Read::stream(stream, after, 7)).await
    }

    async fn read_to_end(&self, mut after: u64, page: impl Fn(u64) -> Read) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            let slice = self.read(page(after)).await?;
            events.extend(slice.events);
            if slice.examined_to == slice.head {
                return Ok(events);
            }
            assert!(slice.examined_to > after, "a read gets on");
            after = slice.examined_to;
        }
    }

    pub(crate) async fn stream_version(&self, stream: &str) -> Result<u64> {
        Ok(self.read(Read::stream(stream, 0, 1)).await?.head)
    }

    /// Pushes a job that is due now.
    pub(crate) async fn push(&self, id: &str) -> Result<Committed> {
        let due = self.now();
        self.commit(|batch| batch.push("queue", id, due, id.to_owned(), evenkeel_core::Merge::Keep)).await
    }

    /// Leases jobs of the common queue for [`HOLD`].
    pub(crate) async fn lease(&self, max: usize) -> Result<Leased> {
        let want = Lease { queue: "queue".into(), max, hold_for: HOLD, now: self.now() };
        self.store.lease(&self.at, want).await
    }

    /// Leases the one job that is due in the common queue.
    pub(crate) async fn lease_one(&self) -> Result<LeasedJob> {
        let mut leased = self.lease(2).await?.jobs;
        assert_eq!(leased.len(), 1, "one job is due: {leased:?}");
        Ok(leased.remove(0))
    }

    /// Pushes a job that is due now, and leases it.
    pub(crate) async fn hold_new(&self, id: &str) -> Result<LeasedJob> {
        self.push(id).await?;
        self.lease_one().await
    }

    /// A job of the common queue.
    pub(crate) async fn job(&self, id: &str) -> Result<Option<Job>> {
        let want = Jobs::ByIds { queue: "queue".into(), ids: vec![id.into()] };
        Ok(self.store.jobs(&self.at, want).await?.jobs.pop().map(|(_, job)| job))
    }
}

/// A key in the common group.
pub(crate) fn key(id: impl Into<String>) -> Key {
    Key::new("test", "group", id)
}
