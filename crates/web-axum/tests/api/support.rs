//! The HTTP API on a memory store and a clock that moves when told to.

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::{Extension, Router};
use bytes::Bytes;
use evenkeel_choreograph::Choreographer;
use evenkeel_core::{AnyStore, Clock, ManualClock, MemoryStore, Timestamp};
use evenkeel_flare::Flare;
use evenkeel_flare::net::{Outgoing, Reply, SendError, Transport};
use evenkeel_idempotency::{Idempotency, Scope as Keys};
use evenkeel_projections::EventStore;
use evenkeel_web_axum::access::Scopes;
use evenkeel_web_axum::flare::Api;
use evenkeel_web_axum::operations::Operations;
use evenkeel_web_axum::{IdempotencyLayer, choreograph, openapi, projections, value};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) struct World {
    pub(crate) store: AnyStore,
    pub(crate) clock: ManualClock,
    pub(crate) flare: Flare,
    pub(crate) idempotency: Idempotency<AnyStore>,
    pub(crate) choreographer: Choreographer,
    pub(crate) events: EventStore<AnyStore>,
    pub(crate) router: Router,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(MemoryStore::new().into())
    }

    pub(crate) fn on(store: AnyStore) -> Self {
        // 2024-05-01T00:00:00Z
        let clock = ManualClock::at(Timestamp::from_micros(1_714_521_600_000_000));
        let flare = Flare::new(store.clone()).clock(clock.shared());
        let idempotency = Idempotency::new(store.clone()).clock(clock.shared());
        let choreographer = Choreographer::new(store.clone()).clock(clock.shared());
        let once = IdempotencyLayer::new(idempotency.clone(), value(Keys::Global));
        let events = EventStore::new(store.clone()).clock(clock.shared());
        let runs = choreograph::Api::new(&choreographer).idempotency(once.clone()).clock(clock.shared());
        // What is followed ends with what there is.
        let log = projections::Api::new(store.clone()).idempotency(once.clone()).clock(clock.shared());
        let log = log.until(std::future::ready(()));
        let api = Api::new(flare.clone()).transport(Hosts).idempotency(once).clock(clock.shared());
        let router = api.router().merge(runs.router()).merge(log.router());
        let operations = Operations::new(store.clone(), idempotency.clone()).clock(clock.shared());
        let router = router.merge(operations.router()).merge(openapi::router());
        Self { store, clock, flare, idempotency, choreographer, events, router }
    }

    /// The same where every caller has these scopes.
    pub(crate) fn with_scopes(mut self, scopes: impl Into<Scopes>) -> Self {
        self.router = self.router.layer(Extension(scopes.into()));
        self
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Seen {
        send(&self.router, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Seen {
        self.call(Method::GET, path, "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Seen {
        self.call(Method::DELETE, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Seen {
        self.call(Method::POST, path, body.to_string()).await
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Seen {
        self.send(Request::builder().method(method).uri(path).body(body.into()).unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Body>) -> Seen {
        self.call(Method::PUT, path, body).await
    }

    /// A resource of orders; its id.
    pub(crate) async fn orders(&self) -> String {
        let seen = self.post("/resources", orders()).await;
        assert_eq!(seen.status, StatusCode::CREATED, "{seen:?}");
        seen.text("id")
    }

    /// A subscription to a resource that fetches its messages; its id.
    pub(crate) async fn puller(&self, resource: &str) -> String {
        let body = json!({"delivery": {"mode": "pull"}});
        let seen = self.post(&format!("/resources/{resource}/subscriptions"), body).await;
        assert_eq!(seen.status, StatusCode::CREATED, "{seen:?}");
        seen.text("id")
    }
}

pub(crate) fn orders() -> Value {
    json!({"endpoint": "https://api.example.com/orders/{order}", "change": {"field": "version"}})
}

/// A subscription that is sent its messages.
pub(crate) fn hook(url: &str) -> Value {
    json!({"endpoint": {"url": url, "method": "POST"}, "delivery": {"success": [200]}})
}

/// Subscribers that answer the status that their host is named for; another host does not exist.
#[derive(Debug)]
struct Hosts;

#[async_trait]
impl Transport for Hosts {
    async fn send(&self, outgoing: Outgoing) -> Result<Reply, SendError> {
        let host = outgoing.uri.host().unwrap().to_owned();
        match host.split('.').next().unwrap().parse() {
            Ok(status) => {
                let took = Duration::from_millis(5);
                Ok(Reply { status, retry_after: None, body: outgoing.body, took })
            }
            Err(_) => Err(SendError::Dns { host, reason: "no such host".into() }),
        }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A member of the JSON that is a string.
    pub(crate) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("{name}: {self:?}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name}: {self:?}")).to_str().unwrap()
    }

    /// That it is a problem with this status, this name, and all of these words in its detail.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, name: &str, words: &[&str]) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["status"], status);
        assert!(json["title"].is_string());
        assert!(json["type"].as_str().unwrap().ends_with(&format!("#{name}")), "{json}");
        for word in words {
            assert!(json["detail"].as_str().unwrap().contains(word), "{word}: {json}");
        }
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Seen {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Seen { status: parts.status, headers: parts.headers, body }
}
