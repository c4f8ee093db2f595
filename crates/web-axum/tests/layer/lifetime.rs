use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post as post_route;
use evenkeel_idempotency::OnRunning;
use evenkeel_web_axum::{IdempotencyLayer, value};
use futures_util::FutureExt;
use http::StatusCode;
use tokio::sync::Semaphore;

use crate::support::{World, post, send, settle};

/// A service whose handler waits for a permit before it answers.
fn gated(world: &World, layer: IdempotencyLayer, status: StatusCode) -> (Router, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let (world, wait) = (world.clone(), Arc::clone(&gate));
    let handler = move || async move {
        let run = world.called();
        wait.acquire().await.unwrap().forget();
        (status, format!("run {run}"))
    };
    (Router::new().route("/charges", post_route(handler).layer(layer)), gate)
}

/// A request that has come as far as it can for now, and has no answer.
#[track_caller]
fn begun<T>(request: impl Future<Output = T>) -> Pin<Box<impl Future<Output = T>>> {
    let mut request = Box::pin(request);
    assert!((&mut request).now_or_never().is_none());
    request
}

#[tokio::test]
async fn a_duplicate_of_a_running_request_is_told_to_come_back() {
    let world = World::default();
    let (app, gate) = gated(&world, world.layer(), StatusCode::OK);
    let first = begun(send(&app, post("k", "42")));

    let second = send(&app, post("k", "42")).await;
    assert_eq!((second.status.as_u16(), second.problem()), (409, "still-running"));
    assert!(second.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);

    gate.add_permits(1);
    assert_eq!(first.await.body, "run 1");
    assert!(send(&app, post("k", "42")).await.is_replay());
}

#[tokio::test]
async fn a_mismatch_wins_over_still_running() {
    let world = World::default();
    let (app, gate) = gated(&world, world.layer(), StatusCode::OK);
    let first = begun(send(&app, post("k", "42")));
    assert_eq!(send(&app, post("k", "43")).await.problem(), "payload-mismatch");
    gate.add_permits(1);
    first.await;
}

#[tokio::test]
async fn a_waiting_duplicate_gets_the_answer() {
    let world = World::default();
    let layer = world.layer().on_running(OnRunning::Wait(Duration::from_secs(60)));
    let (app, gate) = gated(&world, layer, StatusCode::OK);
    let first = begun(send(&app, post("k", "")));
    let second = begun(send(&app, post("k", "")));

    gate.add_permits(1);
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.body, second.body), ("run 1".to_owned(), "run 1".to_owned()));
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn a_waiting_duplicate_of_a_failed_attempt_does_not_run() {
    let world = World::default();
    let layer = world.layer().on_running(OnRunning::Wait(Duration::from_secs(60)));
    let (app, gate) = gated(&world, layer, StatusCode::INTERNAL_SERVER_ERROR);
    let first = begun(send(&app, post("k", "")));
    let second = begun(send(&app, post("k", "")));

    gate.add_permits(1);
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.status.as_u16(), 500);
    assert_eq!((second.status.as_u16(), second.problem()), (503, "attempt-failed"));
    assert!(second.headers.contains_key("retry-after"));
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn a_client_that_goes_away_undoes_nothing() {
    let world = World::default();
    let (app, gate) = gated(&world, world.layer(), StatusCode::CREATED);
    let first = begun(send(&app, post("k", "")));
    assert_eq!(world.calls(), 1);
    drop(first);

    gate.add_permits(1);
    settle().await;
    let again = send(&app, post("k", "")).await;
    assert!(again.is_replay());
    assert_eq!((again.status, again.body.as_str(), world.calls()), (StatusCode::CREATED, "run 1", 1));
}

#[tokio::test]
async fn a_panic_is_a_problem_and_the_request_may_run_again() {
    let world = World::default();
    let app = world.service(world.layer(), |run| {
        assert!(run > 1, "out of luck");
        "fine"
    });
    let first = send(&app, post("k", "")).await;
    assert_eq!((first.status.as_u16(), first.problem()), (500, "handler-panicked"));
    assert!(!first.body.contains("out of luck"));
    assert_eq!(send(&app, post("k", "")).await.body, "fine");
}

#[tokio::test]
async fn a_handler_past_its_timeout_is_dropped_and_may_run_again() {
    let world = World::default();
    let layer = world.layer().timeout(value(Duration::from_secs(5)));
    let (app, gate) = gated(&world, layer, StatusCode::OK);
    let first = begun(send(&app, post("k", "")));
    world.clock.advance(Duration::from_secs(5));
    let first = first.await;
    assert_eq!((first.status.as_u16(), first.problem()), (503, "timed-out"));

    gate.add_permits(1);
    assert_eq!(send(&app, post("k", "")).await.body, "run 2");
}

#[tokio::test]
async fn of_many_simultaneous_duplicates_one_runs() {
    let world = World::default();
    let layer = world.layer().on_running(OnRunning::Wait(Duration::from_secs(60)));
    let (app, gate) = gated(&world, layer, StatusCode::OK);
    gate.add_permits(100);
    let all = futures_util::future::join_all((0..100).map(|_| send(&app, post("k", "")))).await;
    assert_eq!(world.calls(), 1);
    assert!(all.iter().all(|seen| seen.body == "run 1"));
    assert_eq!(all.iter().filter(|seen| !seen.is_replay()).count(), 1);
}
