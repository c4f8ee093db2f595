//! What the tests have in common: a bank on a store in memory.
#![allow(dead_code, reason = "no test target uses all of it")]

use std::time::Duration;

use evenkeel_core::{
    Appended, ExpectStream, ManualClock, MemoryStore, Partition, Store, StoreExt, Timestamp,
};
use evenkeel_projections::EventStore;
#[allow(unused_imports, reason = "no test target uses all of it")]
pub(crate) use evenkeel_testkit::projections::accounts::{
    AccountEvent, Mode, Sums, Total, add, cents, deposits,
};

/// A store with its events, on a clock of its own.
#[derive(Clone)]
pub(crate) struct Bank<S = MemoryStore> {
    pub(crate) store: S,
    pub(crate) clock: ManualClock,
    pub(crate) events: EventStore<S>,
}

impl Bank {
    pub(crate) fn new() -> Self {
        Self::with_partitions(1)
    }

    pub(crate) fn with_partitions(partitions: u32) -> Self {
        Self::on(MemoryStore::with_partitions(partitions).unwrap(), ManualClock::default())
    }
}

impl<S: Store + Clone> Bank<S> {
    pub(crate) fn on(store: S, clock: ManualClock) -> Self {
        let events = EventStore::new(store.clone()).clock(clock.shared());
        Self { store, clock, events }
    }

    pub(crate) async fn deposit(&self, account: &str, cents: &[i64]) -> Appended {
        self.events.append(account, ExpectStream::Any, &deposits(cents)).await.unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        evenkeel_core::Clock::now(&self.clock)
    }

    pub(crate) fn at(&self) -> Partition {
        self.store.partitions().remove(0)
    }

    /// The records of a read model over all partitions, by their ids.
    pub(crate) async fn rows(&self, model: &str) -> Vec<(String, String)> {
        let scan = evenkeel_core::Scan::new("test.model", model, 10_000, Timestamp::EPOCH);
        let found = self.store.scan_merged(scan).await.unwrap();
        found.into_iter().map(|row| (row.id, String::from_utf8(row.record.value.to_vec()).unwrap())).collect()
    }

    pub(crate) async fn row(&self, model: &str, id: &str) -> Option<i64> {
        self.rows(model).await.into_iter().find(|(found, _)| found == id).map(|(_, sum)| sum.parse().unwrap())
    }
}

/// Moves the clock whenever something waits for it, until the future is ready.
pub(crate) async fn with_moving_clock<T>(clock: &ManualClock, future: impl Future<Output = T>) -> T {
    tokio::select! {
        output = future => output,
        () = moving(clock) => unreachable!("the clock moves for ever"),
    }
}

/// Moves the clock whenever something waits for it.
pub(crate) async fn moving(clock: &ManualClock) {
    loop {
        clock.wait_for_sleepers(1).await;
        // What is ready goes first, so that time passes only where nothing else happens.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_millis(100));
    }
}
