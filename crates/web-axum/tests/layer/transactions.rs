use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::IntoResponse;
use axum::routing::{any, post as post_route};
use evenkeel_core::{Draft, Key, NewEvent, StoreExt};
use evenkeel_idempotency::{Idempotency, Scope};
use evenkeel_web_axum::{IdempotencyLayer, MissingKey, Tx, value};
use http::{Request, StatusCode};

use crate::support::{World, post, send};
use crate::switched::Switch;

/// `POST /answer/201` appends an event and writes a record through its transaction, then answers
/// with that status, or panics for `panic`.
fn app(world: &World) -> Router {
    let counter = world.clone();
    let handler = move |Path(answer): Path<String>, Tx(mut tx): Tx<Draft>| async move {
        counter.called();
        let now = tx.batch().now();
        tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
        tx.conn().await.unwrap().put(Key::new("test.charge", "all", "1"), "42");
        drop(tx);
        let status: StatusCode = answer.parse().expect("a status");
        (status, "answered")
    };
    Router::new().route("/answer/{answer}", post_route(handler).layer(world.layer()))
}

fn ask_for(answer: &str) -> Request<Body> {
    let mut request = post("k", "");
    *request.uri_mut() = format!("/answer/{answer}").parse().unwrap();
    request
}

async fn charge(world: &World) -> Option<String> {
    let key = Key::new("test.charge", "all", "1");
    let now = evenkeel_core::Timestamp::EPOCH;
    let found = world.store.get_one(&world.store.partition_of("any"), now, &key).await.unwrap();
    found.map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

#[tokio::test]
async fn an_answer_its_event_and_its_record_are_one_commit() {
    for status in ["200", "201", "303"] {
        let world = World::default();
        let app = app(&world);
        assert_eq!(send(&app, ask_for(status)).await.body, "answered");
        assert_eq!(world.events().await, ["Charged"]);
        assert_eq!(charge(&world).await.as_deref(), Some("42"));

        assert!(send(&app, ask_for(status)).await.is_replay());
        assert_eq!((world.events().await.len(), world.calls()), (1, 1));
    }
}

#[tokio::test]
async fn a_final_refusal_takes_the_writes_back_and_is_stored() {
    let world = World::default();
    let app = app(&world);
    assert_eq!(send(&app, ask_for("422")).await.status.as_u16(), 422);
    assert!(world.events().await.is_empty());
    assert_eq!(charge(&world).await, None);
    let again = send(&app, ask_for("422")).await;
    assert!(again.is_replay());
    assert_eq!((again.status.as_u16(), world.calls()), (422, 1));
}

#[tokio::test]
async fn an_answer_that_is_not_final_takes_the_writes_back() {
    for answer in ["500", "429", "panic"] {
        let world = World::default();
        let app = app(&world);
        for _ in 0..2 {
            let seen = send(&app, ask_for(answer)).await;
            assert!(!seen.is_replay() && !seen.status.is_success());
            assert!(world.events().await.is_empty());
            assert_eq!(charge(&world).await, None);
        }
        assert_eq!(world.calls(), 2);
    }
}

#[tokio::test]
async fn an_answer_too_large_to_store_is_committed_with_the_writes() {
    let world = World::default();
    let handler = |Tx(mut tx): Tx<Draft>| async move {
        let now = tx.batch().now();
        tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
        "x".repeat(500)
    };
    let layer = world.layer().response_limit(100);
    let app = Router::new().route("/charges", post_route(handler).layer(layer));
    assert_eq!(send(&app, post("k", "")).await.body.len(), 500);
    assert_eq!(send(&app, post("k", "")).await.problem(), "answer-not-stored");
    assert_eq!(world.events().await, ["Charged"]);
}

#[tokio::test]
async fn a_second_extraction_is_refused() {
    let world = World::default();
    let handler = |_: Tx<Draft>, _: Tx<Draft>| async { "unreachable" };
    let app = Router::new().route("/charges", post_route(handler).layer(world.layer()));
    let seen = send(&app, post("k", "")).await;
    assert_eq!((seen.status.as_u16(), seen.problem()), (500, "transaction-refused"));
    assert!(seen.body.contains("extracted before"), "{}", seen.body);
}

#[tokio::test]
async fn an_extraction_that_cannot_be_is_refused_with_its_reason() {
    let world = World::default();
    let draft = |_: Tx<Draft>| async { "unreachable" };
    let other = |_: Tx<u8>| async { "unreachable" };
    let app = Router::new()
        .route("/bare", any(draft))
        .route("/other", any(other).layer(world.layer()))
        .route("/keyless", any(draft).layer(world.layer().missing_key(MissingKey::RunUnprotected)));
    for (request, reason) in [
        (Request::post("/bare"), "no idempotency layer"),
        (Request::post("/other").header("idempotency-key", "k"), "no connection of type u8"),
        (Request::get("/keyless").header("idempotency-key", "k"), "is not protected"),
        (Request::post("/keyless"), "is not protected"),
    ] {
        let seen = send(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!((seen.status.as_u16(), seen.problem()), (500, "transaction-refused"));
        assert!(seen.body.contains(reason), "{}", seen.body);
    }
}

#[tokio::test]
async fn a_transaction_that_outlives_its_handler_is_taken_back() {
    let world = World::default();
    let kept = Arc::new(Mutex::new(None));
    let (counter, keep) = (world.clone(), Arc::clone(&kept));
    let handler = move |Tx(mut tx): Tx<Draft>| async move {
        let now = tx.batch().now();
        tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
        if counter.called() == 1 {
            *keep.lock().unwrap() = Some(tx);
        }
        "answered".into_response()
    };
    let app = Router::new().route("/charges", post_route(handler).layer(world.layer()));
    let seen = send(&app, post("k", "")).await;
    assert_eq!((seen.status.as_u16(), seen.problem()), (500, "transaction-kept"));
    kept.lock().unwrap().take();
    assert!(world.events().await.is_empty());

    crate::support::settle().await;
    assert_eq!(send(&app, post("k", "")).await.body, "answered");
    assert_eq!(world.events().await, ["Charged"]);
}

#[tokio::test]
async fn a_transaction_may_live_as_long_as_the_answers_body() {
    let world = World::default();
    let handler = |Tx(mut tx): Tx<Draft>| async move {
        let now = tx.batch().now();
        tx.batch().append_any("charges", [NewEvent::new("Charged", "{}", now)]);
        let lines = futures_util::stream::unfold((tx, 0), |(tx, line)| async move {
            (line < 3).then(|| (Ok::<_, std::io::Error>(format!("{line}")), (tx, line + 1)))
        });
        Body::from_stream(lines)
    };
    let app = Router::new().route("/charges", post_route(handler).layer(world.layer()));
    assert_eq!(send(&app, post("k", "")).await.body, "012");
    assert_eq!(world.events().await, ["Charged"]);
}

#[tokio::test]
async fn a_transaction_begins_only_where_a_handler_asks_for_it() {
    let switch = Switch::default();
    let layer = IdempotencyLayer::new(Idempotency::new(switch.store()), value(Scope::Global));
    let app = Router::new()
        .route("/with", post_route(|_: Tx<Draft>| async { "fine" }).layer(layer.clone()))
        .route("/without", post_route(|| async { "fine" }).layer(layer));
    for (path, begun) in [("/without", 0), ("/with", 1), ("/with", 1)] {
        let request = Request::post(path).header("idempotency-key", "k").body(Body::empty()).unwrap();
        assert_eq!(send(&app, request).await.body, "fine");
        assert_eq!(switch.begun.load(Ordering::SeqCst), begun, "{path}");
    }
}

#[tokio::test]
async fn a_store_that_fails_to_begin_is_unavailable() {
    let switch = Switch::default();
    let layer = IdempotencyLayer::new(Idempotency::new(switch.store()), value(Scope::Global));
    let switch_off = move |request: Request<Body>| {
        switch.turn_off();
        async move { request }
    };
    let handler = post_route(|_: Tx<Draft>| async { "unreachable" });
    let handler = handler.layer::<_, Infallible>(axum::middleware::map_request(switch_off)).layer(layer);
    let seen = send(&Router::new().route("/charges", handler), post("k", "")).await;
    assert_eq!((seen.status.as_u16(), seen.problem()), (503, "store-failed"));
}
