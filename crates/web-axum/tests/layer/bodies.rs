use std::io;

use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::post as post_route;
use axum::{Router, extract};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::ServiceExt;

use crate::support::{World, post, send};

fn chunked(chunks: impl IntoIterator<Item = &'static str>) -> Body {
    let chunks: Vec<_> = chunks.into_iter().map(|chunk| Ok::<_, io::Error>(Bytes::from(chunk))).collect();
    Body::from_stream(stream::iter(chunks))
}

fn broken() -> Body {
    Body::from_stream(stream::iter([Ok(Bytes::from("half")), Err(io::Error::other("line down"))]))
}

#[tokio::test]
async fn a_request_body_beyond_the_limit_is_refused_and_not_run() {
    let world = World::default();
    let app = world.counting(world.layer().request_limit(4));
    for body in [Body::from("12345"), chunked(["123", "45"])] {
        let seen = send(&app, post("k", body)).await;
        assert_eq!((seen.status.as_u16(), seen.problem()), (413, "body-too-large"));
    }
    assert_eq!(world.calls(), 0);
    assert_eq!(send(&app, post("k", chunked(["12", "34"]))).await.body, "run 1");
    assert!(send(&app, post("k", "1234")).await.is_replay());
}

#[tokio::test]
async fn the_default_limit_is_a_mebibyte() {
    let world = World::default();
    let app = world.counting(world.layer());
    assert_eq!(send(&app, post("k", vec![7; 1024 * 1024 + 1])).await.problem(), "body-too-large");
    assert_eq!(send(&app, post("k", vec![7; 1024 * 1024])).await.body, "run 1");
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_not_run() {
    let world = World::default();
    let app = world.counting(world.layer());
    let seen = send(&app, post("k", broken())).await;
    assert_eq!((seen.status.as_u16(), seen.problem(), world.calls()), (400, "body-unreadable", 0));
}

#[tokio::test]
async fn the_handler_gets_the_whole_body_and_its_trailers() {
    let handler = |request: extract::Request| async move {
        let body = request.into_body().collect().await.unwrap();
        let sum = body.trailers().unwrap()["checksum"].to_str().unwrap().to_owned();
        format!("{} {sum}", String::from_utf8(body.to_bytes().to_vec()).unwrap())
    };
    let app = Router::new().route("/charges", post_route(handler).layer(World::default().layer()));
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("7"));
    let frames = [Frame::data(Bytes::from("ab")), Frame::data(Bytes::from("cd")), Frame::trailers(trailers)];
    let body = Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, io::Error>))));
    assert_eq!(send(&app, post("k", body)).await.body, "abcd 7");
}

#[tokio::test]
async fn an_answer_keeps_its_trailers_the_first_time() {
    let world = World::default();
    let app = world.service(world.layer(), |_| {
        let mut trailers = HeaderMap::new();
        trailers.insert("checksum", HeaderValue::from_static("7"));
        let frames = [Frame::data(Bytes::from("ab")), Frame::trailers(trailers)];
        Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, io::Error>)))).into_response()
    });
    let first = app.clone().oneshot(post("k", "")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(first.trailers().unwrap()["checksum"], "7");
    let again = app.oneshot(post("k", "")).await.unwrap().into_body().collect().await.unwrap();
    assert!(again.trailers().is_none());
    assert_eq!(again.to_bytes(), "ab");
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_passed_on_once_and_never_run_again() {
    let world = World::default();
    let app = world.service(world.layer().response_limit(100), |_| chunked(["x"; 500]).into_response());
    let first = send(&app, post("k", "")).await;
    assert_eq!((first.status.as_u16(), first.body.len()), (200, 500));
    assert_eq!(first.headers["idempotent-stored"], "false");

    let again = send(&app, post("k", "")).await;
    assert_eq!((again.status.as_u16(), again.problem(), world.calls()), (410, "answer-not-stored", 1));
}

#[tokio::test]
async fn an_answer_beyond_what_the_store_takes_is_passed_on_once() {
    let world = World::default();
    // The memory store takes values of 350 KiB.
    let app = world.service(world.layer(), |_| vec![0xff_u8; 400 * 1024]);
    let first = send(&app, post("k", "")).await;
    assert_eq!(first.headers["idempotent-stored"], "false");
    assert_eq!(send(&app, post("k", "")).await.problem(), "answer-not-stored");
    assert_eq!(world.calls(), 1);
}

#[tokio::test]
async fn a_large_answer_is_stored_where_large_answers_have_a_store() {
    let world = World::default();
    let idempotency = world.idempotency().offload(world.store.clone(), 64 * 1024);
    let layer = evenkeel_web_axum::IdempotencyLayer::new(
        idempotency,
        evenkeel_web_axum::value(evenkeel_idempotency::Scope::Global),
    );
    let app = world.service(layer, |_| vec![b'x'; 900 * 1024]);
    assert!(!send(&app, post("k", "")).await.headers.contains_key("idempotent-stored"));
    let again = send(&app, post("k", "")).await;
    assert!(again.is_replay());
    assert_eq!((again.body.len(), world.calls()), (900 * 1024, 1));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_problem_and_may_run_again() {
    let world = World::default();
    let app = world.service(world.layer(), |run| match run {
        1 => broken().into_response(),
        _ => "fine".into_response(),
    });
    let first = send(&app, post("k", "")).await;
    assert_eq!((first.status.as_u16(), first.problem()), (502, "answer-unreadable"));
    assert_eq!(send(&app, post("k", "")).await.body, "fine");
}

#[tokio::test]
async fn a_body_that_is_not_protected_streams_through() {
    let handler = |request: extract::Request| async move { request.into_body() };
    let app = Router::new().route("/echo", axum::routing::put(handler).layer(World::default().layer()));
    let request = Request::put("/echo").body(chunked(["12", "34"])).unwrap();
    assert_eq!(send(&app, request).await.body, "1234");
}
