use std::sync::Arc;
use std::sync::atomic::Ordering;

use evenkeel_core::StoreExt;
use evenkeel_idempotency::{Idempotency, Scope};
use evenkeel_web_axum::{IdempotencyLayer, OnUnavailable, value};

use crate::support::{World, post, send};
use crate::switched::Switch;

fn layer(switch: &Switch) -> IdempotencyLayer {
    IdempotencyLayer::new(Idempotency::new(switch.store().any()), value(Scope::Global))
}

#[tokio::test]
async fn without_its_store_a_request_is_refused_and_not_run() {
    let (world, switch) = (World::default(), Switch::default());
    let app = world.counting(layer(&switch));
    switch.turn_off();
    let seen = send(&app, post("k", "")).await;
    assert_eq!((seen.status.as_u16(), seen.problem(), world.calls()), (503, "store-failed", 0));
    assert!(seen.headers.contains_key("retry-after"));
    assert!(!seen.body.contains("switched off"));

    switch.turn_on();
    assert_eq!(send(&app, post("k", "")).await.body, "run 1");
}

#[tokio::test]
async fn without_its_store_a_request_runs_unprotected_where_that_is_said() {
    let (world, switch) = (World::default(), Switch::default());
    let app = world.counting(layer(&switch).on_unavailable(OnUnavailable::RunUnprotected));
    switch.turn_off();
    for run in ["run 1", "run 2"] {
        let seen = send(&app, post("k", "")).await;
        assert_eq!(
            (seen.body.as_str(), &seen.headers["idempotent-stored"]),
            (run, &"false".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_not_given() {
    let (world, switch) = (World::default(), Switch::default());
    let off = Arc::clone(&switch.off);
    let app = world.service(layer(&switch), move |run| {
        off.store(run == 1, Ordering::SeqCst);
        format!("run {run}")
    });
    let seen = send(&app, post("k", "")).await;
    assert_eq!((seen.status.as_u16(), seen.problem()), (503, "store-failed"));
}
