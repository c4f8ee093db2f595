use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post as post_route;
use evenkeel_core::{Clock, MemoryStore, StoreExt, Timestamp};
use evenkeel_idempotency::Scope;
use evenkeel_web_axum::{KeySyntax, MissingKey, Problem, payload, value};
use http::{HeaderName, HeaderValue, Method, Request};

use crate::support::{Seen, World, post, send};

fn with(mut request: Request<Body>, headers: &[(&'static str, &[u8])]) -> Request<Body> {
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append(HeaderName::from_static(name), value);
    }
    request
}

fn bare(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

/// Sends a request twice and says whether the second time was a replay.
async fn repeats(app: &Router, request: impl Fn() -> Request<Body>) -> bool {
    let first = send(app, request()).await;
    assert!(!first.is_replay() && first.status.is_success(), "{first:?}");
    send(app, request()).await.is_replay()
}

#[tokio::test]
async fn a_key_is_required_unless_said_otherwise() {
    let world = World::default();
    let app = world.counting(world.layer());
    let seen = send(&app, bare("POST", "/charges")).await;
    assert_eq!((seen.status.as_u16(), seen.problem(), world.calls()), (400, "key-missing", 0));

    let app = world.counting(world.layer().missing_key(MissingKey::RunUnprotected));
    assert!(!repeats(&app, || bare("POST", "/charges")).await);
    assert_eq!(world.calls(), 2);
}

#[tokio::test]
async fn both_families_of_headers_are_read() {
    for headers in [
        &[("idempotency-key", &b"\"k\""[..])][..],
        &[("idempotency-key", b"k")],
        &[("x-idempotency-key", b"k")],
        &[("idempotency-key", b"\"k\""), ("x-idempotency-key", b"k")],
    ] {
        let world = World::default();
        let app = world.counting(world.layer());
        assert!(repeats(&app, || with(bare("POST", "/charges"), headers)).await, "{headers:?}");
    }
}

#[tokio::test]
async fn malformed_headers_are_bad_requests_and_never_run() {
    let world = World::default();
    let app = world.counting(world.layer());
    let key = ("idempotency-key", &b"\"k\""[..]);
    for (headers, name) in [
        (&[("idempotency-key", &b"\"a\", \"b\""[..])][..], "key-malformed"),
        (&[key, key], "key-malformed"),
        (&[key, ("x-idempotency-key", b"other")], "key-malformed"),
        (&[("idempotency-key", b"\xff\xfe")], "key-malformed"),
        (&[("x-idempotency-key", b"\xff\xfe")], "key-malformed"),
        (&[key, ("x-idempotency-timeout", b"soon")], "header-malformed"),
        (&[key, ("x-idempotency-expiration", b"-1s")], "header-malformed"),
        (&[key, ("x-idempotency-expiration", b"\xff")], "header-malformed"),
        (&[key, ("x-idempotency-reference-time", b"yesterday")], "header-malformed"),
    ] {
        let seen = send(&app, with(bare("POST", "/charges"), headers)).await;
        assert_eq!((seen.status.as_u16(), seen.problem()), (400, name), "{headers:?}");
    }
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn a_target_too_long_for_an_operation_is_a_bad_request() {
    let world = World::default();
    let app = world.counting(world.layer());
    let request = with(bare("POST", &format!("/{}", "x".repeat(9000))), &[("idempotency-key", b"k")]);
    let seen = send(&app, request).await;
    assert_eq!((seen.status.as_u16(), seen.problem()), (400, "bad-request"));
}

#[tokio::test]
async fn strict_syntax_wants_quotes() {
    let world = World::default();
    let app = world.counting(world.layer().key_syntax(KeySyntax::Strict));
    let seen = send(&app, with(bare("POST", "/charges"), &[("idempotency-key", b"k")])).await;
    assert_eq!(seen.problem(), "key-malformed");
    assert!(repeats(&app, || post("k", "")).await);
}

#[tokio::test]
async fn any_method_can_be_protected() {
    let world = World::default();
    let app = world.counting(world.layer().methods([Method::PUT]));
    assert!(repeats(&app, || with(bare("PUT", "/charges"), &[("idempotency-key", b"k")])).await);
    assert!(!repeats(&app, || post("k", "")).await);

    let world = World::default();
    let app = world.counting(world.layer());
    assert!(repeats(&app, || with(bare("PATCH", "/charges"), &[("idempotency-key", b"k")])).await);
}

#[tokio::test]
async fn a_route_goes_before_what_is_shared_and_that_before_the_default() {
    let minutes = |minutes: u64| value(Duration::from_secs(60 * minutes));
    let default = |world: &World| world.layer();
    let shared = |world: &World| world.layer().expiration(minutes(100));
    let route = |world: &World| shared(world).expiration(minutes(10));
    // The age of a request in minutes, and whether it has expired.
    for (name, layer, ages) in [
        ("default", &default as &dyn Fn(&World) -> _, [(11, false), (101, false)]),
        ("shared", &shared, [(11, false), (101, true)]),
        ("route", &route, [(11, true), (101, true)]),
    ] {
        for (age, expired) in ages {
            let world = World::default();
            let time = rfc_3339(world.clock.now() - Duration::from_secs(60 * age));
            let request = with(post("k", ""), &[("x-idempotency-reference-time", time.as_bytes())]);
            let seen = send(&world.counting(layer(&world)), request).await;
            assert_eq!(seen.status.as_u16() == 410, expired, "{name}, {age} minutes: {seen:?}");
        }
    }
}

/// An instant of the day on which the manual clock starts.
fn rfc_3339(at: Timestamp) -> String {
    let of_day = at.as_micros() / 1_000_000 % 86_400;
    format!("2001-09-09T{:02}:{:02}:{:02}Z", of_day / 3600, of_day % 3600 / 60, of_day % 60)
}

#[tokio::test]
async fn every_setting_can_be_a_constant() {
    let world = World::default();
    let now = world.clock.now();
    let layer = world
        .layer()
        .scope(value(Scope::Principal("somebody".into())))
        .key(value(Some("constant".into())))
        .target(value("target".into()))
        .beside(value("order-17".into()))
        .payload(|_, _| Ok("".into()))
        .reference_time(value(now))
        .timeout(value(Duration::from_secs(10)))
        .expiration(value(Duration::ZERO));
    let app = world.counting(layer);
    assert_eq!(send(&app, bare("POST", "/a")).await.body, "run 1");
    // The same operation, though asked for elsewhere: only the fingerprint tells them apart.
    assert_eq!(send(&app, bare("POST", "/b")).await.problem(), "payload-mismatch");
    assert!(send(&app, bare("POST", "/a")).await.is_replay());
}

#[tokio::test]
async fn scopes_keep_their_keys_apart() {
    let world = World::default();
    let app = world.counting(world.layer().scope(|parts| match parts.headers.get("x-user") {
        Some(user) => Ok(Scope::Principal(user.to_str().unwrap().to_owned())),
        None => Err(Problem::unauthenticated("who is it")),
    }));
    let of = |user: &'static [u8]| with(post("k", ""), &[("x-user", user)]);
    assert_eq!(send(&app, of(b"alice")).await.body, "run 1");
    assert_eq!(send(&app, of(b"bob")).await.body, "run 2");
    assert_eq!(send(&app, of(b"alice")).await.body, "run 1");
    let nobody = send(&app, post("k", "")).await;
    assert_eq!((nobody.status.as_u16(), nobody.problem()), (401, "unauthenticated"));
}

#[tokio::test]
async fn a_function_that_fails_answers_the_request() {
    let fail = || Problem::bad_request("no");
    let world = World::default();
    for layer in [
        world.layer().key(move |_| Err(fail())),
        world.layer().target(move |_| Err(fail())),
        world.layer().beside(move |_| Err(fail())),
        world.layer().payload(move |_, _| Err(fail())),
        world.layer().reference_time(move |_| Err(fail())),
        world.layer().timeout(move |_| Err(fail())),
        world.layer().expiration(move |_| Err(fail())),
    ] {
        assert_eq!(send(&world.counting(layer), post("k", "")).await.problem(), "bad-request");
    }
    assert_eq!(world.calls(), 0);
}

#[tokio::test]
async fn chosen_headers_must_be_repeated() {
    let world = World::default();
    let layer = world.layer().fingerprint_headers([HeaderName::from_static("x-currency")]);
    let app = world.counting(layer);
    let of = |currency: &'static [u8]| with(post("k", ""), &[("x-currency", currency), ("x-trace", b"1")]);
    send(&app, of(b"eur")).await;
    assert!(send(&app, with(of(b"eur"), &[("x-other", b"2")])).await.is_replay());
    assert_eq!(send(&app, of(b"usd")).await.problem(), "payload-mismatch");
    assert_eq!(send(&app, post("k", "")).await.problem(), "payload-mismatch");
}

#[tokio::test]
async fn what_must_be_repeated_of_the_body_can_be_chosen() {
    let world = World::default();
    let app = world.counting(world.layer().payload(payload::canonical_json));
    send(&app, post("k", r#"{"a": 1, "b": 2}"#)).await;
    assert!(send(&app, post("k", r#"{"b":2,"a":1}"#)).await.is_replay());
    assert_eq!(send(&app, post("k", r#"{"b":2,"a":3}"#)).await.problem(), "payload-mismatch");
}

#[tokio::test]
async fn a_request_that_one_layer_protects_passes_the_next_untouched() {
    let world = World::default();
    let inner = world.counting(world.layer().key(value(None)));
    let app = inner.layer(world.layer());
    assert!(repeats(&app, || post("k", "")).await);
    // What the outer one leaves alone is the inner one's.
    let inner = world.counting(world.layer().methods([Method::PUT]));
    let app = inner.layer(world.layer());
    assert!(repeats(&app, || with(bare("PUT", "/charges"), &[("idempotency-key", b"put")])).await);
}

#[tokio::test]
async fn routes_nested_at_different_places_are_different_targets() {
    let world = World::default();
    let counter = world.clone();
    let handler = move || async move { format!("run {}", counter.called()) };
    let routes = Router::new().route("/charges", post_route(handler).layer(world.layer()));
    let app = Router::new().nest("/a", routes.clone()).nest("/b", routes);
    let to = |uri| with(bare("POST", uri), &[("idempotency-key", b"k")]);
    assert_eq!(send(&app, to("/a/charges")).await.body, "run 1");
    assert_eq!(send(&app, to("/b/charges")).await.body, "run 2");
    assert_eq!(send(&app, to("/a/charges")).await.body, "run 1");
}

#[tokio::test]
async fn an_operation_can_live_beside_what_it_changes() {
    let mut world = World::default();
    world.store = MemoryStore::with_partitions(16).unwrap();
    let store = world.store.clone();
    let handler = move |evenkeel_web_axum::Tx(tx): evenkeel_web_axum::Tx<evenkeel_core::Draft>| async move {
        (*tx.partition() == store.partition_of("order-17")).to_string()
    };
    let layer = world.layer().beside(value("order-17".into()));
    let app = Router::new().route("/charges", post_route(handler).layer(layer));
    for key in ["a", "b", "c", "d"] {
        let Seen { body, .. } = send(&app, post(key, "")).await;
        assert_eq!(body, "true");
    }
}
