use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_core::{AnyStore, ErrorKind, Result, StoreExt, Transactional};
use evenkeel_flare::{Flare, Precondition, Status};
use serde_json::json;

use super::bench::{Bench, Orders, Received, at, order, reply, subscription};
use crate::chaos::Chaos;
use crate::fixture::Fixture;
use crate::harness::{on_one_thread, open};

const DOCUMENTS: usize = 4;
const PROCESSES: u64 = 6;

/// Publishers, subscribers that fail, and processes that die, over a store that loses answers: once
/// for each of the fixture's seeds.
pub(super) async fn every_subscriber_ends_with_the_newest<F: Fixture>(
    fixture: Arc<F>,
    partitions: u32,
) -> Result<()> {
    on_one_thread(move || async move {
        for seed in 0..fixture.seeds() {
            Story { seed, bench: Bench::new(open(&*fixture, partitions).await?) }.play().await;
        }
        Ok(())
    })
    .await
}

/// One seed's world.
struct Story<S> {
    seed: u64,
    bench: Bench<S>,
}

/// What became of a document, in the order of its revisions: whether it lives.
type History = BTreeMap<usize, Vec<(i64, bool)>>;

impl<S: Transactional + Clone> Story<S> {
    async fn play(self) {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let calm = self.bench.process();
        let orders = calm.orders().await;
        for host in ["steady", "shaky"] {
            calm.subscribe(&orders.id, subscription(Self::subscriber(host))).await.unwrap();
        }
        let mut guest = calm.subscribe(&orders.id, subscription(Self::subscriber("guest"))).await.unwrap().0;
        self.fail_now_and_then(random.u64(..));

        let mut history = History::new();
        let mut revision = 0;
        for process in 0..PROCESSES {
            let seed = self.seed * PROCESSES + process;
            let chaos = Chaos::new(seed).unavailable(0.03).lost_acknowledgements(0.1).delays(3);
            let chaos = if process < PROCESSES - 1 { chaos.crash_at(1 + random.u64(0..120)) } else { chaos };
            let store = self.bench.store.clone().layer(chaos);
            let flare = Flare::new(AnyStore::new(store.clone())).clock(self.bench.clock.shared());
            let worker = self.bench.worker_of(&flare);
            for _ in 0..8 {
                let document = random.usize(0..DOCUMENTS);
                match random.u8(0..10) {
                    0..6 => {
                        revision += 1;
                        if random.bool() {
                            // Nobody knows whether it does before it dies.
                            tokio::select! {
                                () = self.publish(&flare, document, revision) => {}
                                () = store.crashed() => {}
                                () = self.bench.pass(Duration::from_secs(1)) => {}
                            }
                        }
                        self.publish(&calm, document, revision).await;
                        history.entry(document).or_default().push((revision, true));
                    }
                    6..8 => {
                        calm.delete_document(&order(document), &Precondition::None).await.unwrap();
                        if let Some(last) = history.get_mut(&document).and_then(|states| states.last_mut()) {
                            last.1 = false;
                        }
                    }
                    8 => {
                        calm.unsubscribe(&guest.id).await.unwrap();
                        let mut new = Self::subscriber("guest");
                        new["backfill"] = json!(true);
                        guest = calm.subscribe(&orders.id, subscription(new)).await.unwrap().0;
                    }
                    _ => {
                        let status = if random.bool() { Status::Paused } else { Status::Active };
                        calm.set_status(&guest.id, status).await.unwrap();
                    }
                }
                tokio::select! {
                    () = self.bench.pass(Duration::from_millis(random.u64(1..400))) => {}
                    () = store.crashed() => break,
                }
            }
            drop(worker);
            self.bench.clock.advance(Duration::from_secs(31));
        }
        calm.set_status(&guest.id, Status::Active).await.unwrap();
        self.converge(&calm, &history).await;
    }

    /// A subscriber that is told which document it is in a header.
    fn subscriber(host: &str) -> serde_json::Value {
        let mut new = at(host);
        new["endpoint"]["headers"] = json!({ "x-document": "{order}" });
        new
    }

    async fn publish(&self, flare: &Flare, document: usize, revision: i64) {
        let content = Bytes::from(format!(r#"{{"v": {revision}, "id": "{document}"}}"#));
        match flare.publish(&order(document), content, &Precondition::None).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {}", self.seed),
        }
    }

    fn fail_now_and_then(&self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        self.bench.sink.answer_with(move |received| {
            let fails = received.0.uri.host() != Some("steady") && random.u8(0..3) == 0;
            Ok(reply(if fails { 500 } else { 200 }))
        });
    }

    /// With calm processes, every subscriber soon knows what is.
    async fn converge(&self, calm: &Flare, history: &History) {
        let _worker = self.bench.worker_of(calm);
        self.bench.sink.answer(200);
        for resource in calm.resources().await.unwrap() {
            for subscription in calm.subscriptions(&resource.id).await.unwrap() {
                calm.recover(&subscription.id).await.unwrap();
            }
        }
        let mut patience = 400;
        loop {
            let waits = self.check(history);
            if waits.is_none() {
                break;
            }
            patience -= 1;
            assert!(patience > 0, "seed {}: {}", self.seed, waits.unwrap_or_default());
            self.bench.settle().await;
            self.bench.clock.advance(Duration::from_secs(2));
        }
    }

    /// What a subscriber does not know yet; fails where one was told what it should not have been.
    fn check(&self, history: &History) -> Option<String> {
        let mut bodies = HashMap::<String, Received>::new();
        let mut heard = HashMap::<(String, String), Vec<String>>::new();
        for message in self.bench.sink.received() {
            let host = message.0.uri.host().unwrap().to_owned();
            if let Some(before) = bodies.insert(message.id().to_owned(), message.clone()) {
                assert_eq!(before.0.body, message.0.body, "seed {}: one id, two bodies", self.seed);
            }
            let url = message.header("x-document").to_owned();
            heard.entry((host, url)).or_default().push(message.told());
        }
        for ((host, url), told) in &heard {
            let revisions: Vec<i64> =
                told.iter().map(|told| told.split(' ').nth(1).unwrap().parse().unwrap()).collect();
            if host != "guest" {
                assert!(revisions.is_sorted(), "seed {}: {host} was told {told:?} of {url}", self.seed);
            }
        }
        let hosts: HashSet<&str> = ["steady", "shaky", "guest"].into();
        for (document, states) in history {
            let (revision, lives) = *states.last().expect("a document has a state");
            for host in &hosts {
                let key = ((*host).to_owned(), document.to_string());
                let last = heard.get(&key).and_then(|told| told.last());
                let knows = match last {
                    Some(last) if lives => {
                        last.ends_with(&format!(" {revision}")) && !last.starts_with("delete")
                    }
                    Some(last) => last.starts_with("delete"),
                    None => !lives,
                };
                // A guest that came after a document was gone was told of it in an earlier life.
                if !knows && (lives || *host != "guest") {
                    return Some(format!(
                        "{host} was last told {last:?} of {document}, which is at {revision}, lives: {lives}"
                    ));
                }
            }
        }
        None
    }
}
