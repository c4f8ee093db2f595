//! A server that is stopped, or killed, under load, and comes back.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Home, key, now, partition};
use evenkeel_core::{Batch, ErrorKind, Expect, Lease, Merge, NewEvent, Read, Store};
use evenkeel_storage_pg::PgStore;
use evenkeel_testkit::services::{PgBouncer, Postgres};

evenkeel_testkit::server_tests! {
    "pg", Postgres::available => [what_was_acknowledged_is_there_once_after_outages],
    "pgbouncer", PgBouncer::available => [what_was_acknowledged_is_there_once_after_outages_behind_a_proxy],
}

const WORKERS: usize = 8;

/// What a worker commits as its `n`-th batch: a record, an event and a job, each once.
fn work(store: &PgStore, worker: usize, n: u64) -> Batch {
    let mut batch = Batch::new(partition(store), now());
    let id = format!("{worker}-{n}");
    batch
        .put(key(&id), "", Expect::Absent)
        .append_any(format!("of {worker}"), [NewEvent::new("Happened", id.clone(), now())])
        .push("work", id, now(), "", Merge::Keep);
    batch
}

/// Commits batch after batch, sending each again until it is acknowledged; how many.
async fn commit_until(store: PgStore, worker: usize, stop: Arc<AtomicBool>, progress: Arc<AtomicU64>) -> u64 {
    let mut n = 0;
    while !stop.load(Ordering::SeqCst) {
        let batch = work(&store, worker, n);
        while let Err(error) = store.commit(batch.clone()).await {
            let expected = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
            assert!(expected.contains(&error.kind()), "{error:?}");
            tokio::task::yield_now().await;
        }
        n += 1;
        progress.fetch_add(1, Ordering::SeqCst);
    }
    n
}

async fn what_was_acknowledged_is_there_once_after_outages() {
    let postgres = Postgres::start().unwrap();
    let home = Home::on(postgres.url());
    let config = home.config().acquire_timeout(Duration::from_secs(2));
    survives(&home, config.open().await.unwrap(), &postgres, 2).await;
}

async fn what_was_acknowledged_is_there_once_after_outages_behind_a_proxy() {
    let postgres = Postgres::start().unwrap();
    let proxy = PgBouncer::start(&postgres).unwrap();
    let home = Home::on(postgres.url());
    let proxied = Home { url: proxy.url(), schema: home.schema.clone() };
    let config = proxied.config().pooled().acquire_timeout(Duration::from_secs(2));
    // The proxy waits for 15 seconds before it tries a server again that it lost.
    survives(&home, config.open().await.unwrap(), &postgres, 1).await;
}

/// Kills the server and stops it, in turn and as often, while the store is used.
async fn survives(home: &Home, store: PgStore, postgres: &Postgres, times: u32) {
    let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
            tokio::spawn(commit_until(store.clone(), worker, stop, progress))
        })
        .collect();
    let goes_on = async || {
        let before = progress.load(Ordering::SeqCst);
        common::until("commits go on", async || progress.load(Ordering::SeqCst) >= before + 100).await;
    };

    goes_on().await;
    for _ in 0..times {
        tokio::task::block_in_place(|| postgres.kill());
        tokio::task::block_in_place(|| postgres.restart()).unwrap();
        goes_on().await;
        tokio::task::block_in_place(|| postgres.stop());
        tokio::task::block_in_place(|| postgres.restart()).unwrap();
        goes_on().await;
    }
    stop.store(true, Ordering::SeqCst);

    let mut total = 0;
    for (worker, task) in workers.into_iter().enumerate() {
        let committed = task.await.unwrap();
        total += committed;
        let stream =
            store.read(&partition(&store), Read::stream(format!("of {worker}"), 0, 1)).await.unwrap();
        assert_eq!(stream.head, committed, "each of worker {worker}'s events is there once");
    }
    for table in ["record", "event", "job"] {
        let found = home.number(&format!("SELECT count(*) FROM evenkeel.{table}")).await;
        assert_eq!(found.cast_unsigned(), total, "{table}");
    }
    let want = Lease { queue: "work".into(), max: 10, hold_for: Duration::from_secs(60), now: now() };
    assert_eq!(store.lease(&partition(&store), want).await.unwrap().jobs.len(), 10);
}
