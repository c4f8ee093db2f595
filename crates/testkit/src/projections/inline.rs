use evenkeel_core::{ErrorKind, ExpectStream, Transactional};

use super::accounts::{Mode, Sums, deposits};
use super::bench::{Bank, parking};
use crate::chaos::Chaos;

super::cases![
    an_append_that_projects_is_in_the_read_model_when_it_returns,
    an_append_whose_events_cannot_be_applied_appends_nothing,
    an_append_to_a_parked_stream_waits_with_the_rest,
    an_append_to_a_deleted_stream_is_refused,
    appends_at_the_same_time_are_all_applied_once,
    a_projection_that_is_only_appended_with_is_rebuilt_whole,
];

async fn an_append_that_projects_is_in_the_read_model_when_it_returns<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    let projection = Mode::Keyed.of(&bank.events, &Sums::default());
    let appended = projection.append("a", ExpectStream::NoStream, &deposits(&[1, 2])).await.unwrap();
    assert_eq!((appended.version, appended.count), (1, 2));
    assert_eq!(bank.row("sums-1", "a").await, Some(3));

    // Appended in another way, and applied first.
    bank.deposit("a", &[10]).await;
    projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(17));

    projection.catch_up().await.unwrap();
    assert_eq!(bank.row("sums-1-count", "a").await, Some(4), "nothing is applied again");
    for expect in [ExpectStream::Version(1), ExpectStream::NoStream] {
        let error = projection.append("a", expect, &deposits(&[4])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let error = projection.append("never", ExpectStream::Exists, &deposits(&[4])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

async fn an_append_whose_events_cannot_be_applied_appends_nothing<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::poisoned_by(3);
    let projection = Mode::Keyed.of(&bank.events, &sums);
    let error = projection.append("a", ExpectStream::Any, &deposits(&[1, 3])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert!(!bank.events.exists("a").await.unwrap());
    assert!(bank.rows("sums-1").await.is_empty());
    let error = Mode::Stream.of(&bank.events, &sums).append("a", ExpectStream::Any, &deposits(&[1])).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

async fn an_append_to_a_parked_stream_waits_with_the_rest<S: Transactional + Clone>(bank: Bank<S>) {
    let sums = Sums::poisoned_by(3);
    let projection = parking(&bank, &sums);
    bank.deposit("a", &[3]).await;
    projection.catch_up().await.unwrap();
    projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, None);
    sums.heal();
    projection.retry_parked("a").await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(7));
}

async fn an_append_to_a_deleted_stream_is_refused<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = Mode::Keyed.of(&bank.events, &Sums::default());
    bank.deposit("a", &[1]).await;
    bank.events.delete("a").await.unwrap();
    for expect in [ExpectStream::Any, ExpectStream::Exists, ExpectStream::NoStream, ExpectStream::Version(1)]
    {
        let error = projection.append("a", expect, &deposits(&[4])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{expect:?}: {error}");
    }
    bank.events.reopen("a").await.unwrap();
    projection.append("a", ExpectStream::Any, &deposits(&[4])).await.unwrap();
    assert_eq!(bank.row("sums-1", "a").await, Some(4));
}

async fn appends_at_the_same_time_are_all_applied_once<S: Transactional + Clone>(bank: Bank<S>) {
    let append = async |seed| {
        let events = bank.troubled(Chaos::new(seed).delays(3)).events;
        let projection = Mode::Keyed.on(events.clone(), Sums::default());
        for _ in 0..5 {
            projection.append("a", ExpectStream::Any, &deposits(&[1])).await.unwrap();
            events.append("a", ExpectStream::Any, &deposits(&[1])).await.unwrap();
        }
    };
    bank.passing(Box::pin(async { tokio::join!(append(1), append(2), append(3)) })).await;
    Mode::Keyed.of(&bank.events, &Sums::default()).catch_up().await.unwrap();
    assert_eq!(bank.events.version("a").await.unwrap(), 30);
    assert_eq!((bank.row("sums-1", "a").await, bank.row("sums-1-count", "a").await), (Some(30), Some(30)));
}

async fn a_projection_that_is_only_appended_with_is_rebuilt_whole<S: Transactional + Clone>(bank: Bank<S>) {
    let projection = Mode::Keyed.of(&bank.events, &Sums::default());
    projection.append("a", ExpectStream::Any, &deposits(&[1, 2])).await.unwrap();
    assert_eq!(projection.rebuild().await.unwrap(), 2);
    assert_eq!(bank.row("sums-2", "a").await, Some(3));
}
