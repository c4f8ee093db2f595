//! One small service per test: a router, its store, its clock, and a count of what ran.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use evenkeel_core::{ManualClock, MemoryStore, Read, Store, StoreExt};
use evenkeel_idempotency::{Idempotency, Scope};
use evenkeel_web_axum::{IdempotencyLayer, value};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) clock: ManualClock,
    calls: Arc<AtomicUsize>,
}

impl World {
    pub(crate) fn idempotency(&self) -> Idempotency<MemoryStore> {
        Idempotency::new(self.store.clone()).clock(self.clock.shared())
    }

    pub(crate) fn layer(&self) -> IdempotencyLayer {
        IdempotencyLayer::new(self.idempotency(), value(Scope::Global))
    }

    /// How often the handlers of this world ran.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Counts a run, from within a handler; the first is 1.
    pub(crate) fn called(&self) -> usize {
        self.calls.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A service at every path that answers with whatever `answer` makes of the number of the run.
    pub(crate) fn service<R: IntoResponse + Send + 'static>(
        &self,
        layer: IdempotencyLayer,
        answer: impl Fn(usize) -> R + Clone + Send + Sync + 'static,
    ) -> Router {
        let world = self.clone();
        let handler = move || {
            let answer = answer(world.called());
            async move { answer }
        };
        Router::new().route("/{*path}", any(handler).layer(layer))
    }

    /// A service that answers `run 1`, `run 2` and so on.
    pub(crate) fn counting(&self, layer: IdempotencyLayer) -> Router {
        self.service(layer, |run| format!("run {run}"))
    }

    /// The kinds of the events that were appended.
    pub(crate) async fn events(&self) -> Vec<String> {
        let at = self.store.partition_of("any");
        let slice = self.store.read(&at, Read::partition(0, 100)).await.unwrap();
        slice.events.into_iter().map(|event| event.kind).collect()
    }
}

/// What came back, body and all.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.get("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// The name of the problem, where it is one that says what RFC 9457 asks for.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let json: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(json["status"], self.status.as_u16());
        assert!(json["title"].is_string() && json["detail"].is_string(), "{self:?}");
        let start = self.body.find('#').unwrap() + 1;
        let length = self.body[start..].find('"').unwrap();
        &self.body[start..start + length]
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Seen {
    Seen::of(router.clone().oneshot(request).await.unwrap()).await
}

/// `POST /charges` with a key.
pub(crate) fn post(key: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post("/charges").header("idempotency-key", format!("{key:?}")).body(body.into()).unwrap()
}

/// Gives every other task the chance to come to rest.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
