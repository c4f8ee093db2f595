//! Three servers on one store, killed one after the other while documents are published.

mod cluster; // the servers
#[path = "../common/mod.rs"]
mod common; // the program and its callers
mod ledger; // what subscribers are told
mod publisher; // who publishes, whatever happens

use std::sync::Arc;

use evenkeel_testkit::services::{Postgres, Redis};
use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::ledger::{Mood, Subscriber};
use crate::publisher::Publisher;

/// How often a server is killed.
const KILLS: usize = 10;

/// How many messages arrive between two kills.
const BETWEEN_KILLS: usize = 40;

const PUBLISHERS: usize = 4;

evenkeel_testkit::server_tests! {
    "memory", nothing => [ledger::the_ledger_notices_what_must_not_happen],
    "pg", Postgres::available => [everybody_converges_on_pg],
    "redis", Redis::available => [everybody_converges_on_redis],
}

/// What needs no server is always available.
const fn nothing() -> Result<(), String> {
    Ok(())
}

async fn everybody_converges_on_pg() {
    let postgres = Postgres::start().unwrap();
    everybody_converges(&postgres.url()).await;
}

async fn everybody_converges_on_redis() {
    let redis = Redis::start(&[]).unwrap();
    everybody_converges(&redis.url()).await;
}

async fn everybody_converges(store: &str) {
    let cluster = Arc::new(Cluster::start(store).await);
    let resource = json!({ "endpoint": publisher::TEMPLATE, "change": { "field": "version" } });
    let resource = cluster.create("/resources", resource).await;
    let subscribers = [Subscriber::start(Mood::Steady).await, Subscriber::start(Mood::FailsEveryThird).await];
    for subscriber in &subscribers {
        cluster.create(&format!("/resources/{resource}/subscriptions"), subscriber.subscription()).await;
    }

    let mut publishing = JoinSet::new();
    let publishers = (0..PUBLISHERS).map(|number| Publisher::new(number, Arc::clone(&cluster)));
    for publisher in publishers {
        publishing.spawn(publisher.publish_until(cluster.kills_are_over()));
    }
    for _ in 0..KILLS {
        let told = subscribers[0].told() + BETWEEN_KILLS;
        subscribers[0].wait_until(|ledger| ledger.told >= told).await;
        cluster.kill_and_restart_one().await;
    }
    cluster.end_of_kills();

    let published = publishing.join_all().await.into_iter().flatten().collect();
    for subscriber in &subscribers {
        subscriber.wait_until(|ledger| ledger.newest == published).await;
        assert_eq!(subscriber.violations(), Vec::<String>::new());
    }
    println!(
        "{KILLS} kills, {} documents, messages: {:?}",
        published.len(),
        subscribers.each_ref().map(Subscriber::told)
    );
}
