use std::time::Duration;

use evenkeel_core::{
    AnyStore, Appended, BoxError, Clock, ExpectStream, Jobs, ManualClock, Merge, Namespace, Partition, Scan,
    Store, StoreExt, Timestamp, Transactional,
};
use evenkeel_projections::{Context, EventStore, OnFailure, Policy, Projection, Projector, Recorded};
use uuid::Uuid;

use super::accounts::{self, Mode, Sums, deposits};
use crate::chaos::{Chaos, ChaosStore};
use crate::harness::Running;

/// For how long a partition is a node's after it was last heard of.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// In what steps time passes.
const STEP: Duration = Duration::from_millis(100);

/// A projection as most cases have it.
pub(crate) type Summing = Projection<Sums, AnyStore>;

/// A store in a clean namespace with its events, and a time that stands still.
#[derive(Clone)]
pub(crate) struct Bank<S> {
    /// Makes no trouble, but knows what is under way.
    calm: ChaosStore<S>,
    pub(crate) store: AnyStore,
    pub(crate) clock: ManualClock,
    pub(crate) events: EventStore,
}

/// A process as a case sees it: it shares nothing with others but the store.
pub(crate) struct Process<S> {
    pub(crate) store: ChaosStore<ChaosStore<S>>,
    pub(crate) events: EventStore,
    /// With the store's own connection.
    pub(crate) native: EventStore<ChaosStore<ChaosStore<S>>>,
}

impl<S: Transactional + Clone> Bank<S> {
    pub(crate) fn new(store: S) -> Self {
        Self::on(store.layer(Chaos::new(0)))
    }

    fn on(calm: ChaosStore<S>) -> Self {
        let (store, clock) = (calm.clone().any(), ManualClock::default());
        let events = EventStore::new(store.clone()).clock(clock.shared());
        Self { calm, store, clock, events }
    }

    /// Another on the same store, with nothing in it.
    pub(crate) fn fresh(&self) -> Self {
        let name = Namespace::new(format!("case-{}", Uuid::new_v4())).expect("it is short and of letters");
        Self::on(self.calm.namespace(name))
    }

    /// A process that has this trouble.
    pub(crate) fn troubled(&self, trouble: Chaos) -> Process<S> {
        let store = self.calm.clone().layer(trouble);
        let events = EventStore::new(store.clone().any()).clock(self.clock.shared());
        let native = EventStore::new(store.clone()).clock(self.clock.shared());
        Process { store, events, native }
    }

    pub(crate) async fn deposit(&self, account: &str, cents: &[i64]) -> Appended {
        self.events.append(account, ExpectStream::Any, &deposits(cents)).await.unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn at(&self, stream: &str) -> Partition {
        self.store.partition_of(stream)
    }

    /// Two streams of the same partition.
    pub(crate) fn pair(&self) -> [String; 2] {
        let others = (0..).map(|n| format!("b{n}"));
        let other = others.into_iter().find(|other| self.at(other) == self.at("a"));
        ["a".to_owned(), other.expect("names go on for ever")]
    }

    /// How many events there are in all partitions.
    pub(crate) async fn heads(&self) -> u64 {
        let mut heads = 0;
        for at in self.store.partitions() {
            heads += self.store.read(&at, evenkeel_core::Read::partition(0, 1)).await.unwrap().head;
        }
        heads
    }

    /// The records of a read model over all partitions, by their ids.
    pub(crate) async fn rows(&self, model: &str) -> Vec<(String, String)> {
        let scan = Scan::new("test.model", model, 10_000, self.now());
        let found = self.store.scan_merged(scan).await.unwrap();
        found.into_iter().map(|row| (row.id, String::from_utf8(row.record.value.to_vec()).unwrap())).collect()
    }

    pub(crate) async fn row(&self, model: &str, id: &str) -> Option<i64> {
        let key = accounts::row(model, id);
        for at in self.store.partitions() {
            if let Some(row) = self.store.get_one(&at, self.now(), &key).await.unwrap() {
                return Some(std::str::from_utf8(&row.value).unwrap().parse().unwrap());
            }
        }
        None
    }

    /// The mails that are to be sent, by the positions of their events.
    pub(crate) async fn mails(&self) -> Vec<String> {
        let mut mails = Vec::new();
        for at in self.store.partitions() {
            let page = Jobs::Page { queue: "mails".into(), after: None, limit: 100 };
            mails.extend(self.store.jobs(&at, page).await.unwrap().jobs.into_iter().map(|(id, _)| id));
        }
        mails
    }

    pub(crate) async fn send_mails(&self) {
        for at in self.store.partitions() {
            let mut batch = evenkeel_core::Batch::new(at, self.now());
            for id in self.mails().await {
                batch.cancel("mails", id);
            }
            self.store.commit(batch).await.unwrap();
        }
    }

    /// Lets everything that can happen at this instant happen, and then this much time pass.
    async fn tick(&self, step: Duration) {
        self.calm.settle(20).await;
        self.clock.advance(step);
    }

    /// Lets time pass in such steps whenever somebody waits for it and nothing else happens.
    pub(crate) async fn moving(&self, step: Duration) {
        loop {
            self.clock.wait_for_sleepers(1).await;
            self.tick(step).await;
        }
    }

    /// The output of `future`, while time passes. A case that waits in vain hangs, and fails for that.
    pub(crate) async fn passing<F: Future>(&self, future: F) -> F::Output {
        tokio::select! {
            biased;
            output = future => output,
            () = self.moving(STEP) => unreachable!("time passes for ever"),
        }
    }

    /// Lets time pass until `condition` holds.
    pub(crate) async fn until(&self, condition: impl AsyncFn() -> bool) {
        while !condition().await {
            self.tick(STEP).await;
        }
    }

    /// Waits until this much time has passed.
    pub(crate) async fn clock_sleep(&self, time: Duration) {
        self.clock.shared().sleep(time).await;
    }

    /// Lets this much time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        let end = self.now() + time;
        self.until(async || self.now() >= end).await;
    }
}

/// Runs a projection until it is dropped, as if its process were killed.
pub(crate) fn run<P, S>(projection: Projection<P, S>) -> Running
where
    P: Projector<S::Conn>,
    S: Transactional + Clone,
{
    Running::spawn(async move {
        projection.lease(LEASE).run(std::future::pending()).await.expect("its settings make sense");
    })
}

/// Wants a mail to be sent for each event, by its position.
#[derive(Clone)]
pub(crate) struct Mailer;

impl<C: Send + 'static> Projector<C> for Mailer {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, C, ()>) -> Result<(), BoxError> {
        if let Some(batch) = context.effects() {
            batch.push("mails", event.position.to_string(), event.recorded_at, "hello", Merge::Keep);
        }
        Ok(())
    }
}

/// A keyed projection that sets streams apart.
pub(crate) fn parking<S>(bank: &Bank<S>, sums: &Sums) -> Summing {
    Mode::Keyed.of(&bank.events, sums).policy(Policy::new(OnFailure::Park))
}
