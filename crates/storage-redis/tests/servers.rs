//! Servers as they come: empty, full, of another make, without the scripts, damaged.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{
    ask, assert_error, batch, claim, config, connect, exists, key, lease, now, open, partition, push, redis,
    send, until,
};
use evenkeel_core::{
    Durability, Error, ErrorKind, Expect, ExpectStream, Hold, Key, ManualClock, Merge, Namespace, NewEvent,
    Read, Scan, Store, Token, Transactional,
};
use evenkeel_storage_redis::{RedisConfig, RedisStore};
use evenkeel_testkit::services::Redis;
use redis::cluster_routing::Slot;

async fn open_error(config: RedisConfig) -> Error {
    config.open().await.unwrap_err()
}

async fn what_was_committed_is_there_for_others() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    store.commit(claim(&store, "a")).await.unwrap();
    drop(store);
    assert!(exists(&open(&redis).await, "a").await);
}

async fn stores_with_different_prefixes_share_a_server() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let other = config(&redis).prefix("other").partitions(3).open().await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
    assert!(!exists(&other, "a").await);
}

async fn another_partition_count_is_refused() {
    let redis = redis(&[]);
    drop(config(&redis).partitions(4).open().await.unwrap());
    let error = open_error(config(&redis).partitions(8)).await;
    assert_error(&error, ErrorKind::Config, "created with: 4, opened with: 8");
    assert_eq!(open(&redis).await.info().partitions, 4, "unless told, it is as it was made");
    let error = open_error(config(&redis).partitions(0)).await;
    assert_error(&error, ErrorKind::Config, "1 to 65,536 partitions");
}

async fn a_format_of_a_newer_release_is_refused() {
    let redis = redis(&[]);
    drop(open(&redis).await);
    let _: i64 = ask(&redis, "HSET {evenkeel}:store format 99").await;
    assert_error(&open_error(config(&redis)).await, ErrorKind::Config, "newer evenkeel");
}

async fn many_openings_at_once_make_one_store() {
    let redis = redis(&[]);
    let openings: Vec<_> = (1..=8).map(|n| tokio::spawn(config(&redis).partitions(n).open())).collect();
    let mut opened = Vec::new();
    for opening in openings {
        match opening.await.unwrap() {
            Ok(store) => opened.push(store.info().partitions),
            Err(error) => assert_error(&error, ErrorKind::Config, "another number of partitions"),
        }
    }
    assert_eq!(opened.len(), 1);
}

async fn a_server_that_throws_away_what_does_not_expire_is_refused() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let redis = redis(&["--maxmemory-policy", policy]);
        assert_error(&open_error(config(&redis)).await, ErrorKind::Config, policy);
    }
    for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
        open(&redis(&["--maxmemory-policy", policy])).await;
    }
}

async fn durability_is_what_the_server_is_set_to() {
    for (fsync, durability) in
        [("always", Durability::Machine), ("everysec", Durability::Process), ("no", Durability::Process)]
    {
        let redis = redis(&["--appendonly", "yes", "--appendfsync", fsync]);
        assert_eq!(open(&redis).await.info().durability, durability, "{fsync}");
    }
    assert_eq!(open(&redis(&[])).await.info().durability, Durability::None);
}

async fn a_server_that_keeps_its_settings_to_itself_is_taken_for_one_as_it_comes() {
    let redis = redis(&["--appendonly", "yes", "--appendfsync", "always", "--rename-command", "CONFIG", ""]);
    assert_eq!(open(&redis).await.info().durability, Durability::Process);
}

async fn a_wrong_password_is_refused() {
    let redis = redis(&[]);
    let _: () = ask(&redis, "CONFIG SET requirepass secret").await;
    let with = |user: &str| format!("redis://{user}127.0.0.1:{}", redis.port());
    RedisStore::open(&with(":secret@")).await.unwrap();
    for user in ["", ":wrong@"] {
        let error = RedisStore::open(&with(user)).await.unwrap_err();
        assert_error(&error, ErrorKind::Config, "password");
    }
}

async fn a_server_that_is_not_there_is_unavailable() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    redis.stop();
    assert_eq!(open_error(config(&redis)).await.kind(), ErrorKind::Unavailable);
    assert_eq!(store.commit(claim(&store, "a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

async fn a_replica_is_not_taken_for_the_server() {
    let (redis, master) = (redis(&[]), common::redis(&[]));
    let store = open(&redis).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let _: () = ask(&redis, &format!("REPLICAOF 127.0.0.1 {}", master.port())).await;
    for _ in 0..2 {
        let error = store.commit(claim(&store, "b")).await.unwrap_err();
        assert_error(&error, ErrorKind::Unavailable, "replica");
        let reading = store.get(&partition(&store), now(), &[key("a")]).await;
        assert_error(&reading.unwrap_err(), ErrorKind::Unavailable, "replica");
        assert_error(&open_error(config(&redis)).await, ErrorKind::Unavailable, "replica");
    }
    let _: () = ask(&redis, "REPLICAOF NO ONE").await;
    store.commit(claim(&store, "b")).await.unwrap();
}

async fn clocks_too_far_apart_are_refused_until_they_agree() {
    let redis = redis(&[]);
    let clock = ManualClock::default();
    assert_error(&open_error(config(&redis).clock(clock.shared())).await, ErrorKind::Config, "clock");

    let clock = ManualClock::at(now());
    let store = config(&redis).clock(clock.shared()).open().await.unwrap();
    clock.advance(Duration::from_secs(3600));
    // The first call after a minute compares; those after it know.
    until("the clocks are compared", async || {
        matches!(store.commit(claim(&store, "a")).await, Err(error) if error.kind() == ErrorKind::Config)
    })
    .await;
}

async fn scripts_that_the_server_forgot_are_loaded_again() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    for (round, id) in ["a", "b", "c"].into_iter().enumerate() {
        let _: () = ask(&redis, "SCRIPT FLUSH").await;
        store.commit(claim(&store, id)).await.unwrap();
        let _: () = ask(&redis, "SCRIPT FLUSH").await;
        assert_eq!(store.scan(&partition(&store), scan()).await.unwrap().records.len(), round + 1);
    }
}

fn scan() -> evenkeel_core::Scan {
    evenkeel_core::Scan::new("test.record", "group", 100, now())
}

async fn a_server_without_memory_refuses_commits_and_still_reads_and_sweeps() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let mut expiring = batch(&store);
    expiring.put_until(key("expired"), "", Expect::Any, now() - Duration::from_secs(3600));
    store.commit(expiring).await.unwrap();
    store.commit(push(&store, "queue")).await.unwrap();
    let _: () = ask(&redis, "CONFIG SET maxmemory 1").await;

    let error = store.commit(claim(&store, "a")).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, "out of memory");
    assert!(!exists(&store, "a").await);
    assert!(store.scan(&partition(&store), scan()).await.unwrap().records.is_empty());
    assert_eq!(store.read(&partition(&store), Read::partition(0, 10)).await.unwrap().head, 0);
    assert_eq!(store.sweep(&partition(&store), now(), 10).await.unwrap(), 1);

    let _: () = ask(&redis, "CONFIG SET maxmemory 0").await;
    store.commit(claim(&store, "a")).await.unwrap();
    assert_eq!(lease(&store, "queue").await.len(), 1);
}

/// How often commands of a kind were called.
async fn calls(redis: &Redis, command: &str) -> u64 {
    let stats: String = ask(redis, "INFO commandstats").await;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

async fn a_commit_is_one_call_and_those_that_wait_share_one() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let before = calls(&redis, "evalsha").await;
    for n in 0..10 {
        let mut batch = claim(&store, &format!("{n}"));
        batch.append_any("s", [NewEvent::new("E", "", now())]).push("queue", "job", now(), "", Merge::Keep);
        store.commit(batch).await.unwrap();
    }
    let alone = calls(&redis, "evalsha").await - before;
    assert_eq!(alone, 10);

    // While the server is held up, commits line up behind the one that was sent.
    let mut conn = connect(&redis.url()).await;
    let () = send(&mut conn, "CLIENT PAUSE 60000 WRITE").await.unwrap();
    let commits: Vec<_> = (10..74)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(claim(&store, &format!("{n}"))).await })
        })
        .collect();
    until("the first commit waits at the server", async || {
        let info: String = send(&mut conn, "INFO clients").await.unwrap();
        info.contains("blocked_clients:1")
    })
    .await;
    let () = send(&mut conn, "CLIENT UNPAUSE").await.unwrap();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    let together = calls(&redis, "evalsha").await - before - alone;
    assert!(together <= 5, "{together} calls for 64 commits");
}

/// Puts something else where a group has its records (`r`) or their ids (`i`).
async fn damage(redis: &Redis, store: &RedisStore, letter: char) {
    let key = format!("{{evenkeel:{}}}:{letter}:test.record\0damaged", partition(store));
    let mut conn = connect(&redis.url()).await;
    let () = redis::cmd("SET").arg(key).arg("what").query_async(&mut conn).await.unwrap();
}

async fn a_batch_that_meets_damage_fails_alone_and_writes_nothing() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    damage(&redis, &store, 'r').await;

    let commits: Vec<_> = (0..20)
        .map(|n| {
            let mut batch = claim(&store, &format!("r{n}"));
            if n == 7 {
                batch.put(Key::new("test.record", "damaged", "a"), "", Expect::Any);
            }
            let store = store.clone();
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    for (n, commit) in commits.into_iter().enumerate() {
        let verdict = commit.await.unwrap();
        assert_eq!(exists(&store, &format!("r{n}")).await, n != 7);
        match verdict {
            Ok(_) => assert_ne!(n, 7),
            Err(error) => assert_error(&error, ErrorKind::Unexpected, "WRONGTYPE"),
        }
    }
}

async fn a_damaged_index_leaves_the_outcome_unknown_and_all_else_is_written() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    damage(&redis, &store, 'i').await;

    // Many, since in which order a call writes its keys is open.
    let groups: Vec<_> = (0..16).map(|n| format!("whole-{n}")).collect();
    let event = || NewEvent::new("noted", "{}", now());
    let mut first = batch(&store);
    first.put(Key::new("test.record", "damaged", "a"), "", Expect::Any);
    for group in &groups {
        first.put(Key::new("test.record", group, "a"), "", Expect::Absent);
    }
    first.append("notes", ExpectStream::Any, [event()]);
    let error = store.commit(first).await.unwrap_err();
    assert_error(&error, ErrorKind::OutcomeUnknown, "WRONGTYPE");

    for group in &groups {
        let scan = Scan::new("test.record", group, 10, now());
        assert_eq!(store.scan(&partition(&store), scan).await.unwrap().records.len(), 1, "{group}");
    }
    let mut next = batch(&store);
    next.append("notes", ExpectStream::Version(1), [event()]);
    assert_eq!(store.commit(next).await.unwrap().appended[0].position, 2);
}

async fn waiting_for_replicas_that_are_not_there_leaves_the_outcome_unknown() {
    let redis = redis(&[]);
    let store = config(&redis).wait_replicas(1, Duration::from_millis(50)).open().await.unwrap();
    let first = claim(&store, "a");
    let error = store.commit(first.clone()).await.unwrap_err();
    assert_error(&error, ErrorKind::OutcomeUnknown, "Replicas");
    assert!(exists(&store, "a").await, "the server itself has it");
    // What was found may be gone after a fail-over.
    assert_eq!(store.commit(claim(&store, "a")).await.unwrap_err().kind(), ErrorKind::OutcomeUnknown);

    let replica = common::redis(&["--replicaof", "127.0.0.1", &redis.port().to_string()]);
    until("the replica follows", async || {
        let info: String = ask(&replica, "INFO replication").await;
        info.contains("master_link_status:up")
    })
    .await;
    until("the replica confirms", async || store.commit(first.clone()).await.is_ok()).await;
    let mut more = batch(&store);
    more.append_any("s", [NewEvent::new("E", "", now())]);
    until("the replica confirms", async || store.commit(more.clone()).await.is_ok()).await;
    assert_eq!(store.commit(claim(&store, "a")).await.unwrap_err().kind(), ErrorKind::Conflict);
}

/// Stops a server without its noticing (`STOP`), or lets it go on (`CONT`).
fn signal(pid: &str, signal: &str) {
    let kill = std::process::Command::new("kill").args([&format!("-{signal}"), pid]).status();
    assert!(kill.unwrap().success());
}

async fn an_unsynced_batch_is_waited_for_too() {
    let redis = redis(&[]);
    let store = config(&redis).wait_replicas(1, Duration::from_millis(50)).open().await.unwrap();
    let mut unsynced = claim(&store, "a");
    unsynced.set_unsynced();
    let error = store.commit(unsynced).await.unwrap_err();
    assert_error(&error, ErrorKind::OutcomeUnknown, "Replicas");
}

async fn a_batch_sent_again_is_waited_for_too() {
    let redis = redis(&[]);
    let replica = common::redis(&["--replicaof", "127.0.0.1", &redis.port().to_string()]);
    let waiting = || config(&redis).wait_replicas(1, Duration::from_millis(50));
    let store = waiting().open().await.unwrap();
    let first = claim(&store, "a");
    until("the replica confirms", async || store.commit(first.clone()).await.is_ok()).await;
    let info: String = ask(&replica, "INFO server").await;
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
    signal(pid, "STOP");
    let put = claim(&store, "b");
    let mut append = batch(&store);
    append.append_any("s", [NewEvent::new("E", "", now())]);
    let mut push = batch(&store);
    let hold = Hold { token: Token::fresh(), until: now() };
    push.push_leased("q", "a", now(), "", hold);
    for batch in [&put, &append, &push] {
        for _ in 0..2 {
            // On a connection that has written nothing yet.
            let again = waiting().open().await.unwrap();
            let error = again.commit(batch.clone()).await.unwrap_err();
            assert_error(&error, ErrorKind::OutcomeUnknown, "Replicas");
        }
    }
    signal(pid, "CONT");
    for batch in [&put, &append, &push] {
        until("the replica confirms", async || store.commit(batch.clone()).await.is_ok()).await;
    }
    assert_eq!(store.read(&partition(&store), Read::partition(0, 10)).await.unwrap().head, 1);
}

async fn who_only_reads_leaves_a_server_that_became_a_replica_within_a_minute() {
    let (redis, master) = (redis(&[]), common::redis(&[]));
    let clock = ManualClock::at(now());
    let store = config(&redis).max_skew(Duration::from_secs(600)).clock(clock.shared()).open().await.unwrap();
    store.commit(claim(&store, "a")).await.unwrap();
    let _: () = ask(&redis, &format!("REPLICAOF 127.0.0.1 {}", master.port())).await;
    clock.advance(Duration::from_secs(60));
    until("the role is asked for", async || match store.get(&partition(&store), now(), &[key("a")]).await {
        Ok(_) => false,
        Err(error) => {
            assert_error(&error, ErrorKind::Unavailable, "replica");
            true
        }
    })
    .await;
    let _: () = ask(&redis, "REPLICAOF NO ONE").await;
    assert!(store.get(&partition(&store), now(), &[key("a")]).await.is_ok());
}

async fn a_user_who_may_not_publish_commits_all_the_same() {
    let redis = redis(&[]);
    let _: () = ask(&redis, "ACL SETUSER quiet on >secret ~* +@all resetchannels").await;
    let url = format!("redis://quiet:secret@127.0.0.1:{}", redis.port());
    let store = RedisStore::open(&url).await.unwrap();
    let mut batch = push(&store, "queue");
    batch.append_any("s", [NewEvent::new("E", "", now())]);
    assert_eq!(store.commit(batch).await.unwrap().appended[0].position, 1);
    assert_eq!(lease(&store, "queue").await.len(), 1);
}

async fn waiting_for_the_disk_of_a_server_that_cannot_say_is_refused() {
    // Before 7.2 there is no WAITAOF, and later it wants a disk to wait for.
    let redis = redis(&[]);
    let error = open_error(config(&redis).wait_aof(0, Duration::from_secs(1))).await;
    assert_error(&error, ErrorKind::Config, "waiting for the disk needs");
}

async fn a_sweep_of_everything_leaves_nothing_but_places_in_the_log() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let before: BTreeSet<String> = ask(&redis, "KEYS *").await;
    let mut everything = batch(&store);
    let long_ago = now() - Duration::from_secs(3600);
    for n in 0..40 {
        let key = evenkeel_core::Key::new("test.record", format!("group {}", n % 3), format!("{n}"));
        everything.put_until(key, "value", Expect::Absent, long_ago);
        everything.push(format!("queue {}", n % 3), format!("{n}"), now(), "", Merge::Keep);
    }
    everything.append_any("s", (0..10).map(|_| NewEvent::new("E", "payload", now())));
    store.commit(everything).await.unwrap();
    for n in 0..3 {
        let queue = format!("queue {n}");
        let mut acks = batch(&store);
        loop {
            let jobs = lease(&store, &queue).await;
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                acks.ack(&queue, job.id, job.token);
            }
        }
        store.commit(acks).await.unwrap();
    }
    let mut trim = batch(&store);
    trim.trim("s", 10);
    store.commit(trim).await.unwrap();
    assert_eq!(store.sweep(&partition(&store), now(), 1000).await.unwrap(), 50);
    assert_eq!(store.sweep(&partition(&store), now(), 1000).await.unwrap(), 0);

    let after: BTreeSet<String> = ask(&redis, "KEYS *").await;
    let tag = format!("{{evenkeel:{}}}", partition(&store));
    let left: BTreeSet<String> = after.difference(&before).cloned().collect();
    assert_eq!(left, ["s", "l", "v:s"].map(|key| format!("{tag}:{key}")).into());
    let entries: i64 = ask(&redis, &format!("XLEN {tag}:l")).await;
    assert_eq!(entries, 0);
}

async fn every_key_of_a_partition_has_the_slot_of_its_tag() {
    let redis = redis(&[]);
    let store = open(&redis).await.namespace(Namespace::new("tenant-a").unwrap());
    let mut everything = batch(&store);
    let later = now() + Duration::from_secs(3600);
    everything
        .put_until(evenkeel_core::Key::new("s{p}ace", "gr{ou}p", "{id}"), "", Expect::Absent, later)
        .append_any("st{re}am", [NewEvent::new("E", "", now())])
        .append_any("trimmed", [NewEvent::new("E", "", now())])
        .push("qu{eu}e", "id", now(), "", Merge::Keep);
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    tx.conn().await.unwrap().set("us{er}", "value");
    *tx.batch() = everything;
    store.finish(tx).await.unwrap();
    let mut trim = batch(&store);
    trim.trim("trimmed", 1);
    store.commit(trim).await.unwrap();

    let keys: BTreeSet<String> = ask(&redis, "KEYS *").await;
    let tag = format!("{{evenkeel:{}}}", partition(&store));
    let (own, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.starts_with(&tag));
    assert_eq!(others, ["{evenkeel}:store"]);
    assert_eq!(own.len(), 12, "{own:?}");
    for key in own {
        assert_eq!(Slot::for_key(key), Slot::for_key(&tag), "{key:?}");
    }
}

async fn nothing_outlives_the_last_handle() {
    let redis = redis(&[]);
    let mut conn = connect(&redis.url()).await;
    let runtime = tokio::runtime::Handle::current().metrics();
    let mut clients = async || {
        let list: String = send(&mut conn, "CLIENT LIST").await.unwrap();
        list.lines().count()
    };
    let before = (clients().await, runtime.num_alive_tasks());
    assert_eq!(before.0, 1);

    let config = config(&redis).wait_replicas(0, Duration::from_millis(10));
    let store = config.open().await.unwrap();
    let mut signals = store.signals();
    let other = store.namespace(Namespace::new("other").unwrap());
    drop(other.signals());
    store.commit(claim(&store, "a")).await.unwrap();
    assert_eq!(signals.next().await, evenkeel_core::Signal::Missed);
    let mut tx = store.begin(partition(&store), now()).await.unwrap();
    tx.conn().await.unwrap().set("mine", "value");
    store.finish(tx).await.unwrap();
    assert!(clients().await > 1 && runtime.num_alive_tasks() > before.1);

    drop((store, other));
    until("connections close and tasks end", async || (clients().await, runtime.num_alive_tasks()) == before)
        .await;
}

evenkeel_testkit::server_tests! {
    "redis", Redis::available => [
        what_was_committed_is_there_for_others,
        stores_with_different_prefixes_share_a_server,
        another_partition_count_is_refused,
        a_format_of_a_newer_release_is_refused,
        many_openings_at_once_make_one_store,
        a_server_that_throws_away_what_does_not_expire_is_refused,
        durability_is_what_the_server_is_set_to,
        a_server_that_keeps_its_settings_to_itself_is_taken_for_one_as_it_comes,
        a_wrong_password_is_refused,
        a_server_that_is_not_there_is_unavailable,
        a_replica_is_not_taken_for_the_server,
        clocks_too_far_apart_are_refused_until_they_agree,
        scripts_that_the_server_forgot_are_loaded_again,
        a_server_without_memory_refuses_commits_and_still_reads_and_sweeps,
        a_commit_is_one_call_and_those_that_wait_share_one,
        a_batch_that_meets_damage_fails_alone_and_writes_nothing,
        a_damaged_index_leaves_the_outcome_unknown_and_all_else_is_written,
        waiting_for_replicas_that_are_not_there_leaves_the_outcome_unknown,
        an_unsynced_batch_is_waited_for_too,
        a_batch_sent_again_is_waited_for_too,
        who_only_reads_leaves_a_server_that_became_a_replica_within_a_minute,
        a_user_who_may_not_publish_commits_all_the_same,
        waiting_for_the_disk_of_a_server_that_cannot_say_is_refused,
        a_sweep_of_everything_leaves_nothing_but_places_in_the_log,
        every_key_of_a_partition_has_the_slot_of_its_tag,
        nothing_outlives_the_last_handle,
    ],
}
