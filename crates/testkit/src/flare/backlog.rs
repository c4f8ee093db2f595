use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use evenkeel_core::{Clock, Timestamp, Transactional};
use evenkeel_flare::Status;
use evenkeel_flare::net::{Outgoing, Reply, SendError, Transport};
use futures_util::future::join_all;

use super::bench::{Bench, Orders, Received, reply, worker_through};

super::cases![a_week_of_changes_is_one_message_a_document, a_slow_subscriber_does_not_delay_another];

const WEEK: Duration = Duration::from_hours(7 * 24);

/// How many publications are under way at once.
const PUBLISHERS: usize = 50;

/// How many documents change how often in the week: enough that pages, commits and leases are many,
/// unless `EVENKEEL_RUIN` says more, as in `1000x1000`.
fn documents_and_changes() -> (usize, i64) {
    let Ok(size) = std::env::var("EVENKEEL_RUIN") else { return (120, 14) };
    let (documents, changes) = size.split_once('x').expect("EVENKEEL_RUIN is documents x changes");
    (documents.parse().unwrap(), changes.parse().unwrap())
}

async fn a_week_of_changes_is_one_message_a_document<S: Transactional + Clone>(bench: Bench<S>) {
    let (documents, changes) = documents_and_changes();
    let flare = bench.process();
    let dead = flare.subscribe_at("dead").await;
    let healthy = flare.subscribe_at("healthy").await;
    let subscribers = DeadAndHealthy::default();
    let _worker = worker_through(&bench.process(), subscribers.clone());
    let step = WEEK / u32::try_from(changes).unwrap();
    for v in 1..=changes {
        let ids: Vec<_> = (0..documents).map(|id| id.to_string()).collect();
        for ids in ids.chunks(PUBLISHERS) {
            join_all(ids.iter().map(|id| flare.publish_order(id, v))).await;
        }
        bench.pass(step).await;
        let counts = flare.counts(&dead.id).await.unwrap();
        let waiting = counts.pending + counts.under_way + counts.retrying + counts.exhausted;
        assert_eq!((waiting, counts.is_capped), (documents, false), "what waits does not grow");
        let counts = flare.counts(&healthy.id).await.unwrap();
        assert_eq!(counts, Default::default(), "the healthy one never waits");
        if v % 50 == 0 {
            let heard = subscribers.heard.lock().unwrap()["healthy"].len();
            println!("{v} of {changes} changes; {waiting} deliveries wait, {heard} documents were heard of");
        }
    }
    let told = |host: &str| subscribers.heard.lock().unwrap().get(host).cloned().unwrap_or_default();
    let newest = told("healthy");
    assert_eq!(newest.len(), documents);
    assert!(newest.values().all(|heard| heard.last == changes), "the healthy one knows the newest of each");
    assert_eq!(flare.subscription(&dead.id).await.unwrap().status, Status::Disabled);
    assert_eq!(told("dead").len(), 0);

    subscribers.is_back.store(true, Ordering::SeqCst);
    flare.set_status(&dead.id, Status::Active).await.unwrap();
    bench.until(async || told("dead").len() == documents).await;
    bench.pass(Duration::from_secs(60)).await;
    let once = Heard { last: changes, times: 1 };
    assert!(told("dead").values().all(|heard| *heard == once), "each document once, and its newest");
}

/// A subscriber that hears nothing until it is back, and others that hear everything at once.
#[derive(Clone, Debug, Default)]
struct DeadAndHealthy {
    is_back: Arc<AtomicBool>,
    /// What each heard of each document.
    heard: Arc<Mutex<HashMap<String, HashMap<String, Heard>>>>,
}

/// What was heard of a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    /// The last revision.
    last: i64,
    times: usize,
}

#[async_trait]
impl Transport for DeadAndHealthy {
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError> {
        let host = outgoing.uri.host().unwrap().to_owned();
        if host == "dead" && !self.is_back.load(Ordering::SeqCst) {
            return Err(SendError::Protocol { reason: "closed".into() });
        }
        let json = Received(outgoing).json();
        let (id, v) = (json["document"]["id"].as_str().unwrap(), json["revision"].as_i64().unwrap());
        let mut heard = self.heard.lock().unwrap();
        let heard = heard.entry(host).or_default().entry(id.to_owned()).or_default();
        assert!(v > heard.last, "revision {v} of {id} after {}", heard.last);
        *heard = Heard { last: v, times: heard.times + 1 };
        Ok(reply(200))
    }
}

async fn a_slow_subscriber_does_not_delay_another<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("slow").await;
    flare.subscribe_at("fast").await;
    let transport = TwoSpeeds { clock: bench.clock.shared(), heard: Default::default() };
    let _worker = worker_through(&flare, transport.clone());
    let mut published = HashMap::new();
    for id in 0..40 {
        published.insert(id, bench.now());
        flare.publish_order(&id.to_string(), 1).await;
        bench.pass(Duration::from_millis(200)).await;
    }
    bench.pass(Duration::from_secs(5)).await;
    let heard = transport.heard.lock().unwrap();
    assert_eq!(heard.len(), 40);
    for (id, at) in heard.iter() {
        let waited = at.since(published[id]);
        assert!(waited <= Duration::from_secs(1), "order {id} waited {waited:?} for a slow subscriber");
    }
}

/// Answers `slow` after ten seconds, and anybody else at once.
#[derive(Clone, Debug)]
struct TwoSpeeds {
    clock: Arc<dyn Clock>,
    heard: Arc<Mutex<HashMap<i32, Timestamp>>>,
}

#[async_trait]
impl Transport for TwoSpeeds {
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError> {
        if outgoing.uri.host() == Some("slow") {
            self.clock.sleep(Duration::from_secs(10)).await;
        } else {
            let json: serde_json::Value = serde_json::from_slice(&outgoing.body).unwrap();
            let id = json["document"]["id"].as_str().unwrap().parse().unwrap();
            self.heard.lock().unwrap().insert(id, self.clock.now());
        }
        Ok(reply(200))
    }
}
