//! What the tests of this crate share.
#![allow(dead_code, reason = "each test target uses a part")]

use std::path::PathBuf;

use evenkeel_core::{Batch, Clock, Expect, Key, Partition, Store, StoreExt, SystemClock, Timestamp};
use evenkeel_storage_sqlite::{SqliteConfig, SqliteStore};
use tempfile::TempDir;

/// A folder that goes with the test, and a database file in it.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite://{}", self.path().display())
    }

    pub(crate) fn config(&self) -> SqliteConfig {
        SqliteConfig::new(&self.url()).unwrap()
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        self.config().open().await.unwrap()
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn key(id: &str) -> Key {
    Key::new("test.record", "group", id)
}

pub(crate) fn partition(store: &SqliteStore) -> Partition {
    store.partition_of("here")
}

/// A batch that creates one record.
pub(crate) fn claim(store: &SqliteStore, id: &str) -> Batch {
    let mut batch = Batch::new(partition(store), now());
    batch.put(key(id), "mine", Expect::Absent);
    batch
}

pub(crate) async fn exists(store: &SqliteStore, id: &str) -> bool {
    store.get(&partition(store), now(), &[key(id)]).await.unwrap()[0].is_some()
}
