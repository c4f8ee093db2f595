use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel_core::StoreExt;
use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{World, orders};
use crate::switched::Switch;

#[tokio::test]
async fn the_service_says_what_it_is_and_that_it_is_up() {
    let world = World::new();
    let about = world.get("/").await.json();
    assert_eq!((&about["name"], &about["version"]), (&json!("evenkeel"), &json!(env!("CARGO_PKG_VERSION"))));
    for (name, link) in about["links"].as_object().unwrap() {
        let seen = world.get(link.as_str().unwrap()).await;
        let expected = if name == "documents" { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        assert_eq!(seen.status, expected, "{name}: {seen:?}");
    }
    assert_eq!(world.get("/health").await.json(), json!({"status": "up"}));
    assert_eq!(world.get("/ready").await.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn a_store_that_fails_is_not_ready_and_its_reasons_stay_in_the_log() {
    let switch = Switch::default();
    let world = World::on(switch.store().any());
    switch.turn_off();
    let seen = world.get("/ready").await;
    seen.is_problem(503, "unavailable", &["the store fails"]);
    assert_eq!(seen.header("retry-after"), "1");
    assert_eq!(world.get("/health").await.status, StatusCode::OK);

    let seen = world.call(Method::GET, "/operations/jobs?queue=a", "").await;
    seen.is_problem(503, "unavailable", &[]);
    assert_eq!(seen.header("retry-after"), "1");
    assert!(!String::from_utf8_lossy(&seen.body).contains("switched off"), "{seen:?}");
}

#[tokio::test]
async fn a_store_that_does_not_answer_within_two_seconds_is_not_ready() {
    let switch = Switch::default();
    switch.hangs.store(true, Ordering::SeqCst);
    let world = Arc::new(World::on(switch.store().any()));
    let asking = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.get("/ready").await }
    });
    while world.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    world.clock.advance(Duration::from_millis(1_999));
    tokio::task::yield_now().await;
    assert!(!asking.is_finished());
    world.clock.advance(Duration::from_millis(1));
    asking.await.unwrap().is_problem(503, "unavailable", &["within two seconds"]);
}

#[tokio::test]
async fn an_unknown_path_is_not_found_and_a_wrong_method_names_the_right_ones() {
    let world = World::new();
    for path in ["/nothing", "/resources/", "/subscriptions/17", "/documents/"] {
        world.get(path).await.is_problem(404, "not-found", &["no such route"]);
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/resources", "GET,HEAD,POST"),
        (Method::PUT, "/resources/17", "DELETE,GET,HEAD"),
        (Method::GET, "/documents", "POST"),
        (Method::POST, "/documents/https://a.example/b", "DELETE,GET,HEAD,PUT"),
        (Method::PATCH, "/subscriptions/17/pause", "POST"),
        (Method::POST, "/operations/jobs", "GET,HEAD"),
    ] {
        let seen = world.call(method, path, orders().to_string()).await;
        seen.is_problem(405, "method-not-allowed", &[]);
        let mut found: Vec<_> = seen.header("allow").split(',').collect();
        found.sort_unstable();
        assert_eq!(found.join(","), allowed, "{path}");
    }
}
