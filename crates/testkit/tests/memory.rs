//! The memory store, bare and behind layers, keeps the contract.

use std::time::Duration;

use evenkeel_core::layer::{Retry, RetryStore, Trace, TraceStore};
use evenkeel_core::{MemoryStore, Result, StoreExt};
use evenkeel_testkit::{Chaos, ChaosStore, Fixture};

struct Memory;

impl Fixture for Memory {
    type Store = MemoryStore;

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<MemoryStore> {
        Ok(MemoryStore::with_partitions(partitions)?.max_skew(max_skew))
    }

    fn histories(&self) -> u32 {
        256
    }
}

struct Layered;

impl Fixture for Layered {
    type Store = TraceStore<RetryStore<MemoryStore>>;

    fn name(&self) -> &'static str {
        "layered"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<Self::Store> {
        Ok(Memory.open(partitions, max_skew).await?.layer(Retry::default()).layer(Trace::default()))
    }
}

struct Delayed;

impl Fixture for Delayed {
    type Store = ChaosStore<MemoryStore>;

    fn name(&self) -> &'static str {
        "delayed"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<Self::Store> {
        Ok(Memory.open(partitions, max_skew).await?.layer(Chaos::new(1).delays(3)))
    }
}

evenkeel_testkit::conformance!(Memory, Layered, Delayed);
