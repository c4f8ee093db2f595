//! Hints from one process to another: here, from one store to another on the same servers.

mod common;

use common::{ask, batch, config, now, open, partition, push, redis};
use evenkeel_core::{Batch, Expect, Merge, Namespace, NewEvent, Partition, Signal, Signals, Store, StoreExt};
use evenkeel_storage_redis::{RedisConfig, RedisStore};
use evenkeel_testkit::services::{Redis, RedisCluster};

/// Signals that are listened to already: the subscription begins with not knowing what was before.
async fn listen(store: &RedisStore) -> Signals {
    let mut signals = store.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    signals
}

fn queue(at: Partition, queue: &str) -> Signal {
    Signal::Queue { at, queue: queue.to_owned() }
}

async fn what_one_commits_is_a_hint_to_the_other() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let mut signals = listen(&one).await;

    let mut batch = batch(&other);
    batch.push("b", "1", now(), "", Merge::Keep).push("a", "1", now(), "", Merge::Keep);
    batch.append_any("s", [NewEvent::new("E", "{}", now())]);
    other.commit(batch).await.unwrap();
    let at = partition(&other);
    for expected in [queue(at.clone(), "a"), queue(at.clone(), "b"), Signal::Log { at }] {
        assert_eq!(signals.next().await, expected);
    }
}

async fn hears_of_every_partition(one: &RedisStore, other: &RedisStore) {
    let mut signals = listen(one).await;
    for at in other.partitions() {
        let mut batch = Batch::new(at.clone(), now());
        batch.append_any("s", [NewEvent::new("E", "{}", now())]);
        other.commit(batch).await.unwrap();
        assert_eq!(signals.next().await, Signal::Log { at });
    }
}

async fn every_partition_is_heard() {
    let redis = redis(&[]);
    let (one, other) = (config(&redis).partitions(16).open().await.unwrap(), open(&redis).await);
    hears_of_every_partition(&one, &other).await;
}

async fn ones_own_hints_come_once() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let mut signals = listen(&one).await;
    one.commit(push(&one, "own")).await.unwrap();
    other.commit(push(&other, "other")).await.unwrap();
    assert_eq!(signals.next().await, queue(partition(&one), "own"));
    assert_eq!(signals.next().await, queue(partition(&one), "other"));
}

async fn a_namespace_that_is_listened_to_later_is_heard_too() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let mut signals = listen(&one).await;
    let tenant = Namespace::new("tenant-a").unwrap();
    drop(one.namespace(tenant.clone()).signals());
    assert_eq!(signals.next().await, Signal::Missed);
    let tenants = other.namespace(tenant);
    tenants.commit(push(&tenants, "queue")).await.unwrap();
    assert_eq!(signals.next().await, queue(partition(&tenants), "queue"));
}

async fn what_did_not_happen_is_no_hint() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let mut signals = listen(&one).await;
    let mut failing = push(&other, "never");
    failing.check(common::key("absent"), Expect::Present);
    other.commit(failing).await.unwrap_err();
    other.commit(push(&other, "queue")).await.unwrap();
    assert_eq!(signals.next().await, queue(partition(&one), "queue"));
}

async fn a_subscription_that_was_cut_off_is_made_again() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let mut signals = listen(&one).await;
    for round in 0..3 {
        let killed: i64 = ask(&redis, "CLIENT KILL TYPE pubsub").await;
        assert_eq!(killed, 1);
        assert_eq!(signals.next().await, Signal::Missed, "round {round}");
        other.commit(push(&other, "queue")).await.unwrap();
        assert_eq!(signals.next().await, queue(partition(&one), "queue"), "round {round}");
    }
}

async fn hints_travel_in_a_cluster() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let url = format!("redis+cluster://{}", cluster.url().replace("redis://", ""));
    let open = || RedisConfig::new(&url).unwrap().open();
    let (one, other) = (open().await.unwrap(), open().await.unwrap());
    hears_of_every_partition(&one, &other).await;
}

async fn stores_with_different_prefixes_do_not_hear_each_other() {
    let redis = redis(&[]);
    let (one, other) = (open(&redis).await, open(&redis).await);
    let stranger = config(&redis).prefix("stranger").open().await.unwrap();
    let mut signals = listen(&one).await;
    stranger.commit(push(&stranger, "strange")).await.unwrap();
    other.commit(push(&other, "queue")).await.unwrap();
    assert_eq!(signals.next().await, queue(partition(&one), "queue"));
}

evenkeel_testkit::server_tests! {
    "redis", Redis::available => [
        what_one_commits_is_a_hint_to_the_other,
        every_partition_is_heard,
        ones_own_hints_come_once,
        a_namespace_that_is_listened_to_later_is_heard_too,
        what_did_not_happen_is_no_hint,
        a_subscription_that_was_cut_off_is_made_again,
        stores_with_different_prefixes_do_not_hear_each_other,
    ],
    "redis-cluster", Redis::available => [hints_travel_in_a_cluster],
}
