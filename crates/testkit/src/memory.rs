use std::time::Duration;

use evenkeel_core::layer::{Retry, RetryStore, Trace, TraceStore};
use evenkeel_core::{AnyStore, MemoryStore, Result, StoreExt};

use crate::fixture::{Fixture, Latency};

/// The memory store as a fixture.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    seeds: u64,
}

impl Memory {
    /// Plays the chaos of a capability with so many seeds.
    #[must_use]
    pub const fn seeds(seeds: u64) -> Self {
        Self { seeds }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::seeds(20)
    }
}

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

    fn seeds(&self) -> u64 {
        self.seeds
    }

    fn longest_stream(&self) -> u64 {
        100_000
    }

    fn latency(&self) -> Latency {
        Latency::None
    }
}

/// The memory store erased and behind the layers of core, as a fixture.
#[derive(Clone, Copy, Debug)]
pub struct Layered;

impl Fixture for Layered {
    type Store = TraceStore<RetryStore<AnyStore>>;

    fn name(&self) -> &'static str {
        "layered"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<Self::Store> {
        let store = MemoryStore::with_partitions(partitions)?.max_skew(max_skew);
        Ok(store.any().layer(Retry::default()).layer(Trace::default()))
    }

    fn longest_stream(&self) -> u64 {
        100_000
    }

    fn latency(&self) -> Latency {
        Latency::None
    }
}
