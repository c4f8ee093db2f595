use std::time::Duration;

use evenkeel_core::{ErrorKind, Transactional};
use evenkeel_projections::{OnFailure, Operations, Policy, Projection};

use super::accounts::{Mode, Sums};
use super::bench::{Bank, parking, run};

super::cases![
    a_parked_stream_is_listed_and_retried_with_all_that_followed,
    a_dismissed_stream_goes_on_after_the_event_that_failed,
    a_stream_that_is_retried_while_the_projection_runs_misses_and_doubles_nothing,
    a_dead_letter_is_listed_and_retried_or_dismissed,
    projections_are_listed_by_name,
    a_paused_projection_applies_nothing_until_it_is_resumed,
    a_stopped_partition_goes_on_when_it_is_resumed,
    health_turns_when_the_head_moves_and_the_position_does_not,
];

async fn a_parked_stream_is_listed_and_retried_with_all_that_followed<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    let sums = Sums::poisoned_by(3);
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[1, 3, 5]).await;
    bank.deposit("b", &[10]).await;
    projection.catch_up().await.unwrap();

    let parked = projection.operations().parked(None, 10).await.unwrap();
    assert_eq!(parked.iter().map(|letter| letter.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!((parked[0].failure.version, parked[0].failure.error.as_str()), (2, "3 cents are poison"));

    let error = projection.retry_parked("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected, "{error}");
    assert_eq!(bank.row("sums-1", "a").await, Some(1));

    sums.heal();
    bank.deposit("a", &[7]).await;
    projection.retry_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(16));
    assert!(projection.operations().parked(None, 10).await.unwrap().is_empty());
    bank.deposit("a", &[9]).await;
    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(25));
    assert_eq!(bank.row("sums-1-count", "a").await, Some(5));
    assert_eq!(projection.retry_parked("a").await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_dismissed_stream_goes_on_after_the_event_that_failed<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::poisoned_by(3);
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[1, 3, 5, 3, 6]).await;
    projection.catch_up().await.unwrap();

    // The other poison stops it again, and is what is listed then.
    projection.dismiss_parked("a").await.unwrap_err();
    assert_eq!(projection.operations().parked(None, 10).await.unwrap()[0].failure.version, 4);
    projection.dismiss_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(12));
    assert_eq!(bank.row("sums-1-count", "a").await, Some(3));
}

async fn a_stream_that_is_retried_while_the_projection_runs_misses_and_doubles_nothing<
    S: Transactional + Clone,
>(
    bank: Bank<S>,
) {
    let (sums, [a, b]) = (Sums::poisoned_by(3), bank.pair());
    bank.deposit(&a, &[1, 3, 5]).await;
    parking(&bank, &sums).catch_up().await.unwrap();
    sums.heal();
    let running = run(parking(&bank, &sums).most_events(7));
    let appending = async {
        for _ in 0..30 {
            bank.deposit(&a, &[1]).await;
            bank.deposit(&b, &[1]).await;
        }
    };
    let projection = parking(&bank, &sums);
    let both = Box::pin(async { tokio::join!(projection.retry_parked(&a), appending) });
    let (retried, ()) = bank.passing(both).await;
    retried.unwrap();
    drop(running);
    bank.passing(projection.catch_up()).await.unwrap();
    assert_eq!(bank.row("sums-1-count", &a).await, Some(33));
    assert_eq!((bank.row("sums-1", &a).await, bank.row("sums-1", &b).await), (Some(39), Some(30)));
}

async fn a_dead_letter_is_listed_and_retried_or_dismissed<S: Transactional + Clone>(bank: Bank<S>) {
    for mode in Mode::BOTH {
        let (bank, sums) = (bank.fresh(), Sums::poisoned_by(3));
        let projection = mode.of(&bank.events, &sums).policy(Policy::new(OnFailure::Ignore));
        bank.deposit("a", &[1, 3, 5]).await;
        bank.deposit("b", &[3]).await;
        projection.catch_up().await.unwrap();

        let operations = projection.operations();
        let dead = operations.dead_letters(None, 10).await.unwrap();
        assert_eq!(dead.len(), 2, "{dead:?}");
        let of = |stream: &str| dead.iter().find(|letter| letter.failure.stream == stream).unwrap();
        assert_eq!(projection.retry_dead(of("a")).await.unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(operations.dead_letters(None, 10).await.unwrap().len(), 2);

        sums.heal();
        projection.retry_dead(of("a")).await.unwrap();
        assert_eq!(bank.row("sums-1", "a").await, Some(9));
        assert_eq!(projection.retry_dead(of("a")).await.unwrap_err().kind(), ErrorKind::NotFound);
        operations.dismiss_dead(of("b")).await.unwrap();
        assert!(operations.dead_letters(None, 10).await.unwrap().is_empty());
        assert_eq!(bank.row("sums-1", "b").await, None);

        bank.deposit("a", &[1]).await;
        projection.catch_up().await.unwrap();
        assert_eq!(bank.row("sums-1-count", "a").await, Some(4));
    }
}

async fn projections_are_listed_by_name<S: Transactional + Clone>(bank: Bank<S>) {
    for name in ["c", "a", "b"] {
        Projection::stream(bank.events.clone(), name, Sums::default()).catch_up().await.unwrap();
    }
    let list = async |after, limit| Operations::list(&bank.store, bank.now(), after, limit).await.unwrap();
    assert_eq!(list(None, 10).await, ["a", "b", "c"]);
    assert_eq!(list(Some("a"), 1).await, ["b"]);
    let unknown = Operations::new(bank.store.clone(), "unknown");
    assert_eq!(unknown.status().await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_paused_projection_applies_nothing_until_it_is_resumed<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::default();
    let projection = Mode::Stream.of(&bank.events, &sums);
    projection.catch_up().await.unwrap();
    projection.operations().pause().await.unwrap();
    assert!(projection.catch_up().await.unwrap_err().to_string().contains("paused"));

    let _running = run(Mode::Stream.of(&bank.events, &sums));
    let appended = bank.deposit("a", &[1]).await;
    bank.pass(Duration::from_secs(10)).await;
    assert!(sums.seen().is_empty());
    assert!(projection.operations().status().await.unwrap().is_healthy(Duration::ZERO));

    projection.operations().resume().await.unwrap();
    bank.passing(projection.wait_for(&appended)).await.unwrap();
}

async fn a_stopped_partition_goes_on_when_it_is_resumed<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::poisoned_by(3);
    let _running = run(Mode::Stream.of(&bank.events, &sums));
    let projection = Mode::Stream.of(&bank.events, &sums);
    let appended = bank.deposit("a", &[1, 3, 5]).await;
    let error = bank.passing(projection.wait_for(&appended)).await.unwrap_err();
    assert!(error.to_string().contains("3 cents are poison"), "{error}");

    let operations = projection.operations();
    let status = operations.status().await.unwrap();
    assert_eq!((status.lag(), status.progress()), (2, (1, 3)));
    let failed = status.partitions.iter().find_map(|partition| partition.failed.clone()).unwrap();
    assert_eq!((failed.position, failed.version, failed.stream.as_str()), (2, 2, "a"));
    assert!(!status.is_healthy(Duration::MAX));

    sums.heal();
    operations.resume().await.unwrap();
    bank.passing(projection.wait_for(&appended)).await.unwrap();
    let status = operations.status().await.unwrap();
    assert!(status.is_healthy(Duration::ZERO) && status.lag() == 0, "{status:?}");
}

async fn health_turns_when_the_head_moves_and_the_position_does_not<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = Mode::Stream.of(&bank.events, &Sums::default());
    let status = async || projection.operations().status().await.unwrap();
    bank.deposit("a", &[1]).await;
    projection.catch_up().await.unwrap();
    let patience = Duration::from_secs(60);
    bank.clock.advance(10 * patience);
    assert!(status().await.is_healthy(patience), "nothing is to be done");
    bank.deposit("a", &[2]).await;
    assert!(status().await.is_healthy(patience), "it has just come");
    bank.clock.advance(2 * patience);
    let late = status().await;
    assert!(!late.is_healthy(patience));
    let behind = late.partitions.iter().map(|partition| partition.behind).max();
    assert_eq!((late.lag(), behind), (1, Some(2 * patience)));
    projection.catch_up().await.unwrap();
    assert!(status().await.is_healthy(patience));
}
