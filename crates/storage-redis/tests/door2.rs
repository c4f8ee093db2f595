//! Door 2: the user's commands run with the commit, or not at all.

mod common;

use std::time::Duration;

use common::{assert_error, claim, config, connect, exists, key, now, open, partition, redis, send};
use evenkeel_core::{ErrorKind, Expect, NewEvent, Read, Store, Transactional, Tx};
use evenkeel_storage_redis::{RedisStore, RedisWrites};
use evenkeel_testkit::services::Redis;
use redis::FromRedisValue;

async fn begin(store: &RedisStore) -> Tx<RedisWrites> {
    store.begin(partition(store), now()).await.unwrap()
}

/// Commits one transaction with these commands.
async fn write(
    store: &RedisStore,
    fill: impl FnOnce(&mut RedisWrites) -> &mut RedisWrites,
) -> evenkeel_core::Result<()> {
    let mut tx = begin(store).await;
    fill(tx.conn().await.unwrap());
    store.finish(tx).await.map(drop)
}

/// What a command says about a key of the user's.
async fn look<T: FromRedisValue>(redis: &Redis, store: &RedisStore, command: &str, name: &str) -> T {
    let key = begin(store).await.conn().await.unwrap().key(name);
    let (command, rest) = command.split_once(' ').unwrap_or((command, ""));
    send(&mut connect(&redis.url()).await, format!("{command} {key} {rest}").trim_end()).await.unwrap()
}

async fn each_command_does_what_it_says() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    write(&store, |writes| {
        writes.set("text", "one").set("gone", "x").del("gone").incr_by("count", 5).incr_by("count", -7);
        writes.hset("hash", "a", "1").hset("hash", "b", "x").hdel("hash", "b").hincr_by("hash", "a", 41);
        writes.sadd("set", "a").sadd("set", "b").srem("set", "b");
        writes.zadd("ranks", 1.5, "a").zadd("ranks", 0.25, "b").zrem("ranks", "b");
        writes.rpush("list", "2").rpush("list", "3").lpush("list", "1");
        writes.expire_at("text", now() + Duration::from_secs(3600));
        writes.set("stays", "x").expire_at("stays", now() + Duration::from_secs(60)).persist("stays")
    })
    .await
    .unwrap();

    assert_eq!(look::<String>(&redis, &store, "GET", "text").await, "one");
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "gone").await, 0);
    assert_eq!(look::<i64>(&redis, &store, "GET", "count").await, -2);
    assert_eq!(look::<Vec<String>>(&redis, &store, "HGETALL", "hash").await, ["a", "42"]);
    assert_eq!(look::<Vec<String>>(&redis, &store, "SMEMBERS", "set").await, ["a"]);
    assert_eq!(look::<f64>(&redis, &store, "ZSCORE a", "ranks").await, 1.5);
    assert_eq!(look::<Vec<String>>(&redis, &store, "LRANGE 0 -1", "list").await, ["1", "2", "3"]);
    let left: i64 = look(&redis, &store, "PTTL", "text").await;
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(look::<i64>(&redis, &store, "PTTL", "stays").await, -1);
}

async fn the_users_keys_and_the_batch_commit_together() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let mut tx = begin(&store).await;
    tx.conn().await.unwrap().incr_by("stock:17", -1);
    tx.batch().put(key("a"), "v", Expect::Absent).append_any("s", [NewEvent::new("Placed", "{}", now())]);
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "stock:17").await, 0);
    let committed = store.finish(tx).await.unwrap();

    assert_eq!(look::<i64>(&redis, &store, "GET", "stock:17").await, -1);
    assert!(exists(&store, "a").await);
    assert_eq!(committed.appended[0].position, 1);
    assert_eq!(store.read(&partition(&store), Read::partition(0, 10)).await.unwrap().events.len(), 1);
}

async fn a_conflict_leaves_the_users_keys_alone() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let mut tx = begin(&store).await;
    tx.conn().await.unwrap().set("mine", "x");
    tx.batch().put(key("a"), "v", Expect::Absent);
    let error = store.finish(tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.conflict().is_some());
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "mine").await, 0);
}

async fn a_transaction_that_is_dropped_or_rolled_back_leaves_nothing() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    for explicitly in [false, true] {
        let mut tx = begin(&store).await;
        tx.conn().await.unwrap().set("mine", "x");
        if explicitly {
            store.rollback(tx).await;
        } else {
            drop(tx);
        }
    }
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "mine").await, 0);
}

async fn a_batch_sent_again_does_not_run_the_commands_again() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let batch = claim(&store, "a");
    for _ in 0..3 {
        let mut tx = begin(&store).await;
        tx.conn().await.unwrap().incr_by("count", 1);
        *tx.batch() = batch.clone();
        store.finish(tx).await.unwrap();
    }
    assert_eq!(look::<i64>(&redis, &store, "GET", "count").await, 1);
}

/// The commands that need a type, and a key that has it.
type Typed = (&'static str, Fill, Fill);
type Fill = for<'a> fn(&'a mut RedisWrites, &str) -> &'a mut RedisWrites;

const TYPED: [Typed; 5] = [
    ("string", |writes, key| writes.set(key, "7"), |writes, key| writes.incr_by(key, 1)),
    (
        "hash",
        |writes, key| writes.hset(key, "f", "7"),
        |writes, key| writes.hset(key, "g", "8").hincr_by(key, "f", 1).hdel(key, "g"),
    ),
    ("set", |writes, key| writes.sadd(key, "m"), |writes, key| writes.srem(key, "m").sadd(key, "n")),
    (
        "zset",
        |writes, key| writes.zadd(key, 1.0, "m"),
        |writes, key| writes.zrem(key, "m").zadd(key, f64::NEG_INFINITY, "n").zadd(key, 1e300, "o"),
    ),
    ("list", |writes, key| writes.rpush(key, "e"), |writes, key| writes.lpush(key, "f").rpush(key, "g")),
];

async fn a_key_of_another_type_is_refused_before_anything_is_written() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    for (kind, make, _) in TYPED {
        write(&store, |writes| make(writes, kind)).await.unwrap();
    }
    for (kind, _, change) in TYPED {
        for (other, ..) in TYPED {
            let mut tx = begin(&store).await;
            let writes = tx.conn().await.unwrap();
            writes.set("witness", "x");
            change(writes, other);
            tx.batch().put(key("witness"), "v", Expect::Absent);
            let result = store.finish(tx).await;
            if kind == other {
                result.unwrap();
                write(&store, |writes| writes.del("witness")).await.unwrap();
                let mut batch = common::batch(&store);
                batch.delete(key("witness"), Expect::Present);
                store.commit(batch).await.unwrap();
            } else {
                let error = result.unwrap_err();
                assert_error(&error, ErrorKind::InvalidInput, &format!("it holds a {other}"));
                assert_error(&error, ErrorKind::InvalidInput, &format!("key: \"{other}\""));
                assert_eq!(look::<i64>(&redis, &store, "EXISTS", "witness").await, 0);
                assert!(!exists(&store, "witness").await);
            }
        }
    }
}

async fn types_are_judged_as_the_commands_before_will_leave_them() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    write(&store, |writes| writes.sadd("key", "m")).await.unwrap();
    write(&store, |writes| writes.del("key").rpush("key", "e")).await.unwrap();
    write(&store, |writes| writes.set("key", "5").incr_by("key", 1)).await.unwrap();
    assert_eq!(look::<i64>(&redis, &store, "GET", "key").await, 6);
    for error in [
        write(&store, |writes| writes.del("key").sadd("key", "m").hset("key", "f", "v")).await,
        write(&store, |writes| writes.set("key", "text").incr_by("key", 1)).await,
        write(&store, |writes| writes.del("key").hset("key", "f", "x").hincr_by("key", "f", 1)).await,
    ] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(look::<i64>(&redis, &store, "GET", "key").await, 6);
}

async fn a_sum_that_redis_would_refuse_is_refused_before_anything_is_written() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let text = i64::MAX.to_string();
    for value in ["", "x", "1.5", " 1", "01", "+1", "-0", "99999999999999999999999", &text] {
        write(&store, |writes| writes.set("n", value).hset("h", "f", value)).await.unwrap();
        for error in [
            write(&store, |writes| writes.set("witness", "x").incr_by("n", 1)).await,
            write(&store, |writes| writes.set("witness", "x").hincr_by("h", "f", 1)).await,
        ] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{value:?}");
        }
    }
    let large = 9_000_000_000_000_000_000;
    write(&store, |writes| writes.del("n").incr_by("n", large).incr_by("n", -large)).await.unwrap();
    let twice = write(&store, |writes| writes.incr_by("n", large).incr_by("n", large)).await;
    assert_error(&twice.unwrap_err(), ErrorKind::InvalidInput, "too large");
    let least = write(&store, |writes| writes.incr_by("n", i64::MIN)).await;
    assert_eq!(least.unwrap_err().kind(), ErrorKind::InvalidInput);
    let nan = write(&store, |writes| writes.set("witness", "x").zadd("z", f64::NAN, "m")).await;
    assert_error(&nan.unwrap_err(), ErrorKind::InvalidInput, "not a number");
    assert_eq!(look::<i64>(&redis, &store, "GET", "n").await, 0);
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "witness").await, 0);
}

async fn a_key_that_expires_at_once_is_judged_as_gone() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let past = now() - Duration::from_secs(1);
    let (half, large) = (5_000_000_000_000_000_000, 9_000_000_000_000_000_000);
    write(&store, |writes| writes.incr_by("n", -half).set("text", "x")).await.unwrap();
    // From what it holds the sum would be small enough.
    let error = write(&store, |writes| {
        writes.set("witness", "x").expire_at("n", past).incr_by("n", large).incr_by("n", half)
    })
    .await;
    assert_error(&error.unwrap_err(), ErrorKind::InvalidInput, "too large");
    assert_eq!(look::<i64>(&redis, &store, "EXISTS", "witness").await, 0);
    assert_eq!(look::<i64>(&redis, &store, "GET", "n").await, -half);
    write(&store, |writes| writes.expire_at("text", past).rpush("text", "e")).await.unwrap();
    assert_eq!(look::<Vec<String>>(&redis, &store, "LRANGE 0 -1", "text").await, ["e"]);
}

async fn a_transaction_of_another_store_is_refused() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let other = config(&redis).prefix("other").open().await.unwrap();
    let mut tx = begin(&other).await;
    tx.conn().await.unwrap().set("mine", "x");
    assert_error(&store.finish(tx).await.unwrap_err(), ErrorKind::InvalidInput, "another store");
}

evenkeel_testkit::server_tests! {
    "redis", Redis::available => [
        each_command_does_what_it_says,
        the_users_keys_and_the_batch_commit_together,
        a_conflict_leaves_the_users_keys_alone,
        a_transaction_that_is_dropped_or_rolled_back_leaves_nothing,
        a_batch_sent_again_does_not_run_the_commands_again,
        a_key_of_another_type_is_refused_before_anything_is_written,
        types_are_judged_as_the_commands_before_will_leave_them,
        a_sum_that_redis_would_refuse_is_refused_before_anything_is_written,
        a_key_that_expires_at_once_is_judged_as_gone,
        a_transaction_of_another_store_is_refused,
    ],
}
