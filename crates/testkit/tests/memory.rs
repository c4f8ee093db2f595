//! The memory store, bare and behind layers, keeps the contract.

use std::time::Duration;

use evenkeel_core::{MemoryStore, Result, StoreExt};
use evenkeel_testkit::{Chaos, ChaosStore, Fixture, Layered, Memory};

struct Delayed;

impl Fixture for Delayed {
    type Store = ChaosStore<MemoryStore>;

    fn name(&self) -> &'static str {
        "delayed"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<Self::Store> {
        Ok(Memory::default().open(partitions, max_skew).await?.layer(Chaos::new(1).delays(3)))
    }
}

evenkeel_testkit::conformance!(Memory::default(), Layered, Delayed);
