//! What these tests share.

use evenkeel_core::{Batch, Clock, Expect, Key, Partition, Read, Store, StoreExt, SystemClock, Timestamp};
use evenkeel_storage_dynamo::{DynamoConfig, DynamoStore, TableOptions};
use uuid::Uuid;

use crate::emulator;

/// Settings for a table that does not exist yet.
pub(crate) fn new_table() -> DynamoConfig {
    let url = format!("dynamo://test-{}?endpoint={}", Uuid::new_v4(), emulator::url());
    DynamoConfig::new(&url).unwrap()
}

/// A store in a table of its own.
pub(crate) async fn new_store() -> DynamoStore {
    let config = new_table();
    config.create_table(&TableOptions::new()).await.unwrap();
    config.open().await.unwrap()
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn at(store: &DynamoStore) -> Partition {
    store.partition_of("here")
}

pub(crate) fn key(id: &str) -> Key {
    Key::new("test.record", "group", id)
}

pub(crate) fn batch(store: &DynamoStore, fill: impl FnOnce(&mut Batch) -> &mut Batch) -> Batch {
    let mut batch = Batch::new(at(store), now());
    fill(&mut batch);
    batch
}

/// A batch that creates one record.
pub(crate) fn claim(store: &DynamoStore, id: &str) -> Batch {
    batch(store, |batch| batch.put(key(id), "mine", Expect::Absent))
}

pub(crate) async fn exists(store: &DynamoStore, id: &str) -> bool {
    store.get_one(&at(store), now(), &key(id)).await.unwrap().is_some()
}

/// How many events are in the log.
pub(crate) async fn head(store: &DynamoStore) -> u64 {
    store.read(&at(store), Read::partition(0, 1)).await.unwrap().head
}
