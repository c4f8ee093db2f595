//! A cluster whose slots move and whose servers die, under load.

mod common;

use common::ledger::Ledger;
use common::{assert_error, claim, connect, eventually, exists, partition, send};
use evenkeel_core::{ErrorKind, Signal, Store};
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
        for at in evenkeel_core::StoreExt::partitions(&store) {
            store.sweep(&at, common::now(), 1).await.unwrap();
        }
    }
}

async fn a_cluster_is_not_taken_for_one_server() {
    let cluster = RedisCluster::start(&[]).unwrap();
    let mut refused = 0;
    for node in cluster.nodes() {
        match RedisStore::open(&node.url()).await {
            // The one that keeps what the store is lets itself be opened, up to the first other slot.
            Ok(store) => {
                for at in evenkeel_core::StoreExt::partitions(&store) {
                    if let Err(error) = store.sweep(&at, common::now(), 1).await {
                        assert_error(&error, ErrorKind::Config, "redis+cluster:");
                        refused += 1;
                    }
                }
            }
            Err(error) => {
                assert_error(&error, ErrorKind::Config, "redis+cluster:");
                refused += 1;
            }
        }
    }
    assert!(refused > 2);
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
    for at in evenkeel_core::StoreExt::partitions(&store) {
        store.sweep(&at, common::now(), 1).await.unwrap();
    }
    assert!(clients().await > before.0);
    drop(store);
    eventually("connections close and tasks end", async || {
        (clients().await, runtime.num_alive_tasks()) == before
    })
    .await;
}

evenkeel_testkit::server_tests! {
    "redis-cluster", Redis::available => [
        a_slot_that_moves_under_load_loses_and_doubles_nothing,
        while_a_slot_moves_reads_find_what_is_there,
        a_subscription_follows_its_slot,
        a_cluster_that_dies_and_comes_back_loses_and_doubles_nothing,
        one_server_of_the_url_is_enough_to_find_the_others,
        a_cluster_is_not_taken_for_one_server,
        connections_close_with_the_last_handle,
    ],
}
