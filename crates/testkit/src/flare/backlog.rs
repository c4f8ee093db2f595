use std::collections::{HashMap, HashSet};
use std::time::Duration;

use evenkeel_core::Transactional;
use evenkeel_flare::Status;
use evenkeel_flare::net::SendError;

use super::bench::{Bench, Orders, reply};

super::cases![a_week_of_changes_is_one_message_a_document, a_slow_subscriber_does_not_delay_another];

/// Enough that a page, a commit and a lease are many.
const DOCUMENTS: usize = 120;

async fn a_week_of_changes_is_one_message_a_document<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    let down = flare.subscribe_at("down").await;
    let healthy = flare.subscribe_at("healthy").await;
    let _worker = bench.worker();
    bench.sink.answer_with(|received| match received.0.uri.host() {
        Some("down") => Err(SendError::Protocol { reason: "closed".into() }),
        _ => Ok(reply(200)),
    });
    let newest = 14;
    for v in 1..=newest {
        for id in 0..DOCUMENTS {
            flare.publish_order(&id.to_string(), v).await;
        }
        bench.pass(Duration::from_secs(12 * 3600)).await;
        let counts = flare.counts(&down.id).await.unwrap();
        let waiting = counts.pending + counts.under_way + counts.retrying + counts.exhausted;
        assert_eq!(waiting, DOCUMENTS, "what waits does not grow");
        assert_eq!(
            flare.counts(&healthy.id).await.unwrap(),
            Default::default(),
            "the healthy one never waits"
        );
    }
    assert_eq!(flare.subscription(&down.id).await.unwrap().status, Status::Disabled);

    let before = bench.sink.received().len();
    bench.sink.answer(200);
    flare.set_status(&down.id, Status::Active).await.unwrap();
    bench.until_received(before + DOCUMENTS).await;
    bench.pass(Duration::from_secs(60)).await;
    let messages = bench.sink.received().split_off(before);
    assert_eq!(messages.len(), DOCUMENTS, "each document once");
    assert!(messages.iter().all(|message| message.told() == format!("create {newest}")));
    let ids: HashSet<_> = messages.iter().map(|message| message.id().to_owned()).collect();
    assert_eq!(ids.len(), DOCUMENTS);
}

async fn a_slow_subscriber_does_not_delay_another<S: Transactional + Clone>(bench: Bench<S>) {
    let flare = bench.process();
    flare.subscribe_at("slow").await;
    flare.subscribe_at("fast").await;
    let transport = TwoSpeeds { clock: bench.clock.shared(), heard: Default::default() };
    let _worker = super::bench::worker_through(&flare, transport.clone());
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
    clock: std::sync::Arc<dyn evenkeel_core::Clock>,
    heard: std::sync::Arc<std::sync::Mutex<HashMap<i32, evenkeel_core::Timestamp>>>,
}

#[async_trait::async_trait]
impl evenkeel_flare::net::Transport for TwoSpeeds {
    async fn send(
        &self,
        outgoing: evenkeel_flare::net::Outgoing,
    ) -> Result<evenkeel_flare::net::Reply, SendError> {
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
