//! What is published where its subscriber's pump runs need not wait in a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_core::layer::{Around, Call, Method};
use evenkeel_core::{AnyStore, Clock, Op, Result, StoreExt, Timestamp, Transactional};
use evenkeel_flare::{Flare, Status};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::bench::{Bench, Orders, Slow, at, order, reply, subscription, worker_through};
use crate::harness::Running;

super::cases![
    a_delivery_begins_without_a_look_at_the_queue,
    what_was_told_before_decides_what_is_told_now,
    what_waits_for_its_next_try_is_not_told_beside_it,
    what_was_told_elsewhere_meanwhile_is_found_out,
    a_publisher_that_goes_away_takes_no_delivery_with_it,
    no_more_are_under_way_than_may_be,
    no_more_are_sent_in_a_second_than_may_be,
    what_is_being_published_counts_as_sent,
    a_pump_without_room_rests,
    a_subscription_that_was_paused_is_not_told,
    what_was_changed_before_holds_for_what_is_published_now,
    what_one_published_that_lost_its_pump_is_not_forgotten,
    another_process_takes_over_what_was_under_way,
];

/// While it is on, calls of one kind are held up.
#[derive(Clone, Debug)]
struct Stall {
    stalls: fn(&Call<'_>) -> bool,
    is_on: watch::Sender<bool>,
}

impl Stall {
    fn new(stalls: fn(&Call<'_>) -> bool) -> Self {
        Self { stalls, is_on: watch::Sender::default() }
    }

    fn begin(&self) {
        self.is_on.send_replace(true);
    }

    fn end(&self) {
        self.is_on.send_replace(false);
    }
}

impl Around for Stall {
    async fn call<T: Send>(&self, call: Call<'_>, made: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if (self.stalls)(&call) {
            let _ = self.is_on.subscribe().wait_for(|is_on| !is_on).await;
        }
        made.await
    }
}

/// Whether the call commits an operation like this.
fn commits(call: &Call<'_>, op: fn(&Op) -> bool) -> bool {
    call.batch.is_some_and(|batch| batch.ops().iter().any(op))
}

/// A clock that counts how often somebody began to wait for a time.
#[derive(Debug)]
struct Counting {
    clock: Arc<dyn Clock>,
    waits: AtomicUsize,
}

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        self.clock.sleep_until(at)
    }
}

/// A subscriber that says how it is to be told.
async fn subscribe_with(flare: &Flare, setting: &str, value: Value) {
    let orders = flare.orders().await;
    let mut new = at("shop");
    new["delivery"][setting] = value;
    flare.subscribe(&orders.id, subscription(new)).await.unwrap();
}

/// A process that has a subscriber and works, and whose pump stays a while for more: nothing was sent as
/// far as its subscriber remembers.
async fn warm<S: Transactional + Clone>(bench: &Bench<S>) -> (Flare, Running) {
    let flare = bench.process();
    flare.subscribe_at("shop").await;
    let worker = bench.worker_of(&flare);
    warm_up(bench, &flare).await;
    (flare, worker)
}

async fn warm_up<S: Transactional + Clone>(bench: &Bench<S>, flare: &Flare) {
    let name = bench.now().as_micros().to_string();
    for v in 1..=2 {
        flare.publish_order(&name, v).await;
        bench.until_received(bench.sink.received().len() + 1).await;
        bench.settle().await;
    }
    bench.sink.clear();
}

async fn a_delivery_begins_without_a_look_at_the_queue<S: Transactional + Clone>(bench: Bench<S>) {
    let stall = Stall::new(|call| call.method == Method::Lease);
    let store = AnyStore::new(bench.store.clone().layer(stall.clone()));
    let flare = Flare::new(store.clone()).clock(bench.clock.shared());
    flare.subscribe_at("shop").await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;

    // The delivery's place may be another than the document's, where there are several.
    if evenkeel_core::Store::info(&store).partitions == 1 {
        stall.begin();
    }
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    assert_eq!(bench.sink.told(), ["create 1"]);
}

async fn what_was_told_before_decides_what_is_told_now<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, _worker) = warm(&bench).await;
    for (count, v) in (1..).zip(1..=3) {
        flare.publish_order("17", v).await;
        bench.until_received(count).await;
        bench.settle().await;
    }
    flare.delete_order("17").await;
    bench.until_received(4).await;
    bench.settle().await;
    flare.publish_order("17", 4).await;
    bench.until_received(5).await;
    assert_eq!(bench.sink.told(), ["create 1", "update 2", "update 3", "delete 3", "create 4"]);
    let ids: std::collections::HashSet<_> =
        bench.sink.received().iter().map(|message| message.id().to_owned()).collect();
    assert_eq!(ids.len(), 5, "each message has an id of its own");
}

async fn what_waits_for_its_next_try_is_not_told_beside_it<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    subscribe_with(&flare, "retry", json!({ "interval": 60.0, "quantity": 3 })).await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;

    bench.sink.answer(500);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    bench.settle().await;
    flare.publish_order("17", 2).await;
    bench.pass(Duration::from_secs(20)).await;
    assert_eq!(bench.sink.received().len(), 1, "its next try is not due");
    bench.sink.answer(200);
    bench.until_received(2).await;
    bench.pass(Duration::from_secs(120)).await;
    assert_eq!(bench.sink.told(), ["create 1", "create 2"]);
}

async fn what_was_told_elsewhere_meanwhile_is_found_out<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, worker) = warm(&bench).await;
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    drop(worker);

    let other = bench.process();
    let elsewhere = bench.worker_of(&other);
    other.publish_order("17", 2).await;
    bench.until_received(2).await;
    bench.settle().await;
    drop(elsewhere);
    assert_eq!(bench.sink.told(), ["create 1", "update 2"]);

    // What the first remembers is of revision 1.
    let _worker = bench.worker_of(&flare);
    flare.publish_order("18", 1).await;
    bench.until_received(3).await;
    warm_up(&bench, &flare).await;
    flare.publish_order("17", 3).await;
    bench.until_received(1).await;
    assert_eq!(bench.sink.told(), ["update 3"]);
}

async fn a_publisher_that_goes_away_takes_no_delivery_with_it<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, _worker) = warm(&bench).await;
    for (count, polls) in (1..).zip(0..6) {
        let (publisher, url) = (flare.clone(), order(polls));
        let mut publishing = Box::pin(async move {
            let content = bytes::Bytes::from_static(br#"{ "v": 1 }"#);
            publisher.publish(&url, content, &evenkeel_flare::Precondition::None).await
        });
        let mut published = None;
        for _ in 0..polls {
            published = published.or_else(|| (&mut publishing).now_or_never());
            tokio::task::yield_now().await;
        }
        drop(publishing);
        bench.settle().await;
        flare.publish_order(&polls.to_string(), 1).await;
        let before = bench.now();
        bench.until_received(count).await;
        assert!(bench.now().since(before) < Duration::from_secs(2), "after {polls} polls: {published:?}");
    }
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.received().len(), 6, "each is told once");
}

async fn no_more_are_under_way_than_may_be<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    subscribe_with(&flare, "concurrency", json!(3)).await;
    let slow = Slow::new(bench.clock.shared(), Duration::from_millis(300));
    let _worker = worker_through(&flare, slow.clone());
    for order in 0..20 {
        flare.publish_order(&order.to_string(), 1).await;
        bench.settle().await;
    }
    bench.until(async || slow.answered() == 20).await;
    assert_eq!(slow.most_at_once(), 3);
}

async fn no_more_are_sent_in_a_second_than_may_be<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    subscribe_with(&flare, "rate", json!(2.0)).await;
    let _worker = bench.worker_of(&flare);
    let began = bench.now();
    for order in 0..10 {
        flare.publish_order(&order.to_string(), 1).await;
        bench.settle().await;
    }
    bench.until_received(10).await;
    let took = bench.now().since(began);
    assert!(took >= Duration::from_secs(4), "ten in {took:?}");
}

async fn what_is_being_published_counts_as_sent<S: Transactional + Clone>(bench: Bench<S>) {
    let stall = Stall::new(|call| commits(call, |op| matches!(op, Op::PushLeased { .. })));
    let flare = Flare::new(AnyStore::new(bench.store.clone().layer(stall.clone())));
    let flare = flare.clock(bench.clock.shared());
    subscribe_with(&flare, "rate", json!(2.0)).await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;
    bench.pass(Duration::from_millis(500)).await;

    stall.begin();
    let publisher = flare.clone();
    let _publishing = Running::spawn(async move { drop(publisher.publish_order("17", 1).await) });
    bench.settle().await;
    // Elsewhere, so that it waits in the queue, and the pump hears of it.
    bench.process().publish_order("18", 1).await;
    bench.pass(Duration::from_millis(100)).await;
    stall.end();
    bench.settle().await;
    assert!(bench.sink.received().len() <= 1, "at once: {:?}", bench.sink.told());
    bench.until_received(2).await;
}

async fn a_pump_without_room_rests<S: Transactional + Clone>(bench: Bench<S>) {
    let clock = Arc::new(Counting { clock: bench.clock.shared(), waits: AtomicUsize::new(0) });
    let shared: Arc<dyn Clock> = Arc::<Counting>::clone(&clock);
    let flare = Flare::new(AnyStore::new(bench.store.clone())).clock(shared);
    subscribe_with(&flare, "concurrency", json!(1)).await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;

    bench.sink.lose_answers(true);
    flare.publish_order("17", 1).await;
    bench.settle().await;
    // Elsewhere, so that it waits in the queue, and the pump hears of it while it is not in a hurry.
    bench.process().publish_order("18", 1).await;
    bench.pass(Duration::from_millis(200)).await;
    let before = clock.waits.load(Ordering::SeqCst);
    bench.settle().await;
    let waits = clock.waits.load(Ordering::SeqCst) - before;
    assert!(waits < 16, "{waits} times within an instant in which nothing happened");
}

async fn a_subscription_that_was_paused_is_not_told<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, _worker) = warm(&bench).await;
    let orders = flare.orders().await;
    let id = flare.subscriptions(&orders.id).await.unwrap().remove(0).id;
    // By a process that this one does not hear of.
    bench.process().set_status(&id, Status::Paused).await.unwrap();
    flare.publish_order("17", 1).await;
    bench.pass(Duration::from_secs(20)).await;
    assert_eq!(bench.sink.told(), [""; 0]);
    bench.process().set_status(&id, Status::Active).await.unwrap();
    bench.until_received(1).await;
}

async fn what_was_changed_before_holds_for_what_is_published_now<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let shop = flare.subscribe_at("shop").await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;
    // The pump is not told, and has no reason to look.
    let secret = flare.rotate_secret(&shop.id, None, Duration::ZERO).await.unwrap();
    flare.publish_order("17", 1).await;
    let received = bench.until_received(1).await;
    assert!(received[0].is_signed_with(&secret));
}

async fn another_process_takes_over_what_was_under_way<S: Transactional + Clone>(bench: Bench<S>) {
    let (flare, worker) = warm(&bench).await;
    bench.sink.lose_answers(true);
    flare.publish_order("17", 1).await;
    bench.until_received(1).await;
    drop(worker);
    bench.sink.lose_answers(false);
    bench.sink.answer_with(|_| Ok(reply(200)));
    let _other = bench.worker();
    let died = bench.now();
    let received = bench.until_received(2).await;
    assert!(bench.now().since(died) < Duration::from_secs(65), "its lease, and that of its pump");
    assert_eq!(received[0].id(), received[1].id(), "the same message once more");
    bench.pass(Duration::from_secs(60)).await;
    assert_eq!(bench.sink.received().len(), 2);
}

async fn what_one_published_that_lost_its_pump_is_not_forgotten<S: Transactional + Clone>(bench: Bench<S>) {
    let stall = Stall::new(|call| commits(call, |op| matches!(op, Op::Extend { .. })));
    let store = AnyStore::new(bench.store.clone().layer(stall.clone()));
    let flare = Flare::new(store).clock(bench.clock.shared());
    flare.subscribe_at("shop").await;
    let _worker = bench.worker_of(&flare);
    warm_up(&bench, &flare).await;
    // Something keeps the pump, and it does not get to know that its lease runs out.
    bench.sink.lose_answers(true);
    flare.publish_order("16", 1).await;
    bench.until_received(1).await;
    stall.begin();
    bench.pass(Duration::from_secs(31)).await;
    bench.sink.lose_answers(false);

    // Another has the pump, does what there is to do, and leaves for good.
    let _other = bench.worker();
    bench.pass(Duration::from_secs(90)).await;
    bench.sink.clear();
    flare.publish_order("17", 1).await;
    let published = bench.now();
    bench.until_received(1).await;
    assert!(bench.now().since(published) < Duration::from_secs(2), "by way of the queue");
}
