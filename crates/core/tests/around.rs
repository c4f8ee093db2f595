//! What a layer of one function sees, and what it can do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::layer::{Around, Call};
use evenkeel_core::{
    Batch, Error, ErrorKind, Expect, Jobs, Key, Lease, MemoryStore, Namespace, Partition, Read, Result, Scan,
    Store, StoreExt, Timestamp, Transactional,
};

const NOW: Timestamp = Timestamp::EPOCH;

/// Notes each call.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<Note>>>);

type Note = (&'static str, Partition, Vec<Key>, Option<Batch>);

impl Around for Notes {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        assert_eq!(call.store.name, "memory");
        let note = (call.method.name(), call.at.clone(), call.keys.to_vec(), call.batch.cloned());
        self.0.lock().unwrap().push(note);
        made.await
    }
}

/// Makes no call.
#[derive(Clone, Debug)]
struct Refuses;

impl Around for Refuses {
    async fn call<T: Send>(&self, _: Call<'_>, _: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Err(Error::new(ErrorKind::Unavailable, "refused"))
    }
}

fn put(store: &impl Store, id: &str) -> Batch {
    let mut batch = Batch::new(store.partition_of("home"), NOW);
    batch.put(Key::new("test", "group", id), "", Expect::Absent);
    batch
}

#[tokio::test]
async fn every_call_passes_by_either_door_and_in_every_namespace() {
    let notes = Notes::default();
    let store = MemoryStore::new().layer(notes.clone()).namespace(Namespace::new("tenant").unwrap());
    let (at, key) = (store.partition_of("home"), Key::new("test", "group", "id"));
    store.get(&at, NOW, std::slice::from_ref(&key)).await.unwrap();
    store.scan(&at, Scan::new("test", "group", 1, NOW)).await.unwrap();
    store.read(&at, Read::partition(0, 1)).await.unwrap();
    store.jobs(&at, Jobs::Page { queue: "queue".into(), after: None, limit: 1 }).await.unwrap();
    let lease = Lease { queue: "queue".into(), max: 1, hold_for: Duration::from_secs(1), now: NOW };
    store.lease(&at, lease).await.unwrap();
    let batch = put(&store, "id");
    store.commit(batch.clone()).await.unwrap();
    store.sweep(&at, NOW, 1).await.unwrap();
    let tx = store.begin(at.clone(), NOW).await.unwrap();
    store.finish(tx).await.unwrap();
    let tx = store.begin(at.clone(), NOW).await.unwrap();
    store.rollback(tx).await;

    let seen = std::mem::take(&mut *notes.0.lock().unwrap());
    let names: Vec<_> = seen.iter().map(|(name, ..)| *name).collect();
    assert_eq!(
        names,
        ["get", "scan", "read", "jobs", "lease", "commit", "sweep", "begin", "finish", "begin", "rollback"]
    );
    assert!(seen.iter().all(|(_, partition, ..)| *partition == at), "{seen:?}");
    assert_eq!(seen.iter().flat_map(|(.., keys, _)| keys).collect::<Vec<_>>(), [&key]);
    assert_eq!(seen.iter().filter_map(|(.., batch)| batch.as_ref()).collect::<Vec<_>>(), [&batch]);
}

#[tokio::test]
async fn a_call_that_is_not_made_does_nothing() {
    let database = MemoryStore::new();
    let store = database.clone().layer(Refuses);
    assert_eq!(store.commit(put(&store, "a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let mut tx = database.begin(database.partition_of("home"), NOW).await.unwrap();
    *tx.batch() = put(&database, "b");
    assert_eq!(store.finish(tx).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let page = database.scan(&database.partition_of("home"), Scan::new("test", "group", 1, NOW)).await;
    assert_eq!(page.unwrap().records, []);
}
