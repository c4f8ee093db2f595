//! Every promise on the memory store.

use std::time::Duration;

use evenkeel_core::{MemoryStore, Result};
use evenkeel_testkit::Fixture;

struct Memory;

impl Fixture for Memory {
    type Store = MemoryStore;

    fn name(&self) -> &'static str {
        "memory"
    }

    async fn open(&self, partitions: u32, max_skew: Duration) -> Result<MemoryStore> {
        Ok(MemoryStore::with_partitions(partitions)?.max_skew(max_skew))
    }
}

evenkeel_testkit::projections_suite!(Memory);
