//! Work that tells afterwards whether anything was lost or applied twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use evenkeel_core::{
    Batch, ErrorKind, Event, Expect, ExpectStream, Merge, NewEvent, Partition, Read, Store, StoreExt,
    Timestamp,
};
use evenkeel_storage_redis::RedisStore;
use tokio::task::JoinHandle;

use super::{key, now, pause, until};

/// Workers that each claim one record after the other, and note it in a log of their own.
pub(crate) struct Ledger {
    store: RedisStore,
    workers: Vec<JoinHandle<usize>>,
    acknowledged: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Ledger {
    /// Lets `workers` work, spread over the partitions.
    pub(crate) fn begin(store: &RedisStore, workers: usize) -> Self {
        let acknowledged = Arc::<AtomicUsize>::default();
        let failed = Arc::<AtomicUsize>::default();
        let is_over = Arc::<AtomicBool>::default();
        let workers = (0..workers)
            .map(|worker| {
                let (store, is_over) = (store.clone(), Arc::clone(&is_over));
                let (acknowledged, failed) = (Arc::clone(&acknowledged), Arc::clone(&failed));
                tokio::spawn(async move {
                    let mut done = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let failures = commit(&store, &entry(&store, worker, done)).await;
                        failed.fetch_add(failures, Ordering::Relaxed);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        Self { store: store.clone(), workers, acknowledged, failed, is_over }
    }

    /// Waits until this many more are acknowledged.
    pub(crate) async fn go_on(&self, more: usize) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + more;
        until("work goes on", async || self.acknowledged.load(Ordering::Relaxed) >= enough).await;
    }

    /// How often a commit failed and was sent again.
    pub(crate) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Stops, and checks that what was acknowledged is there once, in order, and nothing else.
    pub(crate) async fn close(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut total = 0;
        for (worker, handle) in self.workers.into_iter().enumerate() {
            let done = handle.await.unwrap();
            let partition = at(&self.store, worker);
            let stream = |after| Read::stream(format!("worker {worker}"), after, 1000);
            let events = log(&self.store, &partition, stream).await;
            let kinds: Vec<String> = events.into_iter().map(|event| event.kind).collect();
            assert_eq!(kinds, (0..done).map(|n| n.to_string()).collect::<Vec<_>>(), "worker {worker}");
            for n in 0..done {
                let record = self.store.get_one(&partition, now(), &record_key(worker, n)).await;
                assert!(record.unwrap().is_some(), "record {n} of worker {worker}");
            }
            total += done;
        }
        let mut positions = 0;
        for partition in self.store.partitions() {
            let events = log(&self.store, &partition, |after| Read::partition(after, 1000)).await;
            for (event, position) in events.iter().zip(1..) {
                assert_eq!(event.position, position);
            }
            positions += events.len();
        }
        assert_eq!(positions, total);
    }
}

fn at(store: &RedisStore, worker: usize) -> Partition {
    store.partition_of(&format!("worker {worker}"))
}

fn record_key(worker: usize, n: usize) -> evenkeel_core::Key {
    key(&format!("{worker}-{n}"))
}

/// A batch with one of everything, whose append alone does not tell that it was applied before.
fn entry(store: &RedisStore, worker: usize, n: usize) -> Batch {
    let mut batch = Batch::new(at(store, worker), now());
    batch
        .put(record_key(worker, n), "mine", Expect::Absent)
        .append(format!("worker {worker}"), ExpectStream::Any, [NewEvent::new(n.to_string(), "{}", now())])
        .push("queue", format!("{worker}"), Timestamp::MAX, "", Merge::Sooner);
    batch
}

/// Commits, sending again as long as the outcome is unknown; how often it failed.
async fn commit(store: &RedisStore, batch: &Batch) -> usize {
    let mut failures = 0;
    loop {
        match store.commit(batch.clone()).await {
            Ok(_) => return failures,
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown),
                    "callers see nothing else: {error:?}"
                );
                failures += 1;
                pause().await;
            }
        }
    }
}

async fn log(store: &RedisStore, at: &Partition, page: impl Fn(u64) -> Read) -> Vec<Event> {
    let (mut after, mut events) = (0, Vec::new());
    loop {
        let slice = store.read(at, page(after)).await.unwrap();
        events.extend(slice.events);
        if slice.examined_to == slice.head {
            return events;
        }
        after = slice.examined_to;
    }
}
