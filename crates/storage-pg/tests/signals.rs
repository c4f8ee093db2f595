//! Hints between nodes.

mod common;

use common::{Home, append, batch, partition};
use evenkeel_core::{Merge, Signal, Signals, Store};
use evenkeel_testkit::services;

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        a_node_hears_what_another_committed,
        a_node_hears_its_own_commits_once,
        listening_is_taken_up_again_after_the_connection_is_lost,
        nobody_listens_before_somebody_asks,
    ],
}

/// Waits until the node listens: it says that it missed what was before.
async fn listening(signals: &mut Signals) {
    while signals.next().await != Signal::Missed {}
}

async fn a_node_hears_what_another_committed() {
    let home = Home::shared();
    let (one, other) = (home.open().await, home.open().await);
    let mut signals = one.signals();
    listening(&mut signals).await;

    let mut batch = batch(&other);
    batch.push("mail", "17", common::now(), "", Merge::Keep);
    other.commit(batch).await.unwrap();
    assert_eq!(signals.next().await, Signal::Queue { at: partition(&other), queue: "mail".into() });
    other.commit(append(&other, "s")).await.unwrap();
    assert_eq!(signals.next().await, Signal::Log { at: partition(&other) });
}

async fn a_node_hears_its_own_commits_once() {
    let home = Home::shared();
    let (one, other) = (home.open().await, home.open().await);
    let mut signals = one.signals();
    listening(&mut signals).await;
    one.commit(append(&one, "s")).await.unwrap();
    assert_eq!(signals.next().await, Signal::Log { at: partition(&one) });
    // Would its own hint come back from the server, then before this one.
    let mut batch = batch(&other);
    batch.push("mail", "17", common::now(), "", Merge::Keep);
    other.commit(batch).await.unwrap();
    assert_eq!(signals.next().await, Signal::Queue { at: partition(&other), queue: "mail".into() });
}

fn listeners(home: &Home) -> String {
    format!("FROM pg_stat_activity WHERE query = 'LISTEN \"evenkeel_{}\"'", home.schema)
}

async fn listening_is_taken_up_again_after_the_connection_is_lost() {
    let home = Home::shared();
    let (one, other) = (home.open().await, home.open().await);
    let mut signals = one.signals();
    listening(&mut signals).await;
    home.run(&format!("SELECT pg_terminate_backend(pid) {}", listeners(&home))).await;
    listening(&mut signals).await;
    other.commit(append(&other, "s")).await.unwrap();
    assert_eq!(signals.next().await, Signal::Log { at: partition(&other) });
}

async fn nobody_listens_before_somebody_asks() {
    let home = Home::shared();
    let store = home.open().await;
    store.commit(append(&store, "s")).await.unwrap();
    let count = format!("SELECT count(*) {}", listeners(&home));
    assert_eq!(home.number(&count).await, 0);
    let (mut signals, mut second) = (store.signals(), store.signals());
    tokio::join!(listening(&mut signals), listening(&mut second));
    assert_eq!(home.number(&count).await, 1);
    drop((store, signals, second));
    common::until("the listener is gone", async || home.number(&count).await == 0).await;
}
