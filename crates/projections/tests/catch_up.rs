//! Projections caught up with, beside what the suite says of every store: handlers that fail in ways of their own, and limits.

mod kit;

use evenkeel_core::{BoxError, Draft, ErrorKind, Expect, ExpectStream, Key, Result, Tx};
use evenkeel_projections::{Context, OnFailure, Policy, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums, add, deposits};

/// An error of the application that was caused by the store.
#[derive(Debug)]
struct Wrapped(evenkeel_core::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the balance could not be read")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

struct Flaky {
    store_errors: std::sync::atomic::AtomicU32,
}

impl Projector<Draft> for Flaky {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        use std::sync::atomic::Ordering::SeqCst;
        if self.store_errors.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            let gone = evenkeel_core::Error::new(ErrorKind::Conflict, "a read of the handler was outrun");
            return Err(Box::new(Wrapped(gone)));
        }
        let stream = event.stream.clone();
        add(context.conn().await?, "flaky", &stream, 1).await
    }
}

#[tokio::test]
async fn a_passing_error_of_the_store_is_no_failure_of_the_handler() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 2, 3]).await;
    let flaky = Flaky { store_errors: 4.into() };
    Projection::stream(bank.events.clone(), "flaky", flaky).catch_up().await.unwrap();
    assert_eq!(bank.row("flaky", "a").await, Some(3));
}

/// Only counts.
struct Counting;

impl Projector<Draft> for Counting {
    type State = u32;

    async fn apply(&self, _: &Recorded, context: &mut Context<'_, Draft, u32>) -> Result<(), BoxError> {
        *context.state += 1;
        Ok(())
    }
}

#[tokio::test]
async fn there_may_be_more_streams_than_are_remembered() {
    let bank = Bank::new();
    for account in 0..51_000 {
        bank.events.append(&format!("a{account}"), ExpectStream::Any, &deposits(&[1])).await.unwrap();
    }
    let projection = Projection::keyed(bank.events.clone(), "counting", Counting);
    projection.catch_up().await.unwrap();
    assert_eq!(projection.position(&bank.at()).await.unwrap(), 51_000);
}

/// Expects what is not so.
struct Contrary;

impl Projector<Draft> for Contrary {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        if let Some(batch) = context.effects().filter(|_| event.version == 2) {
            batch.check(Key::new("test.model", "nobody", "wrote this"), Expect::Present);
        }
        let stream = event.stream.clone();
        add(context.conn().await?, "contrary", &stream, 1).await
    }
}

#[tokio::test]
async fn a_conflict_that_lasts_is_the_handlers_failure() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 2, 3]).await;
    let contrary = |then| {
        let projection = Projection::stream(bank.events.clone(), "contrary", Contrary);
        projection.policy(Policy::new(then))
    };
    let failing = contrary(OnFailure::Fail);
    let error = kit::with_moving_clock(&bank.clock, failing.catch_up()).await.unwrap_err();
    assert!(error.to_string().contains("position: 2"), "{error}");
    let ignoring = contrary(OnFailure::Ignore);
    kit::with_moving_clock(&bank.clock, ignoring.catch_up()).await.unwrap();
    assert_eq!(bank.row("contrary", "a").await, Some(2));
    assert_eq!(ignoring.operations().dead_letters(None, 9).await.unwrap().len(), 1);
}

/// Counts all events in one record.
struct Hot;

impl Projector<Draft> for Hot {
    type State = ();

    async fn apply(&self, _: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        add(context.conn().await?, "hot", "all", 1).await?;
        // So that others read what this one has not written yet.
        tokio::task::yield_now().await;
        Ok(())
    }
}

#[tokio::test]
async fn commits_side_by_side_that_all_write_one_record_come_to_their_end() {
    let bank = Bank::new();
    for account in 0..200 {
        bank.deposit(&format!("a{account}"), &[1]).await;
    }
    let projection =
        Projection::keyed(bank.events.clone(), "hot", Hot).policy(Policy::new(OnFailure::Ignore));
    kit::with_moving_clock(&bank.clock, projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("hot", "all").await, Some(200));
}

/// Fails at each event once, as one does whose connection is cut.
#[derive(Default)]
struct CutOff {
    last: std::sync::atomic::AtomicU64,
}

impl Projector<Draft> for CutOff {
    type State = ();

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, ()>) -> Result<(), BoxError> {
        if self.last.swap(event.position, std::sync::atomic::Ordering::SeqCst) < event.position {
            return Err("the connection was cut".into());
        }
        let stream = event.stream.clone();
        add(context.conn().await?, "cut-off", &stream, 1).await
    }
}

#[tokio::test]
async fn an_event_has_failed_where_it_did_so_twice_in_a_row() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 2, 3]).await;
    let projection = Projection::stream(bank.events.clone(), "cut-off", CutOff::default());
    projection.policy(Policy::new(OnFailure::Ignore)).catch_up().await.unwrap();
    assert_eq!(bank.row("cut-off", "a").await, Some(3));
}

/// Makes a table that must not be there yet, while another node does so.
struct Tables {
    other: Option<Projection<Sums, evenkeel_core::MemoryStore>>,
}

impl Projector<Draft> for Tables {
    type State = kit::Total;

    async fn init(&self, _: u32, _: &mut Tx<Draft>) -> std::result::Result<(), BoxError> {
        match &self.other {
            Some(other) => other.catch_up().await?,
            None => panic!("the table could not be made"),
        }
        Err("the table is there already".into())
    }

    async fn apply(
        &self,
        _: &Recorded,
        _: &mut Context<'_, Draft, kit::Total>,
    ) -> std::result::Result<(), BoxError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_version_that_another_node_has_made_meanwhile_is_made() {
    let bank = Bank::new();
    bank.deposit("a", &[1]).await;
    let tables = |other| Projection::stream(bank.events.clone(), "sums", Tables { other });
    let error = tables(None).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    tables(Some(Mode::Stream.of(&bank.events, &Sums::default()))).catch_up().await.unwrap();
}

#[tokio::test]
async fn a_name_is_as_long_as_it_may_be_and_no_longer() {
    let bank = Bank::new();
    bank.deposit("a", &[1]).await;
    let named = |bytes: usize| Projection::stream(bank.events.clone(), "n".repeat(bytes), Sums::default());
    for bytes in [0, 497] {
        assert_eq!(named(bytes).catch_up().await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let longest = named(496);
    longest.catch_up().await.unwrap();
    let running = tokio::spawn({
        let longest = longest.clone();
        async move { longest.run(std::future::pending()).await }
    });
    let appended = bank.deposit("a", &[2]).await;
    kit::with_moving_clock(&bank.clock, longest.wait_for(&appended)).await.unwrap();
    running.abort();
}
