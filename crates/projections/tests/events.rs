//! The event store: appends, loads, upcasting, deletion, and answers that are lost.

mod kit;

use evenkeel_core::{
    Batch, Comparison, ErrorKind, ExpectStream, Filter, ManualClock, MemoryStore, Read, Store, StoreExt,
};
use evenkeel_projections::{Event, EventStore, metadata};
use evenkeel_testkit::Chaos;
use futures_util::TryStreamExt;
use kit::{AccountEvent, Bank, deposits, with_moving_clock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn events_are_loaded_as_they_were_appended() {
    let bank = Bank::new();
    let opened = AccountEvent::Opened { owner: "ada".into() };
    let appended =
        bank.events.append("account-7", ExpectStream::NoStream, std::slice::from_ref(&opened)).await.unwrap();
    assert_eq!((appended.version, appended.position, appended.count), (1, 1, 1));
    bank.deposit("account-7", &[5, 7]).await;

    let page = bank.events.load("account-7", 0, 2).await.unwrap();
    assert_eq!((page.examined_to, page.head), (2, 3));
    assert_eq!(page.events[0].decode::<AccountEvent>().unwrap(), Some(opened));
    assert_eq!(
        (page.events[0].kind.as_str(), &page.events[1].payload[..]),
        ("Opened", &br#"{"cents":5}"#[..])
    );
    let page = bank.events.load("account-7", page.examined_to, 2).await.unwrap();
    assert_eq!(page.events[0].decode::<AccountEvent>().unwrap(), Some(deposits(&[7]).remove(0)));

    let page = bank.events.load_backwards("account-7", None, 2).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(bank.events.version("account-7").await.unwrap(), 3);
    assert!(bank.events.exists("account-7").await.unwrap());
    assert!(!bank.events.exists("account-8").await.unwrap());
    assert!(bank.events.load("account-8", 0, 2).await.unwrap().events.is_empty());
}

#[tokio::test]
async fn an_append_to_a_stream_at_another_version_conflicts_and_says_which() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 2]).await;
    let error = bank.events.append("a", ExpectStream::Version(1), &deposits(&[3])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("version 2"), "{error}");
    let error = bank.events.append::<AccountEvent>("a", ExpectStream::Any, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn an_append_in_a_batch_of_another_partition_is_refused() {
    let bank = Bank::with_partitions(4);
    let other = (0..).map(|n| bank.store.partition_of(&n.to_string()));
    let other = other.into_iter().find(|at| *at != bank.events.partition_of("a")).unwrap();
    let mut batch = Batch::new(other, bank.now());
    let error = bank.events.append_in(&mut batch, "a", ExpectStream::Any, &deposits(&[1])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(batch.is_empty());
}

#[tokio::test]
async fn a_stream_of_events_goes_on_over_pages_and_ends_at_the_last() {
    let bank = Bank::new();
    for part in 0..12_i64 {
        let cents: Vec<i64> = (part * 100..part * 100 + 100).collect();
        bank.deposit(if part % 3 == 0 { "b" } else { "a" }, &cents).await;
    }
    let all: Vec<_> = bank.events.log(bank.at(), 0, Filter::all()).try_collect().await.unwrap();
    assert_eq!(all.iter().map(|event| event.position).collect::<Vec<_>>(), (1..=1200).collect::<Vec<_>>());
    let rest: Vec<_> = bank.events.log(bank.at(), 1190, Filter::all()).try_collect().await.unwrap();
    assert_eq!(rest.len(), 10);
    let a: Vec<_> = bank.events.stream("a", 3, Filter::all()).try_collect().await.unwrap();
    assert_eq!(a.iter().map(|event| event.version).collect::<Vec<_>>(), (4..=800).collect::<Vec<_>>());
    let none: Vec<_> = bank.events.stream("a", 0, Filter::all().kind("Opened")).try_collect().await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn what_a_handle_is_told_is_in_the_metadata_of_each_event() {
    let bank = Bank::new();
    let request = Uuid::from_u128(7);
    let events = bank.events.with("tenant", "t1").correlated(request);
    events.append("a", ExpectStream::Any, &deposits(&[1])).await.unwrap();
    let cause = bank.events.load("a", 0, 1).await.unwrap().events.remove(0);
    assert_eq!((cause.correlation(), cause.causation()), (Some(request), None));

    bank.events.caused_by(&cause).append("b", ExpectStream::Any, &deposits(&[2])).await.unwrap();
    let filter = Filter::all().metadata(metadata::CORRELATION, Comparison::Equal, request.to_string());
    let related: Vec<_> = bank.events.log(bank.at(), 0, filter).try_collect().await.unwrap();
    assert_eq!(related.len(), 2);
    assert_eq!(related[1].causation(), Some(cause.id));
    assert!(!related[1].metadata.contains_key("tenant"), "a handle's stamp is its own");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Deposit {
    Deposited { minor_units: i64, currency: String },
}
impl Event for Deposit {
    fn version(kind: &str) -> u32 {
        if kind == "Deposited" { 3 } else { 1 }
    }
}

#[tokio::test]
async fn earlier_payloads_are_brought_to_the_version_of_today() {
    let bank = Bank::new();
    let mut old = bank.events.new_event(&deposits(&[5])[0]).unwrap();
    old.kind = "MoneyIn".into();
    bank.events.append_new("a", ExpectStream::Any, vec![old]).await.unwrap();
    bank.deposit("a", &[6]).await;

    let events = bank
        .events
        .clone()
        .upcast_renamed("MoneyIn", 1, "Deposited", |_| Ok(json!({ "minor_units": 1 })))
        .upcast("Deposited", 1, |value| Ok(json!({ "minor_units": value["cents"] })))
        .upcast("Deposited", 2, |mut value| {
            value["currency"] = json!("EUR");
            Ok(value)
        });
    let today = Deposit::Deposited { minor_units: 7, currency: "USD".into() };
    events.append("a", ExpectStream::Any, &[today]).await.unwrap();

    let found: Vec<Deposit> = events
        .load("a", 0, 9)
        .await
        .unwrap()
        .events
        .iter()
        .map(|event| event.decode().unwrap().unwrap())
        .collect();
    let deposit = |minor_units, currency: &str| Deposit::Deposited { minor_units, currency: currency.into() };
    assert_eq!(found, [deposit(1, "EUR"), deposit(6, "EUR"), deposit(7, "USD")]);
}

#[tokio::test]
async fn a_kind_that_a_type_does_not_know_is_there_as_it_was_written() {
    let bank = Bank::new();
    let mut strange = bank.events.new_event(&deposits(&[5])[0]).unwrap();
    strange.kind = "Strange".into();
    bank.events.append_new("a", ExpectStream::Any, vec![strange]).await.unwrap();
    let found = bank.events.load("a", 0, 1).await.unwrap().events.remove(0);
    assert_eq!(found.decode::<AccountEvent>().unwrap(), None);
    assert_eq!((found.kind.as_str(), &found.payload[..]), ("Strange", &br#"{"cents":5}"#[..]));
}

#[tokio::test]
async fn a_truncated_stream_keeps_its_versions() {
    let bank = Bank::new();
    bank.deposit("a", &[1, 2, 3]).await;
    bank.events.truncate("a", 3).await.unwrap();
    let page = bank.events.load("a", 0, 9).await.unwrap();
    assert_eq!(page.events.iter().map(|event| event.version).collect::<Vec<_>>(), [3]);
    assert_eq!(bank.events.version("a").await.unwrap(), 3);
    bank.events.append("a", ExpectStream::Version(3), &deposits(&[4])).await.unwrap();
}

#[tokio::test]
async fn a_deleted_stream_refuses_loads_and_appends_until_it_is_reopened() {
    let bank = Bank::new();
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
    let raw = bank.store.read(&bank.at(), Read::partition(0, 9)).await.unwrap();
    assert_eq!(raw.events.len(), 1, "only the tombstone is left");

    assert_eq!(bank.events.reopen("a").await.unwrap(), 3);
    assert!(bank.events.load("a", 0, 9).await.unwrap().events.is_empty());
    bank.events.append("a", ExpectStream::Version(3), &deposits(&[4])).await.unwrap();
    assert_eq!(bank.events.load("a", 0, 9).await.unwrap().events.len(), 1);
    assert_eq!(bank.events.reopen("a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bank.events.delete("never").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn who_expects_the_version_of_the_tombstone_appends() {
    let bank = Bank::new();
    bank.deposit("a", &[1]).await;
    bank.events.delete("a").await.unwrap();
    bank.events.append("a", ExpectStream::Version(2), &deposits(&[3])).await.unwrap();
}

#[tokio::test]
async fn with_unique_ids_an_id_is_taken_once_in_a_partition() {
    let bank = Bank::new();
    let events = bank.events.clone().unique_ids();
    let event = events.new_event(&deposits(&[1])[0]).unwrap();
    events.append_new("a", ExpectStream::Any, vec![event.clone()]).await.unwrap();
    let error = events.append_new("b", ExpectStream::Any, vec![event.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains(&event.id.to_string()), "{error}");
    assert!(!events.exists("b").await.unwrap());
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_succeeds_and_is_there_once() {
    for seed in 0..50 {
        for expect in [ExpectStream::Any, ExpectStream::NoStream] {
            let database = MemoryStore::new();
            let lossy = database.clone().layer(Chaos::new(seed).lost_acknowledgements(0.6));
            let clock = ManualClock::default();
            let events = EventStore::new(lossy).clock(clock.shared());
            let deposits = deposits(&[1, 2]);
            let appending = events.append("a", expect, &deposits);
            let appended = with_moving_clock(&clock, appending).await.unwrap();
            assert_eq!((appended.version, appended.position, appended.count), (1, 1, 2), "{expect:?}");
            let at = database.partition_of("a");
            assert_eq!(database.read(&at, Read::partition(0, 9)).await.unwrap().head, 2, "seed {seed}");
        }
    }
}
