use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    AnyStore, BoxError, Draft, ErrorKind, Expect, ExpectStream, Key, Read, Result, Store, StoreExt,
    Transactional,
};
use evenkeel_projections::{Context, Projection, Projector, Recorded};

use super::accounts::{Mode, deposits};
use super::bench::{Bank, Process, run};
use crate::chaos::{Chaos, ChaosStore};
use crate::fixture::Fixture;
use crate::harness::{on_one_thread, open};

const ROUNDS: u64 = 6;
const STREAMS: [&str; 3] = ["a", "b", "c"];

/// Appends, commits, roll-backs, processes that die and are taken over from, rebuilds and resets, over
/// a store that loses answers: once for each of the fixture's seeds.
pub(super) async fn every_event_is_applied_once_and_in_order<F: Fixture>(
    fixture: Arc<F>,
    partitions: u32,
) -> Result<()> {
    on_one_thread(move || async move {
        let bank = Bank::new(open(&*fixture, partitions).await?);
        let mut died = 0;
        for seed in 0..fixture.seeds() {
            died += Story::new(seed, bank.fresh()).play().await;
        }
        assert!(died >= fixture.seeds(), "the processes died {died} times only");
        Ok(())
    })
    .await
}

/// Writes down which events it was given, stream by stream and in all.
#[derive(Clone)]
struct Ledger;

impl Projector<Draft> for Ledger {
    type State = u64;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, u64>) -> Result<(), BoxError> {
        *context.state += 1;
        let state = *context.state;
        let (by_stream, all) = (model("streams", context.version()), model("all", context.version()));
        let draft = context.conn().await?;
        note(draft, Key::new("test.model", by_stream, &event.stream), event.version).await?;
        if event.position > 0 {
            draft.put(Key::new("test.model", all, format!("{:04}", event.position)), state.to_string());
        }
        Ok(())
    }
}

fn model(name: &str, version: u32) -> String {
    format!("{name}-{version}")
}

async fn note(draft: &mut Draft, key: Key, version: u64) -> Result<()> {
    let noted = draft.get(&key).await?.unwrap_or_default();
    let noted = std::str::from_utf8(&noted).expect("it was written here");
    draft.put(key, format!("{noted}{version} "));
    Ok(())
}

/// Has an effect for each event that cannot be had twice, with any store's own connection.
#[derive(Clone)]
struct Outbox;

impl<C: Send + 'static> Projector<C> for Outbox {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, C, ()>) -> Result<(), BoxError> {
        if let Some(batch) = context.effects() {
            batch.put(sent(event.position), "sent", Expect::Absent);
        }
        Ok(())
    }
}

fn sent(position: u64) -> Key {
    Key::new("test.model", "sent", position.to_string())
}

/// A projection with the store's own connection.
type Native<S> = Projection<Outbox, ChaosStore<ChaosStore<S>>>;

/// One seed's world.
struct Story<S> {
    seed: u64,
    bank: Bank<S>,
    random: fastrand::Rng,
    mode: Mode,
}

/// What a process may be doing.
#[derive(Clone, Copy, Debug)]
enum Action {
    Append(&'static str),
    AppendWithModel(&'static str),
    RollBack(&'static str),
    CatchUp { most_events: usize },
    Run { time: Duration },
    Rebuild,
    StartRebuild,
    CancelRebuild,
    Reset,
    Discard(u32),
}

impl<S> Drop for Story<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the story of seed {}, {:?}", self.seed, self.mode);
        }
    }
}

impl<S: Transactional + Clone> Story<S> {
    fn new(seed: u64, bank: Bank<S>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = Mode::BOTH[random.usize(0..2)];
        Self { seed, bank, random, mode }
    }

    /// Plays to the end; returns how many processes died.
    async fn play(mut self) -> u64 {
        let mut died = 0;
        for round in 0..ROUNDS {
            for stream in STREAMS {
                if self.random.bool() {
                    self.bank.deposit(stream, &[1, 2][..self.random.usize(1..3)]).await;
                }
            }
            let seed = self.seed * ROUNDS + round;
            let trouble = Chaos::new(seed).unavailable(0.04).lost_acknowledgements(0.06).delays(2);
            let dying = self.bank.troubled(trouble.crash_at(1 + self.random.u64(0..40)));
            let other = self.bank.troubled(Chaos::new(!seed).delays(2));
            let actions = [self.action(), self.action(), self.action(), Action::CatchUp { most_events: 3 }];
            let [one, two, three, four] = actions;
            let works = async {
                tokio::join!(
                    self.act(&dying, one),
                    self.act(&dying, two),
                    self.act(&other, three),
                    self.act(&dying, four)
                )
            };
            tokio::select! {
                biased;
                () = dying.store.crashed() => died += 1,
                _ = Box::pin(works) => {}
                () = self.bank.moving(Duration::from_millis(700)) => {}
            }
        }
        self.end().await;
        died
    }

    fn action(&mut self) -> Action {
        let stream = STREAMS[self.random.usize(0..STREAMS.len())];
        match self.random.u8(0..20) {
            0..4 => Action::Append(stream),
            4..7 => Action::AppendWithModel(stream),
            7..9 => Action::RollBack(stream),
            9..13 => Action::CatchUp { most_events: self.random.usize(1..6) },
            13..15 => Action::Run { time: Duration::from_secs(self.random.u64(1..70)) },
            15 => Action::Rebuild,
            16 => Action::StartRebuild,
            17 => Action::CancelRebuild,
            18 => Action::Reset,
            _ => Action::Discard(self.random.u32(1..4)),
        }
    }

    fn ledger(&self, process: &Process<S>) -> Projection<Ledger, AnyStore> {
        self.mode.on(process.events.clone(), Ledger)
    }

    async fn act(&self, process: &Process<S>, action: Action) {
        let ledger = self.ledger(process);
        let outbox = Projection::stream(process.native.clone(), "outbox", Outbox);
        let done = match action {
            Action::Append(stream) => {
                process.events.append(stream, ExpectStream::Any, &deposits(&[1, 2])).await.map(drop)
            }
            Action::AppendWithModel(stream) => match self.mode {
                Mode::Stream => Ok(()),
                Mode::Keyed => ledger.append(stream, ExpectStream::Any, &deposits(&[1, 2])).await.map(drop),
            },
            Action::RollBack(stream) => self.roll_back(process, stream).await,
            Action::CatchUp { most_events } => {
                let ledger = ledger.most_events(most_events).catch_up().await;
                ledger.and(outbox.most_events(most_events).catch_up().await)
            }
            Action::Run { time } => {
                let _nodes = (run(ledger.most_events(4)), run(outbox));
                self.bank.clock_sleep(time).await;
                Ok(())
            }
            Action::Rebuild => ledger.rebuild().await.and(outbox.rebuild().await).map(drop),
            Action::StartRebuild => ledger
                .operations()
                .start_rebuild()
                .await
                .and(outbox.operations().start_rebuild().await)
                .map(drop),
            Action::CancelRebuild => ledger
                .operations()
                .cancel_rebuild()
                .await
                .and(outbox.operations().cancel_rebuild().await)
                .map(drop),
            Action::Reset => {
                ledger.operations().reset().await.and(outbox.operations().reset().await).map(drop)
            }
            Action::Discard(version) => ledger.discard(version).await.and(outbox.discard(version).await),
        };
        let expected = [
            ErrorKind::Unavailable,
            ErrorKind::OutcomeUnknown,
            ErrorKind::Conflict,
            // Of a version in use, and of a projection that has never run.
            ErrorKind::InvalidInput,
            ErrorKind::NotFound,
        ];
        if let Err(error) = done {
            assert!(expected.contains(&error.kind()), "seed {}: {action:?}: {error:?}", self.seed);
        }
    }

    async fn roll_back(&self, process: &Process<S>, stream: &str) -> Result<()> {
        let store = process.events.store();
        let mut tx = store.begin(self.bank.at(stream), self.bank.now()).await?;
        process.events.append_in(tx.batch(), stream, ExpectStream::Any, &deposits(&[9]))?;
        tokio::task::yield_now().await;
        store.rollback(tx).await;
        Ok(())
    }

    /// What was committed is in the read model, once and in order, and so it is in a new version.
    async fn end(&self) {
        let calm = self.bank.troubled(Chaos::new(0));
        let (ledger, outbox) =
            (self.ledger(&calm), Projection::stream(calm.native.clone(), "outbox", Outbox));
        self.settle(&ledger, &outbox).await;
        self.rebuild(&ledger).await;
        self.rebuild(&outbox).await;
        self.settle(&ledger, &outbox).await;
    }

    /// Catches up until nothing is wrong. What a process had under way when it died may be applied
    /// until then; something may be wrong only where that has happened.
    async fn settle(&self, ledger: &Projection<Ledger, AnyStore>, outbox: &Native<S>) {
        let stands = async || {
            let active = ledger.operations().status().await.ok().map(|status| status.active);
            (self.bank.heads().await, active)
        };
        loop {
            let before = stands().await;
            self.bank.passing(ledger.catch_up()).await.unwrap();
            self.bank.passing(outbox.catch_up()).await.unwrap();
            let Some(wrong) = self.look_for_wrongs(ledger).await else { return };
            let (seed, mode) = (self.seed, self.mode);
            // What was under way may have appended, or have reset the projection.
            assert_ne!(before, stands().await, "seed {seed}, {mode:?}: {wrong}");
        }
    }

    async fn rebuild<P, T>(&self, projection: &Projection<P, T>)
    where
        P: Projector<T::Conn>,
        T: Transactional + Clone,
    {
        while let Err(error) = self.bank.passing(projection.rebuild()).await {
            // Of a reset or the like that was under way.
            assert_eq!(error.kind(), ErrorKind::Conflict, "seed {}: {error:?}", self.seed);
        }
    }

    async fn look_for_wrongs(&self, ledger: &Projection<Ledger, AnyStore>) -> Option<String> {
        let version = ledger.operations().status().await.unwrap().active;
        let noted = self.bank.rows(&model("streams", version)).await;
        for stream in STREAMS {
            let last = self.bank.events.version(stream).await.unwrap();
            let expected: String = (1..=last).map(|version| format!("{version} ")).collect();
            let noted = noted.iter().find(|(id, _)| id == stream).map_or("", |(_, noted)| noted);
            if noted != expected {
                return Some(format!("version {version} has {noted:?} of {stream}, which is at {last}"));
            }
        }
        for at in self.bank.store.partitions() {
            let head = self.bank.store.read(&at, Read::partition(0, 1)).await.unwrap().head;
            let position = ledger.position(&at).await.unwrap();
            if position != head {
                return Some(format!("version {version} is at {position} in {at}, whose head is {head}"));
            }
            let scan = evenkeel_core::Scan::new("test.model", model("all", version), 1_000, self.bank.now());
            let all = self.bank.store.scan(&at, scan).await.unwrap().records;
            let orders = all.iter().map(|(_, record)| String::from_utf8(record.value.to_vec()).unwrap());
            let in_order = || orders.eq((1..=head).map(|position| position.to_string()));
            if matches!(self.mode, Mode::Stream) && !in_order() {
                return Some(format!("version {version} has in {at}: {all:?}"));
            }
            for position in 1..=head {
                let effect = self.bank.store.get_one(&at, self.bank.now(), &sent(position)).await.unwrap();
                if effect.is_none() {
                    return Some(format!("the effect of {position} in {at} was lost"));
                }
            }
        }
        None
    }
}
