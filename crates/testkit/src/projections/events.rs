use evenkeel_core::{Batch, Comparison, ErrorKind, ExpectStream, Filter, StoreExt, Transactional};
use evenkeel_projections::metadata;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::accounts::{AccountEvent, deposits};
use super::bench::Bank;
use crate::chaos::Chaos;

super::cases![
    events_are_loaded_as_they_were_appended,
    an_append_to_a_stream_at_another_version_conflicts_and_says_which,
    an_append_in_a_batch_of_another_partition_is_refused,
    a_stream_of_events_goes_on_over_pages_and_ends_at_the_last,
    what_a_handle_is_told_is_in_the_metadata_of_each_event,
    a_truncated_stream_keeps_its_versions,
    a_deleted_stream_refuses_loads_and_appends_until_it_is_reopened,
    who_expects_the_version_of_the_tombstone_appends,
    with_unique_ids_an_id_is_taken_once_in_a_partition,
    an_append_whose_answer_is_lost_succeeds_and_is_there_once,
    reopening_a_stream_finds_its_own_success_after_a_lost_answer,
];

async fn events_are_loaded_as_they_were_appended<S: Transactional + Clone>(bank: Bank<S>) {
    let opened = AccountEvent::Opened { owner: "ada".into() };
    let appended =
        bank.events.append("a", ExpectStream::NoStream, std::slice::from_ref(&opened)).await.unwrap();
    assert_eq!((appended.version, appended.position, appended.count), (1, 1, 1));
    bank.deposit("a", &[5, 7]).await;

    let page = bank.events.load("a", 0, 2).await.unwrap();
    assert_eq!((page.examined_to, page.head), (2, 3));
    assert_eq!(page.events[0].decode::<AccountEvent>().unwrap(), Some(opened));
    let [first, second] = &page.events[..] else { panic!("two are asked for") };
    assert_eq!((first.kind.as_str(), &second.payload[..]), ("Opened", &br#"{"cents":5}"#[..]));
    let page = bank.events.load("a", page.examined_to, 2).await.unwrap();
    assert_eq!(page.events[0].decode::<AccountEvent>().unwrap(), Some(deposits(&[7]).remove(0)));

    let page = bank.events.load_backwards("a", None, 2).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(bank.events.version("a").await.unwrap(), 3);
    assert!(bank.events.exists("a").await.unwrap());
    assert!(!bank.events.exists("b").await.unwrap());
    assert!(bank.events.load("b", 0, 2).await.unwrap().events.is_empty());
}

async fn an_append_to_a_stream_at_another_version_conflicts_and_says_which<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    bank.deposit("a", &[1, 2]).await;
    for expect in [ExpectStream::Version(1), ExpectStream::NoStream] {
        let error = bank.events.append("a", expect, &deposits(&[3])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("version 2"), "{error}");
    }
    let error = bank.events.append("b", ExpectStream::Exists, &deposits(&[3])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    bank.events.append("b", ExpectStream::NoStream, &deposits(&[3])).await.unwrap();
    bank.events.append("b", ExpectStream::Exists, &deposits(&[3])).await.unwrap();
    let error = bank.events.append::<AccountEvent>("a", ExpectStream::Any, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

async fn an_append_in_a_batch_of_another_partition_is_refused<S: Transactional + Clone>(bank: Bank<S>) {
    let partitions = bank.store.partitions();
    let append = |at: &evenkeel_core::Partition| {
        let mut batch = Batch::new(at.clone(), bank.now());
        let added = bank.events.append_in(&mut batch, "a", ExpectStream::Any, &deposits(&[1]));
        (added.map_err(|error| error.kind()), batch.is_empty())
    };
    for at in &partitions {
        let expected =
            if *at == bank.at("a") { (Ok(()), false) } else { (Err(ErrorKind::InvalidInput), true) };
        assert_eq!(append(at), expected);
    }
}

async fn a_stream_of_events_goes_on_over_pages_and_ends_at_the_last<S: Transactional + Clone>(bank: Bank<S>) {
    let [a, b] = bank.pair();
    for part in 0..6_i64 {
        let cents: Vec<i64> = (part * 200..part * 200 + 200).collect();
        bank.deposit(if part % 3 == 0 { &b } else { &a }, &cents).await;
    }
    let log = |after| bank.events.log(bank.at("a"), after, Filter::all()).try_collect::<Vec<_>>();
    let all = log(0).await.unwrap();
    assert_eq!(all.iter().map(|event| event.position).collect::<Vec<_>>(), (1..=1200).collect::<Vec<_>>());
    assert_eq!(log(1190).await.unwrap().len(), 10);
    let found: Vec<_> = bank.events.stream(&a, 3, Filter::all()).try_collect().await.unwrap();
    assert_eq!(found.iter().map(|event| event.version).collect::<Vec<_>>(), (4..=800).collect::<Vec<_>>());
    let none: Vec<_> = bank.events.stream(&a, 0, Filter::all().kind("Opened")).try_collect().await.unwrap();
    assert!(none.is_empty());
}

async fn what_a_handle_is_told_is_in_the_metadata_of_each_event<S: Transactional + Clone>(bank: Bank<S>) {
    let (request, [a, b]) = (Uuid::from_u128(7), bank.pair());
    let events = bank.events.with("tenant", "t1").correlated(request);
    events.append(&a, ExpectStream::Any, &deposits(&[1])).await.unwrap();
    let cause = bank.events.load(&a, 0, 1).await.unwrap().events.remove(0);
    assert_eq!((cause.correlation(), cause.causation()), (Some(request), None));

    bank.events.caused_by(&cause).append(&b, ExpectStream::Any, &deposits(&[2])).await.unwrap();
    let filter = Filter::all().metadata(metadata::CORRELATION, Comparison::Equal, request.to_string());
    let related: Vec<_> = bank.events.log(bank.at("a"), 0, filter).try_collect().await.unwrap();
    assert_eq!(related.len(), 2);
    assert_eq!(related[1].causation(), Some(cause.id));
    assert!(!related[1].metadata.contains_key("tenant"), "a handle's stamp is its own");
}

async fn a_truncated_stream_keeps_its_versions<S: Transactional + Clone>(bank: Bank<S>) {
    bank.deposit("a", &[1, 2, 3]).await;
    bank.events.truncate("a", 3).await.unwrap();
    let page = bank.events.load("a", 0, 9).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [3]);
    assert_eq!(bank.events.version("a").await.unwrap(), 3);
    bank.events.append("a", ExpectStream::Version(3), &deposits(&[4])).await.unwrap();
}

async fn a_deleted_stream_refuses_loads_and_appends_until_it_is_reopened<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    bank.deposit("a", &[1, 2]).await;
    bank.events.delete("a").await.unwrap();
    bank.events.delete("a").await.unwrap();

    for expect in [ExpectStream::Any, ExpectStream::Exists, ExpectStream::NoStream, ExpectStream::Version(2)]
    {
        let error = bank.events.append("a", expect, &deposits(&[3])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{expect:?}: {error}");
        assert!(error.to_string().contains("deleted"), "{error}");
    }
    assert_eq!(bank.events.load("a", 0, 9).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!bank.events.exists("a").await.unwrap());
    let raw: Vec<_> = bank.events.log(bank.at("a"), 0, Filter::all()).try_collect().await.unwrap();
    assert_eq!(raw.len(), 1, "only the tombstone is left");

    assert_eq!(bank.events.reopen("a").await.unwrap(), 3);
    assert!(bank.events.load("a", 0, 9).await.unwrap().events.is_empty());
    bank.events.append("a", ExpectStream::Version(3), &deposits(&[4])).await.unwrap();
    assert_eq!(bank.events.load("a", 0, 9).await.unwrap().events.len(), 1);
    assert_eq!(bank.events.reopen("a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bank.events.delete("never").await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn who_expects_the_version_of_the_tombstone_appends<S: Transactional + Clone>(bank: Bank<S>) {
    bank.deposit("a", &[1]).await;
    bank.events.delete("a").await.unwrap();
    bank.events.append("a", ExpectStream::Version(2), &deposits(&[3])).await.unwrap();
}

async fn with_unique_ids_an_id_is_taken_once_in_a_partition<S: Transactional + Clone>(bank: Bank<S>) {
    let (events, [a, b]) = (bank.events.clone().unique_ids(), bank.pair());
    let event = events.new_event(&deposits(&[1])[0]).unwrap();
    events.append_new(&a, ExpectStream::Any, vec![event.clone()]).await.unwrap();
    let error = events.append_new(&b, ExpectStream::Any, vec![event.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&event.id.to_string()), "{error}");
    assert!(!events.exists(&b).await.unwrap());
}

async fn an_append_whose_answer_is_lost_succeeds_and_is_there_once<S: Transactional + Clone>(bank: Bank<S>) {
    for seed in 0..6 {
        for expect in [ExpectStream::Any, ExpectStream::NoStream] {
            let bank = bank.fresh();
            let lossy = bank.troubled(Chaos::new(seed).lost_acknowledgements(0.6)).events;
            let deposits = deposits(&[1, 2]);
            let appended = bank.passing(lossy.append("a", expect, &deposits)).await.unwrap();
            assert_eq!((appended.version, appended.position, appended.count), (1, 1, 2), "{expect:?}");
            assert_eq!(bank.heads().await, 2, "seed {seed}");
        }
    }
}

async fn reopening_a_stream_finds_its_own_success_after_a_lost_answer<S: Transactional + Clone>(
    bank: Bank<S>,
) {
    bank.deposit("a", &[1, 2]).await;
    bank.events.delete("a").await.unwrap();
    let deaf = bank.troubled(Chaos::new(1).lost_acknowledgements(1.0)).events;
    assert_eq!(deaf.reopen("a").await.unwrap(), 3);
    assert_eq!(bank.deposit("a", &[3]).await.version, 4);
}
