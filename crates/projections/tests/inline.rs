//! Appends that project, beside what the suite says of every store: others who are faster.

mod kit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use evenkeel_core::{BoxError, Draft, ExpectStream, Filter, Key, MemoryStore, Store};
use evenkeel_projections::{Context, EventStore, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums, deposits};
use serde::{Deserialize, Deserializer, Serialize};

/// Adds up what moves, and lets another append to the stream while it is at it, once.
struct Racer {
    other: EventStore<MemoryStore>,
    races: Mutex<bool>,
}

impl Racer {
    fn new(bank: &Bank) -> Self {
        Self { other: bank.events.clone(), races: Mutex::new(true) }
    }
}

impl Projector<Draft> for Racer {
    type State = i64;

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, i64>) -> Result<(), BoxError> {
        let races = std::mem::take(&mut *self.races.lock().unwrap());
        if races {
            self.other.append(&event.stream, ExpectStream::Any, &deposits(&[1])).await?;
        }
        *context.state += kit::cents(event)?;
        let sum = context.state.to_string();
        context.conn().await?.put(Key::new("test.model", "race", &event.stream), sum);
        Ok(())
    }
}

#[tokio::test]
async fn an_event_that_another_appends_meanwhile_is_applied_first() {
    for known in [0, 1] {
        let bank = Bank::new();
        for _ in 0..known {
            bank.deposit("a", &[10]).await;
        }
        let projection = Projection::keyed(bank.events.clone(), "race", Racer::new(&bank));
        let appended = projection.append("a", ExpectStream::Any, &deposits(&[100])).await.unwrap();
        assert_eq!(appended.version, known + 2);
        let sum = 101 + 10 * i64::try_from(known).unwrap();
        assert_eq!(bank.row("race", "a").await, Some(sum));
        projection.catch_up().await.unwrap();
        assert_eq!(bank.row("race", "a").await, Some(sum));
    }
}

/// Wants nothing of what is appended, and does not expect to be given nothing.
struct OnlyOpened;

impl Projector<Draft> for OnlyOpened {
    type State = ();

    fn filter(&self) -> Filter {
        Filter::all().kind("Opened")
    }

    async fn apply(&self, _: &Recorded, _: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        Err("none is wanted".into())
    }

    async fn apply_batch(&self, events: &[Recorded], _: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        Err(format!("{} is not wanted", events[0].kind).into())
    }
}

#[tokio::test]
async fn a_handler_is_not_called_for_events_that_it_does_not_want() {
    let bank = Bank::new();
    let projection = Projection::keyed(bank.events.clone(), "opened", OnlyOpened);
    projection.append("a", ExpectStream::Any, &deposits(&[1])).await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(projection.position(&bank.at()).await.unwrap(), 1);
}

/// Has another version take over while it is at it, once.
struct Switching {
    other: Projection<Sums, MemoryStore>,
    switches: Mutex<bool>,
}

impl Projector<Draft> for Switching {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        let switches = std::mem::take(&mut *self.switches.lock().unwrap());
        if switches {
            self.other.operations().reset().await?;
            self.other.catch_up().await?;
        }
        let (model, stream) = (format!("switched-{}", context.version()), event.stream.clone());
        kit::add(context.conn().await?, &model, &stream, 1).await
    }
}

#[tokio::test]
async fn an_append_goes_to_the_version_that_has_taken_over() {
    let bank = Bank::new();
    let other = Mode::Keyed.of(&bank.events, &Sums::default());
    let switching = Switching { other, switches: Mutex::new(true) };
    let projection = Projection::keyed(bank.events.clone(), "sums", switching);
    projection.append("a", ExpectStream::Any, &deposits(&[1])).await.unwrap();
    assert_eq!(bank.row("switched-2", "a").await, Some(1));
    assert_eq!(bank.row("switched-1", "a").await, None, "the version before commits nothing more");
}

/// How many states were read.
static READ: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Default, Serialize)]
struct Counted(u64);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        READ.fetch_add(1, Ordering::SeqCst);
        u64::deserialize(json).map(Self)
    }
}

#[derive(Clone)]
struct Counting(Arc<AtomicUsize>);

impl Projector<Draft> for Counting {
    type State = Counted;

    async fn apply(
        &self,
        event: &Recorded,
        context: &mut Context<'_, Draft, Counted>,
    ) -> Result<(), BoxError> {
        context.state.0 += 1;
        let stream = event.stream.clone();
        self.0.fetch_add(1, Ordering::SeqCst);
        kit::add(context.conn().await?, "counted", &stream, 1).await
    }
}

#[tokio::test]
async fn an_append_that_projects_costs_who_runs_the_projection_one_state() {
    let bank = Bank::new();
    let projection =
        || Projection::keyed(bank.events.clone(), "counting", Counting(Arc::default())).most_events(50);
    let running = tokio::spawn({
        let projection = projection();
        async move { projection.run(std::future::pending()).await }
    });
    let all = async || {
        let mut last = None;
        for account in 0..300 {
            last = Some(bank.deposit(&format!("account-{account}"), &[1]).await);
        }
        kit::with_moving_clock(&bank.clock, projection().wait_for(&last.unwrap())).await.unwrap();
    };
    all().await;
    let appended = projection().append("account-7", ExpectStream::Any, &deposits(&[1])).await.unwrap();
    kit::with_moving_clock(&bank.clock, projection().wait_for(&appended)).await.unwrap();
    all().await;
    running.abort();
    assert_eq!(bank.row("counted", "account-7").await, Some(3));
    assert_eq!(bank.rows("counted").await.len(), 300);
    assert!(READ.load(Ordering::SeqCst) <= 4, "{} states were read", READ.load(Ordering::SeqCst));
    assert_eq!(bank.store.info().partitions, 1);
}
