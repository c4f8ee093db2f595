//! A cluster whose slots move and whose servers die, under load.

mod common;

use common::ledger::Ledger;
use common::{assert_error, batch, claim, connect, exists, key, lease, now, partition, send, until};
use evenkeel_core::{Batch, ErrorKind, Expect, Merge, Signal, Store, StoreExt, Timestamp, Transactional};
use evenkeel_storage_redis::{RedisConfig, RedisStore};
use evenkeel_testkit::services::{Redis, RedisCluster};
use redis::aio::MultiplexedConnection;
use tokio::task::block_in_place;

fn config(cluster: &RedisCluster) -> RedisConfig {
    RedisConfig::new(&format!("redis+cluster://{}", cluster.url().replace("redis://", ""))).unwrap()
}

/// Moves slots between servers as `redis-cli --cluster reshard` does.
struct Mover<'a> {
    cluster: &'a RedisCluster,
    conns: Vec<MultiplexedConnection>,
    ids: Vec<String>,
}

impl<'a> Mover<'a> {
    async fn new(cluster: &'a RedisCluster) -> Self {
        let (mut conns, mut ids) = (Vec::new(), Vec::new());
        for node in cluster.nodes() {
            let mut conn = connect(&node.url()).await;
            ids.push(send(&mut conn, "CLUSTER MYID").await.unwrap());
            conns.push(conn);
        }
        Self { cluster, conns, ids }
    }

    /// The slot of a partition, and which server keeps it.
    async fn keeper(&mut self, tag: &str) -> (u16, usize) {
        let slot: u16 = send(&mut self.conns[0], &format!("CLUSTER KEYSLOT {tag}")).await.unwrap();
        for node in 0..self.conns.len() {
            let keys: Vec<String> =
                send(&mut self.conns[node], &format!("CLUSTER GETKEYSINSLOT {slot} 1")).await.unwrap();
            if !keys.is_empty() {
                return (slot, node);
            }
        }
        panic!("no server keeps {tag}");
    }

    async fn open(&mut self, slot: u16, from: usize, to: usize) {
        let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.ids[from]);
        let migrating = format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.ids[to]);
        let () = send(&mut self.conns[to], &importing).await.unwrap();
        let () = send(&mut self.conns[from], &migrating).await.unwrap();
    }

    /// Moves up to `count` keys; how many.
    async fn migrate(&mut self, slot: u16, from: usize, to: usize, count: usize) -> usize {
        let get = format!("CLUSTER GETKEYSINSLOT {slot} {count}");
        let keys: Vec<Vec<u8>> = send(&mut self.conns[from], &get).await.unwrap();
        if keys.is_empty() {
            return 0;
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(self.cluster.nodes()[to].port()).arg("").arg(0).arg(10_000).arg("KEYS");
        let moved: String = migrate.arg(&keys).query_async(&mut self.conns[from]).await.unwrap();
        assert_eq!(moved, "OK");
        keys.len()
    }

    async fn close(&mut self, slot: u16, from: usize, to: usize) {
        let settle = format!("CLUSTER SETSLOT {slot} NODE {}", self.ids[to]);
        let others = (0..self.conns.len()).filter(|node| *node != from && *node != to);
        for node in [to, from].into_iter().chain(others) {
            let () = send(&mut self.conns[node], &settle).await.unwrap();
        }
    }
}

fn tag(store: &RedisStore) -> String {
    format!("{{evenkeel:{}}}", partition(store))
}

async fn a_slot_that_moves_under_load_loses_and_doubles_nothing() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let store = config(&cluster).partitions(4).open().await.unwrap();
    let mut mover = Mover::new(&cluster).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let ledger = Ledger::begin(&store, 16);
    ledger.go_on(200).await;
    for _ in 0..3 {
        let (slot, from) = mover.keeper(&tag(&store)).await;
        let to = (from + 1) % 3;
        mover.open(slot, from, to).await;
        // Key by key, so that the partition is in two places for a while.
        while mover.migrate(slot, from, to, 1).await > 0 {
            ledger.go_on(5).await;
        }
        mover.close(slot, from, to).await;
        ledger.go_on(200).await;
    }
    ledger.close().await;
}

async fn while_a_slot_moves_reads_find_what_is_there() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let store = config(&cluster).open().await.unwrap();
    let mut mover = Mover::new(&cluster).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let (slot, from) = mover.keeper(&tag(&store)).await;
    let to = (from + 1) % 3;
    mover.open(slot, from, to).await;
    assert!(exists(&store, "a").await);
    mover.migrate(slot, from, to, 100).await;
    assert!(exists(&store, "a").await, "asked for at the new server");
    // What is nowhere cannot be told from what is in the other place.
    let error = store.commit(claim(&store, "b")).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, "moving");
    mover.close(slot, from, to).await;
    assert!(exists(&store, "a").await);
    store.commit(claim(&store, "b")).await.unwrap();
}

/// A slot that is about to move, with one record that expires, one job that is leased, and a hash of
/// the user's, of one field. Nothing has moved yet.
async fn about_to_move<'a>(cluster: &'a RedisCluster, store: &RedisStore) -> (Mover<'a>, Batch) {
    let mut mover = Mover::new(cluster).await;
    let mut tx = store.begin(partition(store), now()).await.unwrap();
    tx.conn().await.unwrap().hset("mine", "field", "1");
    tx.batch().put_until(key("expires"), "", Expect::Absent, Timestamp::MAX).push(
        "queue",
        "job",
        now(),
        "",
        Merge::Keep,
    );
    store.finish(tx).await.unwrap();
    let mut ack = batch(store);
    for job in lease(store, "queue").await {
        ack.ack("queue", job.id, job.token);
    }
    let (slot, from) = mover.keeper(&tag(store)).await;
    mover.open(slot, from, (from + 1) % 3).await;
    (mover, ack)
}

async fn while_a_slot_moves_what_is_emptied_is_filled_again() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let store = config(&cluster).open().await.unwrap();
    let (_mover, mut ack) = about_to_move(&cluster, &store).await;
    ack.push("queue", "other", now(), "", Merge::Keep);
    ack.delete(key("expires"), Expect::Present);
    ack.put_until(key("expires too"), "", Expect::Absent, Timestamp::MAX);
    store.commit(ack).await.unwrap();
    assert_eq!([exists(&store, "expires").await, exists(&store, "expires too").await], [false, true]);
    let jobs: Vec<String> = lease(&store, "queue").await.into_iter().map(|job| job.id).collect();
    assert_eq!(jobs, ["other"]);
}

async fn while_a_slot_moves_a_users_key_is_not_taken_away_and_written_again() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let store = config(&cluster).open().await.unwrap();
    let (mut mover, ack) = about_to_move(&cluster, &store).await;
    let (slot, from) = mover.keeper(&tag(&store)).await;
    let mut transaction = async || {
        let mut tx = store.begin(partition(&store), now()).await.unwrap();
        let writes = tx.conn().await.unwrap();
        writes.hset("mine", "other", "2").del("mine").hset("mine", "third", "3");
        let name = writes.key("mine");
        *tx.batch() = ack.clone();
        let result = store.finish(tx).await;
        let fields: Vec<String> = send(&mut mover.conns[from], &format!("HKEYS {name}")).await.unwrap();
        (result, fields)
    };
    let (result, fields) = transaction().await;
    assert_error(&result.unwrap_err(), ErrorKind::Unavailable, "moving");
    assert_eq!(fields, ["field"]);
    let mut conn = connect(&cluster.nodes()[from].url()).await;
    let () = send(&mut conn, &format!("CLUSTER SETSLOT {slot} STABLE")).await.unwrap();
    let (result, fields) = transaction().await;
    result.unwrap();
    assert_eq!(fields, ["third"]);
}

async fn a_partition_that_no_server_kept_is_found_once_one_does() {
    let cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]).unwrap();
    let store = config(&cluster).open().await.unwrap();
    let mut mover = Mover::new(&cluster).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let (slot, from) = mover.keeper(&tag(&store)).await;
    let mut keepers = async |command: &str| {
        let mut count = 0;
        for conn in &mut mover.conns {
            // Those that have heard of it refuse.
            let _ = send::<()>(conn, command).await;
            let ranges: Vec<redis::Value> = send(conn, "CLUSTER SLOTS").await.unwrap();
            count += ranges.iter().filter(|range| covers(range, slot)).count();
        }
        count
    };
    let forget = format!("CLUSTER DELSLOTS {slot}");
    until("no server knows a keeper", async || keepers(&forget).await == 0).await;
    let store = config(&cluster).open().await.unwrap();
    let error = store.commit(claim(&store, "b")).await.unwrap_err();
    assert_error(&error, ErrorKind::Unavailable, "no server of the cluster keeps");
    let mut conn = connect(&cluster.nodes()[from].url()).await;
    let () = send(&mut conn, &format!("CLUSTER ADDSLOTS {slot}")).await.unwrap();
    until("the slot has a keeper", async || keepers("PING").await == 3).await;
    store.commit(claim(&store, "b")).await.unwrap();
}

/// Whether an entry of `CLUSTER SLOTS` covers a slot.
fn covers(range: &redis::Value, slot: u16) -> bool {
    let redis::Value::Array(range) = range else { panic!("{range:?}") };
    let [redis::Value::Int(first), redis::Value::Int(last), ..] = range[..] else { panic!("{range:?}") };
    (first..=last).contains(&i64::from(slot))
}

async fn a_subscription_follows_its_slot() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let (store, other) = (config(&cluster).open().await.unwrap(), config(&cluster).open().await.unwrap());
    let mut mover = Mover::new(&cluster).await;
    store.commit(claim(&store, "a")).await.unwrap();
    let mut signals = store.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    let (slot, from) = mover.keeper(&tag(&store)).await;
    let to = (from + 1) % 3;
    mover.open(slot, from, to).await;
    mover.migrate(slot, from, to, 100).await;
    mover.close(slot, from, to).await;
    assert_eq!(signals.next().await, Signal::Missed);
    other.commit(common::push(&other, "queue")).await.unwrap();
    assert_eq!(signals.next().await, Signal::Queue { at: partition(&store), queue: "queue".into() });
}

async fn a_cluster_that_dies_and_comes_back_loses_and_doubles_nothing() {
    let cluster = RedisCluster::start(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
    let store = config(&cluster).partitions(4).open().await.unwrap();
    let ledger = Ledger::begin(&store, 16);
    ledger.go_on(200).await;
    for node in cluster.nodes() {
        block_in_place(|| {
            node.kill();
            node.restart().unwrap();
            cluster.wait_until_whole().unwrap();
        });
        ledger.go_on(200).await;
    }
    block_in_place(|| {
        cluster.kill();
        cluster.restart().unwrap();
    });
    ledger.go_on(200).await;
    assert!(ledger.failed() > 0, "the kills were felt");
    ledger.close().await;
}

async fn one_server_of_the_url_is_enough_to_find_the_others() {
    let cluster = RedisCluster::start(&[]).unwrap();
    for node in cluster.nodes() {
        let url = format!("redis+cluster://127.0.0.1:{}", node.port());
        let store = RedisConfig::new(&url).unwrap().open().await.unwrap();
        for at in store.partitions() {
            store.sweep(&at, common::now(), 1).await.unwrap();
        }
    }
}

async fn a_cluster_is_not_taken_for_one_server() {
    let cluster = RedisCluster::start(&[]).unwrap();
    for node in cluster.nodes() {
        let error = RedisStore::open(&node.url()).await.unwrap_err();
        assert_error(&error, ErrorKind::Config, "redis+cluster:");
    }
}

async fn connections_close_with_the_last_handle() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let mut mover = Mover::new(&cluster).await;
    let runtime = tokio::runtime::Handle::current().metrics();
    let mut clients = async || {
        let mut count = 0;
        for conn in &mut mover.conns {
            let list: String = send(conn, "CLIENT LIST TYPE normal").await.unwrap();
            let subscribed: String = send(conn, "CLIENT LIST TYPE pubsub").await.unwrap();
            count += list.lines().count() + subscribed.lines().count();
        }
        count
    };
    let before = (clients().await, runtime.num_alive_tasks());
    let store = config(&cluster).open().await.unwrap();
    let mut signals = store.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    for at in store.partitions() {
        store.sweep(&at, common::now(), 1).await.unwrap();
    }
    assert!(clients().await > before.0);
    drop(store);
    until("connections close and tasks end", async || (clients().await, runtime.num_alive_tasks()) == before)
        .await;
}

evenkeel_testkit::server_tests! {
    "redis-cluster", Redis::available => [
        a_slot_that_moves_under_load_loses_and_doubles_nothing,
        while_a_slot_moves_reads_find_what_is_there,
        while_a_slot_moves_what_is_emptied_is_filled_again,
        while_a_slot_moves_a_users_key_is_not_taken_away_and_written_again,
        a_partition_that_no_server_kept_is_found_once_one_does,
        a_subscription_follows_its_slot,
        a_cluster_that_dies_and_comes_back_loses_and_doubles_nothing,
        one_server_of_the_url_is_enough_to_find_the_others,
        a_cluster_is_not_taken_for_one_server,
        connections_close_with_the_last_handle,
    ],
}
