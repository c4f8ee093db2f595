//! Projections caught up with: each event once and in order, whatever happens.

mod kit;

use evenkeel_core::{BoxError, Draft, ErrorKind, ExpectStream, Filter, Result};
use evenkeel_projections::{Context, OnFailure, Policy, Projection, Projector, Recorded};
use kit::{Bank, Mode, Sums, add, deposits};

async fn six_events(bank: &Bank) {
    bank.deposit("a", &[1, 2, 3]).await;
    bank.deposit("b", &[10, 20, 30]).await;
}

#[tokio::test]
async fn six_events_end_at_six_with_their_sums_and_two_more_at_eight() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::new(), Sums::default());
        six_events(&bank).await;
        mode.of(&bank, &sums).catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), 6);
        assert_eq!(bank.row("sums-1", "a").await, Some(6));
        assert_eq!(bank.row("sums-1", "b").await, Some(60));

        bank.deposit("a", &[4]).await;
        bank.deposit("b", &[40]).await;
        // A new instance does not run the first six again.
        mode.of(&bank, &sums).catch_up().await.unwrap();
        mode.of(&bank, &sums).catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), 8);
        assert_eq!(bank.row("sums-1", "a").await, Some(10));
        assert_eq!(bank.row("sums-1", "b").await, Some(100));
        assert_eq!(bank.row("sums-1-count", "b").await, Some(4));
    }
}

#[tokio::test]
async fn a_stream_projection_has_one_state_and_a_keyed_one_a_state_for_each_stream() {
    for (mode, expected) in [(Mode::Stream, 66), (Mode::Keyed, 60)] {
        let (bank, sums) = (Bank::new(), Sums::default());
        six_events(&bank).await;
        mode.of(&bank, &sums).catch_up().await.unwrap();
        assert_eq!(bank.row("sums-1-total", "b").await, Some(expected));
        assert_eq!(bank.row("sums-1-total", "a").await, Some(6));
    }
}

#[tokio::test]
async fn events_over_many_partitions_commits_and_windows_are_all_applied_once() {
    for partitions in [1, 4] {
        for mode in Mode::BOTH {
            let (bank, sums) = (Bank::with_partitions(partitions), Sums::default());
            for round in 0..10 {
                for account in 0..200 {
                    bank.deposit(&format!("account-{account}"), &[round, 1]).await;
                }
            }
            mode.of(&bank, &sums).most_events(150).catch_up().await.unwrap();
            assert_eq!(bank.rows("sums-1").await.len(), 200);
            for (account, sum) in bank.rows("sums-1").await {
                assert_eq!(sum, "55", "{account}");
            }
            for (account, count) in bank.rows("sums-1-count").await {
                assert_eq!(count, "20", "{account}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_runs_at_once_double_nothing() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::with_partitions(2), Sums::default());
        for account in 0..40 {
            bank.deposit(&format!("account-{account}"), &[1; 50]).await;
        }
        let runs: Vec<_> = (0..3)
            .map(|_| {
                let projection = mode.of(&bank, &sums).most_events(30);
                tokio::spawn(async move { projection.catch_up().await })
            })
            .collect();
        for run in runs {
            run.await.unwrap().unwrap();
        }
        for (account, sum) in bank.rows("sums-1").await {
            assert_eq!(sum, "50", "{account}");
        }
        assert_eq!(bank.rows("sums-1").await.len(), 40);
    }
}

struct OnlyWithdrawals;

impl Projector<Draft> for OnlyWithdrawals {
    type State = u32;

    fn filter(&self) -> Filter {
        Filter::all().kind("Withdrawn")
    }

    async fn apply(&self, event: &Recorded, context: &mut Context<'_, Draft, u32>) -> Result<(), BoxError> {
        *context.state += 1;
        let state = i64::from(*context.state);
        let stream = event.stream.clone();
        add(context.conn().await?, "withdrawals", &stream, state).await?;
        Ok(())
    }
}

#[tokio::test]
async fn the_position_moves_past_events_that_are_filtered_or_unknown() {
    let bank = Bank::new();
    six_events(&bank).await;
    let projection = Projection::stream(bank.events.clone(), "withdrawals", OnlyWithdrawals);
    projection.catch_up().await.unwrap();
    let position = projection.position(&bank.at()).await.unwrap();
    assert_eq!(position, 6);
    assert!(bank.rows("withdrawals").await.is_empty());

    let withdrawn = kit::AccountEvent::Withdrawn { cents: 1 };
    bank.events.append("a", ExpectStream::Any, &[withdrawn]).await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("withdrawals", "a").await, Some(1));
}

#[tokio::test]
async fn under_fail_what_comes_before_is_applied_and_a_later_run_tries_again() {
    for mode in Mode::BOTH {
        for poison in [3, 666] {
            let (bank, sums) = (Bank::new(), Sums::poisoned_by(poison));
            bank.deposit("a", &[1, 2, poison, 4]).await;
            let error = mode.of(&bank, &sums).catch_up().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unexpected);
            assert!(error.to_string().contains("position: 3"), "{error}");
            assert_eq!(bank.row("sums-1", "a").await, Some(3));

            sums.heal();
            mode.of(&bank, &sums).catch_up().await.unwrap();
            assert_eq!(bank.row("sums-1", "a").await, Some(7 + poison));
            assert_eq!(bank.row("sums-1-count", "a").await, Some(4));
        }
    }
}

#[tokio::test]
async fn under_ignore_the_event_is_skipped_and_the_rest_applied() {
    for mode in Mode::BOTH {
        let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
        bank.deposit("a", &[1, 2, 3, 4]).await;
        bank.deposit("b", &[5]).await;
        let projection = mode.of(&bank, &sums).policy(Policy::new(OnFailure::Ignore));
        projection.catch_up().await.unwrap();
        assert_eq!(bank.row("sums-1", "a").await, Some(7));
        assert_eq!(bank.row("sums-1", "b").await, Some(5));
        assert_eq!(projection.position(&bank.at()).await.unwrap(), 5);
        let seen = sums.seen().len();
        projection.catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), seen, "the poison is not taken again");
    }
}

#[tokio::test]
async fn under_park_the_stream_is_set_apart_and_the_rest_flow() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    let projection = Mode::Keyed.of(&bank, &sums).policy(Policy::new(OnFailure::Park));
    bank.deposit("a", &[1, 2, 3, 4]).await;
    bank.deposit("b", &[5]).await;
    projection.catch_up().await.unwrap();
    bank.deposit("a", &[7]).await;
    bank.deposit("b", &[6]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(3));
    assert_eq!(bank.row("sums-1", "b").await, Some(11));
    assert_eq!(projection.position(&bank.at()).await.unwrap(), 7);
}

#[tokio::test]
async fn only_a_keyed_projection_parks() {
    let bank = Bank::new();
    let projection = Mode::Stream.of(&bank, &Sums::default()).policy(Policy::new(OnFailure::Park));
    assert_eq!(projection.catch_up().await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_retry_applies_the_event_alone_after_its_delay() {
    let (bank, sums) = (Bank::new(), Sums::poisoned_by(3));
    bank.deposit("a", &[1, 2, 3, 4]).await;
    let second = std::time::Duration::from_secs(1);
    let projection =
        Mode::Stream.of(&bank, &sums).policy(Policy::new(OnFailure::Fail).retry(5, second, 4 * second));
    let run = tokio::spawn(async move { projection.catch_up().await });
    for delay in [1, 2] {
        bank.clock.wait_for_sleepers(1).await;
        bank.clock.advance(delay * second);
    }
    bank.clock.wait_for_sleepers(1).await;
    assert!(!run.is_finished());
    sums.heal();
    bank.clock.advance(4 * second);
    run.await.unwrap().unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(10));
}

#[tokio::test]
async fn a_log_that_ends_before_the_position_is_corrupt() {
    let (bank, sums) = (Bank::new(), Sums::default());
    six_events(&bank).await;
    Mode::Stream.of(&bank, &sums).catch_up().await.unwrap();

    // The records were restored from a backup, the log was not.
    let other = Bank::new();
    let key = evenkeel_core::Key::new("projections.position", "sums", "0000000001");
    let record = evenkeel_core::StoreExt::get_one(&bank.store, &bank.at(), bank.now(), &key).await.unwrap();
    let mut batch = evenkeel_core::Batch::new(other.at(), other.now());
    batch.put(key, record.unwrap().value, evenkeel_core::Expect::Any);
    evenkeel_core::Store::commit(&other.store, batch).await.unwrap();
    other.deposit("a", &[1]).await;
    let error = Mode::Stream.of(&other, &sums).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(other.rows("sums-1").await, []);
}

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
        Ok(add(context.conn().await?, "flaky", &stream, 1).await?)
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

#[tokio::test]
async fn a_thousand_streams_fit_the_limits_of_a_batch() {
    let (bank, sums) = (Bank::new(), Sums::default());
    for account in 0..1000 {
        bank.events.append(&format!("a{account}"), ExpectStream::Any, &deposits(&[1, 2])).await.unwrap();
    }
    Mode::Keyed.of(&bank, &sums).catch_up().await.unwrap();
    assert_eq!(bank.rows("sums-1").await.len(), 1000);
}
