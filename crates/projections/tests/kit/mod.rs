//! What the tests have in common: accounts with money, and projectors that add it up.
#![allow(dead_code, reason = "no test target uses all of it")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_core::{
    Appended, BoxError, Draft, ExpectStream, Key, ManualClock, MemoryStore, StoreExt, Timestamp,
    Transactional,
};
use evenkeel_core::{Partition, Result, Store};
use evenkeel_projections::{Context, Event, EventStore, Projection, Projector, Recorded};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
}
impl Event for AccountEvent {}

pub(crate) fn deposits(cents: &[i64]) -> Vec<AccountEvent> {
    cents.iter().map(|cents| AccountEvent::Deposited { cents: *cents }).collect()
}

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

/// The cents that an event moves.
pub(crate) fn cents(event: &Recorded) -> Result<i64> {
    Ok(match event.decode::<AccountEvent>()? {
        Some(AccountEvent::Deposited { cents }) => cents,
        Some(AccountEvent::Withdrawn { cents }) => -cents,
        Some(AccountEvent::Opened { .. }) | None => 0,
    })
}

/// Adds a number to a record of the read model `model`.
pub(crate) async fn add(draft: &mut Draft, model: &str, id: &str, by: i64) -> Result<()> {
    let key = Key::new("test.model", model, id);
    let sum: i64 = match draft.get(&key).await? {
        Some(sum) => std::str::from_utf8(&sum).unwrap().parse().unwrap(),
        None => 0,
    };
    draft.put(key, (sum + by).to_string());
    Ok(())
}

/// Keeps the sum of each account, and fails for amounts that are poison.
#[derive(Clone, Default)]
pub(crate) struct Sums {
    pub(crate) poison: Arc<Mutex<HashSet<i64>>>,
    /// The positions of all events that a handler saw, in this order.
    pub(crate) seen: Arc<Mutex<Vec<u64>>>,
    /// What it says when it fails, instead of what it usually does.
    text: Arc<Mutex<Option<String>>>,
}

impl Sums {
    pub(crate) fn says(&self, text: String) {
        *self.text.lock().unwrap() = Some(text);
    }

    pub(crate) fn poisoned_by(cents: i64) -> Self {
        let sums = Self::default();
        sums.poison.lock().unwrap().insert(cents);
        sums
    }

    pub(crate) fn heal(&self) {
        self.poison.lock().unwrap().clear();
    }

    pub(crate) fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().clone()
    }
}

/// How many events were applied, and what they came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) events: u64,
    pub(crate) cents: i64,
}

impl Projector<Draft> for Sums {
    type State = Total;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, Total>) -> Result<(), BoxError> {
        self.seen.lock().unwrap().push(event.position);
        let cents = cents(event)?;
        if self.poison.lock().unwrap().contains(&cents) {
            if cents == 666 {
                panic!("the amount of {cents} is beyond words");
            }
            let text = self.text.lock().unwrap().clone();
            return Err(text.unwrap_or_else(|| format!("{cents} cents are poison")).into());
        }
        context.state.events += 1;
        context.state.cents += cents;
        let total = context.state.cents;
        let (stream, version) = (event.stream.clone(), context.version());
        let model = format!("sums-{version}");
        let draft = context.conn().await?;
        add(draft, &model, &stream, cents).await?;
        add(draft, &format!("{model}-count"), &stream, 1).await?;
        draft.put(Key::new("test.model", format!("{model}-total"), stream), total.to_string());
        Ok(())
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

/// Which kind of projection a test is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Stream,
    Keyed,
}

impl Mode {
    pub(crate) const BOTH: [Self; 2] = [Self::Stream, Self::Keyed];

    pub(crate) fn of<S>(self, bank: &Bank<S>, sums: &Sums) -> Projection<Sums, S>
    where
        S: Transactional<Conn = Draft> + Clone,
    {
        let (events, sums) = (bank.events.clone(), sums.clone());
        match self {
            Self::Stream => Projection::stream(events, "sums", sums),
            Self::Keyed => Projection::keyed(events, "sums", sums),
        }
    }
}
