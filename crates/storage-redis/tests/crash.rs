//! A server that dies and comes back under load.

mod common;

use std::sync::Arc;

use common::ledger::Ledger;
use common::{claim, config, exists, open, redis, until};
use evenkeel_core::{ErrorKind, Signal, Store};
use evenkeel_testkit::services::Redis;
use tokio::task::block_in_place;

async fn what_was_acknowledged_survives_a_kill_and_nothing_is_applied_twice() {
    let redis = redis(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = config(&redis).partitions(4).open().await.unwrap();
    let ledger = Ledger::begin(&store, 16);
    for _ in 0..4 {
        ledger.go_on(300).await;
        block_in_place(|| {
            redis.kill();
            redis.restart().unwrap();
        });
    }
    ledger.go_on(300).await;
    assert!(ledger.failed() > 0, "the kills were felt");
    ledger.close().await;
}

async fn a_server_that_is_stopped_and_started_again_is_found_again() {
    let redis = redis(&["--appendonly", "yes"]);
    let store = open(&redis).await;
    store.commit(claim(&store, "a")).await.unwrap();
    block_in_place(|| redis.stop());
    until("the connection is known to be lost", async || {
        matches!(store.commit(claim(&store, "b")).await, Err(error) if error.kind() == ErrorKind::Unavailable)
    })
    .await;
    block_in_place(|| redis.restart().unwrap());
    assert!(exists(&store, "a").await);
    store.commit(claim(&store, "b")).await.unwrap();
}

async fn callers_that_wait_for_a_server_that_is_not_there_fail_together() {
    let redis = redis(&[]);
    let store = Arc::new(open(&redis).await);
    block_in_place(|| redis.stop());
    let commits: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(claim(&store, &format!("r{n}"))).await })
        })
        .collect();
    for commit in commits {
        let kind = commit.await.unwrap().unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Unavailable | ErrorKind::OutcomeUnknown), "{kind:?}");
    }
}

async fn hints_come_again_after_a_restart() {
    let redis = redis(&[]);
    let store = open(&redis).await;
    let mut signals = store.signals();
    assert_eq!(signals.next().await, Signal::Missed);
    block_in_place(|| redis.restart().unwrap());
    assert_eq!(signals.next().await, Signal::Missed, "what was hinted at meanwhile is unknown");
}

evenkeel_testkit::server_tests! {
    "redis", Redis::available => [
        what_was_acknowledged_survives_a_kill_and_nothing_is_applied_twice,
        a_server_that_is_stopped_and_started_again_is_found_again,
        callers_that_wait_for_a_server_that_is_not_there_fail_together,
        hints_come_again_after_a_restart,
    ],
}
