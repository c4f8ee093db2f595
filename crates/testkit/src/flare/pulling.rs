use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evenkeel_core::{ErrorKind, StoreExt, Transactional};
use evenkeel_flare::{Flare, Subscription};
use serde_json::json;

use super::bench::{Bench, Orders, kind, order, subscription};
use super::unreadable::Unreadable;

super::cases![
    a_consumer_fetches_what_it_would_be_sent,
    an_unacknowledged_message_is_given_again,
    a_released_message_is_given_again_when_it_is_due,
    a_late_acknowledgement_changes_nothing,
    a_replay_asked_for_while_a_message_is_held_is_not_forgotten,
    messages_are_given_back_where_the_store_cannot_be_read,
    a_subscription_that_is_sent_its_messages_is_not_pulled_from,
];

const HOLD: Duration = Duration::from_secs(60);

async fn pulling<S: Transactional + Clone>(bench: &Bench<S>) -> (Flare, Subscription) {
    let flare = bench.process();
    let orders = flare.orders().await;
    let new = subscription(json!({ "delivery": { "mode": "pull" } }));
    let (subscription, _) = flare.subscribe(&orders.id, new).await.unwrap();
    (flare, subscription)
}

async fn a_consumer_fetches_what_it_would_be_sent<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    flare.publish_order("18", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 2).await;
    let messages = flare.pull(&pulls.id, 10, HOLD).await.unwrap();
    assert_eq!(messages.len(), 2);
    let body: serde_json::Value = serde_json::from_slice(&messages[0].body).unwrap();
    assert_eq!(
        (&body["action"], &body["revision"], &body["id"]),
        (&json!("create"), &json!(1), &json!(messages[0].id))
    );
    for message in &messages {
        let receipt = message.receipt.to_string().parse().unwrap();
        flare.acknowledge(&pulls.id, &receipt).await.unwrap();
    }
    assert_eq!(flare.pull(&pulls.id, 10, HOLD).await.unwrap(), []);

    flare.publish_order("17", 2).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let messages = flare.pull(&pulls.id, 10, HOLD).await.unwrap();
    assert_eq!(messages[0].action, evenkeel_flare::Action::Update);
    assert_eq!(bench.sink.received().len(), 0);
}

async fn an_unacknowledged_message_is_given_again<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let first = flare.pull(&pulls.id, 10, HOLD).await.unwrap();
    assert_eq!(flare.pull(&pulls.id, 10, HOLD).await.unwrap(), []);
    bench.clock.advance(HOLD);
    let second = flare.pull(&pulls.id, 10, HOLD).await.unwrap();
    assert_eq!((&first[0].id, &first[0].body, first[0].attempt), (&second[0].id, &second[0].body, 1));
    assert_eq!(second[0].attempt, 2);
}

async fn a_released_message_is_given_again_when_it_is_due<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let message = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    flare.release(&pulls.id, &message.receipt, Duration::from_secs(10)).await.unwrap();
    assert_eq!(flare.pull(&pulls.id, 1, HOLD).await.unwrap(), []);
    bench.clock.advance(Duration::from_secs(10));
    let message = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    flare.release(&pulls.id, &message.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(flare.pull(&pulls.id, 1, HOLD).await.unwrap().len(), 1);
}

async fn a_late_acknowledgement_changes_nothing<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let first = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    bench.clock.advance(HOLD);
    let second = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    assert_eq!(kind(flare.acknowledge(&pulls.id, &first.receipt).await), ErrorKind::LeaseLost);
    flare.acknowledge(&pulls.id, &second.receipt).await.unwrap();
    assert_eq!(kind("nonsense".parse::<evenkeel_flare::Receipt>()), ErrorKind::InvalidInput);
}

async fn a_replay_asked_for_while_a_message_is_held_is_not_forgotten<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let told = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    flare.acknowledge(&pulls.id, &told.receipt).await.unwrap();

    assert!(flare.replay(&pulls.id, &order("17")).await.unwrap());
    for _ in 0..2 {
        let held = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
        assert_eq!((&held.id, &held.body), (&told.id, &told.body));
        assert!(flare.replay(&pulls.id, &order("17")).await.unwrap());
        flare.acknowledge(&pulls.id, &held.receipt).await.unwrap();
    }
    let last = flare.pull(&pulls.id, 1, HOLD).await.unwrap().remove(0);
    assert_eq!(last.id, told.id);
    flare.acknowledge(&pulls.id, &last.receipt).await.unwrap();
    assert_eq!(flare.pull(&pulls.id, 1, HOLD).await.unwrap(), [], "what was asked for was done");
}

async fn messages_are_given_back_where_the_store_cannot_be_read<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, pulls) = pulling(&bench).await;
    let _worker = bench.worker();
    flare.publish_order("17", 1).await;
    bench.until(async || flare.counts(&pulls.id).await.unwrap().pending == 1).await;
    let switch = Arc::new(AtomicBool::new(true));
    let unreadable = Unreadable { space: "flare.told", switch: Arc::clone(&switch) };
    let unlucky = Flare::new(bench.store.clone().layer(unreadable)).clock(bench.clock.shared());
    assert_eq!(kind(unlucky.pull(&pulls.id, 1, HOLD).await), ErrorKind::Corrupt);
    switch.store(false, Ordering::SeqCst);
    assert_eq!(unlucky.pull(&pulls.id, 1, HOLD).await.unwrap().len(), 1, "nobody waits for the hold to end");
}

async fn a_subscription_that_is_sent_its_messages_is_not_pulled_from<S: Transactional + Clone>(
    bench: Bench<S>,
) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    assert_eq!(kind(flare.pull(&shop.id, 1, HOLD).await), ErrorKind::InvalidInput);
    let (flare, pulls) = pulling(&bench).await;
    assert_eq!(kind(flare.pull(&pulls.id, 0, HOLD).await), ErrorKind::InvalidInput);
    assert_eq!(kind(flare.pull(&pulls.id, 41, HOLD).await), ErrorKind::InvalidInput);
    assert_eq!(kind(flare.pull(&pulls.id, 1, Duration::ZERO).await), ErrorKind::InvalidInput);
    assert_eq!(kind(flare.pull("nonsense", 1, HOLD).await), ErrorKind::NotFound);
}
