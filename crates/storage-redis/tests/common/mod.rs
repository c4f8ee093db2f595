//! What the tests of this crate share.
#![allow(dead_code, reason = "each test target uses a part")]

pub(crate) mod ledger;

use std::time::Duration;

use evenkeel_core::{
    Batch, Clock, Error, ErrorKind, Expect, Key, Lease, LeasedJob, Merge, Partition, Store, StoreExt,
    SystemClock, Timestamp,
};
use evenkeel_storage_redis::{RedisConfig, RedisStore};
use evenkeel_testkit::services::Redis;
pub(crate) use evenkeel_testkit::until;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult};

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn redis(arguments: &[&str]) -> Redis {
    Redis::start(arguments).unwrap()
}

pub(crate) fn config(redis: &Redis) -> RedisConfig {
    RedisConfig::new(&redis.url()).unwrap()
}

pub(crate) async fn open(redis: &Redis) -> RedisStore {
    RedisStore::open(&redis.url()).await.unwrap()
}

/// A connection of the test's own.
pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Sends a command whose arguments have no spaces.
pub(crate) async fn send<T: FromRedisValue>(
    conn: &mut MultiplexedConnection,
    command: &str,
) -> RedisResult<T> {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    cmd.arg(words.collect::<Vec<_>>());
    cmd.query_async(conn).await
}

pub(crate) async fn ask<T: FromRedisValue>(redis: &Redis, command: &str) -> T {
    send(&mut connect(&redis.url()).await, command).await.unwrap()
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) async fn pause() {
    SystemClock::shared().sleep(PAUSE).await;
}

pub(crate) fn key(id: &str) -> Key {
    Key::new("test.record", "group", id)
}

pub(crate) fn partition(store: &RedisStore) -> Partition {
    store.partition_of("here")
}

pub(crate) fn batch(store: &RedisStore) -> Batch {
    Batch::new(partition(store), now())
}

/// A batch that creates one record.
pub(crate) fn claim(store: &RedisStore, id: &str) -> Batch {
    let mut batch = batch(store);
    batch.put(key(id), "mine", Expect::Absent);
    batch
}

/// A batch that creates a job which is due.
pub(crate) fn push(store: &RedisStore, queue: &str) -> Batch {
    let mut batch = batch(store);
    batch.push(queue, "job", now(), "payload", Merge::Keep);
    batch
}

pub(crate) async fn lease(store: &RedisStore, queue: &str) -> Vec<LeasedJob> {
    let want = Lease { queue: queue.into(), max: 10, hold_for: Duration::from_secs(60), now: now() };
    store.lease(&partition(store), want).await.unwrap().jobs
}

pub(crate) async fn exists(store: &RedisStore, id: &str) -> bool {
    store.get(&partition(store), now(), &[key(id)]).await.unwrap()[0].is_some()
}

#[track_caller]
pub(crate) fn assert_error(error: &Error, kind: ErrorKind, says: &str) {
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(format!("{error:?}").contains(says), "{error:?}");
}
