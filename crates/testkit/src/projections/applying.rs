use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    Batch, BoxError, Draft, ErrorKind, Expect, ExpectStream, Filter, Key, Result, Store, StoreExt,
    Transactional,
};
use evenkeel_projections::{Context, OnFailure, Policy, Projection, Projector, Recorded};
use tokio::sync::Notify;

use super::accounts::{AccountEvent, Mode, Sums, add};
use super::bench::{Bank, parking};
use crate::chaos::Chaos;

super::cases![
    six_events_end_at_six_with_their_sums_and_two_more_at_eight,
    a_stream_projection_has_one_state_and_a_keyed_one_a_state_for_each_stream,
    events_over_many_commits_and_windows_are_all_applied_once,
    three_runs_at_once_double_nothing,
    a_run_that_others_have_overtaken_writes_nothing,
    the_position_moves_past_events_that_are_filtered,
    under_fail_what_comes_before_is_applied_and_a_later_run_tries_again,
    under_ignore_the_event_is_skipped_and_the_rest_applied,
    under_park_the_stream_is_set_apart_and_the_rest_flow,
    a_retry_applies_the_event_alone_after_its_delay,
    a_log_that_ends_before_the_position_is_corrupt,
    many_streams_fit_the_limits_of_a_batch,
];

async fn six_events<S: Transactional + Clone>(bank: &Bank<S>) -> [String; 2] {
    let [a, b] = bank.pair();
    bank.deposit(&a, &[1, 2, 3]).await;
    bank.deposit(&b, &[10, 20, 30]).await;
    [a, b]
}

async fn six_events_end_at_six_with_their_sums_and_two_more_at_eight<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    for mode in Mode::BOTH {
        let (bank, sums) = (bank.fresh(), Sums::default());
        let [a, b] = six_events(&bank).await;
        mode.of(&bank.events, &sums).catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), 6);
        assert_eq!(mode.of(&bank.events, &sums).position(&bank.at("a")).await.unwrap(), 6);
        assert_eq!((bank.row("sums-1", &a).await, bank.row("sums-1", &b).await), (Some(6), Some(60)));

        bank.deposit(&a, &[4]).await;
        bank.deposit(&b, &[40]).await;
        // A new instance does not run the first six again.
        mode.of(&bank.events, &sums).catch_up().await.unwrap();
        mode.of(&bank.events, &sums).catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), 8);
        assert_eq!(mode.of(&bank.events, &sums).position(&bank.at("a")).await.unwrap(), 8);
        assert_eq!((bank.row("sums-1", &a).await, bank.row("sums-1", &b).await), (Some(10), Some(100)));
        assert_eq!(bank.row("sums-1-count", &b).await, Some(4));
    }
}

async fn a_stream_projection_has_one_state_and_a_keyed_one_a_state_for_each_stream<
    S: Transactional + Clone,
>(
    bank: Bank<S>,
) {
    for (mode, expected) in [(Mode::Stream, 66), (Mode::Keyed, 60)] {
        let bank = bank.fresh();
        let [a, b] = six_events(&bank).await;
        mode.of(&bank.events, &Sums::default()).catch_up().await.unwrap();
        assert_eq!(bank.row("sums-1-total", &b).await, Some(expected));
        assert_eq!(bank.row("sums-1-total", &a).await, Some(6));
    }
}

async fn events_over_many_commits_and_windows_are_all_applied_once<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let bank = bank.fresh();
        for round in 0..3 {
            for account in 0..30 {
                bank.deposit(&format!("account-{account}"), &[round, 1]).await;
            }
        }
        mode.of(&bank.events, &Sums::default()).most_events(25).catch_up().await.unwrap();
        let sums = bank.rows("sums-1").await;
        assert_eq!((sums.len(), sums.iter().all(|(_, sum)| sum == "6")), (30, true), "{sums:?}");
        let counts = bank.rows("sums-1-count").await;
        assert!(counts.iter().all(|(_, count)| count == "6"), "{counts:?}");
    }
}

async fn three_runs_at_once_double_nothing<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let bank = bank.fresh();
        for account in 0..12 {
            bank.deposit(&format!("account-{account}"), &[1; 20]).await;
        }
        let run = async |seed| {
            let events = bank.troubled(Chaos::new(seed).delays(3)).events;
            mode.on(events, Sums::default()).most_events(30).catch_up().await.unwrap();
        };
        bank.passing(async { tokio::join!(run(1), run(2), run(3)) }).await;
        let sums = bank.rows("sums-1").await;
        assert_eq!((sums.len(), sums.iter().all(|(_, sum)| sum == "20")), (12, true), "{sums:?}");
    }
}

/// Waits in the middle of its work until it is let go.
#[derive(Clone, Default)]
struct Zombie {
    began: Arc<Notify>,
    wakes: Arc<Notify>,
}

impl Projector<Draft> for Zombie {
    type State = serde_json::Value;

    async fn apply(
        &self,
        event: &Recorded,
        context: &mut Context<'_, Draft, serde_json::Value>,
    ) -> Result<(), BoxError> {
        let stream = event.stream.clone();
        add(context.conn().await?, "sums-1", &stream, 1_000).await?;
        self.began.notify_one();
        self.wakes.notified().await;
        Ok(())
    }
}

async fn a_run_that_others_have_overtaken_writes_nothing<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let (bank, zombie) = (bank.fresh(), Zombie::default());
        bank.deposit("a", &[1]).await;
        let slow = mode.on(bank.events.clone(), zombie.clone());
        let overtaking = async {
            zombie.began.notified().await;
            mode.of(&bank.events, &Sums::default()).catch_up().await.unwrap();
            zombie.wakes.notify_one();
        };
        let (slow, ()) = bank.passing(async { tokio::join!(slow.catch_up(), overtaking) }).await;
        slow.unwrap();
        assert_eq!(bank.row("sums-1", "a").await, Some(1));
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
        add(context.conn().await?, "withdrawals", &stream, state).await
    }
}

async fn the_position_moves_past_events_that_are_filtered<S: Transactional + Clone>(bank: Bank<S>) {
    six_events(&bank).await;
    let projection = Projection::stream(bank.events.clone(), "withdrawals", OnlyWithdrawals);
    projection.catch_up().await.unwrap();
    assert_eq!(projection.position(&bank.at("a")).await.unwrap(), 6);
    assert!(bank.rows("withdrawals").await.is_empty());

    let withdrawn = AccountEvent::Withdrawn { cents: 1 };
    bank.events.append("a", ExpectStream::Any, &[withdrawn]).await.unwrap();
    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("withdrawals", "a").await, Some(1));
}

async fn under_fail_what_comes_before_is_applied_and_a_later_run_tries_again<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    for mode in Mode::BOTH {
        for poison in [3, 666] {
            let (bank, sums) = (bank.fresh(), Sums::poisoned_by(poison));
            bank.deposit("a", &[1, 2, poison, 4]).await;
            let error = mode.of(&bank.events, &sums).catch_up().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unexpected);
            assert!(error.to_string().contains("position: 3"), "{error}");
            assert_eq!(bank.row("sums-1", "a").await, Some(3));

            sums.heal();
            mode.of(&bank.events, &sums).catch_up().await.unwrap();
            assert_eq!(bank.row("sums-1", "a").await, Some(7 + poison));
            assert_eq!(bank.row("sums-1-count", "a").await, Some(4));
        }
    }
}

async fn under_ignore_the_event_is_skipped_and_the_rest_applied<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let (bank, sums) = (bank.fresh(), Sums::poisoned_by(3));
        let [a, b] = bank.pair();
        bank.deposit(&a, &[1, 2, 3, 4]).await;
        bank.deposit(&b, &[5]).await;
        let projection = mode.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore));
        projection.catch_up().await.unwrap();
        assert_eq!((bank.row("sums-1", &a).await, bank.row("sums-1", &b).await), (Some(7), Some(5)));
        assert_eq!(projection.position(&bank.at("a")).await.unwrap(), 5);
        let seen = sums.seen().len();
        projection.catch_up().await.unwrap();
        assert_eq!(sums.seen().len(), seen, "the poison is not taken again");
    }
}

async fn under_park_the_stream_is_set_apart_and_the_rest_flow<S: Transactional + Clone>(bank: Bank<S>) {
    let (sums, [a, b]) = (Sums::poisoned_by(3), bank.pair());
    let projection = parking(&bank, &sums);
    bank.deposit(&a, &[1, 2, 3, 4]).await;
    bank.deposit(&b, &[5]).await;
    projection.catch_up().await.unwrap();
    bank.deposit(&a, &[7]).await;
    bank.deposit(&b, &[6]).await;
    projection.catch_up().await.unwrap();
    assert_eq!((bank.row("sums-1", &a).await, bank.row("sums-1", &b).await), (Some(3), Some(11)));
    assert_eq!(projection.position(&bank.at("a")).await.unwrap(), 7);
    let streams = Mode::Stream.of(&bank.events, &sums).policy(Policy::new(OnFailure::Park));
    assert_eq!(streams.catch_up().await.unwrap_err().kind(), ErrorKind::Config);
}

async fn a_retry_applies_the_event_alone_after_its_delay<S: Transactional + Clone>(bank: Bank<S>) {
    let (sums, second) = (Sums::poisoned_by(3), Duration::from_secs(1));
    bank.deposit("a", &[1, 2, 3, 4]).await;
    let policy = Policy::new(OnFailure::Fail).retry(5, second, 4 * second);
    let projection = Mode::Stream.of(&bank.events, &sums).policy(policy);
    let began = bank.now();
    let healing = async {
        for delay in [1, 2] {
            bank.clock.wait_for_sleepers(1).await;
            bank.clock.advance(delay * second);
        }
        bank.clock.wait_for_sleepers(1).await;
        sums.heal();
        bank.clock.advance(4 * second);
    };
    let (caught_up, ()) = tokio::join!(projection.catch_up(), healing);
    caught_up.unwrap();
    assert_eq!((bank.row("sums-1", "a").await, bank.now().since(began)), (Some(10), 7 * second));
}

async fn a_log_that_ends_before_the_position_is_corrupt<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::default();
    six_events(&bank).await;
    Mode::Stream.of(&bank.events, &sums).catch_up().await.unwrap();

    // The records were restored from a backup, the log was not.
    let other = bank.fresh();
    let key = Key::new("projections.position", "sums", "0000000001");
    let record = bank.store.get_one(&bank.at("a"), bank.now(), &key).await.unwrap();
    let mut batch = Batch::new(other.at("a"), other.now());
    batch.put(key, record.unwrap().value, Expect::Any);
    other.store.commit(batch).await.unwrap();
    other.deposit("a", &[1]).await;
    let error = Mode::Stream.of(&other.events, &sums).catch_up().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(other.rows("sums-1").await, []);
}

async fn many_streams_fit_the_limits_of_a_batch<S: Transactional + Clone>(bank: Bank<S>) {
    for account in 0..150 {
        bank.deposit(&format!("a{account}"), &[1, 2]).await;
    }
    Mode::Keyed.of(&bank.events, &Sums::default()).catch_up().await.unwrap();
    assert_eq!(bank.rows("sums-1").await.len(), 150);
}
