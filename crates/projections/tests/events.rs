//! The event store, beside what the suite says of every store: payloads of other times.

mod kit;

use evenkeel_core::{ErrorKind, ExpectStream};
use evenkeel_projections::Event;
use kit::{AccountEvent, Bank, deposits};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
async fn the_kind_of_a_tombstone_is_not_for_others_to_append() {
    let bank = Bank::new();
    let mut forged = bank.events.new_event(&deposits(&[5])[0]).unwrap();
    forged.kind = "evenkeel.stream-deleted".into();
    let refused = bank.events.append_new("a", ExpectStream::Any, vec![forged]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(!bank.events.exists("a").await.unwrap());
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
