//! Nothing is left behind.

mod common;

use common::{Home, append, partition};
use evenkeel_core::{Store, Transactional};
use evenkeel_testkit::services;
use tokio::runtime::Handle;

evenkeel_testkit::server_tests! {
    "pg", services::pg_url => [
        with_its_last_handle_a_store_lets_go_of_connections_and_tasks,
        a_store_may_be_dropped_outside_of_a_runtime,
    ],
}

async fn with_its_last_handle_a_store_lets_go_of_connections_and_tasks() {
    let home = Home::shared();
    let named = Home { url: format!("{}?application_name={}", home.url, home.schema), ..Home::shared() };
    let connections =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", home.schema);
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();

    for _ in 0..3 {
        let store = named.open().await;
        let mut signals = store.signals();
        signals.next().await;
        store.commit(append(&store, "s")).await.unwrap();
        let mut finished = store.begin(partition(&store), common::now()).await.unwrap();
        finished.conn().await.unwrap();
        store.finish(finished).await.unwrap();
        let mut dropped = store.begin(partition(&store), common::now()).await.unwrap();
        dropped.conn().await.unwrap();
        assert!(home.number(&connections).await >= 3, "commits, door 2 and the listener have each their own");
        drop(dropped);
        drop((store, signals));
        common::until("no connection is left", async || home.number(&connections).await == 0).await;
        common::until("no task is left", async || tasks() <= before).await;
    }
}

async fn a_store_may_be_dropped_outside_of_a_runtime() {
    let home = Home::shared();
    let named = Home { url: format!("{}?application_name={}", home.url, home.schema), ..Home::shared() };
    let store = named.open().await;
    store.commit(append(&store, "s")).await.unwrap();
    std::thread::spawn(move || drop(store)).join().unwrap();
    let connections =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}'", home.schema);
    common::until("no connection is left", async || home.number(&connections).await == 0).await;
}
