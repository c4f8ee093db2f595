//! Every promise on the memory store, as it is and behind layers.

use std::time::Duration;

use evenkeel_core::layer::{Retry, RetryStore, Trace, TraceStore};
use evenkeel_core::{AnyStore, MemoryStore, Result, StoreExt};
use evenkeel_testkit::{Fixture, Latency};

struct Memory;

impl Fixture for Memory {
    type Store = MemoryStore;

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<MemoryStore> {
        Ok(MemoryStore::with_partitions(partitions)?.max_skew(max_skew))
    }

    fn seeds(&self) -> u64 {
        1000
    }

    fn latency(&self) -> Latency {
        Latency::None
    }
}

struct Layered;

impl Fixture for Layered {
    type Store = TraceStore<RetryStore<AnyStore>>;

    fn name(&self) -> &'static str {
        "layered"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<Self::Store> {
        let store = Memory.open(partitions, max_skew).await?;
        Ok(store.any().layer(Retry::default()).layer(Trace::default()))
    }

    fn latency(&self) -> Latency {
        Latency::None
    }
}

evenkeel_testkit::projections_suite!(Memory, Layered);
