use std::time::Duration;

use axum::http::Request;
use axum::response::IntoResponse;
use evenkeel_idempotency::{Claim, OnInterrupted, Operation, Scope};
use evenkeel_web_axum::{Cookies, Finality};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::support::{World, post, send};

#[tokio::test]
async fn a_retry_gets_status_headers_and_body_as_they_were() {
    let world = World::default();
    let app = world.service(world.layer(), |run| {
        let mut headers = HeaderMap::new();
        headers.append("x-many", HeaderValue::from_static("one"));
        headers.append("x-many", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers.append("location", HeaderValue::from_static("/charges/1"));
        headers.append("date", HeaderValue::from_static("then"));
        (StatusCode::CREATED, headers, format!("{{\"run\": {run}}}"))
    });

    let first = send(&app, post("k", "42")).await;
    assert!(!first.is_replay());
    assert_eq!(first.headers["date"], "then");

    let again = send(&app, post("k", "42")).await;
    assert!(again.is_replay());
    assert_eq!((again.status, &*again.body), (StatusCode::CREATED, "{\"run\": 1}"));
    assert_eq!(again.headers["location"], "/charges/1");
    assert_eq!(again.headers["content-length"], "10");
    let many: Vec<_> = again.headers.get_all("x-many").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(many, [&b"one"[..], b"caf\xe9"]);
    assert!(!again.headers.contains_key("date"));
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn another_key_is_another_operation() {
    let world = World::default();
    let app = world.counting(world.layer());
    assert_eq!(send(&app, post("a", "42")).await.body, "run 1");
    assert_eq!(send(&app, post("b", "42")).await.body, "run 2");
}

#[tokio::test]
async fn another_payload_under_the_key_is_a_mismatch() {
    let world = World::default();
    let app = world.counting(world.layer());
    send(&app, post("k", "42")).await;

    let other_body = send(&app, post("k", "43")).await;
    assert_eq!((other_body.status.as_u16(), other_body.problem()), (422, "payload-mismatch"));

    let mut request = post("k", "42");
    *request.uri_mut() = "/charges?dry-run=1".parse().unwrap();
    assert_eq!(send(&app, request).await.problem(), "payload-mismatch");
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn cookies_are_replayed_only_where_asked_for() {
    for (cookies, replayed) in [(Cookies::Drop, 0), (Cookies::Replay, 2)] {
        let world = World::default();
        let app = world.service(world.layer().cookies(cookies), |_| {
            let mut headers = HeaderMap::new();
            headers.append("set-cookie", HeaderValue::from_static("a=1"));
            headers.append("set-cookie", HeaderValue::from_static("b=2"));
            headers
        });
        for (round, count) in [("first", 2), ("retry", replayed)] {
            let seen = send(&app, post("k", "")).await;
            assert_eq!(seen.headers.get_all("set-cookie").iter().count(), count, "{cookies:?}, {round}");
        }
    }
}

#[tokio::test]
async fn only_final_answers_are_stored() {
    let finals = [200, 201, 202, 204, 301, 303, 304, 400, 402, 404, 405, 406, 410, 412, 418, 422, 451];
    let released = [401, 403, 408, 409, 413, 415, 425, 429, 500, 502, 503, 504];
    for (statuses, is_final) in [(&finals[..], true), (&released[..], false)] {
        for status in statuses {
            let status = StatusCode::from_u16(*status).unwrap();
            let world = World::default();
            let app = world.service(world.layer(), move |_| status);
            assert_eq!(send(&app, post("k", "")).await.status, status);
            let again = send(&app, post("k", "")).await;
            assert_eq!((again.status, again.is_replay()), (status, is_final), "{status}");
            assert_eq!(world.calls(), if is_final { 1 } else { 2 }, "{status}");
        }
    }
}

#[tokio::test]
async fn what_is_final_can_be_changed() {
    let world = World::default();
    let layer = world.layer().finality(|parts| match parts.status.as_u16() {
        503 => Finality::Commit,
        _ => Finality::Release,
    });
    let unavailable = world.service(layer.clone(), |_| StatusCode::SERVICE_UNAVAILABLE);
    send(&unavailable, post("a", "")).await;
    assert!(send(&unavailable, post("a", "")).await.is_replay());

    let fine = world.service(layer, |_| StatusCode::OK);
    send(&fine, post("b", "")).await;
    assert!(!send(&fine, post("b", "")).await.is_replay());
}

#[tokio::test]
async fn an_answer_is_replayed_past_its_expiration_until_its_record_is_gone() {
    let world = World::default();
    let app = world.counting(world.layer());
    let request = || {
        let mut request = post("k", "");
        request.headers_mut().insert("x-idempotency-expiration", HeaderValue::from_static("10s"));
        request
    };
    send(&app, request()).await;
    world.clock.advance(Duration::from_secs(11));
    assert!(send(&app, request()).await.is_replay());
    // The retention of the record, by default a day.
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(send(&app, request()).await.body, "run 2");
}

#[tokio::test]
async fn a_request_that_arrives_expired_does_not_run() {
    let world = World::default();
    let app = world.counting(world.layer());
    let mut request = post("k", "");
    // The test's clock stands in 2001.
    request.headers_mut().extend([
        ("x-idempotency-reference-time".parse().unwrap(), HeaderValue::from_static("2000-01-01T00:00:00Z")),
        ("x-idempotency-expiration".parse().unwrap(), HeaderValue::from_static("24h")),
    ] as [(http::HeaderName, HeaderValue); 2]);
    let seen = send(&app, request).await;
    assert_eq!((seen.status.as_u16(), seen.problem(), world.calls()), (410, "expired", 0));
}

#[tokio::test]
async fn what_a_dead_process_left_is_taken_over_or_refused() {
    for (policy, expected) in [(OnInterrupted::Retry, "run 1"), (OnInterrupted::Refuse, "outcome-unknown")] {
        let world = World::default();
        let app = world.counting(world.layer().on_interrupted(policy).payload(|_, _| Ok("".into())));
        // A claim by somebody who is never heard of again.
        let fingerprint = evenkeel_idempotency::Fingerprint::builder().part("POST").part("/charges").part("");
        let operation = Operation::new(Scope::Global, "[POST]/charges", "k")
            .fingerprint(fingerprint.finish())
            .timeout(Duration::from_secs(5));
        let Ok(Claim::Run(guard)) = world.idempotency().claim(operation).await else {
            panic!("nobody has it")
        };
        std::mem::forget(guard);
        assert_eq!(send(&app, post("k", "")).await.problem(), "still-running");

        world.clock.advance(Duration::from_secs(31));
        let seen = send(&app, post("k", "")).await;
        match policy {
            OnInterrupted::Retry => assert_eq!(seen.body, expected),
            OnInterrupted::Refuse => assert_eq!((seen.status.as_u16(), seen.problem()), (409, expected)),
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_body_is_replayed_without_one() {
    let world = World::default();
    let app = world.service(world.layer(), |_| StatusCode::NO_CONTENT.into_response());
    send(&app, post("k", "")).await;
    let again = send(&app, post("k", "")).await;
    assert!(again.is_replay() && again.body.is_empty());
}

#[tokio::test]
async fn methods_that_are_not_protected_pass_untouched() {
    let world = World::default();
    let app = world.counting(world.layer());
    for run in 1..=2 {
        let request =
            Request::get("/charges").header("idempotency-key", "\"k\"").body(axum::body::Body::empty());
        let seen = send(&app, request.unwrap()).await;
        assert_eq!(seen.body, format!("run {run}"));
        assert!(!seen.headers.contains_key("idempotent-replayed"));
    }
}
