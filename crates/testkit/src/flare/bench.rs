use std::fmt::{self, Debug};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evenkeel_core::{AnyStore, Clock, Error, ErrorKind, ManualClock, StoreExt, Timestamp, Transactional};
use evenkeel_flare::net::{Outgoing, Reply, SendError, Transport};
use evenkeel_flare::signing::{Secret, verify};
use evenkeel_flare::{
    Change, DocumentUrl, Flare, NewResource, NewSubscription, Precondition, Published, Resource,
    Subscription, Template,
};
use serde_json::{Value, json};

use crate::chaos::{Chaos, ChaosStore};
use crate::harness::Running;

/// A store in a clean namespace, a time that stands still, and a subscriber that remembers.
#[derive(Clone, Debug)]
pub(crate) struct Bench<S> {
    /// Makes no trouble, but knows what is under way.
    pub(crate) store: ChaosStore<S>,
    pub(crate) clock: ManualClock,
    pub(crate) sink: Sink,
}

impl<S: Transactional + Clone> Bench<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store: store.layer(Chaos::new(0)), clock: ManualClock::default(), sink: Sink::default() }
    }

    /// A process of its own: it shares nothing with others but the store.
    pub(crate) fn process(&self) -> Flare {
        Flare::new(AnyStore::new(self.store.clone())).clock(self.clock.shared())
    }

    /// A worker of a process of its own.
    pub(crate) fn worker(&self) -> Running {
        self.worker_of(&self.process())
    }

    pub(crate) fn worker_of(&self, flare: &Flare) -> Running {
        worker_through(flare, self.sink.clone())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets everything that can happen at this instant happen.
    pub(crate) async fn settle(&self) {
        self.store.settle(64).await;
    }

    /// Lets time pass until `condition` holds. A case that waits in vain hangs, and fails for that.
    pub(crate) async fn until(&self, mut condition: impl AsyncFnMut() -> bool) {
        while !condition().await {
            self.settle().await;
            self.clock.advance(Duration::from_millis(50));
        }
    }

    /// Waits until so many messages were received in all.
    pub(crate) async fn until_received(&self, count: usize) -> Vec<Received> {
        self.until(async || self.sink.received().len() >= count).await;
        self.sink.received()
    }

    /// Lets `time` pass, in steps that a worker keeps up with.
    pub(crate) async fn pass(&self, time: Duration) {
        let step = (time / 100).max(Duration::from_millis(100));
        let end = self.now() + time;
        while self.now() < end {
            self.settle().await;
            self.clock.advance(step);
        }
        self.settle().await;
    }
}

/// A worker that sends through `transport`.
pub(crate) fn worker_through(flare: &Flare, transport: impl Transport) -> Running {
    let worker = flare.worker(transport).concurrency(8);
    Running::spawn(worker.run(std::future::pending()))
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug)]
pub(crate) struct Received(pub(crate) Outgoing);

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.0.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.body).unwrap()
    }

    /// The action and the revision, as in `create 1`.
    pub(crate) fn told(&self) -> String {
        let json = self.json();
        format!("{} {}", json["action"].as_str().unwrap(), json["revision"])
    }

    /// Whether one of its signatures is by this secret.
    pub(crate) fn is_signed_with(&self, secret: &Secret) -> bool {
        let at = self.header("webhook-timestamp").parse::<i64>().unwrap();
        let now = Timestamp::from_micros(at * 1_000_000);
        verify(&self.0.headers, &self.0.body, &[secret.verifying_key()], now).is_ok()
    }
}

type Script = Box<dyn FnMut(&Received) -> Result<Reply, SendError> + Send>;

/// A subscriber that remembers what it was sent, and answers 200 unless told otherwise.
#[derive(Clone, Default)]
pub(crate) struct Sink {
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<Mutex<Option<Script>>>,
    /// Whether answers are given and never arrive.
    loses_answers: Arc<AtomicBool>,
}

impl Sink {
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Forgets what was received.
    pub(crate) fn clear(&self) {
        self.received.lock().unwrap().clear();
    }

    /// What was told, in its order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.received().iter().map(Received::told).collect()
    }

    /// Answers as the script says from now on.
    pub(crate) fn answer_with(
        &self,
        script: impl FnMut(&Received) -> Result<Reply, SendError> + Send + 'static,
    ) {
        *self.script.lock().unwrap() = Some(Box::new(script));
    }

    /// From now on, or from then on no more, the answers get lost on their way.
    pub(crate) fn lose_answers(&self, lose: bool) {
        self.loses_answers.store(lose, Ordering::SeqCst);
    }

    /// Answers with this status from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.answer_with(move |_| Ok(reply(status)));
    }
}

impl Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.received.lock().unwrap().iter()).finish()
    }
}

#[async_trait]
impl Transport for Sink {
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError> {
        // A peer takes a moment, in which other things happen.
        tokio::task::yield_now().await;
        let received = Received(outgoing);
        let answer = match &mut *self.script.lock().unwrap() {
            Some(script) => script(&received),
            None => Ok(reply(200)),
        };
        self.received.lock().unwrap().push(received);
        if self.loses_answers.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// A subscriber that takes its time to answer.
#[derive(Clone, Debug)]
pub(crate) struct Slow {
    clock: Arc<dyn Clock>,
    takes: Duration,
    status: u16,
    /// Those under way, the most at once, and those answered.
    counts: Arc<Mutex<(usize, usize, usize)>>,
}

impl Slow {
    pub(crate) fn new(clock: Arc<dyn Clock>, takes: Duration) -> Self {
        Self::answering(200, clock, takes)
    }

    pub(crate) fn answering(status: u16, clock: Arc<dyn Clock>, takes: Duration) -> Self {
        Self { clock, takes, status, counts: Arc::default() }
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.counts.lock().unwrap().1
    }

    pub(crate) fn answered(&self) -> usize {
        self.counts.lock().unwrap().2
    }
}

#[async_trait]
impl Transport for Slow {
    async fn send(&self, _: Outgoing) -> Result<Reply, SendError> {
        {
            let (under_way, most, _) = &mut *self.counts.lock().unwrap();
            *under_way += 1;
            *most = (*most).max(*under_way);
        }
        self.clock.sleep(self.takes).await;
        let (under_way, _, answered) = &mut *self.counts.lock().unwrap();
        *under_way -= 1;
        *answered += 1;
        Ok(reply(self.status))
    }
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply { status, retry_after: None, body: Bytes::new(), took: Duration::ZERO }
}

/// The document of order `id`.
pub(crate) fn order(id: impl std::fmt::Display) -> DocumentUrl {
    DocumentUrl::parse(&format!("https://api.example.com/orders/{id}")).unwrap()
}

/// A subscription as its JSON says.
pub(crate) fn subscription(json: Value) -> NewSubscription {
    serde_json::from_value(json).unwrap()
}

/// A subscriber at `host` that takes everything answered with 200.
pub(crate) fn at(host: &str) -> Value {
    json!({
        "endpoint": { "url": format!("https://{host}/hook"), "method": "POST" },
        "delivery": { "success": [200], "discard": [204] },
    })
}

/// The kind of a failure; the call was not to succeed.
#[track_caller]
pub(crate) fn kind<T: Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("the call was to fail").kind()
}

/// What a test does with a process.
pub(crate) trait Orders {
    /// The resource of orders, whose revision is `v`.
    async fn orders(&self) -> Resource;

    /// A subscription to orders at `host`.
    async fn subscribe_at(&self, host: &str) -> Subscription;

    /// Publishes order `id` at revision `v`.
    async fn publish_order(&self, id: &str, v: i64) -> Published;

    async fn delete_order(&self, id: &str);
}

impl Orders for Flare {
    async fn orders(&self) -> Resource {
        if let Some(resource) = self.resources().await.unwrap().into_iter().next() {
            return resource;
        }
        let endpoint = Template::parse("https://api.example.com/orders/{order}").unwrap();
        let change = Change::new("v", "").unwrap();
        self.create_resource(NewResource { endpoint, change }).await.unwrap()
    }

    async fn subscribe_at(&self, host: &str) -> Subscription {
        let orders = self.orders().await;
        self.subscribe(&orders.id, subscription(at(host))).await.unwrap().0
    }

    async fn publish_order(&self, id: &str, v: i64) -> Published {
        let content = Bytes::from(format!(r#"{{"v": {v}, "id": "{id}"}}"#));
        self.publish(&order(id), content, &Precondition::None).await.unwrap()
    }

    async fn delete_order(&self, id: &str) {
        self.delete_document(&order(id), &Precondition::None).await.unwrap();
    }
}
